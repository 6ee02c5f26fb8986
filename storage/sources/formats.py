"""Files of any format as plain data sets: unpacked, lazily indexed, times and grids as they are.

    NetCDF 3, 4 and HDF5     by netCDF4, one group
    Zarr 2 and 3             a local directory or zip file, http(s):// or s3:// (by obstore)
    GRIB 1 and 2             by cfgrib, which makes one table of each kind of level or step
    kerchunk references      a .json file that leads to local files only

What is not one of them is refused by what its first bytes say it is.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import numcodecs.registry  # type: ignore[import-untyped]
import xarray as xr
from zarr.storage import LocalStore, ObjectStore, WrapperStore, ZipStore

from storage.conventions.axes import SourceError, UnsafeSource
from storage.guards.codecs import LARGEST_CHUNK, LARGEST_DOCUMENT, examine_documents
from storage.guards.grib_whole import require_whole_messages
from storage.guards.holes import unstored
from storage.guards.netcdf3 import require_whole

__all__ = ["begins_with", "is_remote", "metadata_of", "open_tables"]

numcodecs.registry.codec_registry.pop("pickle", None)  # a foreign store must not run code
os.environ.pop("HDF5_PLUGIN_PATH", None)  # netCDF4 brings the filters that are used

UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, EOFError, TypeError, IndexError)

_LAZILY: dict[str, Any] = {"decode_times": False, "chunks": None, "cache": False}
_DOCUMENTS = {"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"}
_REMOTE = re.compile(r"(https?|s3)://[^\s:]")
_TIMEOUT = {"timeout": "30s", "connect_timeout": "10s"}
_FOREIGN = {
    b"\x1f\x8b": "compressed with gzip; unpack it first: gunzip",
    b"BZh": "compressed with bzip2; unpack it first: bunzip2",
    b"PK": "a zip archive; unpack it first, or name it .zarr.zip if it is a Zarr store",
    b"\x0e\x03\x13\x01": "HDF4; convert it first, e.g. with h4toh5 or ncl_convert2nc",
    b"\x00\x00\x01\x00": "PP of the Met Office; convert it first, e.g. with iris",
    b"\x00\x01\x00\x00": "PP of the Met Office; convert it first, e.g. with iris",
    b"<": "a web page, perhaps the error message of a download; download it again",
}


def open_tables(path: str, group: str = "") -> list[xr.Dataset]:
    """The data sets in a file: one, except in GRIB. Packed numbers are unpacked when read.

    Raises:
        SourceError: If it is no format that is read here, or broken; the message has the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # several fill values: each of them is masked
            return _opener(path)(path, group)
    except SourceError:
        raise
    except UNREADABLE as error:
        raise SourceError(
            f"{path} cannot be opened, truncated or corrupt? ({' '.join(str(error).split())})"
        ) from error


def is_remote(path: str) -> bool:
    return _REMOTE.match(path) is not None


def begins_with(path: str, magic: bytes) -> bool:
    if is_remote(path) or not Path(path).is_file():
        return False
    with Path(path).open("rb") as stream:
        return stream.read(len(magic)) == magic


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
            raise SourceError(f"{path} does not answer ({_first_line(error)})") from error
        meta = found.meta
        return bytes(found.bytes()) + str((meta.get("e_tag"), meta.get("last_modified"))).encode()
    raise SourceError(f"{path}: no Zarr store there (no zarr.json, .zmetadata or .zgroup)")


def _opener(path: str) -> Callable[[str, str], list[xr.Dataset]]:
    if is_remote(path):
        return _open_remote
    file = Path(path)
    if file.is_dir():
        if not any((file / name).exists() for name in ("zarr.json", ".zgroup", ".zmetadata")):
            raise SourceError(
                f"{path} is a directory without a Zarr store; for the files in it write {path}/*.nc"
            )
        return _open_zarr
    if path.endswith(".zarr.zip"):
        return _open_zarr
    with file.open("rb") as stream:
        head = stream.read(512)
    if not head:
        raise SourceError(f"{path} is empty; download it again, or take it out of source.paths")
    if head.startswith((b"CDF", b"\x89HDF")):
        return _open_netcdf
    if b"GRIB" in head:
        return _open_grib
    if head.lstrip().startswith(b"{"):
        return _open_reference
    for magic, what in _FOREIGN.items():
        if head.lstrip().startswith(magic):
            raise SourceError(f"{path} is {what}")
    raise SourceError(
        f"{path} is not NetCDF, Zarr, GRIB or a kerchunk reference (truncated or corrupt?): "
        f"it begins with {head[:8]!r}"
    )


def _open_netcdf(path: str, group: str) -> list[xr.Dataset]:
    require_whole(Path(path))
    return [xr.open_dataset(path, engine="netcdf4", group=group or None, **_LAZILY)]


class SourceStore(WrapperStore[Any]):
    """A foreign store. Who unpickles one has this module, and with it the guards of codecs."""


