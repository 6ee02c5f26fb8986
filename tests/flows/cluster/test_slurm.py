"""Workers as jobs of a real Slurm on loopback; skipped where Slurm is not installed."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.cluster.map_units import map_units
from flows.cluster.remote import remote_client
from flows.cluster.slurm import job_options
from flows.config.schema import Cluster, ConfigError, RunConfig
from flows.errors import WorkersLost
from flows.progress import Progress
from storage.artifacts.layout import StoreLayout
from tests import slurm as services
from tests.services import until
from tests.small import digests, run_stages, small_table

LOOPBACK = {"interface": "lo", "prologue": []}

needs_slurm = pytest.mark.skipif(bool(services.why_not()), reason=services.why_not())


def devices(unit: int) -> tuple[int, str | None]:
    time.sleep(0.5)
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")


def slowly(unit: int) -> int:
    time.sleep(0.5)
    return unit


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[services.Slurm]:
    directory = tmp_path_factory.mktemp("slurm") / "state"
    with services.slurm(directory) as started, pytest.MonkeyPatch.context() as patch:
        for name, value in started.environment.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
        yield started


def asking(**options: Any) -> Cluster:
    """Two workers with a GPU each."""
    table = {
        "kind": "slurm",
        "workers": 2,
        "memory": "1GiB",
        "gpus": 1,
        "patience": 120.0,
        "slurm": LOOPBACK,
    }
    return RunConfig.from_dict(
        {
            "run": {"root": "x"},
            "source": {"paths": ["x"], "variables": ["z"]},
            "split": {
                name: [f"{year}-01-01", f"{year}-12-31"]
                for name, year in (("train", 2000), ("validation", 2001), ("test", 2002))
            },
            "spectral": {"lmax": 1},
            "train": {"steps": 1},
            "generate": {"realizations": 1, "times": ["2000-01-01"]},
            "cluster": table | options,
        }
    ).cluster


def test_a_job_asks_for_what_the_configuration_says(tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue")
    from dask_jobqueue.slurm import SLURMJob

    cluster = asking(
        gpus=0,
        scratch="/scratch/$USER",
        slurm={"queue": "short", "account": "climate", "per_job": 4, "prologue": ["module load x"]},
    )
    options = job_options(cluster, tmp_path)
    for ours in ("scheduler_options", "silence_logs"):
        del options[ours]
    script = SLURMJob("tls://10.0.0.1:8786", name="one", **options).job_script()
    for line in ("-p short", "-A climate", "--cpus-per-task=4", "--mem=4G", "-t 04:00:00"):
        assert f"#SBATCH {line}\n" in script
    assert "export OMP_NUM_THREADS=1\n" in script
    assert script.index("module load x") < script.index("distributed.cli.dask_worker")
    for option in ("--nthreads 1", "--nworkers 4", "--local-directory /scratch/$USER"):
        assert option in script
    assert "GPU" not in script


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": "auto"}, r"cluster\.memory: expected a size"),
        ({"most": 1}, r"cluster\.most: expected at least cluster\.workers"),
        ({"slurm": {"per_job": 2}}, r"cluster\.slurm\.per_job: expected 1"),
        (
            {"kind": "local"},
            r'cluster\.gpus: expected nothing where cluster\.kind is "local" \(only "slurm" and ',
        ),
        (
            {"address": "tls://host:8786"},
            r'cluster\.address: expected nothing where cluster\.kind is "slurm" \(only "address" '
            r"takes one\), got 'tls://host:8786'",
        ),
    ],
)
def test_what_jobs_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        asking(**options)


@needs_slurm
def test_a_lost_job_is_replaced_and_its_units_are_done(
    slurm: services.Slurm, tmp_path: Path, quiet: Progress
) -> None:
    with remote_client(asking(), tmp_path / "scratch") as client:
        until(lambda: len(slurm.running()) == 2, what="two jobs run")
        client.wait_for_workers(2, timeout=60)
        seen = map_units(client, devices, range(8), quiet, resource="GPU")
        assert {device for _, device in seen} == {"0", "1"}
        done: list[int] = []
        work = threading.Thread(
            target=lambda: done.extend(map_units(client, slowly, range(80), quiet, resource="GPU"))
        )
        work.start()
        first = slurm.running()
        slurm.ask("scancel", first[0])
        until(lambda: len(set(slurm.running()) - set(first)) == 1, what="the job is not replaced")
        work.join(120)
        assert done == list(range(80))
    until(lambda: not slurm.ask("squeue", "--noheader"), what="jobs are left")
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["slurm"]


@needs_slurm
def test_a_job_that_slurm_would_not_take_is_said_in_its_words(
    slurm: services.Slurm, tmp_path: Path
) -> None:
    wrong = asking(slurm={**LOOPBACK, "queue": "nowhere"})
    refused = pytest.raises(WorkersLost, match=r"does not take the jobs.*invalid partition")
    with refused, remote_client(wrong, tmp_path / "scratch"):
        pass


@needs_slurm
def test_a_run_on_slurm_has_the_bytes_of_a_local_one(
    slurm: services.Slurm, tmp_path: Path, write_config: Callable[[dict[str, Any]], str]
) -> None:
    table = small_table(tmp_path)
    table["train"] = {"model": "gaussian:m-block"}
    table["generate"] |= {"realizations": 60, "batch": 1}
    run_stages(table)
    jobs = {"kind": "slurm", "workers": 2, "memory": "1GiB", "gpus": 1, "slurm": LOOPBACK}
    there = {**table, "run": {"root": str(tmp_path / "there")}, "cluster": jobs}
    run_stages(there, "ingest", "preprocess", "train")
    layout = StoreLayout(there["run"]["root"])
    command = [sys.executable, "-m", "flows.cli.main", "generate", write_config(there)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: len(list(layout.artifacts.glob("ensemble-*.records/**/*"))) >= 3)
        slurm.ask("scancel", slurm.running()[0])
        _, message = process.communicate(timeout=120)
    assert process.returncode == 0, message
    assert digests(there) == digests(table)
