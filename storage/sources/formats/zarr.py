"""Zarr 2 and 3: a local directory or zip file, or a store at an address, by obstore."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import numcodecs.registry  # type: ignore[import-untyped]
import xarray as xr
import zarr
from zarr.storage import LocalStore, ObjectStore, WrapperStore, ZipStore

from storage.conventions.axes import SourceError, UnsafeSource
from storage.conventions.stated_values import ZERO_FILL
from storage.guards.codecs import LARGEST_CHUNK, LARGEST_DOCUMENT, examine_documents
from storage.guards.holes import ChunkGrid, chunk_grids, unstored
from storage.sources.formats.reading import DOCUMENTS, LAZILY, Reading, first_line, require_package

__all__ = ["SourceStore", "metadata_of", "open_remote", "open_zarr", "opened_table"]

numcodecs.registry.codec_registry.pop("pickle", None)  # a foreign store must not run code

_TIMEOUT = {"timeout": "30s", "connect_timeout": "10s"}


class SourceStore(WrapperStore[Any]):
    """A foreign store: metadata are examined where they pass, and a lack of chunks is a fault.

    Who unpickles one has this module, and with it the guards of codecs.
    """

    def __init__(self, store: Any, where: str = "", *, grids: Any = None) -> None:
        super().__init__(store)
        self.where = where
        self.grids: dict[str, ChunkGrid] = {} if grids is None else grids

    def _with_store(self, store: Any) -> SourceStore:
        return type(self)(store, self.where, grids=self.grids)

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        found = await self._store.get(key, prototype, byte_range)
        if found is None:
            await self._require_sparse(key)
        elif key.rpartition("/")[2] in DOCUMENTS:
            text = found.to_bytes()
            examine_documents(iter([(key, text)]), self.where)
            self.grids |= {grid.path: grid for grid in chunk_grids(key, json.loads(text))}
        return found

    async def get_partial_values(self, prototype: Any, key_ranges: Any) -> list[Any]:
        return [await self.get(key, prototype, part) for key, part in key_ranges]

    async def _get_many(self, requests: Any) -> Any:
        for key, prototype, part in requests:
            yield key, await self.get(key, prototype, part)

    async def _require_sparse(self, key: str) -> None:
        """Raise SourceError if an absent chunk reads as a number, and all beside it lack, too."""
        for path in (key[:at] for at in range(len(key), -1, -1) if key[at : at + 1] in ("", "/")):
            grid = self.grids.get(path)
            place = None if grid is None else grid.place(key)
            if grid is None or place is None:
                continue
            if grid.fill is not None:
                for other in grid.stretch(place[0]):
                    if other != key and await self._store.exists(other):
                        return
            raise SourceError(f"{self.where}: {grid.said('one', place[0])}")


def open_zarr(path: str, reading: Reading) -> list[xr.Dataset]:
    zipped = path.endswith(".zip")
    documents = dict(_in_zip(path) if zipped else _in_directory(Path(path)))
    examine_documents(iter(documents.items()), path)
    opened: Any = ZipStore(path) if zipped else LocalStore(path, read_only=True)
    table = opened_table(SourceStore(opened, path), reading)
    names = zipfile.ZipFile(path).namelist() if zipped else _names_in(Path(path))
    prefix = f"{reading.group.strip('/')}/".lstrip("/")
    lacking = unstored(documents, names)
    table.encoding["refused"] = {
        array.removeprefix(prefix): said
        for array, said in lacking.items()
        if array.startswith(prefix)
    }
    return [table]


def opened_table(store: SourceStore, reading: Reading, **options: Any) -> xr.Dataset:
    """The data set in a store, with zeros that may be values told from those that are missing.

    Zarr 2 has a fill value of 0 where nobody chose one, and xarray masks it, in coordinates too.
    """
    options = {"engine": "zarr", "group": reading.group or None, **LAZILY, **options}
    masked = xr.open_dataset(cast(Any, store), **options)
    zeros = [name for name, v in masked.variables.items() if v.encoding.get("_FillValue") == 0]
    if reading.zarr_fill == "missing":
        zeros = [name for name in zeros if name in masked.coords]
    if not zeros:
        return masked
    group = zarr.open_group(store, mode="r", path=reading.group or None)
    if group.metadata.zarr_format == 3:
        return masked
    packed = xr.open_dataset(cast(Any, store), mask_and_scale=False, **options)
    for name in zeros:
        chosen = group[str(name)].attrs.get("_FillValue")
        attrs = packed.variables[name].attrs
        attrs.pop("_FillValue", None)
        if chosen is not None:  # by somebody, beside zarr's own
            attrs["_FillValue"] = chosen
    plain = xr.decode_cf(packed, decode_times=False)
    for name in zeros:
        variable = plain.variables[name]
        unsaid = reading.zarr_fill != "value" and "_FillValue" not in variable.encoding
        if unsaid and name not in plain.coords:
            variable.encoding[ZERO_FILL] = variable.encoding.get("add_offset", 0.0)
    return plain


def _names_in(root: Path) -> Iterator[str]:
    for folder, _, files in os.walk(root, followlinks=True):
        inner = os.path.relpath(folder, root)
        for name in files:
            yield name if inner == "." else f"{Path(inner).as_posix()}/{name}"


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


def open_remote(path: str, reading: Reading) -> list[xr.Dataset]:
    if re.search(r"\.(nc4?|h5|hdf5?|he5|gri?b2?)$", path.lower()):
        raise SourceError(f"{path}: at addresses only Zarr stores are read; download it first")
    store = SourceStore(ObjectStore(_remote_store(path), read_only=True), path)
    try:
        return [opened_table(store, reading)]
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(
            f"{path} cannot be opened as Zarr ({first_line(error)}); {_remedy(path, error)}"
        ) from error


def _remedy(path: str, error: Exception) -> str:
    """What to do about an address that does not open: connect, show a key, or write metadata."""
    said, where = str(error), path.partition("://")[0]
    if any(words in said for words in ("error sending request", "timed out", "dns error")):
        return "nobody answers there: check the address and the network, then run again"
    keys = {
        "gs": "GOOGLE_SERVICE_ACCOUNT names a key, GOOGLE_SKIP_SIGNATURE=true needs none",
        "s3": "AWS_ACCESS_KEY_ID and its kin are keys, AWS_SKIP_SIGNATURE=true needs none",
    }
    if where in keys and re.search(r"\b(40[13]|Forbidden|Unauthorized|token request)\b", said):
        return f"the bucket asks for a key: in the environment, {keys[where]}"
    return (
        "over http a store needs consolidated metadata: "
        "xr.open_zarr(...).to_zarr(..., consolidated=True)"
    )


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
