"""What a Prefect server does by itself about our runs, and about no others: automations."""

from datetime import timedelta
from typing import Any

from prefect.automations import AutomationCore
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from flows.deployments.wanted import TAG

SILENT = "spherescore: runs without heartbeats are crashed"
UNBEGUN = "spherescore: runs that a worker took and never began are crashed"
UNBEGUN_WINDOW = timedelta(minutes=30)  # a pod may wait long for its image and its node
HEARTBEAT = "prefect.flow-run.heartbeat"
ENDED = tuple(
    f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")
)
OURS = ResourceSpecification(
    {"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"}
)
RUNS = ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"})


def automations(window: timedelta) -> list[AutomationCore]:
    """The automations that a server should have.

    Args:
        window: Time without a heartbeat after which a run is called crashed.
    """
    return [
        _crashed(
            SILENT,
            {HEARTBEAT},
            {HEARTBEAT, *ENDED},
            window,
            f"No heartbeat for {window.total_seconds():.0f} s: the machine or the worker is gone. "
            "What is finished is safe; the next run goes on.",
        ),
        _crashed(
            UNBEGUN,
            {"prefect.flow-run.Pending"},
            {"prefect.flow-run.Running", HEARTBEAT, *ENDED},
            UNBEGUN_WINDOW,
            "A worker took this run and did not begin it: the worker is gone, or its machine "
            "gives no room. Nothing was done; run it again.",
        ),
    ]


def fits(found: Any, wanted: AutomationCore) -> bool:
    """Whether an automation of the server does what is wanted, or waits longer before it does."""
    theirs, ours = found.trigger, wanted.trigger
    assert isinstance(ours, EventTrigger)
    alike = all(
        getattr(theirs, name, None) == getattr(ours, name)
        for name in ("after", "expect", "match_related", "posture")
    )
    return bool(found.enabled and alike and theirs.within >= ours.within)


def _crashed(
    name: str, after: set[str], expect: set[str], window: timedelta, message: str
) -> AutomationCore:
    return AutomationCore(
        name=name,
        description="A machine that dies cannot say so; made by `spherescore deploy`.",
        trigger=EventTrigger(
            after=after,
            expect=expect,
            match=RUNS,
            match_related=OURS,
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=window,
        ),
        actions=[
            ChangeFlowRunState(name=None, state=StateType.CRASHED, force=False, message=message)
        ],
    )
