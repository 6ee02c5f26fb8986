"""Serves the page on loopback, to whoever has the token.

Every user of a machine reaches its loopback, so the address alone opens nothing: without the token
of this start a visitor gets a sentence and no data. Scripts and fonts come from here, none from
elsewhere.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from typing import Any

import panel as pn

from flows.processes.network_boundary import LOOPBACK
from flows.view.opened import Opened
from flows.view.page import Page

TITLE = "spherescore"
REFUSED = "This page needs the token of its start: open the whole address that was printed."


def new_token() -> str:
    return secrets.token_urlsafe(24)


def app(root: str, token: str) -> Callable[[], Any]:
    """What a visitor gets: a page of their own, on what is published now."""

    def visited() -> Any:
        given = (pn.state.session_args or {}).get("token", [b""])[0]
        if not hmac.compare_digest(given, token.encode()):
            return pn.pane.Markdown(REFUSED)
        return Page(Opened.of(root)).layout()

    return visited


def serve(root: str, token: str, port: int, *, told: Callable[[str], None], **options: Any) -> Any:
    """Serve until interrupted (or in a thread, with `threaded=True`).

    Args:
        port: 0 takes a free one.
        told: Is told the address with its token, when the page is about to be served.
    Raises:
        OSError: If the port is taken.
    """
    import socket

    Opened.of(root)  # refuses a root of which there is nothing to see
    with socket.socket() as probe:
        probe.bind((LOOPBACK, port))
        port = probe.getsockname()[1]
    told(f"http://{LOOPBACK}:{port}/view?token={token}")
    return pn.serve(
        {"view": app(root, token)},
        title=TITLE,
        address=LOOPBACK,
        port=port,
        websocket_origin=[f"{LOOPBACK}:{port}", f"localhost:{port}"],
        show=False,
        use_index=False,
        **{"verbose": False, **options},
    )
