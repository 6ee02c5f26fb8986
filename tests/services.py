"""Programs of others that tests start on loopback: Dask schedulers and workers from the command."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HOUSE = Path(__file__).parent.parent


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def until(condition: Callable[[], object], seconds: float = 120.0, what: str = "") -> None:
    """Return when `condition` holds; an error if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds:.0f} s: {what}")
        time.sleep(0.05)


def stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Certificates:
    """A certificate authority of its own and one pair signed by it, made by openssl."""

    directory: Path
    ca: str = field(init=False)
    cert: str = field(init=False)
    key: str = field(init=False)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True)
        for name in ("ca", "cert", "key"):
            object.__setattr__(self, name, str(self.directory / f"{name}.pem"))
        authority, request = self.directory / "authority.key", self.directory / "request.csr"
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        self._openssl(
            *("req", "-x509", *new, "-days", "2", "-subj", "/CN=spherescore test authority"),
            *("-keyout", str(authority), "-out", self.ca),
        )
        subject = ("-subj", "/CN=spherescore")
        self._openssl("req", *new, *subject, "-keyout", self.key, "-out", str(request))
        self._openssl(
            *("x509", "-req", "-days", "2", "-in", str(request), "-CA", self.ca),
            *("-CAkey", str(authority), "-CAcreateserial", "-out", self.cert),
        )

    @staticmethod
    def _openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)

    @property
    def options(self) -> list[str]:
        """For the commands of Dask."""
        return ["--tls-ca-file", self.ca, "--tls-cert", self.cert, "--tls-key", self.key]

    @property
    def table(self) -> dict[str, str]:
        """For cluster.tls."""
        return {"ca": self.ca, "cert": self.cert, "key": self.key}


@dataclass(kw_only=True)
class DaskCluster:
    """`dask scheduler` and `dask worker` as somebody would start them, outside of any run."""

    address: str
    scheduler: "subprocess.Popen[bytes]"
    workers: "list[subprocess.Popen[bytes]]"


@contextmanager
def dask_cluster(
    directory: Path,
    workers: int = 2,
    tls: Certificates | None = None,
    *,
    gpus: int = 0,
    options: Sequence[str] = ("--nthreads", "1"),
    environment: Mapping[str, str] | None = None,
) -> Iterator[DaskCluster]:
    directory.mkdir(parents=True, exist_ok=True)
    secure = tls.options if tls else []
    address = f"{'tls' if tls else 'tcp'}://127.0.0.1:{free_port()}"
    setting = {
        **os.environ,
        "PYTHONPATH": str(HOUSE),
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "3",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        **(environment or {}),
    }
    with ExitStack() as stack:

        def start(*command: str) -> "subprocess.Popen[bytes]":
            log = stack.enter_context((directory / f"{command[0]}.log").open("ab"))
            process = subprocess.Popen(
                [sys.executable, "-m", "distributed.cli.dask_" + command[0], *command[1:]],
                cwd=directory,
                env=setting,
                stdout=log,
                stderr=log,
            )
            stack.callback(stop, process)
            return process

        port = address.rpartition(":")[2]
        listen = ["--host", address.rpartition(":")[0], "--port", port, "--no-dashboard"]
        scheduler = start("scheduler", *listen, *secure)
        until(lambda: _listens(int(port)), what=(directory / "scheduler.log").read_text())
        started = [
            start(
                *("worker", address, "--host", "127.0.0.1", "--no-dashboard"),
                *("--local-directory", str(directory), *options, *secure),
                *(("--resources", "GPU=1") if number < gpus else ()),
            )
            for number in range(workers)
        ]
        yield DaskCluster(address=address, scheduler=scheduler, workers=started)


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
