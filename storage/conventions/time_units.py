"""Dates that are not counted in days or hours since a date: months, digits, years, text.

Whole `months since` and `years since` a date, dates as digits (CDO's `day as %Y%m%d.%f`, 20010131
without a unit), years with a fraction (`year A.D.`) and ISO dates as text are read.
"""

from __future__ import annotations

import re
from typing import Any

import cftime
import numpy as np
import xarray as xr

from storage.conventions.axes import SourceError

__all__ = ["are_digits", "are_text", "from_text", "in_other_units"]

Array = np.ndarray[Any, Any]

STANDARD = ("standard", "gregorian", "proleptic_gregorian")
_MONTHS = re.compile(r"\s*(month|year)s?\s+since\s+(\S.*)", re.IGNORECASE)
_DIGITS = re.compile(
    r"\s*(day\s+as\s+%Y%m%d(\.%f)?|month\s+as\s+%Y%m(\.%f)?|yyyymmdd(\.f+)?|yyyymm)\s*",
    re.IGNORECASE,
)
_YEARS = re.compile(r"\s*(decimal[ _])?years?(\s*(a\.?d\.?|c\.?e\.?))?\s*", re.IGNORECASE)
_ISO = re.compile(
    r"(\d{4})(?:[-/](\d\d?)(?:[-/](\d\d?))?|(\d\d)(\d\d)?)"
    r"(?:[T _](\d\d)(?::?(\d\d)(?::?(\d\d)(?:\.(\d+))?)?)?)?\s*(?:Z|UTC|[+-]00:?00)?"
)
_NS = (1678, 2261)


def in_other_units(variable: xr.Variable, calendar: str, name: str, where: str) -> Array | None:
    """The dates, if they are counted in one of these ways; else None.

    Raises:
        SourceError: If a number is no date.
    """
    units = str(variable.attrs.get("units", ""))
    months = _MONTHS.fullmatch(units)
    if months and calendar != "360_day":
        return _whole_months(variable, months[1].lower(), months[2], calendar, name, where)
    if _DIGITS.fullmatch(units) or are_digits(variable):
        return _from_digits(variable, calendar, name, where)
    if _YEARS.fullmatch(units):
        return _from_years(variable, calendar)
    return None


def are_text(values: Array) -> bool:
    """Whether times are written out, as text or bytes."""
    first = values.flat[0] if values.dtype == object and values.size else None
    return values.dtype.kind in "SU" or isinstance(first, str | bytes)


def from_text(values: Array, calendar: str, name: str, where: str) -> Array:
    """ISO dates as text, `2000-01-24_12:00:00` of WRF among them.

    Raises:
        SourceError: If one is no date; the message has its record.
    """
    dates = np.empty(values.shape, dtype=object)
    for record, (place, value) in enumerate(np.ndenumerate(values)):
        text = (
            value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        ).strip()
        match = _ISO.fullmatch(text.strip("\0 "))
        try:
            if match is None:
                raise ValueError
            year, month, day, *clock = (
                int(part or 0)
                for part in (
                    match[1],
                    match[2] or match[4],
                    match[3] or match[5],
                    *match.groups()[5:8],
                )
            )
            micro = int((match[9] or "").ljust(6, "0")[:6])
            dates[place] = cftime.datetime(year, month, day or 1, *clock, micro, calendar=calendar)
        except ValueError:
            raise SourceError(
                f"{where}: {name} is {text[:40]!r} at record {record + 1} of {values.size}, which "
                f"is no date of the calendar {calendar}; write it like 2000-01-31T06:00:00"
            ) from None
    return _as_numpy(dates, calendar)


def _whole_months(
    variable: xr.Variable, unit: str, since: str, calendar: str, name: str, where: str
) -> Array:
    values = np.asarray(variable.values, dtype=np.float64)
    count = values * (12 if unit == "year" else 1)
    try:
        start: Any = cftime.num2date(0, f"days since {since}", calendar)
    except (ValueError, OverflowError, TypeError):
        raise SourceError(
            f"{where}: the times cannot be decoded ({since!r} is no date of the calendar "
            f"{calendar}); set units and calendar of {name}"
        ) from None
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
        except ValueError:
            raise SourceError(
                f"{where}: {name} has {value:g}, which is no date as %Y%m%d; repair it"
            ) from None
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
    if calendar not in STANDARD or min(years) < _NS[0] or max(years) > _NS[1]:
        return dates
    text = [date.isoformat() for date in dates.flat]
    return np.array(text, dtype="datetime64[ns]").reshape(dates.shape)
