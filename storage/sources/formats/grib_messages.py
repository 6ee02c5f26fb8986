"""Which combinations of time, step, member and level a GRIB file has messages of.

cfgrib puts messages into a cube, and a combination that no message has reads as missing values: the
corners of accumulations from 06 and 18 UTC, hours of monthly means that start at another time each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

__all__ = ["mark_messages"]

_UNITS = {"time": "seconds since 1970-01-01", "step": "hours"}
Header = Mapping[str, Any]


def mark_messages(path: Path, tables: Sequence[xr.Dataset]) -> None:
    """Put what there is into `encoding["messages"]` of each table: booleans by variable.

    Only of variables that have more than one dimension beside their grid.
    """
    cubes = [
        (table, str(name), dims)
        for table in tables
        for name in table.data_vars
        if len(dims := _dims(table, str(name))) > 1
    ]
    if not cubes:
        return
    headers = _headers(path)
    for table, name, dims in cubes:
        found = _present(table, name, dims, headers)
        if found.any() and not found.all():
            table.encoding.setdefault("messages", {})[name] = xr.Variable(dims, found)


def _dims(table: xr.Dataset, name: str) -> tuple[str, ...]:
    level = table[name].attrs.get("GRIB_typeOfLevel")
    known = ("number", "time", "step", level)
    return tuple(str(d) for d in table[name].dims if d in known and table.sizes[d] > 1)


def _present(
    table: xr.Dataset, name: str, dims: tuple[str, ...], headers: Sequence[Header]
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    attrs = table[name].attrs
    present = np.zeros([table.sizes[dim] for dim in dims], dtype=bool)
    for dim in dims:
        if dim in _UNITS and not str(table[dim].attrs.get("units", "")).startswith(_UNITS[dim]):
            return ~present
    places = [
        {round(float(value), 4): at for at, value in enumerate(table[dim].values)} for dim in dims
    ]
    wanted = {key: attrs.get(f"GRIB_{key}") for key in ("paramId", "typeOfLevel", "stepType")}
    for header in headers:
        if any(header[key] != value for key, value in wanted.items()):
            continue
        values = [header[dim if dim in ("number", "time", "step") else "level"] for dim in dims]
        index = [
            place.get(round(float(value), 4)) for place, value in zip(places, values, strict=True)
        ]
        if None not in index:
            present[tuple(index)] = True
    return present


def _headers(path: Path) -> list[Header]:
    import eccodes

    found: list[Header] = []
    with path.open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            found.append(_header(eccodes, handle))
            eccodes.codes_release(handle)
    return found


def _header(eccodes: Any, handle: Any) -> Header:
    def get(key: str, other: Any = 0) -> Any:
        try:
            return eccodes.codes_get(handle, key)
        except eccodes.CodesInternalError:
            return other

    date, clock = int(get("dataDate")), int(get("dataTime"))
    start = datetime(date // 10000, date // 100 % 100, date % 100, clock // 100, clock % 100)
    if get("stepUnits", 1) != 1:
        eccodes.codes_set(handle, "stepUnits", 1)  # hours, as cfgrib's steps are
    return {
        "time": start.replace(tzinfo=UTC).timestamp(),
        "step": get("endStep"),
        "number": get("number"),
        "level": get("level"),
        **{key: get(key, None) for key in ("paramId", "typeOfLevel", "stepType")},
    }
