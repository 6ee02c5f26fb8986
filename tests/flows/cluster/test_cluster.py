import logging
import os
import re
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import dask
import numpy as np
import psutil
import pytest
from distributed import Client
from distributed.client import ClosedClientError
from distributed.security import Security

from flows.cluster import local
from flows.cluster.local import client_on_demand, local_client
from flows.cluster.map_units import UnitFailed, map_units
from flows.config.schema import Cluster
from flows.errors import Stalled, WorkersLost
from flows.processes import machine
from flows.progress import Progress
from tests.services import Certificates

# Workers import functions by name, and this file is no module to them: Dask sends them by value.


def square(unit: int) -> int:
    return unit * unit


def fail_at_five(unit: int) -> int:
    if unit == 5:
        raise OSError("no such thing")
    return unit


def die(marker: Path, once: bool, unit: int) -> int:
    if unit == 3 and not (once and marker.exists()):
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return unit


def die_with(marker: Path, once: bool, numbers: np.ndarray, unit: int) -> float:
    return die(marker, once, unit) + float(numbers[unit])


def identity_of(numbers: np.ndarray, unit: int) -> tuple[int, int]:
    time.sleep(0.1)
    return os.getpid(), id(numbers)


def environment(name: str) -> str | None:
    return os.environ.get(name)


def listeners() -> set[str]:
    me = psutil.Process()
    return {
        connection.laddr.ip
        for process in (me, *me.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def test_results_come_in_the_order_of_units(client: Any, quiet: Progress) -> None:
    assert map_units(client, square, range(30), quiet) == [n * n for n in range(30)]


def test_no_units_are_no_work(client: Any, quiet: Progress) -> None:
    assert map_units(client, square, [], quiet) == []


def test_a_cluster_on_demand_starts_with_the_first_unit(tmp_path: Path, quiet: Progress) -> None:
    before = set(psutil.Process().children(recursive=True))

    def started() -> set[psutil.Process]:
        return set(psutil.Process().children(recursive=True)) - before

    with client_on_demand(Cluster(workers=1), tmp_path / "scratch") as client:
        assert map_units(client, square, [], quiet) == []
        assert not started() and not (tmp_path / "scratch").exists()
        assert map_units(client, square, [3, 4], quiet) == [9, 16]
        assert started()
    assert not [process for process in started() if "spawn_main" in " ".join(process.cmdline())]


def test_workers_that_do_not_start_on_a_busy_machine_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "Cluster failed to start: Timed out trying to connect to tls://127.0.0.1:1 after 5 s"

    def busy(**_: object) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr("distributed.LocalCluster", busy)
    words = r"3 local Dask workers did not start in time .*after 5 s.*run again"
    with pytest.raises(WorkersLost, match=words), local_client(Cluster(workers=3), tmp_path):
        pass
    said = "something else"
    with pytest.raises(RuntimeError, match=r"^something else$"):
        local_client(Cluster(workers=3), tmp_path).__enter__()


def test_few_units_are_in_flight_however_many_there_are(client: Any, quiet: Progress) -> None:
    submit, held, running = client.submit, [], []

    class Counting:
        def submit(self, *arguments: Any, **options: Any) -> Any:
            future = submit(*arguments, **options)
            held.append(len(client.futures))
            states = [state.status for state in client.futures.values()]
            running.append(states.count("pending"))
            return future

        def __getattr__(self, name: str) -> Any:
            return getattr(client, name)

    assert map_units(Counting(), square, range(300), quiet) == [n * n for n in range(300)]
    assert len(held) == 300
    assert max(running) <= 4  # two for each of two workers
    assert max(held) <= 8  # and those that have just ended


class _Raising:
    """A client that cannot submit, and says why."""

    def __init__(self, client: Any, error: Exception) -> None:
        self.client, self.error = client, error

    def submit(self, *arguments: Any, **options: Any) -> Any:
        raise self.error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)


def test_a_scheduler_is_blamed_for_its_own_silence_alone(client: Any, quiet: Progress) -> None:
    for error in (ClosedClientError("closed"), ConnectionResetError("reset"), TimeoutError()):
        with pytest.raises(WorkersLost, match="the scheduler does not answer any more"):
            map_units(_Raising(client, error), square, range(3), quiet)
    with pytest.raises(RuntimeError, match="a mistake of ours") as raised:
        map_units(_Raising(client, RuntimeError("a mistake of ours")), square, range(3), quiet)
    assert not isinstance(raised.value, WorkersLost)


def test_progress_counts_what_an_earlier_run_did(client: Any) -> None:
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int, text: str) -> None:
        told.append((done, total))

    map_units(client, square, range(3), progress, done=4)
    assert told[0] == (4, 7) and told[-1] == (7, 7)
    assert told == sorted(told)


