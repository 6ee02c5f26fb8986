"""Observations at places and times, read from a table: CSV, Parquet or NetCDF.

    time, lat, lon, variable, value     what was seen, when and where
    error                               its standard deviation, in the unit of the value
    unit                                of value and error, if not that of the variable

A NetCDF file has variables of these names along one dimension. Rows without a value are left out.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from storage.conventions.axes import SourceError
from storage.conventions.quantities import cf_unit, conversion
from storage.conventions.time_units import from_text
from storage.conventions.times import decode_times, iso
from storage.sources.formats.opening import open_tables

__all__ = ["Observations", "read_observations", "rows_by_day"]

NEEDED = ("time", "lat", "lon", "variable", "value")
COLUMNS = (*NEEDED, "error", "unit")
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Observations:
    """Rows of a table, in the order of their days, in the units of the variables.

    Attributes:
        day: ISO dates, (row,).
        lat, lon: [degrees], (row,).
        variable: names, (row,).
        value, error: float64, (row,).
        number: of each row in its table, from 1.
        left_out: how many rows have no value.
    """

    where: str
    day: Array
    lat: Array
    lon: Array
    variable: Array
    value: Array
    error: Array
    number: Array
    left_out: int = 0

    def name(self, row: int) -> str:
        """A row as people find it."""
        return (
            f"{self.where}, row {self.number[row]} ({self.variable[row]} = {self.value[row]:g} at "
            f"{self.lat[row]:g}, {self.lon[row]:g} on {self.day[row]})"
        )


def read_observations(
    path: str, units: Mapping[str, str], errors: Mapping[str, float], calendar: str = "standard"
) -> Observations:
    """The observations of a table.

    Args:
        units: the unit of each variable of the model, by name.
        errors: standard deviations of the errors by variable, for rows that tell none.
        calendar: of the times.
    Raises:
        SourceError: If a row cannot be used; the message has its number and the remedy.
    """
    table = _read(path, calendar)
    for column in ("lat", "lon", "value", "error"):
        table[column] = _numbers(table, column, path)
    kept = np.isfinite(table["value"].to_numpy())
    left_out = int((~kept).sum())
    table = table[kept]
    order = np.argsort(table["day"].to_numpy().astype(str), kind="stable")
    table = table.iloc[order]
    found = Observations(
        where=Path(path).name,
        day=table["day"].to_numpy().astype(str),
        lat=table["lat"].to_numpy(),
        lon=table["lon"].to_numpy(),
        variable=table["variable"].to_numpy().astype(str),
        value=table["value"].to_numpy().copy(),
        error=table["error"].to_numpy().copy(),
        number=table["number"].to_numpy(),
        left_out=left_out,
    )
    if not found.value.size:
        raise SourceError(f"{path}: no row has a value; give at least one observation")
    _require_places(found)
    _require_variables(found, list(units))
    _convert(found, table["unit"].to_numpy(), units)
    _fill_errors(found, errors)
    _require_new(found)
    return found


def rows_by_day(path: str, calendar: str = "standard") -> dict[str, int]:
    """How many rows of a table each day has, with a value or without one.

    Raises:
        SourceError: If the table cannot be read.
    """
    days, counts = np.unique(
        _read(path, calendar)["day"].to_numpy().astype(str), return_counts=True
    )
    return {str(day): int(count) for day, count in zip(days, counts, strict=True)}


def _read(path: str, calendar: str) -> pd.DataFrame:
    """Columns `COLUMNS`, those that are absent empty, with `number` and `day`."""
    suffix = Path(path).suffix.lower()
    try:
        if suffix == ".csv":
            text = dict.fromkeys(("time", "variable", "unit"), str)
            table = pd.read_csv(path, dtype=text, skipinitialspace=True)
        elif suffix in (".parquet", ".pq"):
            table = _parquet(path)
        else:
            table = _netcdf(path)
    except SourceError:
        raise
    except (OSError, ValueError, UnicodeError) as error:
        raise SourceError(f"{path}: the observations cannot be read: {error}") from error
    if missing := [name for name in NEEDED if name not in table]:
        raise SourceError(
            f"{path}: no column {', '.join(missing)}; observations need {', '.join(NEEDED)}, and "
            f"this table has {', '.join(map(str, table.columns))}"
        )
    table = table.reindex(columns=list(COLUMNS)).reset_index(drop=True)
    table["number"] = np.arange(1, len(table) + 1)
    table["day"] = _days(table["time"], calendar, path)
    return table


def _parquet(path: str) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except ImportError as error:
        raise SourceError(
            f"{path}: reading Parquet needs pyarrow: pip install pyarrow, or save the table as CSV"
        ) from error


def _netcdf(path: str) -> pd.DataFrame:
    (table, *_) = open_tables(path)
    names = [name for name in COLUMNS if name in table.variables]
    if "value" not in names or table["value"].ndim != 1:
        raise SourceError(
            f"{path}: no series `value` along one dimension; it has "
            f"{', '.join(map(str, table.variables))}"
        )
    columns = {}
    for name in names:
        values = table[name].to_numpy()
        if name == "time" and values.dtype.kind not in "SUO":
            values = iso(decode_times(table, "time", path)).astype(str)
        if values.dtype.kind == "S":
            values = np.char.decode(values, "utf-8")
        columns[name] = np.broadcast_to(values, table["value"].shape)
    return pd.DataFrame(columns)


def _days(column: Any, calendar: str, path: str) -> list[str]:
    written = column.to_numpy(dtype=object)
    if column.dtype.kind == "M":
        return [str(one)[:10] for one in column.to_numpy().astype("datetime64[s]")]
    for number, one in enumerate(written, 1):
        if not isinstance(one, str):
            raise SourceError(f"{path}: row {number} has no time; write ISO dates")
    return [str(one)[:10] for one in iso(from_text(written, calendar, "time", path))]


def _numbers(table: pd.DataFrame, column: str, path: str) -> Any:
    numbers = pd.to_numeric(table[column], errors="coerce").astype(np.float64)
    bad = numbers.isna() & table[column].notna()
    empty = numbers.isna() if column in ("lat", "lon") else bad & False
    if (bad | empty).any():
        row = int((bad | empty).to_numpy().argmax())
        raise SourceError(
            f"{path}: row {row + 1} has {table[column].iloc[row]!r} for {column}, which is no "
            "number; mend it or leave the row out"
        )
    return numbers


def _require_places(found: Observations) -> None:
    outside = ~(np.abs(found.lat) <= 90.0) | ~(np.abs(found.lon) <= 360.0)
    if outside.any():
        row = int(outside.argmax())
        raise SourceError(
            f"{found.name(row)} lies outside the sphere: latitudes go from -90 to 90 degrees "
            "north, longitudes from -360 to 360 degrees east. Are the two swapped?"
        )


def _require_variables(found: Observations, known: Sequence[str]) -> None:
    strange = ~np.isin(found.variable, known)
    if strange.any():
        row = int(strange.argmax())
        close = difflib.get_close_matches(str(found.variable[row]), known, n=1)
        hint = f" (is it {close[0]!r}?)" if close else ""
        raise SourceError(
            f"{found.name(row)}: the model has no variable {str(found.variable[row])!r}{hint}; it "
            f"has {', '.join(known)}"
        )


def _convert(found: Observations, units: Array, known: Mapping[str, str]) -> None:
    """Values and errors into the unit of their variable, in place."""
    for row, unit in enumerate(units):
        wanted = known[str(found.variable[row])]
        if not isinstance(unit, str) or cf_unit(unit.strip()) == cf_unit(wanted):
            continue
        way = conversion(cf_unit(unit.strip()), cf_unit(wanted))
        if way is None:
            raise SourceError(
                f"{found.name(row)} is in {unit!r}, the model has {found.variable[row]} in "
                f"{wanted!r}, and no conversion is known: convert value and error in the table"
            )
        factor, shift = way
        found.value[row] = found.value[row] * factor + shift
        found.error[row] *= factor


def _fill_errors(found: Observations, errors: Mapping[str, float]) -> None:
    """The errors of rows that tell none, in place."""
    for row in np.flatnonzero(~np.isfinite(found.error)).tolist():
        name = str(found.variable[row])
        if name not in errors:
            raise SourceError(
                f"{found.name(row)} has no error: give a column `error` with its standard "
                f"deviation, or condition.error.{name}"
            )
        found.error[row] = errors[name]
    if (found.error < 0.0).any():
        row = int((found.error < 0.0).argmax())
        raise SourceError(
            f"{found.name(row)} has the error {found.error[row]:g}; a standard deviation is 0 or "
            "more"
        )


def _require_new(found: Observations) -> None:
    """Refuse the same thing observed twice without error."""
    seen: dict[tuple[Any, ...], int] = {}
    for row in np.flatnonzero(found.error == 0.0).tolist():
        place = (
            str(found.day[row]),
            str(found.variable[row]),
            float(found.lat[row]),
            0.0 if abs(found.lat[row]) == 90.0 else float(found.lon[row]) % 360.0,
        )
        if place in seen:
            raise SourceError(
                f"{found.name(row)} has error 0, and so has row {found.number[seen[place]]} "
                "of the same place, day and variable: leave one of them out, or give them errors"
            )
        seen[place] = row
