"""NetCDF 3, 4 and HDF5 by netCDF4, one group.

A file has one handle in a process, however many data sets are made of it. HDF5 crashes the process
where a file is open twice and a handle through which text was read (names of members, say) is
closed before the other (Unidata/netcdf-c#2510).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import netCDF4
import xarray as xr
from xarray.backends import CachingFileManager, NetCDF4DataStore
from xarray.backends.locks import HDF5_LOCK, NETCDFC_LOCK, combine_locks

from storage.guards.netcdf3 import require_whole
from storage.sources.formats.reading import LAZILY, Reading

__all__ = ["open_netcdf"]

os.environ.pop("HDF5_PLUGIN_PATH", None)  # netCDF4 brings the filters that are used


def open_netcdf(path: str, reading: Reading) -> list[xr.Dataset]:
    require_whole(Path(path))
    store = cast(Any, NetCDF4DataStore)  # xarray has no types for it
    opened = store(_handle(path), group=reading.group or None, mode="r")
    return [xr.open_dataset(opened, **LAZILY)]


def _handle(path: str) -> CachingFileManager[Any]:
    """The one handle of the file as it is now; another one once the file has been replaced."""
    path, seen = os.path.realpath(path), Path(path).stat()
    now = ("spherescore", seen.st_dev, seen.st_ino, seen.st_mtime_ns, seen.st_size)
    lock = combine_locks([NETCDFC_LOCK, HDF5_LOCK])  # xarray's own, for all who read by netCDF4
    opener: Any = netCDF4.Dataset
    return CachingFileManager(opener, path, mode="r", lock=lock, manager_id=now)
