"""What listens, and on which addresses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.request import proxy_bypass

import pytest

from flows.cli.main import main
from flows.deployments.prefect_settings import EMBEDDED
from flows.processes.network_boundary import (
    Refused,
    exempt_loopback,
    is_loopback,
    require_guarded_prefect,
)
from flows.stages.base import STAGES
from tests.small import small_table

LISTENS = "0A"


@pytest.mark.parametrize(
    ("address", "known"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8:4200", True),
        ("http://localhost:4200/api", True),
        ("tcp://[::1]:8786", True),
        ("0.0.0.0", False),
        ("[::]:80", False),
        ("tls://10.0.0.1:8786", False),
        ("http://localhost.example.org", False),
        ("http://127.0.0.1@example.org/", False),
        ("", False),
    ],
)
def test_loopback_is_known_by_its_address(address: str, known: bool) -> None:
    assert is_loopback(address) is known


def test_a_prefect_server_beyond_loopback_needs_a_key() -> None:
    require_guarded_prefect({})
    require_guarded_prefect({"PREFECT_API_URL": "http://127.0.0.1:4200/api"})
    far = {"PREFECT_API_URL": "http://me:secret@10.0.0.1:4200/api"}
    with pytest.raises(Refused, match="PREFECT_API_AUTH_STRING is not set") as caught:
        require_guarded_prefect(far)
    assert "secret" not in str(caught.value) and caught.value.exit_code == 60
    require_guarded_prefect(far | {"PREFECT_API_AUTH_STRING": "a:b"})
    with pytest.raises(Refused, match=r"PREFECT_SERVER_API_HOST is 0\.0"):
        require_guarded_prefect({"PREFECT_SERVER_API_HOST": "0.0.0.0"})


FAR = {
    ".env": "PREFECT_API_URL=http://me:secret@192.0.2.1:4200/api\n",
    "prefect.toml": '[api]\nurl = "http://me:secret@192.0.2.1:4200/api"\n',
    "pyproject.toml": '[tool.prefect.api]\nurl = "http://me:secret@192.0.2.1:4200/api"\n',
    "run/prefect/profiles.toml": (
        'active = "far"\n[profiles.far]\nPREFECT_API_URL = "http://me:secret@192.0.2.1:4200/api"\n'
    ),
}


@pytest.mark.parametrize("name", FAR)
def test_a_file_in_the_working_directory_names_no_server_beyond_loopback(
    name: str, tmp_path: Path, write_config: Callable[[dict[str, Any]], str]
) -> None:
    place = tmp_path / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(FAR[name])
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli.main", "run", write_config(small_table(tmp_path))],
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[3])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 60, done.stderr
    assert "PREFECT_API_URL is 192.0.2.1:4200/api, which is not on this machine" in done.stderr
    assert "secret" not in done.stderr
    assert "starts" not in done.stderr


def test_loopback_needs_no_proxy() -> None:
    for given in ({}, {"no_proxy": "example.org"}, {"NO_PROXY": "example.org, localhost"}):
        environment = {"http_proxy": "http://192.0.2.1:3128"} | given
        exempt_loopback(environment)
        with pytest.MonkeyPatch.context() as patch:
            for variable in ("http_proxy", "no_proxy", "NO_PROXY", "HTTP_PROXY", "REQUEST_METHOD"):
                patch.delenv(variable, raising=False)
            for variable, text in environment.items():
                patch.setenv(variable, text)
            for host in ("127.0.0.1", "localhost"):
                assert proxy_bypass(host)
            assert bool(proxy_bypass("example.org")) is bool(given)


def marked(mark: str) -> Iterator[int]:
    """Processes that inherited a mark in their environment."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                yield int(entry.name)
        except OSError:
            continue


def sockets_of(pid: int) -> set[str]:
    try:
        links = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return set()
    return {link[8:-1] for link in links if link.startswith("socket:[")}


