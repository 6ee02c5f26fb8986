"""Arrays that are dear to make, kept in a directory of this host and mapped into its processes.

Each file holds a few named arrays: a line of JSON (their types, shapes and places, and the sha256
of all that follows), then the numbers. Processes that map the same file share one copy in memory.
Files are written beside and renamed; one process makes what several wait for. Everything here can
be made again: the directory may be removed at any time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import math
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.files import beside_of

__all__ = ["TableCache"]

LOGGER = logging.getLogger("spherescore")
Arrays = dict[str, npt.NDArray[Any]]
ALIGNMENT = 64
SUFFIX = ".tables"


class TableCache:
    """Arrays by name below `directory`, which is made if need be.

    Args:
        limit: bytes of all files; beyond it those go that were not used for longest.
    """

    def __init__(self, directory: Path, limit: int = 8 << 30) -> None:
        self.directory, self.limit = directory, limit

    def __call__(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """The arrays of a name, read-only; made and kept if they are not there, or not whole.

        Where nothing can be kept, a warning says why and the arrays are those just made.
        """
        path, made = self.directory / f"{name}{SUFFIX}", None
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with _alone(path.with_suffix(".lock")):
                found = _mapped(path)
                if found is not None:
                    os.utime(path)
                    return found
                made = make()
                _write(path, made)
                self._forget(path)
                return _mapped(path) or made
        except OSError as error:
            LOGGER.warning(
                "tables of transforms are not kept in %s (%s): every process makes its own. Set "
                "SPHERESCORE_CACHE to a directory with room",
                self.directory,
                error,
            )
            return make() if made is None else made

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


def _write(path: Path, arrays: Arrays) -> None:
    digest, end, entries = hashlib.sha256(), 0, {}
    parts: list[Any] = []
    for name, array in arrays.items():
        whole = np.ascontiguousarray(array)
        entries[name] = {"dtype": whole.dtype.str, "shape": whole.shape, "start": end}
        pad = bytes(-whole.nbytes % ALIGNMENT)
        parts += [whole.reshape(-1).view(np.uint8).data, pad]
        end += whole.nbytes + len(pad)
    for part in parts:
        digest.update(part)
    head = json.dumps({"arrays": entries, "size": end, "sha256": digest.hexdigest()}).encode()
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
        dtype, count = np.dtype(entry["dtype"]), math.prod(entry["shape"])
        flat = np.frombuffer(content, dtype, count, entry["start"])
        found[name] = flat.reshape(entry["shape"])
    return found
