"""Which files a source is: what paths, patterns and addresses name; what is not read is refused."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from storage.conventions.axes import SourceError, UnsafeSource

__all__ = ["begins_with", "is_remote", "resolve"]

_REMOTE = re.compile(r"(https?|s3)://[^\s:]")


def resolve(paths: str | Sequence[str]) -> list[str]:
    """The files that paths and patterns name, each once; addresses as they are.

    Raises:
        SourceError: For a path that names nothing, and for addresses that are not read.
    """
    found: list[str] = []
    for path in [paths] if isinstance(paths, str) else paths:
        _require_address(path)
        if is_remote(path):
            found.append(path)
            continue
        matches = sorted(glob.glob(path))
        if not matches:
            raise SourceError(f"{path}: no such file (looked from {Path.cwd()})")
        for match in matches:
            _require_printable(match)
            if not (os.path.isfile(match) or os.path.isdir(match)):
                raise UnsafeSource(
                    f"{match} is neither a file nor a directory (a pipe, a socket or a device); "
                    "write what it gives to a file"
                )
        found += matches
    return list(dict.fromkeys(found))


def _require_address(path: str) -> None:
    _require_printable(path)
    if "::" in path:
        raise UnsafeSource(
            f"{path} is a chain of file systems; sources are local files, or Zarr stores at "
            "http(s):// or s3://; download it first"
        )
    _, there, rest = path.partition("://")
    if not there:
        return
    if "@" in rest.split("/", 1)[0] or "?" in rest or "#" in rest:
        host = rest.split("/", 1)[0].rpartition("@")[2].split("?")[0]
        raise UnsafeSource(
            f"the address at {host} has a user, a password or a query in it, which would be "
            "written into every artifact; take it out. Keys of s3:// come from the environment "
            "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
        )
    if not is_remote(path) or ".." in rest.split("/"):
        raise SourceError(
            f"{path}: sources are local files, or Zarr stores at http(s):// or s3://; "
            "download it first"
        )


def _require_printable(path: str) -> None:
    if not path.isprintable():
        raise UnsafeSource(f"the path {path!r} has control characters; rename the file")


def is_remote(path: str) -> bool:
    return _REMOTE.match(path) is not None


def begins_with(path: str, magic: bytes) -> bool:
    if is_remote(path) or not Path(path).is_file():
        return False
    with Path(path).open("rb") as stream:
        return stream.read(len(magic)) == magic
