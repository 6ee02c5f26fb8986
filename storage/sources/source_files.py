"""Digests of what the files of a source hold, by which they are known."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from storage.conventions.axes import SourceError
from storage.guards.named_files import begins_with, is_remote, resolve
from storage.places.files import sha256_of
from storage.sources.formats.references import files_led_to
from storage.sources.formats.zarr import metadata_of

__all__ = ["digest_of", "file_digests", "source_digest"]


def source_digest(paths: str | Sequence[str]) -> str:
    """sha256 of the contents of all files; their names and times do not count.

    Of a Zarr store in a directory it is that of what lies in it, by its names there; of a kerchunk
    reference that of the files, too, that it leads to; of a remote store that of its address, its
    metadata and their tag.
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
        if path.is_dir():
            return _digest_of_store(path)
        return _with_what_it_leads_to(path, sha256_of(path))
    except PermissionError as error:
        raise SourceError(f"{error.filename} may not be read by this user; chmod +r it") from error


def _digest_of_store(root: Path) -> str:
    """The digest of a directory: contents and their names in it, since a chunk is its place."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        place = path.relative_to(root).as_posix()
        if path.is_symlink() and path.is_dir():
            digest.update(f"{place}\0{os.readlink(path)}\n".encode())
        elif path.is_file():
            digest.update(f"{place}\0{sha256_of(path)}\n".encode())
    return digest.hexdigest()


def _with_what_it_leads_to(path: Path, own: str) -> str:
    """The digest of a kerchunk reference together with the files in which its numbers lie."""
    if not begins_with(str(path), b"{"):
        return own
    targets = {place: sha256_of(file) for place, file in files_led_to(path).items()}
    parts = [f"{place}\0{digest}\n" for place, digest in sorted(targets.items())]
    return hashlib.sha256("".join([own, *parts]).encode()).hexdigest() if parts else own
