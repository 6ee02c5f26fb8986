"""Makes on a Prefect server what our runs need and it lacks, and looks whether all is there.

    work pool           process, Docker or Kubernetes; base job templates in flows/deployments/pools
    limit `gpu`         one slot for each stage that computes on a GPU
    work queue          of each root, in which one run at a time is at work
    automations         runs that fell silent, or were never begun, are called crashed; somebody is
                        told of runs that fail
    deployments         of flows/deployments/definitions
    a scheduled run     the probe's, which has to happen

What somebody has paused by hand stays paused, and is told.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from flows.deployments.alerts import FAILED, alert
from flows.deployments.automations import automations, fits
from flows.deployments.definitions import definitions
from flows.deployments.gpu_limit import LIMIT
from flows.deployments.inspect import Finding, inspect, taken_by_another
from flows.deployments.pool import job_template
from flows.deployments.prefect_settings import heartbeat_window
from flows.deployments.scheduled_run import scheduled_run
from flows.deployments.server import NotDeployed, server
from flows.deployments.wanted import Wanted

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.deployments.runner import RunnerDeployment


def deploy(wanted: Wanted, *, check: bool = False) -> Iterator[Finding]:
    """Make what is lacking (or only look, if `check`), one finding at a time.

    Raises:
        ServerUnavailable: If no server answers.
        NotDeployed: If the pool or the name belongs to something else; nothing is changed then.
    """
    with server() as client:
        made = frozenset() if check else register(client, wanted)
        for finding in inspect(client, wanted):
            kept = not check and "by hand" in finding.text
            yield replace(finding, ok=finding.ok or kept, made=finding.what in made and finding.ok)
        yield scheduled_run(client, wanted)


def register(client: "SyncPrefectClient", wanted: Wanted) -> frozenset[str]:
    """Make what is lacking; returns what that was, as it is called in findings.

    Raises:
        NotDeployed: If the pool or the name belongs to something else.
    """
    if theirs := taken_by_another(client, wanted):
        raise NotDeployed(
            f"{wanted.deployments[0]} is a deployment of {theirs}; {wanted.config} would take its "
            "place: give its deployments a name of their own with --name"
        )
    described = definitions(wanted)
    made = {*_pool(client, wanted), *_limit(client, wanted), *_automations(client, wanted)}
    if wanted.config is not None:
        made |= {*_queue(client, wanted)}
    for one in described:
        made.add(_deployment(client, wanted, one))
    return frozenset(made)


def _pool(client: "SyncPrefectClient", wanted: Wanted) -> Iterator[str]:
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound

    template = job_template(wanted.kind)
    try:
        pool = client.read_work_pool(wanted.pool)
    except ObjectNotFound:
        made = WorkPoolCreate(name=wanted.pool, type=wanted.kind, base_job_template=template)
        client.create_work_pool(made)
        yield f"work pool {wanted.pool}"
        return
    if pool.type != wanted.kind:
        raise NotDeployed(
            f"work pool {wanted.pool} is of type {pool.type}, not {wanted.kind}; give another "
            "--pool, or this --kind"
        )
    if template and template != pool.base_job_template:
        client.update_work_pool(pool.name, WorkPoolUpdate(base_job_template=template))
        yield f"work pool {wanted.pool}"


def _limit(client: "SyncPrefectClient", wanted: Wanted) -> Iterator[str]:
    from prefect.exceptions import ObjectNotFound

    try:
        found = client.read_global_concurrency_limit_by_name(LIMIT)
    except ObjectNotFound:
        found = None
    if found is None or found.limit != wanted.gpus:
        client.upsert_global_concurrency_limit_by_name(LIMIT, wanted.gpus)
        yield f"concurrency limit {LIMIT}"


def _automations(client: "SyncPrefectClient", wanted: Wanted) -> Iterator[str]:
    there = client.read_automations()
    needed = automations(timedelta(seconds=heartbeat_window()))
    if wanted.alert:
        needed.append(alert(client, wanted.alert))
    for one in needed:
        found = [other for other in there if other.name == one.name]
        if one.name != FAILED and len(found) == 1 and fits(found[0], one):
            continue
        if one.name == FAILED and found:
            one.enabled = found[0].enabled  # who is told may change; that nobody is told, stays
        for other in found:
            client.delete_automation(other.id)
        client.create_automation(one)
        yield f"automation {one.name!r}"


def _queue(client: "SyncPrefectClient", wanted: Wanted) -> Iterator[str]:
    from prefect.exceptions import ObjectNotFound

    try:
        found = client.read_work_queue_by_name(wanted.queue, wanted.pool)
    except ObjectNotFound:
        client.create_work_queue(
            wanted.queue,
            description=f"Runs in {wanted.root}, one at a time.",
            concurrency_limit=1,
            work_pool_name=wanted.pool,
        )
    else:
        if found.concurrency_limit == 1:
            return
        client.update_work_queue(found.id, concurrency_limit=1)
    yield f"work queue {wanted.queue}"


def _deployment(client: "SyncPrefectClient", wanted: Wanted, made: "RunnerDeployment") -> str:
    """Create or update one, with the pauses that somebody gave to an older one of its name."""
    from prefect.exceptions import ObjectNotFound

    with suppress(ObjectNotFound):
        _keep_pauses(client.read_deployment_by_name(made.full_name), made)
    made.apply(work_pool_name=wanted.pool)
    return f"deployment {made.full_name}"


def _keep_pauses(found: "DeploymentResponse", made: "RunnerDeployment") -> None:
    made.paused = found.paused
    if found.schedules and not any(one.active for one in found.schedules):
        for schedule in made.schedules or []:
            schedule.active = False
