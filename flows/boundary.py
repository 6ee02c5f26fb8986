"""The network boundary: who can reach a Dask scheduler or a Prefect server can run code.

So everything listens on loopback, and an address beyond it is used only where it is guarded.
"""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

__all__ = [
    "LOOPBACK",
    "ExposedAddress",
    "is_loopback",
    "require_guarded",
    "require_guarded_prefect",
]

LOOPBACK = "127.0.0.1"


class ExposedAddress(ValueError):
    """An address that others can reach, without what guards it."""

    exit_code = 60


def is_loopback(address: str) -> bool:
    """Whether an address (a host, host:port or URL) is of this machine alone."""
    host = urlsplit(address if "://" in address else f"//{address}").hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_guarded(address: str, key: str, *, tls: bool, auth: bool = True) -> None:
    """Raise unless an address is on loopback, or has what its kind of server needs.

    Args:
        key: Where the address was written, for the message.
        tls: Whether the connection is encrypted and both ends show certificates.
        auth: Whether the server asks for a key.
    Raises:
        ExposedAddress: With what is lacking.
    """
    if is_loopback(address) or (tls and auth):
        return
    lacking = "TLS" if auth else "a key" if tls else "TLS and a key"
    raise ExposedAddress(
        f"{key}: {address} is not on this machine, and who reaches it can run code; it needs "
        f"{lacking}. Use 127.0.0.1 and a tunnel (ssh -L), or set it up with certificates"
    )


def require_guarded_prefect(environment: Mapping[str, str]) -> None:
    """Raise for a Prefect server beyond loopback that nobody has to show a key to.

    Raises:
        ExposedAddress: The settings are Prefect's own environment variables.
    """
    for address, key in (
        ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING"),
        ("PREFECT_SERVER_API_HOST", "PREFECT_SERVER_API_AUTH_STRING"),
    ):
        known = environment.get(address, "")
        keys = (key, "PREFECT_API_KEY") if address == "PREFECT_API_URL" else (key,)
        if known and not is_loopback(known) and not any(environment.get(k) for k in keys):
            raise ExposedAddress(
                f"{address} is {_without_password(known)}, which is not on this machine, and "
                f"{key} is not set; set it on the server and here, or leave {address} out: a run "
                "has a server of its own on loopback"
            )


def _without_password(address: str) -> str:
    return address.rpartition("@")[2] if "@" in address else address
