"""A headless Chromium, asked over its debugging protocol. Tests skip where none is installed."""

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60.0


def found() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """One page of the browser."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection, self._number = connection, 0
        self.asked: list[str] = []  # addresses of all requests
        self.said: list[str] = []  # errors of its scripts
        for name in ("Page", "Network", "Runtime"):
            self("enable", name)

    def __call__(self, verb: str, domain: str, **given: Any) -> dict[str, Any]:
        self._number += 1
        sent = {"id": self._number, "method": f"{domain}.{verb}", "params": given}
        self._connection.send(json.dumps(sent))
        while True:
            answer = json.loads(self._connection.recv(timeout=PATIENCE))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            if answer["method"] == "Network.requestWillBeSent":
                self.asked.append(answer["params"]["request"]["url"])
            if answer["method"] == "Runtime.exceptionThrown":
                self.said.append(str(answer["params"]["exceptionDetails"])[:500])

    def open(self, address: str, width: int = 1280, height: int = 720) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self("setDeviceMetricsOverride", "Emulation", **size)
        self("navigate", "Page", url=address)

    def js(self, expression: str) -> Any:
        found = self("evaluate", "Runtime", expression=expression, returnByValue=True)
        return found["result"].get("value")

    def wait_for(self, expression: str, seconds: float = PATIENCE) -> Any:
        """Until a JavaScript expression is true; its value."""
        end = time.monotonic() + seconds
        while not (value := self.js(expression)):
            assert time.monotonic() < end, f"{expression} did not become true"
            time.sleep(0.2)
        return value

    def click(self, x: float, y: float) -> None:
        at = {"x": x, "y": y, "button": "left", "clickCount": 1}
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self("dispatchMouseEvent", "Input", type=kind, **at)

    def press(self, key: str, code: int) -> None:
        for kind in ("keyDown", "keyUp"):
            given = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}
            if kind == "keyDown" and key == "Enter":
                given["text"] = "\r"  # without it a button is not pressed
            self("dispatchKeyEvent", "Input", **given)

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self("captureScreenshot", "Page", format="png")["data"]))


@contextmanager
def tab(directory: Path) -> Iterator[Tab]:
    """A fresh browser, which ends with the block."""
    program = found()
    assert program is not None
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    flags += ["--no-first-run", "--disable-background-networking", "--hide-scrollbars"]
    flags += [f"--user-data-dir={directory}"]
    process = subprocess.Popen(
        [program, *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        port, end = directory / "DevToolsActivePort", time.monotonic() + PATIENCE
        while not (port.is_file() and "\n" in port.read_text()):
            assert time.monotonic() < end and process.poll() is None, "Chromium did not start"
            time.sleep(0.1)
        address = f"http://127.0.0.1:{port.read_text().split()[0]}/json/list"
        pages = json.loads(urllib.request.urlopen(address).read())
        (page,) = (one for one in pages if one["type"] == "page")
        with connect(page["webSocketDebuggerUrl"], max_size=None) as connection:
            yield Tab(connection)
    finally:
        process.terminate()
        process.wait(timeout=20)
