"""Whatever dies: no run stays Running, and the next one ends in the bytes of an undisturbed run."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun

from flows.deployments.prefect_settings import HEARTBEAT_SECONDS, SILENCE
from flows.deployments.up import READY_SECONDS, answers
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout

from .conftest import HERE, Site, eventually, processes_of

pytestmark = pytest.mark.deployments
TRAINING = "train: train the score model"
STEPS = 600  # half a minute or more, be the machine ever so idle


@pytest.fixture
def begun(site: Site, api: SyncPrefectClient) -> tuple[Path, FlowRun]:
    """A run that is in the middle of its training."""
    site.new_days(420)
    config = site.write_config("killed", train={"steps": STEPS})
    site.command("deploy", str(config))
    return config, start(site, api)


def start(site: Site, api: SyncPrefectClient, *, into_training: bool = True) -> FlowRun:
    deployment = api.read_deployment_by_name("spherescore/killed")
    run = api.create_flow_run_from_deployment(deployment.id, parameters={"until": "train"})
    log = site.directory / "run-killed" / "artifacts"
    if into_training:
        eventually(lambda: states(api, run).get(TRAINING) == "Running", what="training")
        eventually(lambda: list(log.glob("whitened-*")), what="whitened fields")
        time.sleep(5)
        assert processes_of(run)
    return run


def states(api: SyncPrefectClient, run: FlowRun) -> dict[str, str]:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    this = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
    return {one.name: str(one.state_name) for one in api.read_task_runs(flow_run_filter=this)}


def state(api: SyncPrefectClient, run: FlowRun) -> str:
    return str(api.read_flow_run(run.id).state_name)


def assert_undisturbed(site: Site, config: Path) -> None:
    """The killed run's training equals one that nobody disturbed."""
    other = site.write_config("undisturbed", train={"steps": STEPS})
    site.command("train", str(other), check=False)  # says what is lacking, and is harmless
    for stage in ("ingest", "preprocess", "train"):
        site.command(stage, str(other))
    ours = StoreLayout(str(site.directory / "run-killed"))
    theirs = StoreLayout(str(site.directory / "run-undisturbed"))
    for kind in ("fields", "normals", "whitened", "checkpoints"):
        mine, alike = artifacts.published(ours, kind), artifacts.published(theirs, kind)
        assert mine is not None and alike is not None
        assert mine.digest == alike.digest, kind


def test_a_killed_run_crashes_at_once_and_the_next_goes_on(
    site: Site, api: SyncPrefectClient, begun: tuple[Path, FlowRun]
) -> None:
    config, run = begun
    for process in processes_of(run):
        process.send_signal(signal.SIGKILL)
    eventually(lambda: state(api, run) == "Crashed", 60, what="Crashed")
    again = start(site, api, into_training=False)
    eventually(lambda: state(api, again) == "Completed", 600, what="Completed")
    assert_undisturbed(site, config)


def test_a_lost_machine_is_found_by_its_silence(
    site: Site, api: SyncPrefectClient, begun: tuple[Path, FlowRun]
) -> None:
    _, run = begun
    worker = site.machine.service("worker")
    assert worker.process is not None
    worker.process.kill()
    for process in processes_of(run):
        process.send_signal(signal.SIGKILL)
    died = time.monotonic()
    try:
        assert state(api, run) == "Running", "nobody could say that it died"
        window = SILENCE * HEARTBEAT_SECONDS
        eventually(lambda: state(api, run) == "Crashed", 2 * window + 60, what="Crashed")
        took = time.monotonic() - died
        print(f"called crashed after {took:.0f} s, with a window of {window} s")
        assert took > window - HEARTBEAT_SECONDS - 5, "before a healthy run would have been heard"
    finally:
        worker.stop(grace=0)
        worker.start()
    again = start(site, api, into_training=False)
    eventually(lambda: state(api, again) == "Completed", 600, what="Completed")


def test_a_server_that_dies_and_comes_back_ends_no_run(
    site: Site, api: SyncPrefectClient, begun: tuple[Path, FlowRun]
) -> None:
    config, run = begun
    server = site.machine.service("server")
    server.stop(grace=0)
    time.sleep(5)
    server.start()
    port = site.machine.ports.server
    eventually(lambda: answers(port, "/api/health"), READY_SECONDS, what="the server")
    eventually(lambda: state(api, run) == "Completed", 600, what="Completed")
    assert_undisturbed(site, config)


def test_a_slot_that_is_held_while_the_server_restarts_is_given_back(
    site: Site, api: SyncPrefectClient
) -> None:
    site.command("deploy", str(site.write_config("slots")))
    hold = (
        "import sys, time\nfrom flows.deployments.gpu_limit import slot\n"
        "with slot('gpu'):\n    print('held', flush=True)\n    sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold],
        env=site.environment,
        cwd=HERE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert api.read_global_concurrency_limit_by_name("gpu").active_slots == 1
        server = site.machine.service("server")
        server.stop(grace=0)
        server.start()
        port = site.machine.ports.server
        eventually(lambda: answers(port, "/api/health"), READY_SECONDS, what="the server")
        assert api.read_global_concurrency_limit_by_name("gpu").active_slots == 1
        holder.stdin.write("\n")
        holder.stdin.close()
        assert holder.wait(60) == 0
    eventually(
        lambda: api.read_global_concurrency_limit_by_name("gpu").active_slots == 0,
        60,
        what="the slot given back",
    )
