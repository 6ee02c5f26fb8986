"""Ends what a run has started when the run itself is killed.

A process that SIGKILL ends cannot stop its children: Dask's workers notice and exit, Prefect's
server and whatever a stage has started would live on. So a run is `watched`: a small process in a
session of its own reads from a pipe that only the run holds open. If the pipe closes before the run
has said that it is over, the watcher ends every process that carries the run's mark in its
environment, SIGTERM first, SIGKILL after three seconds. So it does after an interruption, in which
a block may have been left before what it has started was.
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from flows.processes.signals import caught

MARK = "SPHERESCORE_RUN"
OVER = b"over"
PATIENCE = 3.0  # seconds between SIGTERM and SIGKILL


@contextmanager
def watched() -> Iterator[None]:
    """If this process is killed inside the block, whatever it started there ends, too."""
    mark, before = secrets.token_hex(16), os.environ.pop(MARK, None)
    watcher = subprocess.Popen(
        [sys.executable, "-P", "-m", "flows.processes.watchdog", mark],  # -P: not from where we are
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.environ[MARK] = mark
    try:
        yield
    finally:
        os.environ.pop(MARK)
        if before is not None:
            os.environ[MARK] = before
        with suppress(OSError, subprocess.TimeoutExpired):
            if caught() is None:
                watcher.communicate(OVER, timeout=30)
            else:
                assert watcher.stdin is not None
                watcher.stdin.close()


def end(mark: str) -> None:
    """End every process of this user that has the mark in its environment."""
    import psutil

    def marked() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                    found.append(process)
        return found

    for process in marked():
        with suppress(psutil.Error):
            process.terminate()
    psutil.wait_procs(marked(), timeout=PATIENCE)
    for process in marked():
        with suppress(psutil.Error):
            process.kill()


if __name__ == "__main__":
    if sys.stdin.buffer.read() != OVER:
        end(sys.argv[1])
