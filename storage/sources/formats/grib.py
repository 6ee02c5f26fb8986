"""GRIB 1 and 2 by cfgrib, which makes one table of each kind of level or step."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from storage.conventions.axes import SourceError
from storage.guards.grib_whole import require_whole_messages
from storage.sources.formats.grib_messages import mark_messages
from storage.sources.formats.reading import first_line, require_package

__all__ = ["open_grib"]


def open_grib(path: str, group: str) -> list[xr.Dataset]:
    require_package("cfgrib", path, "grib")
    import cfgrib

    require_whole_messages(Path(path))
    try:
        # Without an index file: it would be a pickle beside the source.
        keys = {"indexpath": ""}
        tables = cfgrib.open_datasets(path, keys, cache=False, decode_times=False)
    except Exception as error:
        raise SourceError(f"{path} cannot be read by cfgrib ({first_line(error)})") from error
    if not tables:
        raise SourceError(f"{path} holds no GRIB message that can be read, truncated or corrupt?")
    mark_messages(Path(path), tables)
    return list(tables)
