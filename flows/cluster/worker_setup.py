"""What a worker process is before it does a unit: of the same code as the run that sends it, in
its directory, on one thread.

Workers that are not started by the run may be of another installation. The bytes that they write
would be others, so they are refused; they are asked when a run connects, and again, because
workers come and go, with every unit.
"""

import hashlib
import logging
import os
import platform
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from flows.errors import ExitCode
from flows.processes.log_relay import lines_told
from flows.processes.transform_cache import share_tables

U = TypeVar("U")
R = TypeVar("R")

DECIDE_BYTES = ("dask", "distributed", "ducc0", "numpy", "scipy", "torch", "xarray", "zarr")
# A module of each package, for its directory. The packages themselves do not tell it everywhere: a
# worker's path begins with its own directory, where Dask keeps a folder named `storage`.
HOUSE = ("pipeline.sphere.grid", "storage.artifacts.keys", "flows.cluster.worker_setup")

LINES = 100  # of what one unit logs, that come back with its result

_ONCE = threading.Lock()


class OtherCode(RuntimeError):
    """A worker is of another installation than the run."""

    exit_code = ExitCode.OTHER_CODE


@dataclass(frozen=True)
class Installation:
    """What decides the bytes that a process writes, and where its relative paths begin.

    Attributes:
        directory: the working directory of the run.
        versions: of Python, of packages, and the digest of the code of this one, by name.
    """

    directory: str
    versions: Mapping[str, str]

    def differs_from(self, theirs: Mapping[str, str]) -> str:
        """What `theirs` has otherwise, in words; "" if nothing."""
        return ", ".join(
            f"{name} {theirs.get(name, 'absent')} instead of {ours}"
            for name, ours in self.versions.items()
            if theirs.get(name) != ours
        )


@cache
def versions() -> Mapping[str, str]:
    """Versions in this process: Python, packages that decide bytes, the digest of our code."""
    digest = hashlib.sha256()
    for module in HOUSE:
        spec = find_spec(module)
        assert spec is not None and spec.origin is not None
        package = Path(spec.origin).parent
        for path in sorted(package.rglob("*.py")):
            digest.update(path.relative_to(package.parent).as_posix().encode())
            digest.update(path.read_bytes())
    named = {name: version(name).partition("+")[0] for name in DECIDE_BYTES}
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, **named, "code": digest.hexdigest()[:16]}


def installation() -> Installation:
    """The installation of this process."""
    return Installation(os.getcwd(), versions())


def do_unit(run: Installation, function: Callable[[U], R], unit: U) -> R:
    """Apply `function` to a unit in a process that is as the run needs it. Runs on a worker.

    Raises:
        OtherCode: If this worker is of another installation.
    """
    with _ONCE:
        _prepare()
        theirs = versions()
    if os.getcwd() != run.directory and os.path.isdir(run.directory):
        os.chdir(run.directory)
    if run.versions != theirs:
        raise OtherCode(
            f"the worker {platform.node()}:{os.getpid()} has {run.differs_from(theirs)}; "
            "install the same version there, and start its workers again"
        )
    return function(unit)


def do_unit_aloud(
    run: Installation, function: Callable[[U], R], unit: U
) -> tuple[R, list[tuple[int, str]]]:
    """`do_unit`, and what was logged meanwhile: levels and lines, for the log of the run."""
    lines: list[tuple[int, str]] = []
    here = f"worker {platform.node()}:{os.getpid()}"

    def keep(record: logging.LogRecord) -> None:
        if len(lines) < LINES:
            lines.append((record.levelno, f"{here}: {record.getMessage()}"))

    with lines_told(keep):
        return do_unit(run, function, unit), lines


@cache
def _prepare() -> None:
    """Once in each process: workers that others started may not have our limits of threads."""
    import scipy.linalg  # noqa: F401  its BLAS is limited only if it is there
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    share_tables()
