"""Whether what is scheduled on a server happens: the probe is given a schedule and waited for."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from flows.deployments.inspect import Finding
from flows.deployments.prefect_settings import PROBE
from flows.deployments.wanted import Wanted

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

PROBE_SECONDS = 180.0
PROBE_INTERVAL = 20
WHAT = "a scheduled run"


def scheduled_run(client: "SyncPrefectClient", wanted: Wanted) -> Finding:
    """Give the probe a schedule until the scheduler had it run, then take it away."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import IntervalSchedule
    from prefect.exceptions import ObjectNotFound

    began = time.monotonic()
    try:
        probe = client.read_deployment_by_name(f"{PROBE}/probe")
    except ObjectNotFound:
        return Finding(what=WHAT, ok=False, text="the probe is not deployed")
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
                return Finding(what=WHAT, ok=True, text=f"happened after {took:.0f} s")
            if any(state in ("Failed", "Crashed") for state in states):
                return Finding(what=WHAT, ok=False, text=f"ended as {states}; see the worker's log")
            time.sleep(0.5)
    finally:
        client.delete_deployment_schedule(probe.id, plan.id)
    return Finding(what=WHAT, ok=False, text=_why_not(client, wanted, states))


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
