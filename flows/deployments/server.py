"""The Prefect server of PREFECT_API_URL, which answers or is said not to."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flows.deployments.prefect_settings import QUIET, RUN, resolved_settings
from flows.errors import ExitCode
from flows.processes.network_boundary import require_guarded_prefect, without_password

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


class ServerUnavailable(RuntimeError):
    """No Prefect server answers where one was expected."""

    exit_code = ExitCode.NO_SERVER


class NotDeployed(RuntimeError):
    """The server lacks something, or what is scheduled does not happen."""

    exit_code = ExitCode.NOT_DEPLOYED


def set_client_environment() -> None:
    """Settings of Prefect for a command that speaks to a server; those that are made stand."""
    for name, value in (QUIET | RUN).items():
        os.environ.setdefault(name, value)


@contextmanager
def server() -> Iterator["SyncPrefectClient"]:
    """A client of the server, whose answer has been seen.

    Raises:
        Refused: If it is beyond loopback, and there is no key for it.
        ServerUnavailable: If none answers.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if url is None:
        raise ServerUnavailable(
            "PREFECT_API_URL is not set; `spherescore up DIRECTORY` starts a server and writes "
            "DIRECTORY/environment, which sets it"
        )
    require_guarded_prefect(resolved_settings())
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pools(limit=1)
        except Exception as error:
            said = str(error).replace(url, without_password(url))
            raise ServerUnavailable(
                f"no Prefect server answers at {without_password(url)} "
                f"({type(error).__name__}: {said}); see whether it runs, and whether "
                "PREFECT_API_AUTH_STRING is the server's"
            ) from None
        yield client