def listeners(mark: str) -> set[tuple[str, str]]:
    """Address and port, in hexadecimal, of all that the marked processes listen on."""
    mine = {inode for pid in marked(mark) for inode in sockets_of(pid)}
    found = set()
    for table in ("tcp", "tcp6"):
        path = Path(f"/proc/net/{table}")
        for line in path.read_text().splitlines()[1:] if path.exists() else []:
            fields = line.split()
            if fields[3] == LISTENS and fields[9] in mine:
                address, _, port = fields[1].rpartition(":")
                found.add((address, port))
    return found


def states(config: str, directory: Path) -> list[str]:
    """What `spherescore status` says of each stage, asked from a directory."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as said:
        patch.chdir(directory)
        assert main(["status", config, "--json"]) == 0
    stages = json.loads(said.getvalue().splitlines()[-1])["stages"]
    return [stage["state"] for stage in stages.values()]


def on_loopback(address: str) -> bool:
    mapped = address.removeprefix("0000000000000000FFFF0000")
    return mapped.endswith("7F") if len(mapped) == 8 else address == "0" * 24 + "01000000"


def test_the_instrument_sees_what_listens_elsewhere(tmp_path: Path) -> None:
    code = "import socket, time; s = socket.create_server(('0.0.0.0', 0)); time.sleep(60)"
    mark = f"SPHERESCORE_MARK={tmp_path}"
    environment = {**os.environ, "SPHERESCORE_MARK": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as running:
        try:
            deadline = time.monotonic() + 30
            while not (seen := listeners(mark)) and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            running.kill()
    assert [on_loopback(address) for address, _ in seen] == [False]
    assert on_loopback("0100007F") and on_loopback("0" * 24 + "01000000")
    assert not on_loopback("00000000") and not on_loopback("0" * 32)


SETTINGS = """
from pathlib import Path
from flows.deployments.prefect_settings import set_prefect_environment
from storage.artifacts.layout import StoreLayout
set_prefect_environment(StoreLayout({root!r}))
import prefect.settings as s
known = s.get_current_settings()
print(
    known.server.analytics_enabled,
    known.results.default_serializer,
    known.results.persist_by_default,
    known.cloud.enable_orchestration_telemetry,
    s.get_current_settings().server.api.host,
)
"""


def test_prefect_measures_nobody_and_pickles_nothing(tmp_path: Path) -> None:
    assert EMBEDDED["DO_NOT_TRACK"] == "1"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    said = subprocess.run(
        [sys.executable, "-c", SETTINGS.format(root=str(tmp_path))],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert said.stdout.split() == ["False", "json", "False", "False", "127.0.0.1"]


@pytest.mark.long
def test_a_whole_run_listens_on_loopback_only_and_keeps_no_secret(
    tmp_path: Path, write_config: Callable[[dict[str, Any]], str]
) -> None:
    """What any process of a run listens on, while it runs; what it leaves on disk and says.

    Its root is relative, as in the first configuration of most people: all is up to date after it.
    """
    secrets = {
        "AWS_SECRET_ACCESS_KEY": "secret-of-a-bucket",
        "PREFECT_API_AUTH_STRING": "me:secret-of-a-server",
    }
    mark = f"SPHERESCORE_MARK={tmp_path}"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment |= {"SPHERESCORE_MARK": str(tmp_path), **secrets}
    seen: set[tuple[str, str]] = set()
    table = small_table(tmp_path)
    table["run"]["root"] = "run"
    config = write_config(table)
    with subprocess.Popen(
        [sys.executable, "-m", "flows.cli.main", "run", config],
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[3])},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as running:
        said = b""
        assert running.stdout is not None
        for line in running.stdout:
            said += line
            seen |= listeners(mark)
    assert running.returncode == 0, said.decode()
    assert states(config, tmp_path) == ["up to date"] * len(STAGES)
    assert len(seen) >= 2  # the schedulers' at least
    assert {address for address, _ in seen if not on_loopback(address)} == set()
    left = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(left) > 100
    for secret in ("secret-of-a-bucket", "secret-of-a-server"):
        assert secret.encode() not in said
        assert [path for path in left if secret.encode() in path.read_bytes()] == []
