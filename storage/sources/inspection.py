"""Untrusted files, first opened by a child process that may break.

The libraries that read NetCDF, HDF5, GRIB and Zarr are large and are fed by strangers. A child with
limits of memory and time, without network, opens every file and reads its first values before this
process or a worker does. Then the same bytes are read again here: what crashes, hangs or swells a
reader is met in the child; an exploit that is made to survive it is not.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.conventions.axes import SourceError, UnsafeSource
from storage.guards.named_files import is_remote, resolve

__all__ = ["Inspection", "inspect"]

FIRST_VALUES, ALL_VALUES = 64 << 20, 8 << 30  # bytes that are read of all files together
CHILD = (sys.executable, "-P", "-m", "storage.sources.inspector")
MEMORY = 320 << 20  # that the child may use beyond what its libraries take,
MOST_MEMORY = 2 << 30  # and this for large files
SECONDS, BYTES_PER_SECOND = 3.0, 10e6  # CPU seconds of a file, and what it takes for its size
PATIENCE = 60.0  # seconds without an answer, beyond ten times those of the CPU
_KEPT = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "PYTHONPATH", "LD_LIBRARY_PATH")
_KEPT_PREFIXES = ("ECCODES_", "GRIB_", "SSL_", "PYTHON")


@dataclass
class Inspection:
    """A child at work; `wait` for what it says."""

    files: list[str]
    process: subprocess.Popen[bytes] | None
    deadlines: list[float]
    known: Any = None

    def __enter__(self) -> Inspection:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def wait(self) -> None:
        """Return when every file has been opened and read.

        Raises:
            UnsafeSource, SourceError: What a file is refused for, or how it broke its reader.
        """
        if self.process is None:
            return
        try:
            self._listen(self.process)
        finally:
            self.close()
        _SEEN.add(self.known)

    def close(self) -> None:
        """End the child, whatever it is doing."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        begun, done, rest = -1, 0, b""
        deadline = time.monotonic() + PATIENCE
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while done < len(self.files):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise self._broke(begun, "it gave no answer in time")
                read = os.read(process.stdout.fileno(), 1 << 16)
                if not read:
                    raise self._broke(begun, _death(process.wait()))
                *lines, rest = (rest + read).split(b"\n")
                for line in lines:
                    answer = _answer(line)
                    if "begun" in answer:
                        begun += 1
                        deadline = time.monotonic() + self.deadlines[min(begun, len(self.files))]
                    elif "done" in answer:
                        done += 1
                    elif "memory" in answer:
                        raise self._broke(begun, "it needed more memory than it had")
                    else:
                        kind = UnsafeSource if answer.get("exit_code") == 60 else SourceError
                        raise kind(str(answer.get("message", "refused")))

    def _broke(self, begun: int, how: str) -> Exception:
        if begun < 0:
            return RuntimeError(f"the process that looks at files first did not start: {how}")
        file = self.files[min(begun, len(self.files) - 1)]
        return SourceError(
            f"{file} broke the process that looked at it first: {how} (it may use "
            f"{MEMORY >> 20} MiB and {SECONDS:.0f} s beside what its size allows). Nothing is "
            "ingested; the file is broken or made to harm: replace it or take it out. GRIB on a "
            "large projected grid does that, too: regrid it first (e.g. cdo remapcon)"
        )


def inspect(
    paths: str | Sequence[str],
    variables: Sequence[str],
    *,
    reading: Mapping[str, Any] | None = None,
    whole: bool = False,
) -> Inspection:
    """Start to look at all files that paths and patterns name; `wait()` for the outcome.

    Args:
        variables: Names of fields, as in `open_source`; their first values are read.
        reading: What the configuration says of how files are read.
        whole: Read all values, up to 8 GiB, to find what broke a worker.
    Raises:
        SourceError: If a path names nothing, or something that is not read.
    """
    files = resolve(paths)
    if not files:
        return Inspection(files, None, [])
    sizes = [0 if is_remote(file) else _size(Path(file)) for file in files]
    known = tuple((file, *_stamp(file)) for file in files), tuple(variables), json.dumps(reading)
    if known in _SEEN and not whole:
        return Inspection(files, None, [])
    seconds = [SECONDS + size / BYTES_PER_SECOND for size in sizes]
    wish = {
        "files": [{"path": file} for file in files],
        "variables": list(variables),
        "reading": dict(reading or {}),
        "remote": any(map(is_remote, files)),
        "seconds": seconds,
        "memory": MEMORY + min(4 * max(sizes), MOST_MEMORY),
        "bytes": (ALL_VALUES if whole else FIRST_VALUES) // len(files),
    }
    process = _start(_environment(bool(wish["remote"])))
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.write(json.dumps(wish).encode() + b"\n")
        process.stdin.flush()
    return Inspection(files, process, [PATIENCE + 10 * one for one in seconds], known)


_SEEN: set[Any] = set()  # looked at by this process; it saves time and decides nothing


def _start(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        CHILD,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )


def _environment(remote: bool) -> dict[str, str]:
    """Ours without its secrets, but for those that a remote store is opened with."""
    prefixes = (*_KEPT_PREFIXES, "AWS_", "GOOGLE_") if remote else _KEPT_PREFIXES
    kept = {k: v for k, v in os.environ.items() if k in _KEPT or k.startswith(prefixes)}
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return (
        kept
        | dict.fromkeys(threads, "1")
        | {
            "MALLOC_ARENA_MAX": "2",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
    )


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    return path.stat().st_size


def _stamp(file: str) -> tuple[int, ...]:
    if is_remote(file):
        return ()
    known = os.stat(file)
    return known.st_ino, known.st_size, known.st_mtime_ns


def _answer(line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise SourceError("the process that looks at files first does not answer as it should")
    return answer


def _death(status: int) -> str:
    if status == -signal.SIGXCPU:
        return "it needed more time than it had"
    if status < 0:
        return f"it died of {signal.Signals(-status).name}"
    return f"it ended with status {status}"
