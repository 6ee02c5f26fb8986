"""Times of a source as dates: datetime64 where its calendar and range allow, else cftime.

Beyond CF's own units those of storage/conventions/time_units are read; climatologies (times without
a year) are refused, and so are records that nobody wrote.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import cftime
import numpy as np
import xarray as xr

from storage.conventions.axes import SourceError
from storage.conventions.time_units import STANDARD, are_text, from_text, in_other_units

__all__ = [
    "bounds_of",
    "decode_times",
    "find_gaps",
    "iso",
    "one_calendar",
    "said_time",
    "usual_step",
]

Array = np.ndarray[Any, Any]

_ALIASES = {
    **dict.fromkeys(("360", "360day", "360_days", "thirty_day_months", "thirty_day"), "360_day"),
    **dict.fromkeys(("30_day_months", "30_day", "uniform30day", "d360"), "360_day"),
    **dict.fromkeys(
        ("365", "365day", "365_days", "no_leap", "noleap_365", "no_leap_year"), "noleap"
    ),
    **dict.fromkeys(("366", "366day", "366_days", "allleap", "all_leap_year"), "all_leap"),
    **dict.fromkeys(("none", "", "std", "greg", "standard_gregorian"), "standard"),
    **dict.fromkeys(
        ("proleptic", "prolepticgregorian", "gregorian_proleptic"), "proleptic_gregorian"
    ),
}
_CALENDARS = (*STANDARD, "noleap", "365_day", "360_day", "all_leap", "366_day", "julian")
_YEAR_ZERO = re.compile(r".*\bsince\s+0+-", re.IGNORECASE)
_UNIT = re.compile(r"\s*([a-z]+)\s+since\b", re.IGNORECASE)
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}  # by the first letter of a unit
_UNWRITTEN = (-2147483647, -2147483648, -9223372036854775806)  # of whole numbers, in NetCDF
_HUGE = 1e19  # nanoseconds since 1970 are fewer
_GRIDS = (  # seconds between times that a day is divided by
    *((86400, "days"), (43200, "half days"), (21600, "hours"), (10800, "hours"), (3600, "hours")),
    *((1800, "minutes"), (900, "minutes"), (600, "minutes"), (300, "minutes"), (60, "minutes")),
    (1, "seconds"),
)


def decode_times(table: xr.Dataset, name: str, where: str, notes: list[str] | None = None) -> Array:
    """The dates of the time coordinate `name`, in its shape.

    Raises:
        SourceError: If they cannot be decoded, are missing, or belong to no year.
    """
    variable = table.variables[name]
    if "climatology" in variable.attrs:
        raise SourceError(
            f"{where}: {name} is a climatology (its attribute says so): the mean of many years "
            "is no record to learn from; give the series that it was made from"
        )
    if _YEAR_ZERO.match(str(variable.attrs.get("units", ""))) and "modulo" in variable.attrs:
        raise SourceError(
            f"{where}: {name} repeats itself (its attribute modulo says so), as climatologies do: "
            "the mean of many years is no record to learn from; give the series it was made from"
        )
    if variable.size == 0:
        raise SourceError(f"{where}: {name} has no times; is the file empty?")
    if are_text(variable.values):
        calendar = _calendar_of(variable, name, where)
        dates = from_text(np.asarray(variable.values), calendar, name, where)
    elif variable.dtype.kind in "Mm" or variable.dtype == object:
        dates = np.asarray(variable.values)
    else:
        _require_written(variable, name, where)
        dates, note = _without_rounding(_decoded(variable, name, where), variable)
        if note and notes is not None:
            notes.append(f"{where}: {name} {note}")
    for record, date in enumerate(dates.flat):
        if _missing(date):
            raise _unwritten(variable, record, "missing", name, where)
    _refuse_no_year(dates, name, where)
    return dates


def bounds_of(table: xr.Dataset, name: str, dates: Array) -> Array | None:
    """Bounds of times in a row or of a single one, shape (time, 2); None if none can be read."""
    variable = table.variables[name]
    said = variable.attrs.get("bounds", variable.encoding.get("bounds"))
    usual = [f"{name}{end}" for end in ("_bnds", "_bounds", "_bound")]
    bounds = next((n for n in (said, *usual) if n in table.variables), None)
    if bounds is None or variable.ndim > 1 or table.variables[bounds].shape[-1:] != (2,):
        return None
    found = table.variables[bounds]
    if found.dims[:-1] != variable.dims:
        return None
    times = variable.attrs | {k: found.attrs[k] for k in ("units", "calendar") if k in found.attrs}
    plain = xr.Variable(found.dims, np.asarray(found.values), times)
    try:
        _require_written(plain, str(bounds), "")
        decoded = _without_rounding(_decoded(plain, str(bounds), ""), plain)[0]
    except SourceError:
        return None
    decoded = decoded.reshape(-1, 2)
    return decoded if type(decoded.flat[0]) is type(dates.flat[0]) else None


def one_calendar(series: Sequence[Array], files: Sequence[str]) -> list[Array]:
    """The dates of several files as one type, cftime as soon as one file needs it.

    Raises:
        SourceError: If their calendars differ.
    """
    if all(dates.dtype.kind == "M" for dates in series):
        return list(series)
    names = [_calendar(dates) for dates in series]
    first = names[0]
    for name, file in zip(names, files, strict=True):
        if name != first and not {name, first} <= set(STANDARD):
            raise SourceError(
                f"{file}: its calendar {name} differs from {first}, that of {files[0]}; bring "
                f"them to one, e.g. cdo setcalendar,{first} (29 February has to go or to come)"
            )
    if first not in STANDARD:
        return list(series)
    return [_as_cftime(dates, "standard") for dates in series]


def find_gaps(times: Array) -> list[str]:
    """The gaps of sorted times, in words: steps of more than 1.5 times the usual one."""
    if times.size < 3:
        return []
    steps = _steps(times)
    usual = float(np.median(steps))
    return [
        f"{said_time(times[i])} to {said_time(times[i + 1])}"
        for i in np.flatnonzero(steps > 1.5 * usual)
    ]


def usual_step(times: Array) -> float:
    """The median of the steps between dates, in seconds; 0 for a single one."""
    return float(np.median(_steps(np.sort(times)))) if times.size > 1 else 0.0


def iso(times: Array) -> Array:
    """Dates as ISO text to the second, which sorts as they do, in every calendar."""
    if times.dtype.kind == "M":
        return np.datetime_as_string(times, unit="s")
    return np.array([date.isoformat()[:19] for date in times.flat])


def said_time(date: Any) -> str:
    """A date as people write it, midnight left out."""
    text = str(date).replace(" ", "T")
    return re.sub(r"(\.0+)$", "", text).removesuffix("T00:00:00")


def _decoded(variable: xr.Variable, name: str, where: str) -> Array:
    units = str(variable.attrs.get("units", ""))
    calendar = _calendar_of(variable, name, where)
    other = in_other_units(variable, calendar, name, where)
    if other is not None:
        return other
    attrs = {"units": units, "calendar": calendar}
    plain = xr.Variable(variable.dims, np.asarray(variable.values), attrs)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", xr.SerializationWarning)  # cftime where it has to be
            decoded = xr.conventions.decode_cf_variable(name, plain, decode_timedelta=False)
            dates = np.asarray(decoded.values)
    except (ValueError, OverflowError, AttributeError, TypeError):
        dates = np.empty(0)
    if dates.dtype.kind in "MO":
        return dates
    if _YEAR_ZERO.match(units):
        raise SourceError(
            f"{where}: {name} counts from the year 0 ({units!r}), as climatologies do: the mean of "
            "many years is no record to learn from; give the series that it was made from, or set "
            "the true years, e.g. cdo setreftime"
        )
    example, meaning = _example(variable, units)
    raise SourceError(
        f"{where}: the times cannot be decoded (its units are {units!r}, its calendar is "
        f'{calendar}); say what their numbers mean: [source] units = {{ time = "{example}" }}'
        f"{meaning}, or set units and calendar of {name} in the file"
    )


def _without_rounding(dates: Array, variable: xr.Variable) -> tuple[Array, str]:
    """The dates that numbers with a fraction stood for before they were rounded, and a note.

    Hours as days in float32 are minutes beside the hour; they are put on the coarsest grid of the
    day that all of them are as near to as such numbers are to each other.
    """
    unit = _UNIT.match(str(variable.attrs.get("units", "")))
    word = unit[1].lower() if unit else ""
    if (
        variable.dtype.kind != "f"
        or word[:1] not in _SECONDS
        or word.startswith(("mo", "mil", "mic"))
    ):
        return dates, ""
    values = np.abs(variable.values)
    coarse = float(np.spacing(values.max(initial=0))) * _SECONDS[word[0]]
    near, day = max(coarse, 0.4), _second_of_day(dates)
    for step, named in _GRIDS:
        off = np.round(day / step) * step - day
        if step > 2 * near and np.abs(off).max(initial=0) <= near:
            if dates.dtype.kind == "M":
                whole = (np.round(day / step) * step).astype("timedelta64[s]")
                moved = (dates.astype("M8[D]") + whole).astype(dates.dtype)
            else:
                moved = dates + np.round(off * 1e6).astype("timedelta64[us]").astype(object)
            noted = np.abs(off).max(initial=0) > 1
            note = f"is {variable.dtype}, {coarse:.0f} s coarse; rounded to whole {named}"
            return moved, note if noted else ""
    return dates, ""


def _example(variable: xr.Variable, units: str) -> tuple[str, str]:
    """Units that these numbers could have, and what to put right in them."""
    first = float(np.asarray(variable.values, dtype=np.float64).flat[0])
    words = re.findall(r"[a-z]+", units.lower())
    names = {"mo": "month", "yr": "year", "ye": "year", "ho": "hour", "hr": "hour", "h": "hour"}
    unit = next((names[w[:2]] for w in words if w[:2] in names), "day")
    if unit in ("month", "year") and first == int(first) and abs(first) < 1200:
        since = np.datetime64("2000-01") - int(first) * (12 if unit == "year" else 1)
        said = f", with the true date for {since}-01 (then {first:g} is {unit} 2000-01)"
        return f"{unit}s since {since}-01", said.replace("year 2000-01", "the year 2000")
    return f"{unit}s since 1970-01-01", ", with the true date for 1970-01-01"


def _calendar_of(variable: xr.Variable, name: str, where: str) -> str:
    said = str(variable.attrs.get("calendar", "standard"))
    plain = re.sub(r"[\s-]+", "_", said.strip().lower())
    calendar = _ALIASES.get(plain, plain)
    if calendar not in _CALENDARS:
        raise SourceError(
            f"{where}: the calendar of {name} is {said!r}, which is not known; those that are: "
            f"{', '.join(_CALENDARS)}. Write one of them into the file, e.g. ncatted -a "
            f"calendar,{name},o,c,standard"
        )
    return calendar


def _require_written(variable: xr.Variable, name: str, where: str) -> None:
    """Raise SourceError for a number that stands for none: NaN, or a fill value."""
    values = np.asarray(variable.values).ravel()
    wrong = ~np.isfinite(values) if values.dtype.kind == "f" else np.isin(values, _UNWRITTEN)
    if values.dtype.kind == "f":
        wrong |= np.abs(np.where(wrong, 0, values)) >= _HUGE
    for record in np.flatnonzero(wrong)[:1]:
        raise _unwritten(variable, int(record), f"{values[record]:g}", name, where)


def _unwritten(
    variable: xr.Variable, record: int, value: str, name: str, where: str
) -> SourceError:
    return SourceError(
        f"{where}: a time is missing, {name} is {value} at record {record + 1} of {variable.size}; "
        f"write it, or take the record out of the file"
    )


def _second_of_day(dates: Array) -> Array:
    if dates.dtype.kind == "M":
        part = (dates - dates.astype("M8[D]")).astype("timedelta64[ns]")
        second: Array = part.astype(np.float64) / 1e9
        return second
    found = [d.hour * 3600 + d.minute * 60 + d.second + d.microsecond / 1e6 for d in dates.flat]
    return np.array(found, dtype=np.float64).reshape(dates.shape)


def _steps(times: Array) -> Array:
    steps: Array = np.diff(times).astype("timedelta64[us]").astype(np.float64) / 1e6
    return steps


def _as_cftime(dates: Array, calendar: str) -> Array:
    if dates.dtype.kind == "M":
        days = dates.astype("datetime64[us]").astype(np.int64)
        found = cftime.num2date(days, "microseconds since 1970-01-01", calendar)
    else:
        found = [
            cftime.datetime(*d.timetuple()[:6], d.microsecond, calendar=calendar)
            for d in dates.flat
        ]
    result = np.empty(dates.shape, dtype=object)
    result[...] = np.asarray(found, dtype=object).reshape(dates.shape)
    return result


def _calendar(dates: Array) -> str:
    return "standard" if dates.dtype.kind == "M" else str(dates.flat[0].calendar)


def _missing(date: Any) -> bool:
    return date is None or date != date or (isinstance(date, np.datetime64) and np.isnat(date))


def _refuse_no_year(dates: Array, name: str, where: str) -> None:
    if dates.dtype.kind == "O" and min(date.year for date in dates.flat) < 1:
        raise SourceError(
            f"{where}: {name} has dates in year {min(date.year for date in dates.flat)}, as "
            "climatologies have: the mean of many years is no record to learn from; give the "
            "series that it was made from, or set the true years, e.g. cdo setreftime"
        )
