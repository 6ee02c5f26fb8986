"""Named numbers that go along with the fields in time: an index, a forcing, a warming level.

A covariate comes from a file of its own, as often as it is known there, and is interpolated
linearly to the times of the fields. Times are compared as decimal years, so that a monthly index
of the standard calendar serves a model's calendar of 360 days.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from storage.conventions.axes import SourceError, find_axes
from storage.conventions.labels import member_numbers
from storage.conventions.stamps import Stamped, one_convention
from storage.conventions.time_units import from_text
from storage.conventions.times import bounds_of, decode_times
from storage.sources.formats.opening import open_tables

__all__ = ["add_covariates", "decimal_year", "read_covariate"]


Given = Mapping[str, float | str]  # by name, a number or the file of a series


def add_covariates(
    fields: xr.Dataset, given: Given, scenarios: Mapping[str, Given] | None = None
) -> xr.Dataset:
    """The fields with one more variable (time) for each covariate.

    Args:
        given: Covariates of all fields.
        scenarios: Covariates of the fields of each scenario, whose name is the label of its
            `member`; the same names in all.
    """
    if not scenarios:
        return fields.assign(_along(fields["time"], given))
    numbers, found = member_numbers(fields["member"]), dict[str, list[xr.DataArray]]()
    place = np.arange(fields.sizes["time"])
    rows = [place[fields["member"].to_numpy() == numbers[name]] for name in scenarios]
    for where, one in zip(rows, scenarios.values(), strict=True):
        for name, series in _along(fields["time"].isel(time=where), one).items():
            found.setdefault(name, []).append(series)
    back = np.argsort(np.concatenate(rows))
    return fields.assign({name: _in_a_row(series, back) for name, series in found.items()})


def _along(times: xr.DataArray, given: Given) -> dict[str, xr.DataArray]:
    """Covariates at times: a number is the same at all of them."""
    return {
        name: read_covariate(value, name, times)
        if isinstance(value, str)
        else xr.DataArray(np.full(times.size, float(value)), dims="time")
        for name, value in given.items()
    }


def _in_a_row(series: Sequence[xr.DataArray], back: NDArray[np.intp]) -> xr.DataArray:
    """The values of all scenarios in the order of the fields."""
    values = np.concatenate([one.values for one in series])[back]
    attrs = next((one.attrs for one in series if one.attrs), {})
    return xr.DataArray(values, dims="time", attrs=attrs)


def read_covariate(path: str, name: str, times: xr.DataArray) -> xr.DataArray:
    """A covariate at the times of the fields.

    Args:
        path: A NetCDF file or Zarr store with the variable `name` along time, or a CSV file with
            the columns `time` (ISO dates) and `name`.
        times: Dates of any calendar.
    Returns:
        Float64 values along time, with the attributes of the source.
    Raises:
        SourceError: If the series cannot be read, has missing values, or ends more than one of its
            steps away from a time of the fields.
    """
    series = _read(path, name)
    try:
        known, values = decimal_year(series["time"]), series.values.astype(np.float64)
    except (ValueError, TypeError, AttributeError) as error:
        raise SourceError(
            f"{path}: {name} holds what is no number, or times that are no dates ({error})"
        ) from error
    if not np.isfinite(known).all():
        raise SourceError(f"{path}: a time of {name} is missing; complete the series")
    if not np.isfinite(values).all():
        first = series["time"].values[int(np.argmin(np.isfinite(values)))]
        raise SourceError(f"{path}: {name} has no value at {first}; complete the series")
    order = np.argsort(known, kind="stable")
    known, values, wanted = known[order], values[order], decimal_year(times)
    twice = np.flatnonzero((np.diff(known) == 0) & (np.diff(values) != 0))
    if len(twice):
        raise SourceError(
            f"{path}: {name} is {values[twice[0]]:g} and {values[twice[0] + 1]:g} at the same time "
            f"({known[twice[0]]:.4f}); remove one of them"
        )
    step = float(np.median(np.diff(known))) if len(known) > 1 else 0.0
    for beyond, edge in (
        (known[0] - wanted.min(), known[0]),
        (wanted.max() - known[-1], known[-1]),
    ):
        if beyond > step + 1e-9:
            raise SourceError(
                f"{path}: {name} is known from {known[0]:.3f} to {known[-1]:.3f} (years); the "
                f"fields need {wanted.min():.3f} to {wanted.max():.3f}, more than one step of "
                f"{step:.3f} beyond {edge:.3f}; lengthen the series or shorten the source"
            )
    return xr.DataArray(
        np.interp(wanted, known, values), dims="time", coords={"time": times}, attrs=series.attrs
    ).reset_coords(drop=True)


def decimal_year(times: xr.DataArray) -> NDArray[np.float64]:
    """Dates of any calendar as years with their elapsed fraction."""
    date = times.dt
    if date.calendar == "360_day":
        days = np.full(times.shape, 360)
    else:
        days = np.where(date.is_leap_year.values, 366, 365)
    seconds = date.hour.values * 3600 + date.minute.values * 60 + date.second.values
    elapsed = date.dayofyear.values - 1 + seconds / 86400
    result: NDArray[np.float64] = date.year.values + elapsed / days
    return result


def _read(path: str, name: str) -> xr.DataArray:
    try:
        series = _read_csv(path, name) if Path(path).suffix == ".csv" else _read_array(path, name)
    except SourceError:
        raise
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: the covariate {name} cannot be read: {error}") from error
    if series.dims != ("time",) or series.size == 0:
        raise SourceError(
            f"{path}: {name} has dimensions {series.dims} of {series.shape}; a covariate is a "
            "series along time"
        )
    return series


def _read_csv(path: str, name: str) -> xr.DataArray:
    table = pd.read_csv(path, dtype={"time": str})
    if missing := [column for column in ("time", name) if column not in table]:
        raise SourceError(
            f"{path}: no column {', '.join(missing)}; it has {', '.join(map(str, table))}"
        )
    written = table["time"].fillna("").to_numpy(dtype=object)
    dates = from_text(written, "standard", "time", path)
    return xr.DataArray(table[name].to_numpy(), dims="time", coords={"time": dates})


def _read_array(path: str, name: str) -> xr.DataArray:
    """A series with its times, stamped in one convention as fields are."""
    for table in open_tables(path):
        if name in table.variables:
            return _stamped(table, name, path)
    raise SourceError(f"{path}: no variable {name}; it has {', '.join(map(str, table.data_vars))}")


def _stamped(table: xr.Dataset, name: str, path: str) -> xr.DataArray:
    time = find_axes(table, name, {}, path).time
    single = [dim for dim in table[name].dims if table.sizes[dim] == 1 and dim != time]
    series = table.variables[name].isel(dict.fromkeys(single, 0))
    if time is None or table.variables[time].dims != series.dims:
        raise SourceError(
            f"{path}: {name} has dimensions {series.dims} of {series.shape}; a covariate is a "
            "series along time"
        )
    dates = decode_times(table, time, path)
    (one,) = one_convention(
        [
            Stamped(
                where=path,
                dates=dates,
                bounds=bounds_of(table, time, dates),
                methods=str(series.attrs.get("cell_methods", "")),
                kept=np.arange(dates.size),
            )
        ],
        None,
        [],
    )
    values = np.asarray(series.values)[one.kept]
    return xr.DataArray(values, dims="time", coords={"time": one.dates}, attrs=series.attrs)
