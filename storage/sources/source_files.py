"""By what the files of a source are known: the digests of what they hold."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from storage.conventions.axes import SourceError
from storage.guards.named_files import is_remote, resolve
from storage.places.files import sha256_of
from storage.sources.formats.zarr import metadata_of

__all__ = ["digest_of", "file_digests", "source_digest"]


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
