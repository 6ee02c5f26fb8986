"""What a Prefect server needs for our deployments: made where it is lacking, looked at in any case.

    work pool           process, Docker or Kubernetes; base job templates in deploy/pools
    limit `gpu`         one slot for each stage that computes on a GPU
    automation          runs whose heartbeats stop are called crashed
    deployments         of deploy/prefect.yaml, by `prefect deploy`
    a scheduled run     the probe's, which has to happen

`--check` makes nothing but the probe's run.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flows.deployments.gpu_limit import LIMIT
from flows.deployments.prefect_settings import PROBE, RUN, heartbeat_window
from flows.errors import ExitCode

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

AUTOMATION = "spherescore: runs without heartbeats are crashed"
ENDED = ("Completed", "Failed", "Cancelled", "Crashed")
PROBE_SECONDS = 180.0
PROBE_INTERVAL = 20

Kind = Literal["process", "docker", "kubernetes"]


class ServerUnavailable(RuntimeError):
    """No Prefect server answers where one was expected."""

    exit_code = ExitCode.NO_SERVER


class NotDeployed(RuntimeError):
    """The server lacks something, or what is scheduled does not happen."""

    exit_code = ExitCode.NOT_DEPLOYED


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to deploy: one configuration, where and when its runs happen."""

    config: Path | None  # None: the server's part only
    file: Path = Path("deploy/prefect.yaml")
    pool: str = "spherescore"
    kind: Kind = "process"
    gpus: int = 1
    nightly: str = "0 2 * * *"
    weekly: str = "0 4 * * 0"
    timezone: str = "UTC"

    @property
    def name(self) -> str:
        return self.config.stem if self.config else "none"

    @property
    def deployments(self) -> list[str]:
        """Full names of what the file makes."""
        probe = [f"{PROBE}/probe"]
        if self.config is None:
            return probe
        stages = ("ingest", "preprocess", "train", "generate", "verify")
        runs = [f"spherescore/{self.name}{suffix}" for suffix in ("", "-nightly", "-weekly")]
        return runs + [f"{stage}/{self.name}-{stage}" for stage in stages] + probe

    def environment(self) -> dict[str, str]:
        """What fills in the file."""
        return {
            **os.environ,
            **{name: os.environ.get(name, value) for name, value in RUN.items()},
            "SPHERESCORE_NAME": self.name,
            "SPHERESCORE_CONFIG": str(self.config.absolute()) if self.config else "",
            "SPHERESCORE_DIRECTORY": str(Path.cwd()),
            "SPHERESCORE_POOL": self.pool,
            "SPHERESCORE_NIGHTLY": self.nightly,
            "SPHERESCORE_WEEKLY": self.weekly,
            "SPHERESCORE_TIMEZONE": self.timezone,
        }


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at. `ok` is as it should be; `text` says what was found."""

    what: str
    ok: bool
    made: bool = False
    text: str = field(default="")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def words(self) -> str:
        """A line for a person."""
        sign = "made" if self.made else "ok" if self.ok else "NOT OK"
        return f"{sign:<8}{self.what}: {self.text}"


def deploy(wanted: Wanted, *, check: bool = False) -> Iterator[Finding]:
    """Make what is lacking (or only look, if `check`), one finding at a time.

    Raises:
        ServerUnavailable: If no server answers.
    """
    with server() as client:
        yield _lease_storage(client)
        for looked_at in (_pool, _limit, _automation):
            yield looked_at(client, wanted, check)
        if not check:
            _register(wanted)
        for name in wanted.deployments:
            yield _deployment(client, name, made=not check)
        yield _scheduled_run(client, wanted)


@contextmanager
def server() -> Iterator["SyncPrefectClient"]:
    """A client of the server of PREFECT_API_URL, which answers."""
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if url is None:
        raise ServerUnavailable(
            "PREFECT_API_URL is not set; `spherescore up DIRECTORY` starts a server and writes "
            "DIRECTORY/environment, which sets it"
        )
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pools(limit=1)
        except Exception as error:
            raise ServerUnavailable(
                f"no Prefect server answers at {url} ({type(error).__name__}: {error}); see "
                "whether it runs, and whether PREFECT_API_AUTH_STRING is the server's"
            ) from error
        yield client


def automation(window: timedelta) -> Any:
    """Runs of which nothing is heard within `window` are called crashed."""
    from prefect.automations import AutomationCore
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    heartbeat = "prefect.flow-run.heartbeat"
    return AutomationCore(
        name=AUTOMATION,
        description="A machine that dies cannot say so; made by `spherescore deploy`.",
        trigger=EventTrigger(
            after={heartbeat},
            expect={heartbeat, *(f"prefect.flow-run.{state}" for state in ENDED)},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=window,
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                state=StateType.CRASHED,
                force=False,
                message=f"No heartbeat for {window.total_seconds():.0f} s: the machine or the "
                "worker is gone. What is finished is safe; the next run goes on.",
            )
        ],
    )


def _lease_storage(client: "SyncPrefectClient") -> Finding:
    settings = client._client.get("/admin/settings").json()
    storage = settings["server"]["concurrency"]["lease_storage"].rpartition(".")[2]
    return Finding(
        what="leases of slots",
        ok=storage != "memory",
        text="on disk, kept when the server restarts"
        if storage != "memory"
        else "in memory: a restart of the server would lose held slots for good; start it with "
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE="
        "prefect.server.concurrency.lease_storage.filesystem",
    )


def _pool(client: "SyncPrefectClient", wanted: Wanted, check: bool) -> Finding:
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound

    what, template = f"work pool {wanted.pool}", job_template(wanted)
    try:
        pool = client.read_work_pool(wanted.pool)
    except ObjectNotFound:
        if check:
            return Finding(what=what, ok=False, text="there is none; run `spherescore deploy`")
        made = WorkPoolCreate(name=wanted.pool, type=wanted.kind, base_job_template=template)
        client.create_work_pool(made)
        return Finding(what=what, ok=True, made=True, text=f"of type {wanted.kind}")
    if pool.type != wanted.kind:
        text = f"is of type {pool.type}, not {wanted.kind}; give another --pool"
        return Finding(what=what, ok=False, text=text)
    if pool.is_paused:
        return Finding(what=what, ok=False, text=f"is paused: prefect work-pool resume {pool.name}")
    if template and template != pool.base_job_template:
        if check:
            return Finding(what=what, ok=False, text="has another job template than deploy/pools")
        client.update_work_pool(pool.name, WorkPoolUpdate(base_job_template=template))
    return Finding(what=what, ok=True, text=f"of type {pool.type}")


def job_template(wanted: Wanted) -> dict[str, Any]:
    """The base job template of a pool that needs one of ours; empty for processes."""
    if wanted.kind == "process":
        return {}
    path = wanted.file.parent / "pools" / f"{wanted.kind}.json"
    template: dict[str, Any] = json.loads(path.read_text())
    return template


def _limit(client: "SyncPrefectClient", wanted: Wanted, check: bool) -> Finding:
    from prefect.exceptions import ObjectNotFound

    what = f"concurrency limit {LIMIT}"
    try:
        found = client.read_global_concurrency_limit_by_name(LIMIT)
    except ObjectNotFound:
        if check:
            text = "there is none, so nothing keeps stages from sharing a GPU"
            return Finding(what=what, ok=False, text=text)
        client.upsert_global_concurrency_limit_by_name(LIMIT, wanted.gpus)
        return Finding(what=what, ok=True, made=True, text=f"{wanted.gpus} at once")
    if not check and found.limit != wanted.gpus:
        client.upsert_global_concurrency_limit_by_name(LIMIT, wanted.gpus)
        return Finding(what=what, ok=True, made=True, text=f"{wanted.gpus} at once")
    ok = found.active and found.limit > 0
    return Finding(what=what, ok=ok, text=f"{found.limit} at once" if ok else "is switched off")


def _automation(client: "SyncPrefectClient", wanted: Wanted, check: bool) -> Finding:
    what, window = "heartbeat automation", timedelta(seconds=heartbeat_window())
    found = [one for one in client.read_automations() if one.name == AUTOMATION]
    fits = [one for one in found if one.enabled and _within(one.trigger) >= window]
    text = f"crashed after {window.total_seconds():.0f} s without a heartbeat"
    if len(found) == 1 and fits:
        return Finding(what=what, ok=True, text=text)
    if check:
        state = "there is none" if not found else "is off, or its window is shorter than that"
        return Finding(what=what, ok=False, text=f"{state}; wanted: {text}")
    for one in found:
        client.delete_automation(one.id)
    client.create_automation(automation(window))
    return Finding(what=what, ok=True, made=True, text=text)


def _within(trigger: Any) -> timedelta:
    return getattr(trigger, "within", None) or timedelta()


def _register(wanted: Wanted) -> None:
    if not wanted.file.exists():
        raise NotDeployed(
            f"{wanted.file} is not there; run this in the checkout, or name it with --file"
        )
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy"]
    command += ["--prefect-file", str(wanted.file)]
    command += ["--all"] if wanted.config else ["--name", "probe"]
    done = subprocess.run(
        command, env=wanted.environment(), capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        words = " ".join((done.stdout + done.stderr).split())[-600:]
        raise NotDeployed(f"`prefect deploy` of {wanted.file} failed: {words}")


def _deployment(client: "SyncPrefectClient", name: str, *, made: bool) -> Finding:
    from prefect.exceptions import ObjectNotFound

    try:
        found = client.read_deployment_by_name(name)
    except ObjectNotFound:
        return Finding(what=f"deployment {name}", ok=False, text="there is none")
    plans = [one for one in found.schedules if one.active]
    when = ", ".join(str(getattr(one.schedule, "cron", one.schedule)) for one in plans)
    if found.paused:
        return Finding(what=f"deployment {name}", ok=False, text="is paused")
    text = f"at {when}" if when else "on request"
    return Finding(what=f"deployment {name}", ok=True, made=made, text=text)


def _scheduled_run(client: "SyncPrefectClient", wanted: Wanted) -> Finding:
    """Give the probe a schedule until the scheduler had it run, then take it away."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import IntervalSchedule
    from prefect.exceptions import ObjectNotFound

    what, began = "a scheduled run", time.monotonic()
    try:
        probe = client.read_deployment_by_name(f"{PROBE}/probe")
    except ObjectNotFound:
        return Finding(what=what, ok=False, text="the probe is not deployed")
    asked = datetime.now(UTC)
    often = IntervalSchedule(
        interval=timedelta(seconds=PROBE_INTERVAL), anchor_date=asked, timezone="UTC"
    )
    plan, *_ = client.create_deployment_schedules(
        probe.id, [DeploymentScheduleCreate(schedule=often, active=True)]
    )
    try:
        while (took := time.monotonic() - began) < PROBE_SECONDS:
            states = _states_since(client, probe.id, asked)
            if "Completed" in states:
                return Finding(what=what, ok=True, text=f"happened after {took:.0f} s")
            if any(state in ("Failed", "Crashed") for state in states):
                return Finding(what=what, ok=False, text=f"ended as {states}; see the worker's log")
            time.sleep(0.5)
    finally:
        client.delete_deployment_schedule(probe.id, plan.id)
    return Finding(what=what, ok=False, text=_why_not(client, wanted, states))


def _states_since(client: "SyncPrefectClient", deployment: Any, since: datetime) -> list[str]:
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId

    ours = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
    runs = client.read_flow_runs(deployment_filter=ours)
    return [
        str(run.state_name)
        for run in runs
        if run.auto_scheduled and run.expected_start_time and run.expected_start_time >= since
    ]


def _why_not(client: "SyncPrefectClient", wanted: Wanted, states: Sequence[str]) -> str:
    seconds = f"{PROBE_SECONDS:.0f} s"
    if not states:
        return (
            f"the server scheduled nothing within {seconds}: its scheduler does not run; look into "
            "its log (SQLAlchemy 2.1 is one known cause: pip install -c constraints.txt)"
        )
    workers = client.read_workers_for_work_pool(wanted.pool)
    alive = [one for one in workers if str(one.status).endswith("ONLINE")]
    if not alive:
        return (
            f"no worker of pool {wanted.pool} is online; start one: "
            f"prefect worker start --pool {wanted.pool}"
        )
    return f"was {' and '.join(sorted(set(states)))} for {seconds} though a worker is online"
