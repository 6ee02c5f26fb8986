"""Looks at what a Prefect server has of what our runs need; makes and changes nothing."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from flows.deployments.alerts import FAILED
from flows.deployments.automations import automations, fits
from flows.deployments.gpu_limit import LIMIT
from flows.deployments.pool import job_template
from flows.deployments.prefect_settings import heartbeat_window
from flows.deployments.wanted import Wanted

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

DEPLOY = "run `spherescore deploy`"


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


def inspect(client: "SyncPrefectClient", wanted: Wanted) -> Iterator[Finding]:
    """One finding for each thing that a server needs for the runs of a configuration."""
    yield _lease_storage(client)
    yield _pool(client, wanted)
    yield _limit(client)
    yield from _automations(client)
    yield _alert(client)
    if wanted.config is not None:
        yield _queue(client, wanted)
    for name in wanted.deployments:
        yield _deployment(client, wanted, name)


def taken_by_another(client: "SyncPrefectClient", wanted: Wanted) -> str:
    """Whose the deployments of this name are, if they are those of another run; else ""."""
    from prefect.exceptions import ObjectNotFound

    if wanted.config is None:
        return ""
    try:
        found = client.read_deployment_by_name(wanted.deployments[0])
    except ObjectNotFound:
        return ""
    theirs: Any = found.parameters.get("config")
    if found.work_queue_name == wanted.queue or theirs == str(wanted.config.absolute()):
        return ""
    return theirs if isinstance(theirs, str) else f"a run in {theirs['run']['root']}"


def _lease_storage(client: "SyncPrefectClient") -> Finding:
    settings: Any = client.request("GET", "/admin/settings").json()
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


def _pool(client: "SyncPrefectClient", wanted: Wanted) -> Finding:
    from prefect.exceptions import ObjectNotFound

    what, template = f"work pool {wanted.pool}", job_template(wanted.kind)
    try:
        pool = client.read_work_pool(wanted.pool)
    except ObjectNotFound:
        return Finding(what=what, ok=False, text=f"there is none; {DEPLOY}")
    if pool.type != wanted.kind:
        text = f"is of type {pool.type}, not {wanted.kind}; give another --pool"
        return Finding(what=what, ok=False, text=text)
    if pool.is_paused:
        return Finding(what=what, ok=False, text=f"is paused: prefect work-pool resume {pool.name}")
    if template and template != pool.base_job_template:
        text = f"has another job template than this version's; {DEPLOY}"
        return Finding(what=what, ok=False, text=text)
    return Finding(what=what, ok=True, text=f"of type {pool.type}")


def _limit(client: "SyncPrefectClient") -> Finding:
    from prefect.exceptions import ObjectNotFound

    what = f"concurrency limit {LIMIT}"
    try:
        found = client.read_global_concurrency_limit_by_name(LIMIT)
    except ObjectNotFound:
        text = f"there is none, so nothing keeps stages from sharing a GPU; {DEPLOY}"
        return Finding(what=what, ok=False, text=text)
    if not found.active:
        text = f"is switched off, so stages share GPUs: prefect gcl update {LIMIT} --enable"
        return Finding(what=what, ok=False, text=text)
    if found.limit < 1:
        text = f"lets no stage through: prefect gcl update {LIMIT} --limit 1"
        return Finding(what=what, ok=False, text=text)
    return Finding(what=what, ok=True, text=f"{found.limit} at once")


def _automations(client: "SyncPrefectClient") -> Iterator[Finding]:
    there = client.read_automations()
    for wanted in automations(timedelta(seconds=heartbeat_window())):
        what = f"automation {wanted.name!r}"
        text = f"after {wanted.trigger.within.total_seconds():.0f} s"  # type: ignore[union-attr]
        found = [one for one in there if one.name == wanted.name]
        if len(found) == 1 and fits(found[0], wanted):
            yield Finding(what=what, ok=True, text=text)
            continue
        state = "is off, or is not as it should be" if found else "there is none"
        yield Finding(what=what, ok=False, text=f"{state} (wanted: {text}); {DEPLOY}")


def _alert(client: "SyncPrefectClient") -> Finding:
    what = f"automation {FAILED!r}"
    found = [one for one in client.read_automations() if one.name == FAILED]
    if not found:
        text = "there is none, so nobody is told; `spherescore deploy --alert` says whom"
        return Finding(what=what, ok=True, text=text)
    if not found[0].enabled:
        return Finding(what=what, ok=False, text="is switched off by hand, so nobody is told")
    return Finding(what=what, ok=True, text=str(found[0].description).partition(";")[0])


def _queue(client: "SyncPrefectClient", wanted: Wanted) -> Finding:
    from prefect.exceptions import ObjectNotFound

    what = f"work queue {wanted.queue}"
    try:
        found = client.read_work_queue_by_name(wanted.queue, wanted.pool)
    except ObjectNotFound:
        text = f"there is none, so runs of one root would overlap; {DEPLOY}"
        return Finding(what=what, ok=False, text=text)
    if found.is_paused:
        resume = f"prefect work-queue resume {found.name} --pool {wanted.pool}"
        return Finding(what=what, ok=False, text=f"is paused: {resume}")
    if found.concurrency_limit != 1:
        text = f"lets {found.concurrency_limit or 'all'} runs of one root overlap; {DEPLOY}"
        return Finding(what=what, ok=False, text=text)
    return Finding(what=what, ok=True, text=f"one run at a time in {wanted.root}")


def _deployment(client: "SyncPrefectClient", wanted: Wanted, name: str) -> Finding:
    from prefect.exceptions import ObjectNotFound

    what = f"deployment {name}"
    try:
        found = client.read_deployment_by_name(name)
    except ObjectNotFound:
        return Finding(what=what, ok=False, text=f"there is none; {DEPLOY}")
    if found.work_pool_name != wanted.pool:
        text = f"its runs go to pool {found.work_pool_name}, not {wanted.pool}; {DEPLOY}"
        return Finding(what=what, ok=False, text=text)
    if found.parameters and found.work_queue_name != wanted.queue:
        text = f"is of another root, or of an older version (queue {found.work_queue_name})"
        return Finding(what=what, ok=False, text=f"{text}; {DEPLOY}")
    if found.paused:
        resume = f"prefect deployment schedule resume {name}"
        return Finding(what=what, ok=False, text=f"is paused by hand; {resume}")
    on = [str(getattr(one.schedule, "cron", one.schedule)) for one in found.schedules if one.active]
    off = [one for one in found.schedules if not one.active]
    if off and not on:
        resume = f"prefect deployment schedule resume {name} {off[0].id}"
        return Finding(what=what, ok=False, text=f"its schedule is paused by hand; {resume}")
    if not on and name.endswith(("-nightly", "-weekly")):
        return Finding(what=what, ok=False, text=f"has no schedule any more; {DEPLOY}")
    return Finding(what=what, ok=True, text=f"at {', '.join(on)}" if on else "on request")
