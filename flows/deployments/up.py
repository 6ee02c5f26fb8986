"""Everything on one machine: Prefect server and worker, Dask scheduler and workers, deployments.

    DIRECTORY/
      environment     lines for a shell that is to speak to this server
      secret          user and password of the server
      tls/            certificates of the Dask cluster, made anew at each start
      lock            held by the `up` that is at work here, and says which that is
      prefect.db      what Prefect knows, and beside it leases of slots and results
      *.log           output of each child

All children listen on loopback and end with us.
"""

import fcntl
import http.client
import os
import shlex
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
from flows.processes.supervisor import Service, ServiceFailed, wait_until

READY_SECONDS = 120.0
POOL = "spherescore"


@dataclass(frozen=True, kw_only=True)
class Ports:
    """0 is a free one."""

    server: int = 4200
    scheduler: int = 8786
    dashboard: int = 8787

    def resolved(self) -> "Ports":
        """The ports, with free ones in the place of those that are 0.

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
        return self.environment[SCHEDULER]

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
    with _alone(state.absolute()):
        yield from _machine(state.absolute(), (ports or Ports()).resolved(), workers, runs_at_once)


def _machine(state: Path, ports: Ports, workers: int, runs_at_once: int) -> Iterator[Machine]:
    secret, certificates = kept_secret(state), _certificates(state / "tls")
    serving = server_environment(state, ports.server, secret)
    asking = client_environment(state, ports.server, secret)
    meeting = {SCHEDULER: f"tls://{LOOPBACK}:{ports.scheduler}"}
    meeting |= {f"DASK_DISTRIBUTED__COMM__TLS__{name}": at for name, at in certificates.items()}
    asking |= meeting

    def service(name: str, environment: Mapping[str, str], *command: str) -> Service:
        return Service(
            name=name,
            command=[sys.executable, "-m", *command],
            environment=environment,
            log=state / f"{name}.log",
        )

    server = service("server", serving, "prefect", "server", "start")
    scheduler, *dask = (
        service(name, asking, *command)
        for name, command in _dask_commands(state, ports, workers, certificates).items()
    )
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
        lines = "".join(f"export {name}={shlex.quote(at)}\n" for name, at in meeting.items())
        write_for_owner(state / "environment", shell_lines(asking) + lines)
        yield Machine(
            state=state,
            ports=ports,
            services=(server, scheduler, *dask, worker),
            environment=asking,
        )


def _dask_commands(
    state: Path, ports: Ports, workers: int, certificates: Mapping[str, str]
) -> dict[str, Sequence[str]]:
    """The modules of Dask's scheduler and workers with their options, the scheduler first."""
    secure = [
        *("--tls-ca-file", certificates["CA_FILE"]),
        *("--tls-cert", certificates["CLIENT__CERT"]),
        *("--tls-key", certificates["CLIENT__KEY"]),
    ]
    scheduler = [
        *("distributed.cli.dask_scheduler", "--host", LOOPBACK),
        *("--protocol", "tls", "--port", str(ports.scheduler), *secure),
        *("--dashboard-address", f"{LOOPBACK}:{ports.dashboard}"),
    ]
    each = [
        *("distributed.cli.dask_worker", f"tls://{LOOPBACK}:{ports.scheduler}", *secure),
        *("--host", LOOPBACK, "--nthreads", "1", "--nworkers", "1"),
        *("--dashboard-address", f"{LOOPBACK}:0", "--local-directory", str(state / "dask")),
    ]
    return {
        "scheduler": scheduler,
        **{f"dask-worker-{n}": [*each, "--name", f"worker-{n}"] for n in range(workers)},
    }


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Hold the directory: two servers on one database would lose what either of them writes.

    Raises:
        ServiceFailed: If another `up` holds it, or if its disk has no locks.
    """
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = state / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServiceFailed(
                f"{state} is in use by another `spherescore up`, {held.read() or 'just started'}; "
                f"speak to that one (. {state}/environment), end it, or name another directory"
            ) from None
        except OSError as error:
            raise ServiceFailed(
                f"{state} lies on a disk without file locks ({error.strerror}), which the server's "
                "database needs; name a directory on a local disk"
            ) from error
        held.truncate(0)
        held.write(f"process {os.getpid()} of {socket.gethostname()}")
        held.flush()
        yield


def _certificates(directory: Path) -> dict[str, str]:
    """Paths of a certificate that the Dask cluster shows and asks for, by the end of the names of
    Dask's settings. Whoever cannot read it, another user of this machine, reaches no worker."""
    from distributed.security import Security

    made = Security.temporary()
    directory.mkdir(exist_ok=True, mode=0o700)
    texts = {
        "CA_FILE": ("ca.pem", made.tls_ca_file),
        "CLIENT__CERT": ("cert.pem", made.tls_client_cert),
        "CLIENT__KEY": ("key.pem", made.tls_client_key),
    }
    for file, text in texts.values():
        write_for_owner(directory / file, text)
    return {name: str(directory / file) for name, (file, _) in texts.items()}


def write_for_owner(path: Path, text: str) -> None:
    """Write a file that nobody else can read at any time, whole before it has its name."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(text)
    beside.replace(path)


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
