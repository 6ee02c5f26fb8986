"""Real fields of other years that could have stood at a date, and quantities derived from fields.

Analogues of a date are fields of the same season, one per year of the record: scored as if they
were an ensemble, they say how well any ensemble can score against one realisation of the weather.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.arrays import FloatArray

YEAR = 365.2425  # days
MOST = 30  # years, or members, so that memory does not grow with the length of the record

EASTWARD = re.compile(r"\b(eastward|zonal|u[- ]component of) ", re.IGNORECASE)
WIND = re.compile(r"\b(wind)\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Analogues:
    """Which fields of a record could have stood at some dates.

    Attributes:
        rows: their place in the record, (realization, date).
        year: of which weather each is, (realization, date).
    """

    rows: NDArray[np.intp]
    year: NDArray[np.integer]


def analogues(
    time: xr.DataArray,
    phase: FloatArray,
    wanted: FloatArray,
    *,
    offsets: tuple[float, ...] = (0.0,),
    weather: NDArray[np.integer] | None = None,
) -> Analogues | None:
    """The fields of each year that are nearest to each wanted season.

    Args:
        time: Of the record to choose from.
        phase: Season of its times [rad], 2 pi per calendar year.
        wanted: Season of the dates to be matched [rad].
        offsets: Days to add to the wanted dates; each makes further realizations.
        weather: A number for each time, of the course of the weather that it belongs to; its year
            by default. Members of an ensemble are one each.
    Returns:
        Realizations are (offset, weather), of `MOST` weathers at most; each date has as many. None
        if some date has no analogue.
    """
    year = time.dt.year.values if weather is None else weather
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
    rows = np.stack([column[column >= 0][:found] for column in table.T], axis=1)
    return Analogues(rows=rows, year=year[rows])


def _spread(weathers: NDArray[np.integer]) -> NDArray[np.integer]:
    """At most `MOST` of them, evenly spread: scores are fair to any number of realizations."""
    few = np.linspace(0, len(weathers) - 1, min(MOST, len(weathers))).round().astype(int)
    kept: NDArray[np.integer] = weathers[few]
    return kept


def wind_speeds(fields: xr.Dataset) -> dict[str, tuple[str, str]]:
    """The speed of each pair of eastward and northward wind by its name, e.g. `ws850`, and the
    names of the two."""
    found = {}
    for name, east in fields.data_vars.items():
        if east.attrs.get("standard_name") != "eastward_wind":
            continue
        level = re.sub(r"^\D+", "", str(name))
        for other, north in fields.data_vars.items():
            same = re.sub(r"^\D+", "", str(other)) == level
            if same and north.attrs.get("standard_name") == "northward_wind":
                found[f"ws{level}"] = str(name), str(other)
    return found


def with_wind_speed(fields: xr.Dataset) -> xr.Dataset:
    """Add the `wind_speeds`, labelled as the wind is."""
    derived = {}
    for name, (east, north) in wind_speeds(fields).items():
        speed = xr.apply_ufunc(np.hypot, fields[east], fields[north], dask="allowed")
        attrs = fields[east].attrs
        long_name = EASTWARD.sub("", str(attrs.get("long_name", "wind")))
        derived[name] = speed.assign_attrs(
            standard_name="wind_speed",
            long_name=WIND.sub(r"\1 speed", long_name, count=1),
            units=attrs.get("units", "1"),
        )
    return fields.assign(derived)
