"""Everything on one machine: Prefect server and worker, Dask scheduler and workers, deployments.

    DIRECTORY/
      environment     lines for a shell that is to speak to this server
      secret          user and password of the server
      prefect.db      what Prefect knows, and beside it leases of slots and results
      *.log           output of each child

All children listen on loopback and end with us.
"""

import http.client
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from flows.cluster.remote import SCHEDULER
from flows.deployments.prefect_settings import (
    client_environment,
    kept_secret,
    server_environment,
    shell_lines,
)
from flows.processes.network_boundary import LOOPBACK
from flows.processes.supervisor import Service, wait_until

READY_SECONDS = 120.0
POOL = "spherescore"


@dataclass(frozen=True, kw_only=True)
class Ports:
    """0 is a free one."""

    server: int = 4200
    scheduler: int = 8786
    dashboard: int = 8787

    def resolved(self) -> "Ports":
        """With free ports for those that are 0.

        Raises:
            OSError: If one that was asked for is taken.
        """
        return Ports(**{name: free_port(number) for name, number in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What runs, and how to speak to it."""

    state: Path
    ports: Ports
    services: Sequence[Service]
    environment: Mapping[str, str]

    @property
    def ui(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.server}"

    @property
    def scheduler(self) -> str:
        return f"tcp://{LOOPBACK}:{self.ports.scheduler}"

    @property
    def dashboard(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.dashboard}"

    def service(self, name: str) -> Service:
        return next(one for one in self.services if one.name == name)

    def look_after(self, say: Callable[[str], None], seconds: float | None = None) -> None:
        """Start children again that end, for ever or for a while."""
        until = None if seconds is None else time.monotonic() + seconds
        while until is None or time.monotonic() < until:
            for one in self.services:
                one.restart_if_ended(say)
            time.sleep(0.5)


@contextmanager
def machine(
    state: Path, *, ports: Ports | None = None, workers: int = 2, runs_at_once: int = 2
) -> Iterator[Machine]:
    """Start server, Dask cluster and Prefect worker; all have ended when the block is left.

    Args:
        state: Directory for all that they keep.
        workers: Processes of the Dask cluster, of one thread each.
        runs_at_once: Flow runs that the Prefect worker has at the same time.
    Raises:
        ServiceFailed: If one of them does not start.
    """
    state = state.absolute()
    secret, ports = kept_secret(state), (ports or Ports()).resolved()
    serving = server_environment(state, ports.server, secret)
    asking = client_environment(state, ports.server, secret)
    asking[SCHEDULER] = f"tcp://{LOOPBACK}:{ports.scheduler}"

    def service(name: str, environment: Mapping[str, str], *command: str) -> Service:
        return Service(
            name=name,
            command=[sys.executable, "-m", *command],
            environment=environment,
            log=state / f"{name}.log",
        )

    server = service("server", serving, "prefect", "server", "start")
    scheduler = service(
        "scheduler",
        asking,
        *("distributed.cli.dask_scheduler", "--host", LOOPBACK),
        *("--port", str(ports.scheduler)),
        *("--dashboard-address", f"{LOOPBACK}:{ports.dashboard}"),
    )
    dask = [
        service(
            f"dask-worker-{number}",
            asking,
            *("distributed.cli.dask_worker", f"tcp://{LOOPBACK}:{ports.scheduler}"),
            *("--host", LOOPBACK, "--nthreads", "1", "--nworkers", "1"),
            *("--dashboard-address", f"{LOOPBACK}:0"),
            *("--local-directory", str(state / "dask"), "--name", f"worker-{number}"),
        )
        for number in range(workers)
    ]
    worker = service(
        "worker",
        asking,
        *("prefect", "worker", "start", "--pool", POOL, "--type", "process"),
        *("--name", socket.gethostname(), "--limit", str(runs_at_once)),
    )
    with ExitStack() as stack:
        for one in (server, scheduler, *dask):
            stack.callback(one.stop)
            one.start()
        wait_until(lambda: answers(ports.server, "/api/health"), server, READY_SECONDS)
        wait_until(lambda: answers(ports.dashboard, "/health"), scheduler, READY_SECONDS)
        stack.callback(worker.stop)
        worker.start()
        (state / "environment").write_text(shell_lines(asking))
        (state / "environment").chmod(0o600)
        yield Machine(
            state=state,
            ports=ports,
            services=(server, scheduler, *dask, worker),
            environment=asking,
        )


def free_port(wanted: int = 0) -> int:
    """The port, or a free one for 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, wanted))
        except OSError as error:
            raise OSError(
                error.errno, f"port {wanted} of {LOOPBACK} is taken; name another one"
            ) from error
        return int(probe.getsockname()[1])


def answers(port: int, path: str) -> bool:
    """Whether a web server on loopback says 200."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
