"""NetCDF 3, 4 and HDF5 by netCDF4, one group."""

from __future__ import annotations

import os
from pathlib import Path

import xarray as xr

from storage.guards.netcdf3 import require_whole
from storage.sources.formats.reading import LAZILY, Reading

__all__ = ["open_netcdf"]

os.environ.pop("HDF5_PLUGIN_PATH", None)  # netCDF4 brings the filters that are used


def open_netcdf(path: str, reading: Reading) -> list[xr.Dataset]:
    require_whole(Path(path))
    return [xr.open_dataset(path, engine="netcdf4", group=reading.group or None, **LAZILY)]
