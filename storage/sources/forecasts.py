"""When a forecast is valid: at the time it starts from and its lead together.

Files say this in many ways. GRIB has valid times; cubes of (time, lead_time) or (init_time,
prediction_timedelta) have the start along one dimension and the lead along another, and only their
sum is a time of the field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import xarray as xr

from storage.conventions.axes import Axes, SourceError
from storage.conventions.stamps import edges
from storage.conventions.times import decode_times

__all__ = ["is_span", "only_lead", "with_valid_times"]

Array = np.ndarray[Any, Any]

_START, _LEAD = "forecast_reference_time", "forecast_period"  # standard names
_STARTS = (
    *(_START, "init_time", "inittime", "initial_time", "initialization_time", "base_time"),
    *("reference_time", "reftime", "analysis_time", "start_time", "start_date"),
)
_VALID = ("valid_time", "validtime", "verification_time", "validity_time", "time_valid", "vtime")
_LEADS = (
    *(_LEAD, "lead_time", "leadtime", "lead", "leads", "prediction_timedelta"),
    *("forecast_hour", "forecasthour", "fhour", "fxx", "lead_hours", "lead_days"),
)
_STEP = "step"  # of forecasts, if it has values
_FROM_ONE = ("forecastmonth", "leadtime_month")  # the month of the start is 1
_SECONDS = {
    **dict.fromkeys(("ns", "nanosecond", "nanoseconds"), 1e-9),
    **dict.fromkeys(("us", "microsecond", "microseconds"), 1e-6),
    **dict.fromkeys(("ms", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
    **dict.fromkeys(("week", "weeks"), 7 * 86400.0),
}
_MONTHS = ("month", "months", "mon")


def with_valid_times(
    table: xr.Dataset,
    stored: str,
    axes: Axes,
    dims: Mapping[str, str],
    units: Mapping[str, str],
    where: str,
    notes: list[str],
) -> tuple[xr.Dataset, Axes]:
    """The table with valid times as a coordinate, where it has starts and leads instead.

    Args:
        dims, units: Those of the configuration; the role is "lead", and "" means that there is
            none.
    Raises:
        SourceError: If the lead has no unit or no values.
    """
    lead = _lead_of(table, stored, dims)
    start = None if lead is None else _start_of(table, stored, axes, lead)
    if lead is None or start is None:
        return table, axes
    if lead not in table.variables:
        raise SourceError(
            f"{where}: {lead} is the lead of forecasts, but no variable says what its values are; "
            f"add the coordinate, or, if the times of {start} are those of the fields, say that it "
            'is none: [source] dims = { lead = "" }'
        )
    dates = decode_times(table, start, where)
    spans, offset = table.variables[lead], int(lead.lower() in _FROM_ONE)
    unit = units.get("lead", str(spans.attrs.get("units", ""))).strip().lower()
    unit = "months" if offset and not unit.rstrip("s1") else unit
    counts = np.asarray(spans.values, dtype=np.float64) - offset
    if not np.isfinite(counts).all():
        raise SourceError(f"{where}: a value of {lead} is missing; complete it")
    if unit not in _SECONDS and unit not in _MONTHS and counts.any():
        raise SourceError(
            f"{where}: {lead} is the lead of forecasts and its unit is {unit!r}; say what it is: "
            '[source] units = { lead = "hours" }, or that it is no lead: dims = { lead = "" }'
        )
    known = table.variables[start]
    own = [dim for dim in spans.dims if dim not in known.dims]
    places = tuple(slice(None) if dim in spans.dims else None for dim in (*known.dims, *own))
    valid = _later(dates[(..., *(None,) * len(own))], counts[places], unit, lead, where)
    name = next(n for n in ("valid_time", "valid_time_of_fields", "_valid") if n not in table)
    made = xr.Variable((*known.dims, *own), valid, {"standard_name": "time"})
    notes.append(f"times are {start} and {lead} together, when the forecast is valid")
    return table.assign_coords({name: made}), replace(axes, time=name)


def only_lead(table: xr.Dataset, stored: str, dims: Mapping[str, str]) -> tuple[str, float] | None:
    """Name and value of the one lead that all fields of a file have; None if there is no such."""
    lead = _lead_of(table, stored, dims)
    if lead is None or lead not in table.variables or table.variables[lead].ndim:
        return None
    return lead, float(table.variables[lead].values)


def _lead_of(table: xr.Dataset, stored: str, dims: Mapping[str, str]) -> str | None:
    if "lead" in dims:
        return dims["lead"] or None
    array = table[stored]
    found = [
        str(name)
        for name, one in table.variables.items()
        if one.ndim < 2
        and set(one.dims) <= set(array.dims)
        and name != stored
        and _is_lead(name, one)
    ]
    bare = [str(d) for d in array.dims if d not in table.variables and str(d).lower() in _LEADS]
    best = sorted(found, key=lambda n: table.variables[n].attrs.get("standard_name") != _LEAD)
    return next(iter([*best, *bare]), None)


def _is_lead(name: object, variable: xr.Variable) -> bool:
    attrs, plain = variable.attrs, str(name).lower()
    if variable.dtype.kind not in "iuf" or re.search(r"\bsince\b", str(attrs.get("units", ""))):
        return False
    said = str(attrs.get("standard_name", _LEAD)).strip() == _LEAD
    return said and (plain in (*_LEADS, _STEP, *_FROM_ONE) or "standard_name" in attrs)


def _start_of(table: xr.Dataset, stored: str, axes: Axes, lead: str) -> str | None:
    """The coordinate of starts; None if the time that was found is already when it is valid."""
    dims = set(table[stored].dims)
    starts = [
        str(name)
        for name, one in table.variables.items()
        if one.ndim < 2 and set(one.dims) <= dims and name != axes.time and _is_start(name, one)
    ]
    if axes.time is None:
        return next(iter(starts), None)
    time = table.variables[axes.time]
    if _is_start(axes.time, time):
        return axes.time
    if starts or axes.time.lower() in _VALID or time.ndim > 1:
        return None
    along = table.variables[lead].dims if lead in table.variables else (lead,)
    said = time.attrs.get("standard_name") == "time"
    named = lead in table.variables and table.variables[lead].attrs.get("standard_name") == _LEAD
    if set(along) & set(time.dims) or (not along and said and named):
        return None
    return axes.time


def _is_start(name: object, variable: xr.Variable) -> bool:
    said = variable.attrs.get("standard_name")
    dated = variable.dtype.kind == "M" or "since" in str(variable.attrs.get("units", ""))
    return said == _START or (dated and said is None and str(name).lower() in _STARTS)


def _later(dates: Array, counts: Array, unit: str, lead: str, where: str) -> Array:
    """The dates so many units later, both broadcast together."""
    dates, counts = np.broadcast_arrays(dates, counts)
    if unit in _MONTHS and not _of_360_days(dates):
        if (counts % 1).any():
            raise SourceError(
                f"{where}: {lead} has {counts[counts % 1 != 0][0]:g} months, and parts of months "
                "have no fixed length; give whole months, or days"
            )
        return _months_later(dates, counts.astype(int))
    seconds = counts * (30 * 86400.0 if unit in _MONTHS else _SECONDS.get(unit, 0.0))
    spans = np.round(seconds * 1e6).astype("timedelta64[us]")
    if dates.dtype.kind == "M":
        return np.asarray(dates + spans)
    later = np.empty(dates.shape, dtype=object)
    for place, date in np.ndenumerate(dates):
        later[place] = date + timedelta(microseconds=int(spans[place].astype(np.int64)))
    return later


def _months_later(dates: Array, counts: Array) -> Array:
    later = np.array(dates)
    for _ in range(int(counts.max(initial=0))):
        again = counts > 0
        start, end = edges(later[again], "month")
        later[again] = end + (later[again] - start)
        counts = counts - again
    return later


def _of_360_days(dates: Array) -> bool:
    return dates.dtype.kind != "M" and str(dates.flat[0].calendar) == "360_day"


def is_span(units: object) -> bool:
    """Whether a unit is one of spans of time."""
    return str(units).strip().lower() in _SECONDS
