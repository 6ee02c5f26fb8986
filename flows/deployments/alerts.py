"""Tells somebody of a run that failed: which one, what it said, and what to do.

The server tells, not the run: a machine that is gone can say nothing. Whom, is a block of Prefect:
any kind that notifies (Slack, mail, ...), or a webhook, made here from an address.
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from prefect.automations import AutomationCore
from prefect.blocks.webhook import Webhook
from prefect.events.actions import CallWebhook, SendNotification
from prefect.events.schemas.automations import EventTrigger, Posture

from flows.deployments.automations import OURS, RUNS
from flows.deployments.server import NotDeployed

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

FAILED = "spherescore: a run failed"
BLOCK = "spherescore-alert"
STATES = {f"prefect.flow-run.{state}" for state in ("Failed", "Crashed", "TimedOut")}
SUBJECT = "spherescore: {{ flow_run.name }} {{ flow_run.state.name | lower }}"
HINTS = {  # what a message has in it: what to do, where the message does not say it itself
    "status code -9": "Its process was killed, often for want of memory: lower cluster.workers or "
    "give more memory.",
    "SourceError": "The files, or [source] of the configuration, have to change.",
    "WorkersLost": "See whether the Dask workers are there.",
}
_ADVICE = "".join(
    f"{{% if '{sign}' in (flow_run.state.message or '') %}}{hint}\n{{% endif %}}"
    for sign, hint in HINTS.items()
)
BODY = (
    """{{ flow_run.name }} has {{ flow_run.state.name | lower }}, at {{ event.occurred }}.
It said: {{ flow_run.state.message }}
"""
    + _ADVICE
    + """What is finished is safe. When the cause is gone, run it again and it goes on where it was:
prefect deployment run '{{ flow.name }}/{{ deployment.name }}'
{% set link = flow_run | ui_url %}{% if link %}Log and artifacts: {{ link }}{% endif %}"""
)
TEXT = "{% set body %}" + SUBJECT + "\n" + BODY + '{% endset %}{"text": {{ body | tojson }}}'


def alert(client: "SyncPrefectClient", told: str) -> AutomationCore:
    """The automation that tells of failed runs.

    Args:
        told: TYPE/NAME of a block that is there, or the address of a webhook, which is kept in one.
    Raises:
        NotDeployed: If there is no such block.
    """
    action: Any
    if told.startswith(("http://", "https://")):
        block = Webhook(url=told, headers={"Content-Type": "application/json"})  # type: ignore[arg-type]
        action = CallWebhook(block_document_id=block.save(BLOCK, overwrite=True), payload=TEXT)  # type: ignore[arg-type]
    else:
        action = _of_block(client, told)
    return AutomationCore(
        name=FAILED,
        description=f"Tells {_shown(told)}; made by `spherescore deploy --alert`.",
        trigger=EventTrigger(
            expect=STATES,
            match=RUNS,
            match_related=OURS,
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[action],
    )


def _of_block(client: "SyncPrefectClient", told: str) -> "CallWebhook | SendNotification":
    from prefect.exceptions import ObjectNotFound

    kind, _, name = told.partition("/")
    try:
        found = client.read_block_document_by_name(name, kind)
    except ObjectNotFound:
        raise NotDeployed(
            f"--alert {told}: the server has no such block; make one in the UI (Blocks) and name "
            "it by type and name, such as slack-webhook/ops, or give the address of a webhook"
        ) from None
    if kind == "webhook":
        return CallWebhook(block_document_id=found.id, payload=TEXT)
    return SendNotification(block_document_id=found.id, subject=SUBJECT, body=BODY)


def _shown(told: str) -> str:
    """Whom, without what in an address may be a secret."""
    return "a webhook" if "://" in told else told
