"""Files of any format as plain data sets: unpacked, lazily indexed, times and grids as they are.

    NetCDF 3, 4 and HDF5     by netCDF4, one group
    Zarr 2 and 3             a local directory or zip file, http(s)://, s3:// or gs:// (by obstore)
    GRIB 1 and 2             by cfgrib, which makes one table of each kind of level or step
    kerchunk references      a .json file that leads to local files only

What is not one of them is refused by what its first bytes say it is.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path

import xarray as xr

from storage.conventions.axes import SourceError
from storage.guards.named_files import is_remote
from storage.sources.formats.grib import open_grib
from storage.sources.formats.netcdf import open_netcdf
from storage.sources.formats.reading import PLAIN, Reading
from storage.sources.formats.references import open_reference
from storage.sources.formats.zarr import open_remote, open_zarr

__all__ = ["UNREADABLE", "open_tables"]

UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, EOFError, TypeError, IndexError)

_FOREIGN = {
    b"\x1f\x8b": "compressed with gzip; unpack it first: gunzip",
    b"BZh": "compressed with bzip2; unpack it first: bunzip2",
    b"PK": "a zip archive; unpack it first, or name it .zarr.zip if it is a Zarr store",
    b"\x0e\x03\x13\x01": "HDF4; convert it first, e.g. with h4toh5 or ncl_convert2nc",
    b"\x00\x00\x01\x00": "PP of the Met Office; convert it first, e.g. with iris",
    b"\x00\x01\x00\x00": "PP of the Met Office; convert it first, e.g. with iris",
    b"<": "a web page, perhaps the error message of a download; download it again",
}


def open_tables(path: str, reading: Reading = PLAIN) -> list[xr.Dataset]:
    """The data sets in a file: one, except in GRIB. Packed numbers are unpacked when read.

    Raises:
        SourceError: If it is no format that is read here, or broken; the message has the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # several fill values: each of them is masked
            return _opener(path)(path, reading)
    except SourceError:
        raise
    except UNREADABLE as error:
        raise SourceError(
            f"{path} cannot be opened, truncated or corrupt? ({' '.join(str(error).split())})"
        ) from error


def _opener(path: str) -> Callable[[str, Reading], list[xr.Dataset]]:
    if is_remote(path):
        return open_remote
    file = Path(path)
    if file.is_dir():
        _require_no_other_store(file)
        if not any((file / name).exists() for name in ("zarr.json", ".zgroup", ".zmetadata")):
            raise SourceError(
                f"{path} is a directory without a Zarr store; for the files in it write {path}/*.nc"
            )
        return open_zarr
    if path.endswith(".zarr.zip"):
        return open_zarr
    with file.open("rb") as stream:
        head = stream.read(512)
    if not head:
        raise SourceError(f"{path} is empty; download it again, or take it out of source.paths")
    if head.startswith((b"CDF", b"\x89HDF")):
        return open_netcdf
    if b"GRIB" in head:
        return open_grib
    if head.lstrip().startswith(b"{"):
        return open_reference
    for magic, what in _FOREIGN.items():
        if head.lstrip().startswith(magic):
            raise SourceError(f"{path} is {what}")
    raise SourceError(
        f"{path} is not NetCDF, Zarr, GRIB or a kerchunk reference (truncated or corrupt?): "
        f"it begins with {head[:8]!r}"
    )


def _require_no_other_store(folder: Path) -> None:
    """Raise SourceError for directories that are stores of another kind, by what lies in them."""
    named = {one.name for one in itertools.islice(folder.iterdir(), 1000)}
    if {"snapshots", "manifests"} <= named or {"refs", "snapshots"} <= named:
        raise SourceError(
            f"{folder} is an Icechunk repository; write what is meant as Zarr first: "
            "xr.open_zarr(session.store, consolidated=False).to_zarr('a.zarr')"
        )
    if ".zmetadata" in named and any(folder.glob("*/refs.*.parq")):
        raise SourceError(
            f"{folder} is a kerchunk reference in Parquet, of which only JSON is read; write it as "
            f"Zarr first: xr.open_dataset('{folder}', engine='kerchunk').to_zarr('a.zarr')"
        )
