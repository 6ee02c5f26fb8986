"""Child processes that serve a run: started so that they can be ended, and ended with us.

Each has a session of its own, SIGINT as it was by default (a job in the background of a shell has
it ignored, and a Prefect worker then survives SIGTERM), and SIGTERM from the kernel if we die. A
child that ends by itself is started again, until it has ended too often.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from flows.errors import ExitCode

GRACE_SECONDS = 20.0  # between SIGTERM and SIGKILL
FEWEST_STABLE_SECONDS = 60.0  # a child that lived longer is forgiven
MOST_RESTARTS = 5
PR_SET_PDEATHSIG = 1


class ServiceFailed(RuntimeError):
    """A service did not start, or ended again and again."""

    exit_code = ExitCode.SERVICE_FAILED


@dataclass(kw_only=True)
class Service:
    """A child process with the file that its output goes to."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    restarts: int = field(default=0)

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                list(self.command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(self.environment),
                start_new_session=True,
                preexec_fn=_die_with_the_parent,
            )
        self.started = time.monotonic()

    def ended(self) -> int | None:
        """The exit status of the child, None while it runs."""
        return None if self.process is None else self.process.poll()

    def stop(self, grace: float = GRACE_SECONDS) -> None:
        """SIGTERM, and SIGKILL to what is left of it and of its children after `grace` seconds."""
        import psutil

        if self.process is None:
            return
        family: list[psutil.Process] = []  # runs that a worker starts have sessions of their own
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(self.process.pid).children(recursive=True)
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(grace)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait()

    def restart_if_ended(self, say: Callable[[str], None]) -> None:
        """Start an ended child again.

        Raises:
            ServiceFailed: If it has ended too often without living for a minute.
        """
        status = self.ended()
        if status is None:
            return
        lived = time.monotonic() - self.started
        self.restarts = 0 if lived > FEWEST_STABLE_SECONDS else self.restarts + 1
        if self.restarts > MOST_RESTARTS:
            raise ServiceFailed(
                f"{self.name} ended {self.restarts} times, last with status {status} after "
                f"{lived:.0f} s; its last words: {self.last_words()!r}; see {self.log}"
            )
        self.stop(grace=0)
        say(f"{self.name} ended with status {status}; it is started again")
        self.start()

    def last_words(self) -> str:
        """The last line of its output."""
        lines = self.log.read_text(errors="replace").split("\n") if self.log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def wait_until(
    ready: Callable[[], bool], service: Service, seconds: float, pause: float = 0.2
) -> None:
    """Wait for a service to answer.

    Raises:
        ServiceFailed: If it ends, or does not answer in time.
    """
    deadline = time.monotonic() + seconds
    while not ready():
        status = service.ended()
        if status is not None or time.monotonic() > deadline:
            what = f"ended with status {status}" if status is not None else "does not answer"
            raise ServiceFailed(
                f"{service.name} {what} after {time.monotonic() - service.started:.0f} s; its last "
                f"words: {service.last_words()!r}; see {service.log}"
            )
        time.sleep(pause)


def _die_with_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


# Loaded before the fork: after it, only what is there already may be called.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
