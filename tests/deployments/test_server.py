"""What a server of ours asks, tells and refuses; on SQLite, on PostgreSQL where there is one."""

import json
import os
import pwd
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from flows.deployments.automations import SILENT
from flows.deployments.prefect_settings import kept_secret, server_environment
from flows.deployments.up import LOOPBACK, READY_SECONDS, Machine, answers, free_port
from flows.processes.supervisor import Service, wait_until

from .conftest import Site

pytestmark = pytest.mark.deployments


def status(url: str, method: str = "GET", **headers: str) -> int:
    request = urllib.request.Request(url, method=method, headers=headers)
    if method == "POST":
        request.data = b"{}"
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refusal:
        return refusal.code


def basic(secret: str) -> str:
    import base64

    return f"Basic {base64.b64encode(secret.encode()).decode()}"


def test_the_server_asks_who_it_is_and_what_for(served: Machine) -> None:
    url, secret = f"{served.ui}/api", kept_secret(served.state)
    assert (served.state / "secret").stat().st_mode & 0o077 == 0
    assert status(f"{url}/admin/settings") == 401
    assert status(f"{url}/admin/settings", Authorization=basic("spherescore:guess")) == 401
    asked = f"{url}/work_pools/filter"
    json_type = {"Content-Type": "application/json"}
    assert status(asked, "POST", Authorization=basic(secret), **json_type) == 403, "no CSRF token"
    assert status(f"{url}/admin/settings", Authorization=basic(secret)) == 200
    foreign = {"Origin": "http://elsewhere", "Access-Control-Request-Method": "POST"}
    assert status(asked, "OPTIONS", **foreign) == 400
    assert status(asked, "OPTIONS", **{**foreign, "Origin": served.ui}) == 200


def test_the_ui_finds_the_api_on_whatever_port(served: Machine) -> None:
    with urllib.request.urlopen(f"{served.ui}/ui-settings", timeout=30) as answer:
        assert json.load(answer)["api_url"] == f"{served.ui}/api"


def test_metrics_are_there(served: Machine) -> None:
    secret = kept_secret(served.state)
    assert status(f"{served.ui}/api/metrics", Authorization=basic(secret)) == 200
    assert status(f"{served.dashboard}/metrics") == 200


def test_a_limit_that_nobody_made_is_refused(site: Site) -> None:
    code = "from flows.deployments.gpu_limit import slot\n"
    code += "with slot('nobody-made-it'): print('let through')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=site.environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "let through" not in done.stdout
    assert "no concurrency limit 'nobody-made-it'" in done.stderr


def test_a_window_shorter_than_the_heartbeats_allow_is_found(site: Site) -> None:
    config = str(site.write_config("window"))
    assert "made" in site.command("deploy", config).stdout
    slower = {**site.environment, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "60"}
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli.main", "deploy", config, "--check", "--json"],
        env=slower,
        capture_output=True,
        text=True,
    )
    result = json.loads(done.stdout.splitlines()[-1])
    bad = [one["what"] for one in result["findings"] if not one["ok"]]
    assert (done.returncode, bad) == (46, [f"automation {SILENT!r}"])


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[str]:
    """The address of a PostgreSQL of this test, run by a user without rights."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs or os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("no PostgreSQL here that root could start as another user")
    nobody, port = pwd.getpwnam("nobody"), free_port()
    data = Path(f"/tmp/spherescore-postgres-{os.getpid()}")
    data.mkdir(mode=0o700)
    os.chown(data, nobody.pw_uid, nobody.pw_gid)
    drop = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    bin_ = programs[-1]
    try:
        command = [*drop, bin_ / "initdb", "-D", data / "d", "-U", "prefect", "-A", "trust"]
        subprocess.run(command, check=True, capture_output=True)
        options = [*drop, bin_ / "postgres", "-D", data / "d", "-k", data, "-h", LOOPBACK]
        service = Service(
            name="postgres",
            command=[str(part) for part in [*options, "-p", port]],
            environment=dict(os.environ),
            log=tmp_path / "postgres.log",
        )
        service.start()
        ready = [bin_ / "pg_isready", "-h", LOOPBACK, "-p", str(port)]
        wait_until(lambda: subprocess.run(ready, capture_output=True).returncode == 0, service, 60)
        create = [bin_ / "createdb", "-h", LOOPBACK, "-p", str(port), "-U", "prefect", "prefect"]
        subprocess.run(create, check=True, capture_output=True)
        yield f"postgresql+asyncpg://prefect@{LOOPBACK}:{port}/prefect"
        service.stop()
    finally:
        shutil.rmtree(data, ignore_errors=True)


def test_the_server_keeps_what_it_knows_in_postgres(postgres: str, tmp_path: Path) -> None:
    port, secret = free_port(), "somebody:secret"
    environment: Mapping[str, str] = {
        **server_environment(tmp_path, port, secret),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": postgres,
    }
    server = Service(
        name="server",
        command=[sys.executable, "-m", "prefect", "server", "start"],
        environment=environment,
        log=tmp_path / "server.log",
    )
    server.start()
    try:
        wait_until(lambda: answers(port, "/api/ready"), server, READY_SECONDS)
        asked = f"http://{LOOPBACK}:{port}/api/flows/count"
        assert status(asked, "POST") == 403
        assert status(asked.replace("flows/count", "ready")) == 200
        assert not (tmp_path / "prefect.db").exists()
    finally:
        server.stop()
