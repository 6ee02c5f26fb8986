"""What the server makes of an alert, by its own templates."""

import json
import uuid
from types import SimpleNamespace

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.server.events.jinja_filters import all_filters
from prefect.server.utilities.user_templates import (
    register_user_template_filters,
    render_user_template_sync,
    validate_user_template,
)
from prefect.states import Crashed, Failed

from flows.deployments.alerts import BODY, SUBJECT, TEXT


def told(message: str | None, state: object = Failed) -> str:
    """The text that a webhook gets of a run with this message."""
    register_user_template_filters(all_filters)
    run = FlowRun(
        id=uuid.uuid4(), flow_id=uuid.uuid4(), name="nights", state=state(message=message)
    )
    known = {
        "flow_run": run,
        "flow": SimpleNamespace(name="spherescore"),
        "deployment": SimpleNamespace(name="nights-nightly"),
        "event": SimpleNamespace(occurred="2026-01-01T02:00:00+00:00"),
    }
    text: str = json.loads(render_user_template_sync(TEXT, known))["text"]
    return text


@pytest.mark.parametrize("template", [TEXT, BODY, SUBJECT])
def test_the_server_takes_the_templates(template: str) -> None:
    validate_user_template(template)


@pytest.mark.parametrize("message", ['a "quoted" <word>\nand a line \\ more', "{{ 1 + 1 }}", None])
def test_whatever_a_run_says_comes_through_as_json(message: str | None) -> None:
    text = told(message)
    assert text.startswith("spherescore: nights failed\n")
    assert f"It said: {message}\n" in text
    assert "prefect deployment run 'spherescore/nights-nightly'" in text


def test_a_killed_process_is_told_what_kills_processes() -> None:
    said = told("Flow run process exited with non-zero status code -9.", Crashed)
    assert "lower cluster.workers" in said and "nights crashed" in said
    assert "cluster.workers" not in told("source.paths: no file")
