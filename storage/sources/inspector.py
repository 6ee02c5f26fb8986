"""The child process that looks at untrusted files first; started by storage/sources/inspection.

It takes one JSON object from its standard input and answers a line of JSON for every file that it
begins and every file that it has read. Before the first one it gives up what it does not need: the
network, writing, other programs, memory and time beyond what its parent grants. What breaks a
reader breaks this process.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

BLOCK = 8 << 20  # bytes of values read at once
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_USED = 0  # by the libraries, when they are loaded
_FORBIDDEN = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "socket.bind",
)
_FORBIDDEN_TOO = ("socket.connect", "socket.getaddrinfo", "pickle.find_class", "os.remove")


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)  # libraries print
    os.dup2(nothing, 2)
    wish = json.loads(sys.stdin.buffer.readline())
    if not wish["remote"]:
        _leave_network()
    import storage.sources.sources  # noqa: F401 - before anything is given up: it reads many files

    _load_readers()
    _give_up(wish)

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    for number, file in enumerate(wish["files"]):
        _grant_seconds(wish["seconds"][number])
        answer(begun=number)
        try:
            found = _look(file, wish)
        except MemoryError:
            answer(memory=number)
            os._exit(0)
        except Exception as error:
            code = int(getattr(error, "exit_code", 10))
            text = " ".join(str(error).split()) or type(error).__name__
            answer(refused=number, message=text[:2000], exit_code=code)
            os._exit(0)
        answer(done=number, **found)
    os._exit(0)  # nothing of a hostile file is taken down in order


def _look(file: Mapping[str, Any], wish: Mapping[str, Any]) -> dict[str, Any]:
    from storage.conventions.axes import SourceError
    from storage.conventions.levels import split_name
    from storage.guards.named_files import begins_with
    from storage.sources.formats.opening import UNREADABLE, open_tables
    from storage.sources.formats.reading import Reading

    path = file["path"]
    if begins_with(path, b"\x89HDF"):
        from storage.guards.hdf5 import require_plain

        try:
            require_plain(path)
        except SourceError:
            raise
        except Exception as error:
            raise SourceError(
                f"{path} cannot be opened, truncated or corrupt? ({' '.join(str(error).split())})"
            ) from error
    tables = open_tables(path, Reading(**wish["reading"]))
    wanted = {base for name in wish["variables"] for base in (name, split_name(name)[0])}
    try:
        size = 0
        for table in tables:
            for name, variable in table.variables.items():
                if str(name) in wanted:
                    _grant_memory(wish["memory"] + 3 * _chunk(variable))
                    for block in _blocks(variable, wish["bytes"]):
                        size += block
                elif variable.ndim < 2 and variable.size < 1 << 24:
                    size += variable.values.nbytes
    except SourceError:
        raise
    except UNREADABLE as error:
        raise SourceError(
            f"{path} cannot be read through, truncated or corrupt? ({' '.join(str(error).split())})"
        ) from error
    return {"tables": len(tables), "bytes": size}


def _blocks(variable: Any, budget: int) -> Iterator[int]:
    """Read from the beginning, whole stored chunks along the first dimension; their bytes."""
    if variable.ndim == 0:
        yield variable.values.nbytes
        return
    dim, length = variable.dims[0], variable.shape[0]
    one = max(1, variable.size // max(1, length)) * variable.dtype.itemsize
    chunk = max(1, int((variable.encoding.get("preferred_chunks") or {}).get(dim, 1)))
    if max(_chunk(variable), chunk * one if chunk > 1 else 0) > max(BLOCK, budget):
        return
    step = chunk * max(1, BLOCK // (chunk * one))
    for start in range(0, length, step):
        if start * one >= budget:
            return
        yield variable.isel({dim: slice(start, start + step)}).values.nbytes


def _chunk(variable: Any) -> int:
    """Bytes that have to be decoded at once."""
    stored = variable.encoding.get("preferred_chunks") or {}
    size = prod(int(stored.get(dim, 1)) for dim in variable.dims) if stored else 0
    return min(int(size) * int(variable.dtype.itemsize), 1 << 30)


def _load_readers() -> None:
    import h5py  # noqa: F401
    import netCDF4  # noqa: F401
    import xarray.backends.zarr  # noqa: F401


def _leave_network() -> None:
    """A network of its own with nothing in it, where the system lets us; else the hook stands."""
    unshare = getattr(ctypes.CDLL(None, use_errno=True), "unshare", None)
    if unshare is not None:
        flags = _NEW_NETWORK | (0 if os.geteuid() == 0 else _NEW_USER)
        unshare(flags)


def _give_up(wish: Mapping[str, Any]) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    global _USED
    with open("/proc/self/statm") as file:
        _USED = int(file.read().split()[0]) * resource.getpagesize()
    _grant_memory(wish["memory"])
    forbidden = {*_FORBIDDEN, *_FORBIDDEN_TOO}
    remote = bool(wish["remote"])

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event in forbidden and not remote:
            raise PermissionError(f"{event} while a foreign file is read")

    sys.addaudithook(refuse)


def _grant_memory(size: int) -> None:
    """Bytes beside what the libraries take; the system refuses more."""
    resource.setrlimit(resource.RLIMIT_AS, (_USED + size, resource.RLIM_INFINITY))


def _grant_seconds(seconds: float) -> None:
    """CPU seconds for the next file; SIGXCPU ends the process when they are over."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(usage.ru_utime + usage.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
