"""Real fields of other years that could have stood at a date, and quantities derived from fields.

Analogues of a date are fields of the same season, one per year of the record: scored as if they
were an ensemble, they say how well any ensemble can score against one realisation of the weather.
"""

from __future__ import annotations

import re

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.arrays import FloatArray

YEAR = 365.2425  # days
MOST = 30  # years, or members, so that memory does not grow with the length of the record

EASTWARD = re.compile(r"\b(eastward|zonal|u[- ]component of) ", re.IGNORECASE)
WIND = re.compile(r"\b(wind)\b", re.IGNORECASE)


def analogues(
    fields: xr.Dataset,
    phase: FloatArray,
    wanted: FloatArray,
    *,
    offsets: tuple[float, ...] = (0.0,),
    weather: NDArray[np.integer] | None = None,
) -> xr.Dataset | None:
    """The fields of each year that are nearest to each wanted season.

    Args:
        fields: The record to choose from, along `time`.
        phase: Season of its times [rad], 2 pi per calendar year.
        wanted: Season of the dates to be matched [rad].
        offsets: Days to add to the wanted dates; each makes further realizations.
        weather: A number for each time, of the course of the weather that it belongs to; its year
            by default. Members of an ensemble are one each.
    Returns:
        Dims (realization, time, *grid), realizations being (offset, weather), of `MOST` weathers
        at most, and `time` without coordinate, in memory; each date has as many, and `year`
        (realization, time) tells of which weather they are. None if some date has no analogue.
    """
    year = fields["time"].dt.year.values if weather is None else weather
    step = YEAR * np.median(np.abs(np.angle(np.exp(1j * np.diff(phase))))) / (2 * np.pi)
    tolerance = 0.75 * step + 1.0  # days; a leap year moves the calendar by one
    members = []
    for offset in offsets:
        target = wanted + 2 * np.pi * offset / YEAR
        away = np.abs(np.angle(np.exp(1j * (phase[:, None] - target)))) * YEAR / (2 * np.pi)
        for each in _spread(np.unique(year)):
            rows = np.flatnonzero(year == each)
            nearest = rows[away[rows].argmin(axis=0)]
            members.append(np.where(away[rows].min(axis=0) <= tolerance, nearest, -1))
    table = np.stack(members)
    found = (table >= 0).sum(axis=0).min()
    if found == 0:
        return None
    # Dates at the ends of the record have fewer years: keep each date's first `found`.
    columns = [column[column >= 0][:found] for column in table.T]
    rows, index = np.unique(np.stack(columns, axis=1), return_inverse=True)
    chosen = fields.isel(time=rows).load().drop_vars(["time", "phase"], errors="ignore")
    place = xr.DataArray(index, dims=("realization", "time"))
    return chosen.isel(time=place).assign_coords(year=(place.dims, year[rows][index]))


def _spread(weathers: NDArray[np.integer]) -> NDArray[np.integer]:
    """At most `MOST` of them, evenly spread: scores are fair to any number of realizations."""
    few = np.linspace(0, len(weathers) - 1, min(MOST, len(weathers))).round().astype(int)
    kept: NDArray[np.integer] = weathers[few]
    return kept


def with_wind_speed(fields: xr.Dataset) -> xr.Dataset:
    """Add the speed of each pair of eastward and northward wind, e.g. `ws850` of ua850, va850."""
    derived = {}
    for name, east in fields.data_vars.items():
        if east.attrs.get("standard_name") != "eastward_wind":
            continue
        level = re.sub(r"^\D+", "", str(name))
        for other, north in fields.data_vars.items():
            same = re.sub(r"^\D+", "", str(other)) == level
            if same and north.attrs.get("standard_name") == "northward_wind":
                long_name = EASTWARD.sub("", str(east.attrs.get("long_name", "wind")))
                speed = xr.apply_ufunc(np.hypot, east, north, dask="allowed")
                derived[f"ws{level}"] = speed.assign_attrs(
                    standard_name="wind_speed",
                    long_name=WIND.sub(r"\1 speed", long_name, count=1),
                    units=east.attrs.get("units", "1"),
                )
    return fields.assign(derived)
