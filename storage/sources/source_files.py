"""Which files a source is: what paths and patterns name, and the digest of what they hold."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from storage.conventions.axes import SourceError, UnsafeSource
from storage.places.files import sha256_of
from storage.sources.formats import is_remote, metadata_of

__all__ = ["digest_of", "file_digests", "resolve", "source_digest"]


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


def source_digest(paths: str | Sequence[str]) -> str:
    """sha256 of the contents of all files; their names and times do not count.

    Of a remote store it is that of its address, its metadata and their tag.
    """
    return digest_of(file_digests(paths))


def digest_of(digests: Mapping[str, str]) -> str:
    """One sha256 of those of all files."""
    return hashlib.sha256("".join(digests.values()).encode()).hexdigest()


def file_digests(paths: str | Sequence[str]) -> dict[str, str]:
    """sha256 of each file that paths and patterns name."""
    files = resolve(paths)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(files, pool.map(_digest_of, files), strict=True))


def _digest_of(name: str) -> str:
    if is_remote(name):
        return hashlib.sha256(name.encode() + metadata_of(name)).hexdigest()
    path = Path(name)
    try:
        if not path.is_dir():
            return sha256_of(path)
        inside = sorted(p for p in path.rglob("*") if p.is_file())
        return hashlib.sha256("".join(map(sha256_of, inside)).encode()).hexdigest()
    except PermissionError as error:
        raise SourceError(f"{error.filename} may not be read by this user; chmod +r it") from error
