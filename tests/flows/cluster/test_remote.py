"""Clusters that a run does not start: schedulers and workers of Dask's own commands, with TLS."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from flows import run as runs
from flows.cluster import worker_setup as workers
from flows.cluster.local import client_on_demand
from flows.cluster.map_units import map_units
from flows.cluster.remote import SCHEDULER, placed, refuse_unsafe, remote_client, security_of
from flows.cluster.worker_setup import Installation, OtherCode, do_unit, installation
from flows.config.schema import Cluster, ConfigError, Tls
from flows.errors import WorkersLost
from flows.processes.network_boundary import Refused
from flows.progress import Progress
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from tests.services import HOUSE, Certificates, DaskCluster, dask_cluster, free_port, until
from tests.small import digests, run_stages, small_table


def where(unit: int) -> tuple[int, str]:
    return os.getpid(), os.getcwd()


def slowly(unit: int) -> int:
    time.sleep(0.3)
    return unit


def enter(context: AbstractContextManager[Any]) -> None:
    with context:
        pass


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def tls(
    certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaskCluster]:
    """Four workers, one of which says that it has a GPU."""
    place = tmp_path_factory.mktemp("cluster")
    with dask_cluster(place, workers=4, tls=certificates, gpus=1) as started:
        yield started


@pytest.fixture
def there(tls: DaskCluster, certificates: Certificates) -> Cluster:
    return Cluster(
        kind="address", address=tls.address, tls=Tls(**certificates.table), patience=300.0
    )


@pytest.fixture(scope="module")
def golden(
    client: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, str]]:
    """The tables of a run and the digests that it has on local workers."""
    table = small_table(tmp_path_factory.mktemp("golden"))
    table["train"] = {"model": "gaussian:m-block"}
    table["generate"] |= {"realizations": 40, "batch": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "client_on_demand", lambda *_: nullcontext(client))
        run_stages(table)
    return table, digests(table)


@pytest.mark.parametrize(
    "address", ["tcp://10.0.0.7:8786", "tcp://scheduler:8786", "tcp://[2001:db8::1]:8786"]
)
def test_nobody_is_met_in_the_clear_over_a_network(address: str, tmp_path: Path) -> None:
    cluster = Cluster(kind="address", address=address)
    with pytest.raises(Refused, match=r"not encrypted.*tls://.*docs/clusters\.md") as refused:
        enter(client_on_demand(cluster, tmp_path / "scratch"))
    assert refused.value.exit_code == 60


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_loopback_may_be_in_the_clear(host: str) -> None:
    cluster = Cluster(kind="address", address=f"tcp://{host}:8786")
    refuse_unsafe(cluster)
    assert security_of(cluster) is None


@pytest.mark.parametrize("address", ["10.0.0.7:8786", "http://host:80", "tls://host"])
def test_an_address_says_its_protocol_and_port(address: str) -> None:
    with pytest.raises(ConfigError, match=r"cluster\.address: expected an address like tls://"):
        Cluster(kind="address", address=address)


def test_an_address_that_is_left_out_is_that_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(kind="address")
    monkeypatch.setenv(SCHEDULER, "tcp://127.0.0.1:8786")
    assert placed(cluster).address == "tcp://127.0.0.1:8786"
    written = Cluster(kind="address", address="tls://10.0.0.7:8786")
    assert placed(written) == written
    monkeypatch.setenv(SCHEDULER, "tcp://10.0.0.7:8786")
    with pytest.raises(Refused, match="not encrypted"):
        enter(client_on_demand(cluster, tmp_path))
    monkeypatch.delenv(SCHEDULER)
    with pytest.raises(ConfigError, match=r"cluster\.address is left out, and SPHERESCORE_SCHED"):
        enter(client_on_demand(cluster, tmp_path))


def test_an_encrypted_scheduler_needs_all_three_files(
    certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "tls://10.0.0.7:8786"
    some = Tls(ca=certificates.ca, cert=certificates.cert)
    with pytest.raises(Refused, match=r"cluster\.tls\.key, or DASK_DISTRIBUTED__COMM__TLS__CLIENT"):
        security_of(Cluster(kind="address", address=address, tls=some))
    gone = Tls(**certificates.table | {"key": str(tmp_path / "absent.pem")})
    with pytest.raises(Refused, match=r"absent\.pem cannot be read"):
        security_of(Cluster(kind="address", address=address, tls=gone))
    import dask

    with dask.config.set({"distributed.comm.tls.client.key": certificates.key}):
        found = security_of(Cluster(kind="address", address=address, tls=some))
    assert found is not None and found.tls_client_key == certificates.key


def test_units_are_done_by_the_workers_of_the_address(
    there: Cluster, tmp_path: Path, quiet: Progress
) -> None:
    with client_on_demand(there, tmp_path / "scratch") as client:
        done = map_units(client, where, range(8), quiet)
        workers = client.run(os.getpid)
    assert {process for process, _ in done} <= set(workers.values())
    assert {directory for _, directory in done} == {os.getcwd()}
    assert list((tmp_path / "scratch").iterdir()) == []


def test_units_go_to_workers_that_have_what_they_want_if_any_has(
    there: Cluster, tmp_path: Path, quiet: Progress
) -> None:
    with client_on_demand(there, tmp_path / "scratch") as client:
        client.wait_for_workers(4, timeout=300)
        wanted = map_units(client, where, range(8), quiet, resource="GPU")
        nowhere = map_units(client, where, range(8), quiet, resource="TPU")
    assert len({process for process, _ in wanted}) == 1
    assert len({process for process, _ in nowhere}) > 1


def test_another_authority_is_refused(there: Cluster, tmp_path: Path) -> None:
    others = Certificates(tmp_path / "others")
    cluster = Cluster(kind="address", address=there.address, tls=Tls(**others.table))
    with pytest.raises(Refused, match=r"do not trust each other.*cluster\.tls\.ca") as refused:
        enter(remote_client(cluster, tmp_path / "scratch"))
    assert refused.value.exit_code == 60


def test_an_encrypted_scheduler_is_not_met_in_the_clear(there: Cluster, tmp_path: Path) -> None:
    plain = Cluster(kind="address", address=there.address.replace("tls://", "tcp://"))
    with pytest.raises(WorkersLost, match="no scheduler answers"):
        enter(remote_client(plain, tmp_path / "scratch"))


def test_an_address_where_nobody_listens_is_said(tmp_path: Path) -> None:
    cluster = Cluster(kind="address", address=f"tcp://127.0.0.1:{free_port()}")
    with pytest.raises(WorkersLost, match=r"no scheduler answers at tcp://127") as lost:
        enter(remote_client(cluster, tmp_path / "scratch"))
    assert lost.value.exit_code == 40


def test_a_scheduler_without_workers_is_given_up(tmp_path: Path) -> None:
    with dask_cluster(tmp_path / "cluster", workers=0) as started:
        cluster = Cluster(kind="address", address=started.address, patience=1.0)
        with pytest.raises(WorkersLost, match="no worker for 1 s"):
            enter(remote_client(cluster, tmp_path / "scratch"))


def test_workers_of_several_threads_are_refused(tmp_path: Path) -> None:
    with dask_cluster(tmp_path / "cluster", workers=1, options=("--nthreads", "2")) as started:
        cluster = Cluster(kind="address", address=started.address, patience=300.0)
        with pytest.raises(OtherCode, match=r"have 2 threads.*--nthreads 1"):
            enter(remote_client(cluster, tmp_path / "scratch"))


def test_workers_of_other_code_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other"
    for package in (module.partition(".")[0] for module in workers.HOUSE):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(HOUSE / package, other / package, ignore=ignored)
    with (other / "pipeline" / "sphere" / "rings.py").open("a") as module:
        module.write("\nEARTH = 'flat'\n")
    place = {"PYTHONPATH": str(other)}
    with dask_cluster(tmp_path / "cluster", workers=1, environment=place) as started:
        cluster = Cluster(kind="address", address=started.address, patience=300.0)
        with pytest.raises(OtherCode, match=r"has code \w+ instead of \w+; install") as refused:
            enter(remote_client(cluster, tmp_path / "scratch"))
    assert refused.value.exit_code == 42


def test_a_worker_that_comes_later_is_asked_with_its_units() -> None:
    mine = installation()
    old = Installation(mine.directory, {**mine.versions, "zarr": "2.0"})
    with pytest.raises(OtherCode, match=r"has zarr \S+ instead of 2\.0"):
        do_unit(old, abs, -1)
    assert do_unit(mine, abs, -1) == 1


@pytest.mark.long
def test_a_run_over_tls_has_the_bytes_of_a_local_one(
    there: Cluster, golden: tuple[dict[str, Any], dict[str, str]], tmp_path: Path
) -> None:
    """Four workers here, two there; below, one."""
    table, expected = golden
    remote = {
        "kind": "address",
        "address": there.address,
        "tls": vars(there.tls),
        "patience": 300,
    }
    table = {**table, "run": {"root": str(tmp_path / "run")}, "cluster": remote}
    run_stages(table)
    assert digests(table) == expected


def test_a_scheduler_that_dies_ends_the_units(tmp_path: Path, quiet: Progress) -> None:
    with dask_cluster(tmp_path / "cluster", workers=1) as started:
        cluster = Cluster(kind="address", address=started.address, patience=300.0)
        with remote_client(cluster, tmp_path / "scratch") as client:
            timer = threading.Timer(1.0, started.scheduler.kill)
            timer.start()
            began = time.monotonic()
            with pytest.raises(WorkersLost) as lost:
                map_units(client, slowly, range(1000), quiet)
            assert time.monotonic() - began < 120
    assert lost.value.exit_code == 40


@pytest.mark.long
def test_a_run_whose_scheduler_dies_goes_on_elsewhere_to_the_same_bytes(
    golden: tuple[dict[str, Any], dict[str, str]],
    tmp_path: Path,
    write_config: Callable[[dict[str, Any]], str],
) -> None:
    table, expected = golden
    shutil.copytree(table["run"]["root"], tmp_path / "run", symlinks=True)
    table = {**table, "run": {"root": str(tmp_path / "run")}}
    layout = StoreLayout(table["run"]["root"])
    for made in (*layout.artifacts.glob("ensemble-*"), layout.name("ensemble")):
        made.unlink() if made.is_symlink() else shutil.rmtree(made)
    with dask_cluster(tmp_path / "cluster", workers=1) as started:
        there = {"kind": "address", "address": started.address, "patience": 300}
        elsewhere = {**table, "cluster": there}
        command = [sys.executable, "-m", "flows.cli.main", "generate", write_config(elsewhere)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            until(lambda: len(list(layout.artifacts.glob("ensemble-*.records/**/*"))) >= 3, 300)
            started.scheduler.kill()
            _, message = process.communicate(timeout=300)
    assert process.returncode == 40, message
    assert "run again" in message
    assert artifacts.published(layout, "ensemble") is None
    run_stages(table, "generate")
    assert digests(table) == expected
