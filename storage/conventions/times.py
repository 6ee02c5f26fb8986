"""Times of a source as dates: datetime64 where its calendar and range allow, else cftime.

Beyond CF's own units, whole `months since` and `years since` a date, dates as digits (CDO's
`day as %Y%m%d.%f`, 20010131 without a unit) and years with a fraction (`year A.D.`) are read;
climatologies (times without a year) are refused.
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

__all__ = [
    "are_digits",
    "bounds_of",
    "centred",
    "decode_times",
    "find_gaps",
    "one_calendar",
    "said_time",
]

Array = np.ndarray[Any, Any]

_STANDARD = ("standard", "gregorian", "proleptic_gregorian")
_ALIASES = {"360": "360_day", "365": "noleap", "none": "standard", "": "standard"}
_MONTHS = re.compile(r"\s*(month|year)s?\s+since\s+(\S.*)", re.IGNORECASE)
_DIGITS = re.compile(
    r"\s*(day\s+as\s+%Y%m%d(\.%f)?|month\s+as\s+%Y%m(\.%f)?|yyyymmdd(\.f+)?|yyyymm)\s*",
    re.IGNORECASE,
)
_YEARS = re.compile(r"\s*(decimal[ _])?years?(\s*(a\.?d\.?|c\.?e\.?))?\s*", re.IGNORECASE)
_YEAR_ZERO = re.compile(r".*\bsince\s+0+-", re.IGNORECASE)
_NS = (1678, 2261)


def decode_times(table: xr.Dataset, name: str, where: str) -> Array:
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
    if variable.dtype.kind in "Mm" or variable.dtype == object:
        dates = np.asarray(variable.values)
    else:
        dates = _decoded(variable, name, where)
    if dates.size == 0:
        raise SourceError(f"{where}: {name} has no times; is the file empty?")
    if any(_missing(date) for date in dates.flat):
        raise SourceError(f"{where}: a time is missing; repair the time axis")
    _refuse_no_year(dates, name, where)
    return dates


def bounds_of(table: xr.Dataset, name: str, dates: Array) -> Array | None:
    """Bounds of one-dimensional times, shape (time, 2); None if there are none to be read."""
    variable = table.variables[name]
    bounds = variable.attrs.get("bounds", variable.encoding.get("bounds"))
    if bounds not in table.variables or table.variables[bounds].ndim != 2:
        return None
    found = table.variables[bounds]
    if found.dims[0] not in variable.dims or found.shape[1] != 2:
        return None
    values = np.asarray(found.values, dtype=np.float64)
    times = variable.attrs | {k: found.attrs[k] for k in ("units", "calendar") if k in found.attrs}
    try:
        decoded = _decoded(xr.Variable(found.dims, values, times), str(bounds), "")
    except SourceError:
        return None
    return decoded if type(decoded.flat[0]) is type(dates.flat[0]) else None


def centred(dates: Array, bounds: Array | None) -> Array:
    """The middles of the bounds where all times stand at the end of theirs, else the times.

    The mean of January that is stamped 1 February (CESM) would be taken for February's.
    """
    if bounds is None or not ((dates == bounds[:, 1]) & (bounds[:, 0] < bounds[:, 1])).all():
        return dates
    middles: Array = bounds[:, 0] + (bounds[:, 1] - bounds[:, 0]) / 2
    return middles


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
        if name != first and not {name, first} <= set(_STANDARD):
            raise SourceError(
                f"{file}: its calendar {name} differs from {first}, that of {files[0]}; bring "
                f"them to one, e.g. cdo setcalendar,{first} (29 February has to go or to come)"
            )
    if first not in _STANDARD:
        return list(series)
    return [_as_cftime(dates, "standard") for dates in series]


def find_gaps(times: Array) -> list[str]:
    """The gaps of sorted times, in words: steps of more than 1.5 times the usual one."""
    if times.size < 3:
        return []
    steps = np.diff(times).astype("timedelta64[s]").astype(float)
    usual = float(np.median(steps))
    return [
        f"{said_time(times[i])} to {said_time(times[i + 1])}"
        for i in np.flatnonzero(steps > 1.5 * usual)
    ]


def said_time(date: Any) -> str:
    """A date as people write it, midnight left out."""
    text = str(date).replace(" ", "T")
    return re.sub(r"(\.0+)$", "", text).removesuffix("T00:00:00")


def _decoded(variable: xr.Variable, name: str, where: str) -> Array:
    units = str(variable.attrs.get("units", ""))
    calendar = str(variable.attrs.get("calendar", "standard")).strip().lower()
    calendar = _ALIASES.get(calendar, calendar)
    months = _MONTHS.fullmatch(units)
    if months and calendar != "360_day":
        return _whole_months(variable, months[1].lower(), months[2], calendar, name, where)
    if _DIGITS.fullmatch(units) or are_digits(variable):
        return _from_digits(variable, calendar, name, where)
    if _YEARS.fullmatch(units):
        return _from_years(variable, calendar)
    attrs = {"units": units, "calendar": calendar}
    plain = xr.Variable(variable.dims, np.asarray(variable.values), attrs)
    reason = f"its units are {units!r}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", xr.SerializationWarning)  # cftime where it has to be
            decoded = xr.conventions.decode_cf_variable(name, plain, decode_timedelta=False)
            dates = np.asarray(decoded.values)
    except (ValueError, OverflowError, AttributeError, TypeError) as error:
        reason, dates = " ".join(str(error).split()), np.empty(0)
    if dates.dtype.kind not in "MO" and _YEAR_ZERO.match(units):
        raise SourceError(
            f"{where}: {name} counts from the year 0 ({units!r}), as climatologies do: the mean of "
            "many years is no record to learn from; give the series that it was made from, or set "
            "the true years, e.g. cdo setreftime"
        )
    if dates.dtype.kind not in "MO":
        raise SourceError(
            f"{where}: the times cannot be decoded ({reason}); say what their numbers mean, e.g. "
            '[source] units = { time = "days since 1970-01-01" }' + f", or set units and calendar "
            f"of {name} in the file"
        )
    return dates


def _whole_months(
    variable: xr.Variable, unit: str, since: str, calendar: str, name: str, where: str
) -> Array:
    values = np.asarray(variable.values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise SourceError(f"{where}: a time is missing; repair the time axis")
    count = values * (12 if unit == "year" else 1)
    try:
        start: Any = cftime.num2date(0, f"days since {since}", calendar)
    except (ValueError, OverflowError, TypeError) as error:
        raise SourceError(
            f"{where}: the times cannot be decoded ({error}); set units and calendar of {name}"
        ) from error
    whole = np.round(count)
    if np.abs(count - whole).max(initial=0) > 1e-6 or start.day > 28:
        odd = float(values.flat[int(np.argmax(np.abs(count - whole)))])
        raise SourceError(
            f"{where}: {name} is in '{variable.attrs['units']}' with {odd:g} among its values, "
            "and parts of months have no fixed length; convert it first, "
            "e.g. cdo -setreftime,1970-01-01,00:00:00,days"
        )
    index = start.year * 12 + start.month - 1 + whole.astype(np.int64)
    dates = np.empty(values.shape, dtype=object)
    for place, months in np.ndenumerate(index):
        dates[place] = start.replace(year=int(months // 12), month=int(months % 12) + 1)
    return _as_numpy(dates, calendar)


def are_digits(variable: xr.Variable) -> bool:
    """Whether numbers without a unit are dates: 20010131, or 200101 for a month."""
    if str(variable.attrs.get("units", "")).strip() or variable.dtype.kind not in "iuf":
        return False
    values = np.asarray(variable.values, dtype=np.float64).ravel()
    if not values.size or not np.isfinite(values).all() or (values % 1).any():
        return False
    days = values if values.min() >= 1e7 else values * 100 + 1
    month, day = days // 100 % 100, days % 100
    within = (days >= 1000_01_01) & (days <= 2999_12_31)
    return bool((within & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all())


def _from_digits(variable: xr.Variable, calendar: str, name: str, where: str) -> Array:
    values = np.asarray(variable.values, dtype=np.float64)
    dates = np.empty(values.shape, dtype=object)
    for place, value in np.ndenumerate(values):
        whole, part = divmod(value, 1)
        whole, monthly = (whole, False) if whole >= 1e6 else (whole * 100 + 1, True)
        year, month = divmod(int(whole) // 100, 100)
        try:
            date: Any = cftime.datetime(year, month, int(whole) % 100, calendar=calendar)
        except ValueError as error:
            raise SourceError(
                f"{where}: {name} has {value:g}, which is no date as %Y%m%d ({error}); repair it"
            ) from error
        seconds = round(part * 86400 * (date.daysinmonth if monthly else 1))
        dates[place] = cftime.num2date(seconds, f"seconds since {date.isoformat(' ')}", calendar)
    return _as_numpy(dates, calendar)


def _from_years(variable: xr.Variable, calendar: str) -> Array:
    values = np.asarray(variable.values, dtype=np.float64)
    dates = np.empty(values.shape, dtype=object)
    for place, value in np.ndenumerate(values):
        year = int(value // 1)
        start, end = (cftime.datetime(y, 1, 1, calendar=calendar) for y in (year, year + 1))
        seconds = round((end - start).total_seconds() * (value % 1))
        dates[place] = cftime.num2date(seconds, f"seconds since {start.isoformat(' ')}", calendar)
    return _as_numpy(dates, calendar)


def _as_numpy(dates: Array, calendar: str) -> Array:
    years = [date.year for date in dates.flat]
    if calendar not in _STANDARD or min(years) < _NS[0] or max(years) > _NS[1]:
        return dates
    text = [date.isoformat() for date in dates.flat]
    return np.array(text, dtype="datetime64[ns]").reshape(dates.shape)


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
