"""The network boundary: who can reach a Dask scheduler or a Prefect server can run code.

So everything listens on loopback, and an address beyond it is used only where it is guarded.
"""

import ipaddress
from collections.abc import Mapping, MutableMapping
from urllib.parse import urlsplit

from flows.errors import ExitCode

__all__ = [
    "LOOPBACK",
    "Refused",
    "exempt_loopback",
    "is_loopback",
    "require_guarded_prefect",
    "without_password",
]

LOOPBACK = "127.0.0.1"


class Refused(RuntimeError):
    """What was asked for would let others in."""

    exit_code = ExitCode.REFUSED


def is_loopback(address: str) -> bool:
    """Whether an address (a host, host:port or URL) is of this machine alone."""
    host = urlsplit(address if "://" in address else f"//{address}").hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def exempt_loopback(environment: MutableMapping[str, str]) -> None:
    """Let no proxy of the environment stand between the processes of this machine."""
    hosts = [environment.get(name, "") for name in ("no_proxy", "NO_PROXY")]
    known = [host.strip() for text in hosts for host in text.split(",") if host.strip()]
    exempt = ",".join(dict.fromkeys([*known, "localhost", LOOPBACK, "::1"]))
    environment.update({"no_proxy": exempt, "NO_PROXY": exempt})


def require_guarded_prefect(settings: Mapping[str, str]) -> None:
    """Raise for a Prefect server beyond loopback that nobody has to show a key to.

    Args:
        settings: By the names of Prefect's environment variables.
    Raises:
        Refused: If there is such a server.
    """
    for address, key in (
        ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING"),
        ("PREFECT_SERVER_API_HOST", "PREFECT_SERVER_API_AUTH_STRING"),
    ):
        known = settings.get(address, "")
        keys = (key, "PREFECT_API_KEY") if address == "PREFECT_API_URL" else (key,)
        if known and not is_loopback(known) and not any(settings.get(k) for k in keys):
            raise Refused(
                f"{address} is {without_password(known)}, which is not on this machine, and "
                f"{key} is not set; set it on the server and here, or leave {address} out of the "
                "environment, .env, prefect.toml, pyproject.toml and Prefect's profile: a run has "
                "a server of its own on loopback"
            )


def without_password(address: str) -> str:
    """An address as it may be printed."""
    return address.rpartition("@")[2] if "@" in address else address
