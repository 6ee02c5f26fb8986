"""Which files a source is: what paths, patterns and addresses name; what is not read is refused."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from storage.conventions.axes import SourceError, UnsafeSource

__all__ = ["begins_with", "is_remote", "matching_files", "resolve", "told_apart"]

_REMOTE = re.compile(r"(https?|s3|gs)://[^\s:]")


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
        matches = matching_files(path)
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


def told_apart(files: Sequence[str]) -> list[str]:
    """Names of files for messages: the last part of each path, and as many parts before it as tell
    it from others that end alike."""
    parts = [Path(file).parts for file in files]
    names: dict[tuple[str, ...], str] = {}
    waiting, deep = set(parts), 0
    while waiting:
        deep += 1
        alike = Counter(own[-deep:] for own in waiting)
        apart = {own for own in waiting if alike[own[-deep:]] == 1 or len(own) <= deep}
        names |= {own: "/".join(own[-deep:]) for own in apart}
        waiting -= apart
    return [names[own] for own in parts]


def matching_files(path: str) -> list[str]:
    """What a path or a pattern names here, in order: a path that is there is no pattern.

    `**` is any number of directories; each file that it leads to is taken once, and what lies in a
    Zarr store is the store's.
    """
    if os.path.lexists(path):
        return [path]
    matches = sorted(glob.glob(_literal_as_far_as_it_is_there(path), recursive=True))
    if "**" not in Path(path).parts:
        return matches
    inside, real, found = [one for one in matches if _is_store(one)], set[str](), []
    for match in matches:
        within = any(match.startswith(f"{store.rstrip('/')}/") for store in inside)
        directory = os.path.isdir(match) and match not in inside
        if not within and not directory and (place := os.path.realpath(match)) not in real:
            real.add(place)
            found.append(match)
    return found


def _literal_as_far_as_it_is_there(pattern: str) -> str:
    """A pattern whose first directories are there by their letters, with these quoted."""
    parts = Path(pattern).parts
    for count in range(len(parts) - 1, 0, -1):
        head = os.path.join(*parts[:count])
        if os.path.isdir(head):
            return os.path.join(glob.escape(head), *parts[count:])
    return pattern


def _is_store(path: str) -> bool:
    documents = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
    return any(os.path.exists(os.path.join(path, name)) for name in documents)


def _require_address(path: str) -> None:
    _require_printable(path)
    if "::" in path:
        raise UnsafeSource(
            f"{path} is a chain of file systems; sources are local files, or Zarr stores at "
            "http(s)://, s3:// or gs://; download it first"
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
            f"{path}: sources are local files, or Zarr stores at http(s)://, s3:// or gs://; "
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
