"""A wire that fails: an HTTP proxy on loopback that does one sort of harm to chosen requests.

Stands between a client and a real server. Requests are counted from 1; `harm(name, first, last)`
says what happens to those from `first` to `last`. What a fault of each name does:

    latency         the answer comes a little later
    stall           the server never hears of it, and the client waits
    stall after     the server does it, and the client waits
    reset           the connection breaks before the server hears of it
    reset after     the server does it, the connection breaks
    500, 503, 429   the server never hears of it, this is the answer
    lost            the server does it, and the answer is 500
    truncated       the server does it, half of the answer arrives
    403, 507        the same, for what the client may not do, and for a full disk
"""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LATENCY = 0.2  # seconds
HARMS = (
    *("latency", "stall", "stall after", "reset", "reset after"),
    *("500", "503", "429", "lost", "truncated"),
)
_AFTER = {"stall after", "reset after", "lost", "truncated", "latency"}
_CODES = {
    "500": "InternalError",
    "503": "SlowDown",
    "429": "TooManyRequests",
    "403": "AccessDenied",
    "507": "XMinioStorageFull",
}


class Wire:
    """Counts the requests that pass and harms some of them.

    Attributes:
        url: where clients connect.
        requests: method and path of all requests since `harm`.
        done: those that reached the server, and the status of its answers.
    """

    def __init__(self, server: str, port: int) -> None:
        self.upstream = server
        self.url = f"http://127.0.0.1:{port}"
        self.requests: list[str] = []
        self.done: list[tuple[str, int]] = []
        self._name, self._range = "", range(0)
        self._lock, self.over = threading.Lock(), threading.Event()

    def harm(self, name: str = "", first: int = 1, last: int | None = None) -> None:
        """From now on; without a name nothing is harmed. Counting begins anew."""
        with self._lock:
            self.requests, self.done = [], []
            self._name = name
            self._range = range(first, (first if last is None else last) + 1)
        self.over.set()
        self.over = threading.Event()

    def next(self, request: str) -> str:
        """The harm for a request that has come."""
        with self._lock:
            self.requests.append(request)
            return self._name if len(self.requests) in self._range else ""


@contextmanager
def wire(server: str) -> Iterator[Wire]:
    """A wire to the server at "host:port", on a free port of this machine."""
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    proxy.daemon_threads, proxy.block_on_close = True, False
    line = proxy.wire = Wire(server, proxy.server_address[1])  # type: ignore[attr-defined]
    thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield line
    finally:
        line.over.set()
        proxy.shutdown()
        proxy.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _pass(self) -> None:
        line: Wire = self.server.wire  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        harm = line.next(f"{self.command} {self.path}")
        over = line.over
        if harm and harm not in _AFTER:
            return self._fail(harm, over)
        status, headers, content = self._ask(line.upstream, body)
        line.done.append((f"{self.command} {self.path}", status))
        if harm == "latency":
            over.wait(LATENCY)
        elif harm in ("stall after", "reset after", "lost"):
            return self._fail(harm.replace("lost", "500").removesuffix(" after"), over)
        elif harm == "truncated":
            return self._answer(status, headers, content, half=True)
        return self._answer(status, headers, content)

    def _ask(self, upstream: str, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(upstream, timeout=60)
        connection.request(self.command, self.path, body, dict(self.headers.items()))
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, response.getheaders(), content

    def _answer(self, status: int, headers: Any, content: bytes, *, half: bool = False) -> None:
        lines = [f"HTTP/1.1 {status} x"]
        dropped = {"transfer-encoding", "connection", "keep-alive"}
        known = {name.lower() for name, _ in headers}
        lines += [f"{name}: {value}" for name, value in headers if name.lower() not in dropped]
        if "content-length" not in known:
            lines.append(f"Content-Length: {len(content)}")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        if not half:
            self.wfile.write(head + content)
            return
        whole = head + content
        self.wfile.write(whole[: len(head) + len(content) // 2 if content else len(head) // 2])
        self._break()

    def _fail(self, harm: str, over: threading.Event) -> None:
        if harm == "stall":
            over.wait(30)
            self._break()
        elif harm == "reset":
            self._break()
        else:
            text = f"<Error><Code>{_CODES[harm]}</Code><Message>no</Message></Error>".encode()
            self._answer(int(harm), [("Content-Type", "application/xml")], text)

    def _break(self) -> None:
        """End the connection as a crash would: with RST, at once."""
        self.close_connection = True
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()
        self.wfile = _Nowhere()  # type: ignore[assignment]

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Nowhere:
    closed = True

    def write(self, content: bytes) -> int:
        return len(content)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass
