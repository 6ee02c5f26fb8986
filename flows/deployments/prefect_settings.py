"""Settings of Prefect's server, of its clients and of runs that a worker starts, in one place.

Each line stands against something that was seen to go wrong without it; a setting that the user has
made in the environment stands.
"""

import os
import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path

from flows.processes.network_boundary import LOOPBACK, require_guarded_prefect
from storage.artifacts.layout import StoreLayout

PROBE = "spherescore-probe"  # the flow that shows that what is scheduled happens
HEARTBEAT_SECONDS = 30  # between signs of life of a run; Prefect takes no fewer
SILENCE = 3  # heartbeats that may fail to come before a run is called crashed

# Nothing leaves the machine.
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_CLI_COLORS": "false",
}

# Of a run on its own, with a server that begins and ends with it.
EMBEDDED = QUIET | {
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # Stages speak for themselves on stderr; Prefect's view of them is in its database.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_CLIENT_MAX_RETRIES": "3",  # 14 s; a server that has died keeps nobody longer
}

# Of runs that a worker starts.
RUN = {
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
    # Lines of our stages belong to the task runs that say them; those of other threads to none.
    "PREFECT_LOGGING_EXTRA_LOGGERS": "spherescore",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",  # the default is a pickle
}

IDENTITY = (  # which server is meant: never taken over from the environment
    "PREFECT_HOME",
    "PREFECT_PROFILE",
    "PREFECT_API_URL",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_SERVER_API_HOST",
    "PREFECT_SERVER_API_PORT",
    "PREFECT_SERVER_API_AUTH_STRING",
    "PREFECT_UI_API_URL",
    "PREFECT_UI_URL",
)


def set_prefect_environment(layout: StoreLayout) -> None:
    """Prefect's settings for a run on its own: an embedded server, state below the root.

    Settings that the user has made in the environment stand. To be called before Prefect is
    imported, which reads them once.

    Raises:
        Refused: If Prefect's settings, wherever they come from (the environment, `.env`,
            `prefect.toml`, `pyproject.toml`, a profile), name a server beyond loopback and no key
            for it.
    """
    for name, value in EMBEDDED.items():
        os.environ.setdefault(name, value)
    if "PREFECT_HOME" not in os.environ:
        home = layout.prefect.absolute()
        home.mkdir(parents=True, exist_ok=True)
        os.environ["PREFECT_HOME"] = str(home)
    require_guarded_prefect(resolved_settings())


def resolved_settings() -> dict[str, str]:
    """All settings of Prefect by the names of their variables, as Prefect itself has read them."""
    from prefect.settings import get_current_settings

    return get_current_settings().to_environment_variables(include_secrets=True)


def heartbeat_window() -> int:
    """Seconds without a heartbeat after which a run is called crashed.

    Made of the frequency itself: with a shorter window healthy runs were called crashed.
    """
    frequency = int(os.environ.get("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", HEARTBEAT_SECONDS))
    return SILENCE * frequency


def server_environment(state: Path, port: int, secret: str) -> dict[str, str]:
    """The environment of a server that keeps what it knows below `state`."""
    address = f"http://{LOOPBACK}:{port}"
    return _over_ours(
        QUIET
        | RUN
        | {
            "PREFECT_HOME": str(state),
            "PREFECT_SERVER_API_HOST": LOOPBACK,
            # Not by --port: the UI would still look for the API at 4200.
            "PREFECT_SERVER_API_PORT": str(port),
            "PREFECT_UI_API_URL": f"{address}/api",
            "PREFECT_UI_URL": address,  # for links in what the server tells of failed runs
            "PREFECT_SERVER_API_AUTH_STRING": secret,
            "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
            "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": address,
            # In memory, slots that are held while a server restarts would be lost for good.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
                "prefect.server.concurrency.lease_storage.filesystem"
            ),
            "PREFECT_SERVER_METRICS_ENABLED": "true",
        }
    )


def client_environment(state: Path, port: int, secret: str) -> dict[str, str]:
    """The environment of all that speak to that server: workers, runs, commands."""
    return _over_ours(
        QUIET
        | RUN
        | {
            "PREFECT_HOME": str(state),
            "PREFECT_API_URL": f"http://{LOOPBACK}:{port}/api",
            "PREFECT_API_AUTH_STRING": secret,
            "PREFECT_WORKER_QUERY_SECONDS": "5",
        }
    )


def kept_secret(state: Path) -> str:
    """The server's user and password, made once; only the owner can read them."""
    path = state / "secret"
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w") as out:
            out.write(f"spherescore:{secrets.token_urlsafe(24)}")
    return path.read_text()


def shell_lines(environment: Mapping[str, str]) -> str:
    """What another terminal reads to speak to the same server."""
    names = ("PREFECT_HOME", "PREFECT_API_URL", "PREFECT_API_AUTH_STRING", *RUN)
    return "".join(f"export {name}={shlex.quote(environment[name])}\n" for name in names)


def _over_ours(wanted: Mapping[str, str]) -> dict[str, str]:
    """Our environment with these settings, where the user has not made them; never two servers."""
    ours = {name: value for name, value in os.environ.items() if name not in IDENTITY}
    standing = {name: value for name, value in ours.items() if name.startswith("PREFECT_")}
    return ours | dict(wanted) | standing
