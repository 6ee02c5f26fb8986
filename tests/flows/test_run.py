"""One real flow run of Prefect, with its embedded server, around the first stage."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows import run as runs
from flows.config.schema import RunConfig
from flows.deployments.embedded import run_shown
from flows.deployments.prefect_settings import EMBEDDED, set_prefect_environment
from flows.errors import Interrupted
from flows.plan.plan import NotEnoughMemory, NotEnoughSpace, estimate, preflight
from flows.plan.workload import Workload
from flows.processes import signals
from flows.progress import at_intervals
from flows.stages.base import STAGES, Receipt
from storage.artifacts.layout import StoreLayout
from storage.errors import IncompleteArtifact, SourceError


@pytest.fixture(scope="session")
def prefect_harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Prefect's state in a directory of this test session, its embedded server started once."""
    layout = StoreLayout(str(tmp_path_factory.mktemp("prefect")))
    os.environ.pop("PREFECT_HOME", None)
    set_prefect_environment(layout)
    yield layout.prefect


def events_that_are_lost(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """Why Prefect's client dropped events, as they come.

    Task runs are known to the server by events alone, and its client drops one for which a request
    fails, as on a machine that is far too busy. Runs of flows and artifacts are told it directly.
    """
    from prefect.events.worker import EventsWorker

    lost: list[Exception] = []
    handle = EventsWorker._handle

    async def told(self: EventsWorker, event: Any) -> None:
        try:
            await handle(self, event)
        except Exception as error:
            lost.append(error)
            raise

    monkeypatch.setattr(EventsWorker, "_handle", told)
    return lost


def test_a_run_is_a_flow_of_stages_that_is_not_repeated(
    config: RunConfig,
    prefect_harness: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lost = events_that_are_lost(monkeypatch)
    (receipt,) = runs.run(config, until="ingest", execute=run_shown)
    assert not receipt.skipped
    assert "goes on without it" not in caplog.text
    assert StoreLayout(config.run.root).name("fields").exists()
    database = sqlite3.connect(prefect_harness / "prefect.db")
    deadline = time.monotonic() + 60  # the server writes down task runs a moment later

    def recorded() -> list[tuple[str, str]]:
        return database.execute("select name, state_name from task_run").fetchall()

    while [name for _, name in recorded()] != ["Completed"] and time.monotonic() < deadline:
        if lost:
            break
        time.sleep(0.2)
    expected = [("ingest: check the source and write fields.zarr", "Completed")]
    assert recorded() == expected or lost
    assert database.execute("select state_name from flow_run").fetchall() == [("Completed",)]
    assert database.execute("select distinct key from artifact where type = 'markdown'").fetchall()

    began = time.monotonic()
    (again,) = runs.run(config, until="ingest", execute=lambda config, until: [])
    assert again.skipped
    assert (again.digest, again.figures) == (receipt.digest, receipt.figures)
    assert time.monotonic() - began < 5


def test_what_a_stage_raises_is_raised_and_not_blamed_on_prefect(
    table: dict[str, Any], prefect_harness: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table["source"]["variables"] = ["absent"]
    config = RunConfig.from_dict(table)
    with pytest.raises(SourceError, match="absent"):
        run_shown(config, "ingest")
    assert "goes on without it" not in caplog.text


def test_an_interruption_that_prefect_hides_is_no_failing_prefect(
    config: RunConfig, prefect_harness: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server gets the signal, too, and its client then raises an error of its own."""
    from flows.deployments import flows as flow

    def signalled(stage: str, config: RunConfig) -> AbstractContextManager[None]:
        monkeypatch.setattr(signals, "_CAUGHT", [signal.SIGTERM])
        raise ConnectionError("All connection attempts failed")

    monkeypatch.setattr(flow, "gpu_slot", signalled)
    with pytest.raises(Interrupted) as stopped:
        run_shown(config, "ingest")
    assert stopped.value.exit_code == 143
    assert not config.layout.name("fields").exists()


def test_a_fault_of_this_house_outside_of_stages_is_raised_and_not_blamed_on_prefect(
    config: RunConfig, prefect_harness: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.deployments import flows as flow

    def mistaken(layout: StoreLayout) -> None:
        raise KeyError("a mistake of ours")

    mistaken.__globals__["__name__"], name = "flows.mistaken", __name__
    monkeypatch.setattr(flow, "config_from", lambda given: mistaken(config.layout))
    try:
        with pytest.raises(KeyError, match="a mistake of ours"):
            run_shown(config, "ingest")
    finally:
        mistaken.__globals__["__name__"] = name
    assert not config.layout.name("fields").exists()


def test_a_server_that_is_gone_between_two_stages_ends_no_run(
    config: RunConfig, prefect_harness: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Prefect cannot say is no failure of the stage that waits for it."""
    from flows.deployments import flows as flow

    def ask(stage: str, config: RunConfig) -> AbstractContextManager[None]:
        raise ConnectionError("All connection attempts failed")

    monkeypatch.setattr(flow, "gpu_slot", ask)
    (receipt,) = runs.run(config, until="ingest", execute=run_shown)
    assert not receipt.skipped
    assert StoreLayout(config.run.root).name("fields").exists()


def test_settings_of_the_user_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", "mine")
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    for name in EMBEDDED:
        monkeypatch.setenv(name, os.environ.get(name, "theirs"))
    set_prefect_environment(StoreLayout(str(tmp_path)))
    assert os.environ["PREFECT_HOME"] == "mine"
    assert not (tmp_path / "prefect").exists()


def test_a_stage_alone_wants_those_before_it(config: RunConfig) -> None:
    with pytest.raises(IncompleteArtifact, match=r"preprocess needs ingest.*spherescore ingest"):
        runs.run_alone(config, "preprocess")


def test_a_name_that_points_elsewhere_gets_back_to_the_configuration(
    table: dict[str, Any],
) -> None:
    layout = StoreLayout(table["run"]["root"])
    first = runs.run_alone(RunConfig.from_dict(table), "ingest")
    table["source"]["units"] = {"z": "cm"}
    other = runs.run_alone(RunConfig.from_dict(table), "ingest")
    assert layout.name("fields").resolve() == Path(other.path).resolve() != Path(first.path)
    table["source"]["units"] = {}
    again = runs.run_alone(RunConfig.from_dict(table), "ingest")
    assert again.skipped
    assert layout.name("fields").resolve() == Path(first.path).resolve()


def test_a_receipt_is_plain_json() -> None:
    receipt = Receipt(
        stage="train",
        kind="checkpoints",
        path="p",
        key="k",
        digest="d",
        seconds=1.5,
        figures={"J_G": 3.0},
    )
    assert Receipt(**json.loads(json.dumps(receipt.to_dict()))) == receipt


def test_a_run_that_cannot_end_well_is_not_started(
    config: RunConfig, table: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, names = StoreLayout(config.run.root), [stage.name for stage in STAGES]
    assert [one.stage for one in estimate(config)] == names
    preflight(config, layout, names)
    table["cluster"]["memory"] = "1MiB"
    with pytest.raises(NotEnoughMemory, match=r"they have 1\.00 MiB.*Nothing was started"):
        preflight(RunConfig.from_dict(table), layout, names)
    monkeypatch.setattr("flows.plan.plan.free_space", lambda path: 1000)
    with pytest.raises(NotEnoughSpace, match=r"has 0\.98 kiB free"):
        preflight(config, layout, names)


FINE = Workload(
    times=14600,
    fitted=11000,
    validated=1400,
    tested=1400,
    channels=5,
    nlat=256,
    points=256 * 512,
    lmax=127,
    ensemble=(8, 4),
    verification=(8, 16),
    steps=1000,
    batch=8,
)


@pytest.mark.parametrize(
    ("gib", "workers", "load", "said"),
    [
        (16, 4, FINE, None),
        (16, 8, replace(FINE, nlat=128, points=128 * 256, lmax=63), None),
        (2, 1, FINE, r"train needs .* in the process of the run and this machine has 1\.80 GiB"),
        (16, 64, FINE, r"needs .* in each of 64 workers and they have 230\.40 MiB"),
        (16, 1, replace(FINE, verification=(200, 100)), None),
        (16, 1, replace(FINE, batch=256), r"train needs .*a higher train\.accumulate"),
    ],
)
def test_what_the_run_does_itself_is_compared_with_the_machine_and_units_with_a_worker(
    gib: int, workers: int, load: Workload, said: str | None,
    table: dict[str, Any], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for module in ("flows.plan.plan", "flows.processes.machine"):
        monkeypatch.setattr(f"{module}.machine_memory", lambda: gib << 30)
    monkeypatch.setattr("flows.plan.plan.workload", lambda config: load)
    monkeypatch.setattr("flows.plan.plan.free_space", lambda path: None)
    table["cluster"]["workers"] = workers
    config = RunConfig.from_dict(table)
    names = [stage.name for stage in STAGES]
    if said is None:
        preflight(config, config.layout, names)
    else:
        with pytest.raises(NotEnoughMemory, match=said):
            preflight(config, config.layout, names)


def test_the_plan_bounds_what_ingest_writes(config: RunConfig) -> None:
    receipt = runs.run_alone(config, "ingest")
    written = [
        file.stat().st_size for file in Path(receipt.path).rglob("z/c/**/*") if file.is_file()
    ]
    planned = estimate(config)[0]
    assert sum(written) <= planned.bytes
    assert len(written) == planned.units


def test_a_plan_counts_the_grid_that_is_drawn_on_and_the_copy(table: dict[str, Any]) -> None:
    table["generate"] |= {"grid": "healpix:16", "series": True}
    config = RunConfig.from_dict(table)
    planned = {one.stage: one for one in estimate(config)}
    assert planned["generate"].bytes == 2 * 4 * 12 * 16**2 * config.generate.realizations
    table["generate"]["grid"] = "healpix:128"
    finer = {one.stage: one for one in estimate(RunConfig.from_dict(table))}
    assert finer["generate"].memory > planned["generate"].memory
    assert finer["verify"] == planned["verify"]


def test_the_first_and_the_last_report_are_never_dropped() -> None:
    told: list[int] = []
    report = at_intervals(1000.0, lambda done, total, text: told.append(done))
    for done in range(5):
        report(done, 4, "")
    assert told == [0, 4]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_with_all_its_processes(
    number: int, table: dict[str, Any], write_config: Callable[[dict[str, Any]], str]
) -> None:
    import psutil

    command = [sys.executable, "-m", "flows.cli.main", "ingest", write_config(table)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "ingest: starts" in process.stderr.readline()
        time.sleep(1.0)
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        _, message = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "interrupted; finished units are safe" in message
    assert "Traceback" not in message
    _, alive = psutil.wait_procs(started, timeout=10)
    assert alive == []
