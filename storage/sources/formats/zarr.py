"""Zarr 2 and 3: a local directory or zip file, or a store at http(s):// or s3:// by obstore."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import numcodecs.registry  # type: ignore[import-untyped]
import xarray as xr
from zarr.storage import LocalStore, ObjectStore, WrapperStore, ZipStore

from storage.conventions.axes import SourceError, UnsafeSource
from storage.guards.codecs import LARGEST_CHUNK, LARGEST_DOCUMENT, examine_documents
from storage.guards.holes import unstored
from storage.sources.formats.reading import DOCUMENTS, LAZILY, first_line, require_package

__all__ = ["SourceStore", "metadata_of", "open_remote", "open_zarr"]

numcodecs.registry.codec_registry.pop("pickle", None)  # a foreign store must not run code

_TIMEOUT = {"timeout": "30s", "connect_timeout": "10s"}


class SourceStore(WrapperStore[Any]):
    """A foreign store. Who unpickles one has this module, and with it the guards of codecs."""


def open_zarr(path: str, group: str) -> list[xr.Dataset]:
    zipped = path.endswith(".zip")
    examine_documents(_in_zip(path) if zipped else _in_directory(Path(path)), path)
    opened: Any = ZipStore(path) if zipped else LocalStore(path, read_only=True)
    store: Any = SourceStore(opened)
    table = xr.open_dataset(store, engine="zarr", group=group or None, **LAZILY)
    table.encoding["unstored"] = {} if zipped else unstored(Path(path, group))
    return [table]


def _in_directory(root: Path) -> Iterator[tuple[str, bytes]]:
    """The documents of metadata in a store.

    Raises:
        UnsafeSource: If anything in it leads out of it, or is neither file nor directory.
    """
    inside, folders = root.resolve(), [root.resolve()]
    while folders:
        for entry in os.scandir(folders.pop()):
            path = Path(entry.path)
            place = path.relative_to(inside).as_posix()
            if entry.is_symlink() and not path.resolve().is_relative_to(inside):
                raise UnsafeSource(
                    f"{root}: {place} is a link to {os.readlink(path)}, out of the store; copy the "
                    "store with what it links to: cp -rL"
                )
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif not (entry.is_file(follow_symlinks=False) or entry.is_symlink()):
                raise UnsafeSource(
                    f"{root}: {place} is neither a file nor a directory; take it out of the store"
                )
            elif entry.name in DOCUMENTS:
                if entry.stat().st_size > LARGEST_DOCUMENT:
                    raise SourceError(f"{path} has {entry.stat().st_size} bytes, too many for JSON")
                yield place, path.read_bytes()


def _in_zip(path: str) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for one in archive.infolist():
            document = one.filename.rpartition("/")[2] in DOCUMENTS
            most = LARGEST_DOCUMENT if document else LARGEST_CHUNK
            if one.file_size > most:
                raise SourceError(f"{path}: {one.filename} unpacks to {one.file_size} bytes")
            if document:
                yield one.filename, archive.read(one)


def open_remote(path: str, group: str) -> list[xr.Dataset]:
    if re.search(r"\.(nc4?|h5|hdf5?|he5|gri?b2?)$", path.lower()):
        raise SourceError(f"{path}: over http and s3 only Zarr stores are read; download it first")
    store: Any = SourceStore(ObjectStore(_remote_store(path), read_only=True))
    try:
        examine_documents(_in_remote(path), path)
        return [xr.open_dataset(store, engine="zarr", group=group or None, **LAZILY)]
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(
            f"{path} cannot be opened as Zarr ({first_line(error)}); over http a store needs "
            "consolidated metadata: xr.open_zarr(...).to_zarr(..., consolidated=True)"
        ) from error


def _in_remote(path: str) -> Iterator[tuple[str, bytes]]:
    """Consolidated metadata; a store without them is not read over http."""
    import obstore

    store = _remote_store(path)
    for name in ("zarr.json", ".zmetadata"):
        with suppress(FileNotFoundError):
            yield name, bytes(obstore.get(store, name).bytes())


def _remote_store(path: str) -> Any:
    require_package("obstore", path, "remote")
    from obstore.store import from_url

    options: Any = {**_TIMEOUT, "allow_http": True}
    retries: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=60)}
    try:
        return from_url(path, client_options=options, retry_config=retries)
    except Exception as error:
        raise SourceError(f"{path} is not an address that is read ({first_line(error)})") from None


def metadata_of(path: str) -> bytes:
    """What a remote store says of itself, to know it by."""
    import obstore

    store = _remote_store(path)
    for name in ("zarr.json", ".zmetadata", ".zgroup", ".zarray"):
        try:
            found = obstore.get(store, name)
        except FileNotFoundError:
            continue
        except Exception as error:
            raise SourceError(f"{path} does not answer ({first_line(error)})") from error
        meta = found.meta
        return bytes(found.bytes()) + str((meta.get("e_tag"), meta.get("last_modified"))).encode()
    raise SourceError(f"{path}: no Zarr store there (no zarr.json, .zmetadata or .zgroup)")