def test_an_error_names_its_unit_and_is_not_retried(client: Any, quiet: Progress) -> None:
    with pytest.raises(UnitFailed, match="draw 5: no such thing"):
        map_units(client, fail_at_five, range(8), quiet, label="draw")
    assert map_units(client, square, range(3), quiet) == [0, 1, 4]


def speak(unit: int) -> int:
    logging.getLogger("spherescore").info("unit %d is read", unit)
    logging.getLogger("another.package").warning("unit %d is odd", unit)
    logging.getLogger("another.package").info("nobody asked")
    return unit


def test_what_workers_log_is_in_the_log_of_the_run(
    client: Any, quiet: Progress, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("spherescore"), "propagate", True)
    with caplog.at_level(logging.INFO, "spherescore"):
        assert map_units(client, speak, [3, 4], quiet) == [3, 4]
    pids = set(client.run(os.getpid).values())
    told = {(level, line) for name, level, line in caplog.record_tuples if name == "spherescore"}
    for unit in (3, 4):
        for level, text in ((logging.INFO, "is read"), (logging.WARNING, "is odd")):
            said = [line for at, line in told if at == level and f"unit {unit} {text}" in line]
            where = re.match(r"worker \S+:(\d+): ", *said)
            assert where and int(where[1]) in pids
    assert "nobody asked" not in caplog.text


def test_a_worker_that_dies_once_costs_only_time(
    client: Any, quiet: Progress, tmp_path: Path
) -> None:
    began = time.monotonic()
    mapped = map_units(client, partial(die, tmp_path / "died", True), range(8), quiet)
    assert mapped == list(range(8))
    assert (tmp_path / "died").exists()
    assert time.monotonic() - began < 30


def test_a_function_with_large_arguments_goes_to_each_worker_once(
    client: Any, quiet: Progress, recwarn: pytest.WarningsRecorder
) -> None:
    numbers = np.arange(3e6)
    found = map_units(client, partial(identity_of, numbers), range(12), quiet)
    assert len(set(found)) == len({pid for pid, _ in found})
    assert not [one for one in recwarn if "large graph" in str(one.message)]


def test_a_large_function_comes_back_to_a_worker_that_died_with_it(
    quiet: Progress, tmp_path: Path
) -> None:
    """The only worker dies, and with it the only copy that workers have."""
    numbers = np.arange(3e6)
    with local_client(Cluster(workers=1), tmp_path) as client:
        call = partial(die_with, tmp_path / "died", True, numbers)
        assert map_units(client, call, range(6), quiet) == [2.0 * unit for unit in range(6)]
        call = partial(die_with, tmp_path / "died", False, numbers)
        with pytest.raises(WorkersLost, match=r"its workers died 4 times"):
            map_units(client, call, range(6), quiet)


def test_a_unit_that_kills_every_worker_is_named(
    client: Any, quiet: Progress, tmp_path: Path
) -> None:
    with pytest.raises(WorkersLost, match=r"unit 3: its workers died 4 times") as lost:
        map_units(client, partial(die, tmp_path / "died", False), range(3, 4), quiet)
    assert lost.value.exit_code == 40


def test_workers_have_one_thread_and_keep_their_heap(client: Any, quiet: Progress) -> None:
    names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_TRIM_THRESHOLD_"]
    assert map_units(client, environment, names, quiet) == ["1", "1", str(1 << 30)]


def test_a_container_may_have_less_memory_than_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "CONTAINER_LIMITS", (limit, tmp_path / "absent"))
    whole = machine.machine_memory()
    assert whole == psutil.virtual_memory().total
    limit.write_text("max\n")
    assert machine.machine_memory() == whole
    limit.write_text(f"{1 << 30}\n")
    assert machine.machine_memory() == 1 << 30
    assert machine.memory_share(2) == int(0.45 * (1 << 30))