def _open_zarr(path: str, group: str) -> list[xr.Dataset]:
    zipped = path.endswith(".zip")
    examine_documents(_in_zip(path) if zipped else _in_directory(Path(path)), path)
    opened: Any = ZipStore(path) if zipped else LocalStore(path, read_only=True)
    store: Any = SourceStore(opened)
    table = xr.open_dataset(store, engine="zarr", group=group or None, **_LAZILY)
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
            elif entry.name in _DOCUMENTS:
                if entry.stat().st_size > LARGEST_DOCUMENT:
                    raise SourceError(f"{path} has {entry.stat().st_size} bytes, too many for JSON")
                yield place, path.read_bytes()


def _in_zip(path: str) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for one in archive.infolist():
            document = one.filename.rpartition("/")[2] in _DOCUMENTS
            most = LARGEST_DOCUMENT if document else LARGEST_CHUNK
            if one.file_size > most:
                raise SourceError(f"{path}: {one.filename} unpacks to {one.file_size} bytes")
            if document:
                yield one.filename, archive.read(one)


def _open_remote(path: str, group: str) -> list[xr.Dataset]:
    if re.search(r"\.(nc4?|h5|hdf5?|he5|gri?b2?)$", path.lower()):
        raise SourceError(f"{path}: over http and s3 only Zarr stores are read; download it first")
    store: Any = SourceStore(ObjectStore(_remote_store(path), read_only=True))
    try:
        examine_documents(_in_remote(path), path)
        return [xr.open_dataset(store, engine="zarr", group=group or None, **_LAZILY)]
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(
            f"{path} cannot be opened as Zarr ({_first_line(error)}); over http a store needs "
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
    _require("obstore", path, "remote")
    from obstore.store import from_url

    options: Any = {**_TIMEOUT, "allow_http": True}
    retries: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=60)}
    try:
        return from_url(path, client_options=options, retry_config=retries)
    except Exception as error:
        raise SourceError(f"{path} is not an address that is read ({_first_line(error)})") from None


def _open_grib(path: str, group: str) -> list[xr.Dataset]:
    _require("cfgrib", path, "grib")
    import cfgrib

    require_whole_messages(Path(path))
    try:
        # Without an index file: it would be a pickle beside the source.
        keys = {"indexpath": ""}
        tables = cfgrib.open_datasets(path, keys, cache=False, decode_times=False)
    except Exception as error:
        raise SourceError(f"{path} cannot be read by cfgrib ({_first_line(error)})") from error
    if not tables:
        raise SourceError(f"{path} holds no GRIB message that can be read, truncated or corrupt?")
    return list(tables)


def _open_reference(path: str, group: str) -> list[xr.Dataset]:
    import fsspec
    from zarr.storage import FsspecStore

    references = json.loads(Path(path).read_text())
    if {"templates", "gen"} & set(references):
        raise SourceError(
            f"{path} has reference templates, which are not read; write plain references (refs)"
        )
    references = references.get("refs", references)
    if not isinstance(references, dict) or not {".zgroup", "zarr.json"} & set(references):
        raise SourceError(f"{path} is JSON, but no kerchunk reference: it has no .zgroup")
    _require_inside(references, Path(path))
    examine_documents(
        (
            (key, text.encode())
            for key, text in references.items()
            if isinstance(text, str) and key.rpartition("/")[2] in _DOCUMENTS
        ),
        path,
    )
    local = fsspec.filesystem("reference", fo=references, remote_protocol="file", asynchronous=True)
    store: Any = SourceStore(FsspecStore(local, read_only=True, path=""))
    return [
        xr.open_dataset(store, engine="zarr", consolidated=False, group=group or None, **_LAZILY)
    ]


def _require_inside(references: Mapping[str, Any], file: Path) -> None:
    """References may lead to files beside or below the one that they stand in.

    Raises:
        UnsafeSource: If one leads elsewhere.
        SourceError: If one leads to bytes that are not there.
    """
    folder, sizes = file.resolve().parent, dict[str, int]()
    for key, target in references.items():
        if isinstance(target, str | Mapping):
            if key.rpartition("/")[2] in _DOCUMENTS and not isinstance(target, str):
                raise SourceError(f"{file}: {key} is no text")
            continue
        place = str(target[0])
        if re.match(r"(?!file://)\w+:", place) or "::" in place:
            raise UnsafeSource(
                f"{file} leads to {place}; references are followed to local files only, "
                "download it first"
            )
        if place not in sizes:
            found = Path(place.removeprefix("file://")).resolve()
            if not found.is_relative_to(folder):
                raise UnsafeSource(
                    f"{file} leads to {place}; references are followed to files beside it or "
                    f"below {folder} only, put it there"
                )
            if not found.is_file():
                raise SourceError(f"{file} leads to {place}, which is no file")
            sizes[place] = found.stat().st_size
        start, count = target[1:] if len(target) == 3 else (0, sizes[place])
        if not (type(start) is type(count) is int and 0 <= start <= start + count <= sizes[place]):
            raise SourceError(
                f"{file}: {key} is said to be bytes {start} and {count} more of {place}, which has "
                f"{sizes[place]}; truncated or corrupt?"
            )


def _require(package: str, path: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise SourceError(f"{path} needs the package {package}: pip install 'spherescore[{extra}]'")


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
