"""Ends what a run has started when the run itself is killed.

A process that SIGKILL ends cannot stop its children: Dask's workers notice and exit, Prefect's
server and whatever a stage has started would live on. So a run is `watched`: a small process in a
session of its own reads from a pipe that only the run holds open. When the run is over, however it
ended, the pipe closes, and the watcher ends every process that carries the run's mark in its
environment, SIGTERM first, SIGKILL after three seconds.
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

MARK = "SPHERESCORE_RUN"
PATIENCE = 3.0  # seconds between SIGTERM and SIGKILL


@contextmanager
def watched() -> Iterator[None]:
    """Whatever this process starts inside the block, directly or not, ends with it."""
    mark, before = secrets.token_hex(16), os.environ.pop(MARK, None)
    watcher = subprocess.Popen(
        [sys.executable, "-m", "flows.orphans", mark],
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
        assert watcher.stdin is not None
        with suppress(OSError):
            watcher.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            watcher.wait(4 * PATIENCE)


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
    sys.stdin.buffer.read()
    end(sys.argv[1])
