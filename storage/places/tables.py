"""Arrays that are dear to make, kept in a directory of this host and mapped into its processes.

Each file holds a few flat arrays with names: a line of JSON (their types, sizes and places, and the
sha256 of all that follows), then the numbers. Processes that map one file share one copy in memory.
Files are written beside and renamed; one process makes what several wait for. Everything here can
be made again: the directory may be removed at any time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.places.files import beside_of

__all__ = ["TableCache"]

LOGGER = logging.getLogger("spherescore")
Arrays = dict[str, npt.NDArray[Any]]
Parts = dict[str, list[npt.NDArray[Any]]]  # of arrays, as they follow each other
ALIGNMENT = 64
SUFFIX = ".tables"


class TableCache:
    """Arrays by name below `directory`, which is made if need be.

    Args:
        limit: bytes of all files; beyond it those go that were not used for longest.
    """

    def __init__(self, directory: Path, limit: int = 8 << 30) -> None:
        self.directory, self.limit = directory, limit

    def __call__(self, name: str, make: Callable[[], Parts]) -> Arrays:
        """The arrays of a name, read-only; made and kept if they are not there, or not whole.

        Where nothing can be kept, a warning says why and the arrays are those just made.
        """
        path = self.directory / f"{name}{SUFFIX}"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with _alone(path.with_suffix(".lock")):
                found = _mapped(path)
                if found is None:
                    _write(path, make())
                    self._forget(path)
                    found = _mapped(path)
                if found is None:
                    raise OSError("what was written is not what is read")
                os.utime(path)
                return found
        except OSError as error:
            LOGGER.warning(
                "tables of transforms are not kept in %s (%s): every process makes its own. Set "
                "SPHERESCORE_CACHE to a directory with room",
                self.directory,
                error,
            )
            made = make()
            return {name: np.concatenate([p.ravel() for p in made[name]]) for name in made}

    def _forget(self, newest: Path) -> None:
        others = [path for path in self.directory.glob(f"*{SUFFIX}") if path != newest]
        others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        size = newest.stat().st_size
        for path in others:
            size += path.stat().st_size
            if size > self.limit:
                path.unlink(missing_ok=True)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """While no other process of this host is inside; the system frees the lock of a dead one."""
    with lock.open("wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _write(path: Path, made: Parts) -> None:
    digest, end, entries = hashlib.sha256(), 0, {}
    parts: list[Any] = []
    for name, several in made.items():
        size = sum(part.nbytes for part in several)
        entries[name] = {"dtype": several[0].dtype.str, "bytes": size, "start": end}
        pad = bytes(-size % ALIGNMENT)
        parts += [np.ascontiguousarray(p).reshape(-1).view(np.uint8).data for p in several]
        parts.append(pad)
        end += size + len(pad)
    for part in parts:
        digest.update(part)
    head = json.dumps({"arrays": entries, "sha256": digest.hexdigest()}).encode()
    head += b" " * (-(len(head) + 1) % ALIGNMENT) + b"\n"
    beside = beside_of(path)
    try:
        with beside.open("wb") as stream:
            for part in (head, *parts):
                stream.write(part)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _mapped(path: Path) -> Arrays | None:
    """The arrays of a file without copying, or None if it is not there or not what was written."""
    try:
        with path.open("rb") as stream:
            head = json.loads(stream.readline())
            start = stream.tell()
            whole = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        content = memoryview(whole)[start:]
        if hashlib.sha256(content).hexdigest() != head["sha256"]:
            raise ValueError("its digest is another")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        LOGGER.warning("%s is damaged (%s) and is made again", path, error)
        return None
    found = {}
    for name, entry in head["arrays"].items():
        dtype = np.dtype(entry["dtype"])
        count = entry["bytes"] // dtype.itemsize
        found[name] = np.frombuffer(content, dtype, count, entry["start"])
    return found
