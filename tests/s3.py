"""A server of the S3 protocol on loopback (moto), and what clients need in the environment."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 60  # it has started by then, on a busy machine too
KEY, SECRET = "a-key-of-tests", "a-secret-of-tests"
# moto's own command looks at each request for which of its hundred services it is, on disk; and
# makes a connection and a thread for each.
SERVER = """
from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

class Handler(MotoRequestHandler):
    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

run_simple("127.0.0.1", 0, create_backend_app("s3"), threaded=True, request_handler=Handler)
"""


@contextmanager
def server() -> Iterator[str]:
    """A fresh server without buckets; gives "host:port"."""
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        command = [sys.executable, "-c", SERVER]
        quiet = {name: text for name, text in os.environ.items() if not name.startswith("AWS_")}
        with log.open("wb") as stream:
            process = subprocess.Popen(command, stdout=stream, stderr=stream, env=quiet)
        try:
            yield _address(process, log)
        finally:
            process.terminate()
            process.wait(timeout=SECONDS)


def make_bucket(address: str, name: str) -> None:
    connection = http.client.HTTPConnection(address, timeout=SECONDS)
    connection.request("PUT", f"/{name}", headers={"Content-Length": "0"})
    assert connection.getresponse().status == 200
    connection.close()


def environment(address: str) -> dict[str, str]:
    """What a process needs to know of a server at "host:port"."""
    return {
        "AWS_ENDPOINT_URL": f"http://{address}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and process.poll() is None:
        if found := re.search(r"Running on http://(127\.0\.0\.1:\d+)", log.read_text()):
            return found[1]
        time.sleep(0.05)
    raise RuntimeError(f"no S3 server started: {log.read_text()}")
