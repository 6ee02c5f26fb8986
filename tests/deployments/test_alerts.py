"""A failed night is told by the server: what failed, what it said and what to do, to a webhook."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prefect.client.orchestration import SyncPrefectClient

from flows.deployments.alerts import FAILED

from .conftest import Site, eventually

pytestmark = pytest.mark.deployments


class Receiver(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hook)
        self.heard: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hooks/a-secret-word"


class _Hook(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.heard.append(json.loads(text)["text"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield serving
        serving.shutdown()


def test_a_failed_night_is_told_with_its_remedy_and_a_good_one_is_not(
    site: Site, api: SyncPrefectClient, receiver: Receiver
) -> None:
    config = str(site.write_config("failing"))
    said = site.command("deploy", config, given={"SPHERESCORE_ALERT": receiver.address})
    assert f"made    automation {FAILED!r}: Tells a webhook" in said.stdout
    assert "a-secret-word" not in said.stdout + said.stderr
    night = api.read_deployment_by_name("spherescore/failing-nightly")

    def ended() -> str:
        run = api.create_flow_run_from_deployment(night.id)
        eventually(lambda: api.read_flow_run(run.id).state.is_final(), 300)
        return str(api.read_flow_run(run.id).state_name)

    assert ended() == "Failed"  # there is no file yet
    # The server tells at least once: it repeats what it could not write down as told.
    text = eventually(lambda: receiver.heard, 60, what="an alert")[0]
    assert text.startswith("spherescore: failing: ingest to preprocess failed")
    assert f"{site.directory}/new/*.nc: no such file" in text
    assert "The files, or [source] of the configuration, have to change." in text
    assert "prefect deployment run 'spherescore/failing-nightly'" in text
    assert f"{site.machine.ui}/" in text

    site.new_days(420)
    assert ended() == "Completed"
    site.command("deploy", config)  # without --alert: as it was
    assert [one.enabled for one in api.read_automations() if one.name == FAILED] == [True]
    assert set(receiver.heard) == {text}


def test_an_alert_to_a_block_that_nobody_made_is_refused(site: Site) -> None:
    config = str(site.write_config("told"))
    done = site.command("deploy", config, "--alert", "slack-webhook/nobody", check=False)
    assert done.returncode == 46
    assert "slack-webhook/nobody: the server has no such block" in done.stderr