def test_everything_listens_on_loopback_only(client: Any) -> None:
    assert listeners() == {"127.0.0.1"}


def test_another_user_of_this_machine_cannot_use_the_workers(client: Any, tmp_path: Path) -> None:
    """Everybody reaches loopback; a stranger has no certificate, or one of their own."""
    address = client.scheduler.address
    strangers = Certificates(tmp_path / "stranger").table
    files = {"tls_ca_file": "ca", "tls_client_cert": "cert", "tls_client_key": "key"}
    other = Security(
        require_encryption=True, **{name: strangers[file] for name, file in files.items()}
    )
    for place, security in ((address.replace("tls", "tcp"), None), (address, other)):
        with pytest.raises(OSError, match=r"[Tt]imed out|certificate does not match|closed"):
            Client(place, security=security, timeout=5, set_as_default=False)
    assert client.submit(abs, -1).result() == 1


def test_nothing_is_left_of_a_cluster(tmp_path: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(KeyboardInterrupt), local_client(Cluster(workers=1), tmp_path):
        raise KeyboardInterrupt
    started = set(psutil.Process().children(recursive=True)) - before
    assert not [process for process in started if "spawn_main" in " ".join(process.cmdline())]
    assert list(tmp_path.iterdir()) == []


def test_a_cluster_that_is_slow_to_close_fails_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What was published a moment before is published."""
    monkeypatch.setattr(local, "CLOSING_SECONDS", 0.0)
    monkeypatch.setattr(logging.getLogger("spherescore"), "propagate", True)

    class Slow:
        def close(self, timeout: float) -> None:
            raise TimeoutError

    local._close(Slow())
    assert "Slow was not closed within 0 s" in caplog.text


def test_a_cluster_leaves_the_environment_as_it_was(tmp_path: Path, monkeypatch) -> None:
    """Dask sets its workers' thread limits in the parent and does not take them back."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    with local_client(Cluster(workers=1), tmp_path):
        pass
    assert "OMP_NUM_THREADS" not in os.environ
    assert os.environ["MKL_NUM_THREADS"] == "7"


def _where_tables_are(unit: int) -> tuple[int, list[str]]:
    """This process, and the open files of tables after it has asked for some."""
    time.sleep(0.5)  # long enough for the other worker to take the other unit
    from pipeline.sphere.grid import RingGrid
    from pipeline.sphere.tables import tables

    tables(RingGrid.gaussian(66), 64, "float32")
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    return os.getpid(), sorted({line.split()[-1] for line in maps.splitlines() if "tables" in line})


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads the maps of Linux")
def test_workers_map_the_same_tables(tmp_path, monkeypatch, quiet):
    monkeypatch.setenv("SPHERESCORE_CACHE", str(tmp_path / "cache"))
    with local_client(Cluster(workers=2), tmp_path / "scratch") as client:
        first, second = map_units(client, _where_tables_are, range(2), quiet)
    assert first[0] != second[0]
    assert first[1] == second[1] != []
    (kept,) = (tmp_path / "cache" / "tables").glob("*.tables")
    assert first[1] == [str(kept)]


def test_the_deadline_holds_for_the_first_units_of_a_cluster_too(tmp_path: Path) -> None:
    """A cluster starts with its first use, and brings its settings then."""
    cluster = Cluster(workers=1, unit_minutes=0.05)
    with (
        client_on_demand(cluster, tmp_path) as client,
        pytest.raises(Stalled, match=r"within 3 s, 0 of 1.*cluster\.unit_minutes"),
    ):
        map_units(client, time.sleep, [60.0], lambda done, total, text: None)


def test_a_worker_that_dies_again_and_again_comes_back_each_time(tmp_path: Path) -> None:
    """Dask gives up a worker that is away when a time is over that began with its last death."""
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "100ms"}),
        local_client(Cluster(workers=1), tmp_path) as client,
    ):
        for _ in range(2):
            (pid,) = client.run(os.getpid).values()
            os.kill(pid, signal.SIGKILL)
            assert client.submit(os.getpid, pure=False).result(60) != pid
