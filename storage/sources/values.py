"""Whether values are what they claim to be: fill values, missing values, ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from storage.conventions.axes import SourceError, toml_key
from storage.conventions.quantities import based
from storage.sources.survey import Survey

Array = np.ndarray[Any, Any]

# standard_name -> base unit, and values beyond which no weather on this planet goes.
_PLAUSIBLE = {
    "air_temperature": ("K", 100.0, 400.0),
    "sea_surface_temperature": ("K", 200.0, 350.0),
    "surface_temperature": ("K", 100.0, 400.0),
    "eastward_wind": ("m s-1", -300.0, 300.0),
    "northward_wind": ("m s-1", -300.0, 300.0),
    "geopotential_height": ("m", -2000.0, 100000.0),
    "precipitation_flux": ("kg m-2 s-1", -0.001, 1.0),
    "air_pressure_at_mean_sea_level": ("Pa", 5e4, 1.2e5),
    "air_pressure_at_sea_level": ("Pa", 5e4, 1.2e5),
    "surface_air_pressure": ("Pa", 2e4, 1.2e5),
    "specific_humidity": ("1", -0.01, 0.2),
    "relative_humidity": ("1", -0.2, 3.0),
}
_COLDEST = -273.2  # [degC], whatever the variable
_FILLS = (-999.0, -9999.0, -99999.0, -32768.0, -32767.0, 9999.0, 99999.0, -99.99)
_HUGE = 1e15
NOTABLE_ZEROS = 0.01  # of the cells


@dataclass(frozen=True)
class Missing:
    """Missing values of a variable: how many, which part, and how many come and go.

    Attributes:
        moving: Those in cells that have values at other times.
        cells: How many cells these are.
        everywhere: Whether every cell is missing at some time.
    """

    count: int
    fraction: float
    moving: int
    cells: int
    everywhere: bool

    @property
    def static(self) -> bool:
        """Whether the same cells are missing at all times."""
        return self.moving == 0


@dataclass(frozen=True)
class Settled:
    """What a survey says of a source: fields with NaN where missing, and where that is."""

    fields: xr.Dataset
    missing: Mapping[str, Missing]  # of the variables that have missing values
    masks: Mapping[str, Array]  # their cells that are always missing
    ever: Mapping[str, Array]  # their cells that are missing at some time
    empty: Mapping[str, Array]  # places of times at which a variable has no value anywhere
    fills: Mapping[str, float]  # declared values that are missing wherever they occur


def settle(
    dataset: xr.Dataset,
    surveys: Mapping[str, Survey],
    declared: Mapping[str, float],
    notes: list[str],
) -> Settled:
    """What is missing, of the variables that were looked at.

    A declared value within the range of the others may also be a measurement: then only cells
    that hold it at every time are missing.

    Raises:
        SourceError: If nothing but missing values is there, or a declared value never occurs.
    """
    fields, found, fills = dataset.copy(), dict[str, Missing](), dict[str, float]()
    masks, ever, empty = dict[str, Array](), dict[str, Array](), dict[str, Array]()
    for name, seen in surveys.items():
        absent = seen.per_cell()
        if name in declared:
            value, hits = declared[name], seen.per_cell(declared=True)
            always, count = hits == seen.times, int(hits.sum())
            if not count:
                raise SourceError(f"source.missing declares {name} = {value:g}, which never occurs")
            if seen.low <= value <= seen.high:
                notes.append(
                    f"{name}: {int(always.sum())} cells that are always {value:g} are missing; "
                    f"{int(hits[~always].sum())} single values of {value:g} elsewhere are kept"
                )
                hits = np.where(always, hits, 0)
                cells = [dim for dim in dataset[name].dims if dim != "time"]
                fields[name] = dataset[name].where(xr.DataArray(~always, dims=cells))
            else:
                notes.append(f"{name}: {count} values of {value:g} are missing")
                fields[name] = dataset[name].where(dataset[name] != np.float32(value))
                fills[name] = value
            fields[name].attrs = dict(dataset[name].attrs)
            absent = absent + hits
        if len(seen.empty) == seen.times:
            raise SourceError(f"{name}: all values are missing")
        if seen.empty:
            empty[name] = np.array(seen.empty)
        times = seen.times - len(seen.empty)
        absent = np.maximum(absent - len(seen.empty), 0)
        missing = _missing(absent, times * absent.size)
        if missing.count:
            found[name], masks[name], ever[name] = missing, absent == times, absent > 0
    return Settled(fields, found, masks, ever, empty, fills)


def missing_in(seen: Survey) -> Missing:
    """What a survey says of the missing values of a variable, without any declared value."""
    absent = seen.per_cell()
    return _missing(absent, seen.times * absent.size)


def constant_zeros(name: str, seen: Survey) -> str:
    """A sentence about cells that are exactly 0 at all times while others are nowhere near it."""
    share = float(seen.always_zero().mean())
    if share < NOTABLE_ZEROS or not seen.zeros_stand_out:
        return ""
    return (
        f"{share:.0%} of the cells are exactly 0 at all times; if that is land or no data, declare "
        f"it: [source] missing = {{ {toml_key(name)} = 0.0 }}, else it is drawn like all values"
    )


def missing_values(dataset: xr.Dataset, variables: Sequence[str]) -> dict[str, Missing]:
    """The variables with missing values, and whether their mask is the same at all times."""
    found = {}
    for name in variables:
        per_cell = dataset[name].isnull().sum([d for d in dataset[name].dims if d == "time"])
        found[name] = _missing(per_cell.values, dataset[name].size)
    return {name: missing for name, missing in found.items() if missing.count}


def judge(array: xr.DataArray, seen: Survey, valid_range: tuple[float, float] | None) -> None:
    """Raise SourceError if the extremes look like a fill value, or lie outside the valid range.

    Args:
        array: The values that were looked at; its attributes say what is plausible.
        valid_range: Declared bounds, instead of those known for the standard_name.
    """
    for value in (seen.low, seen.high) if seen.low <= seen.high else ():  # else nothing was seen
        _judge(array, value, valid_range)


def is_plausible(
    array: xr.DataArray, value: float, declared: tuple[float, float] | None
) -> tuple[bool, float, float]:
    """Whether a variable may have a value, with the lowest and the highest one that it may have."""
    bounds = declared or _plausible(
        str(array.attrs.get("standard_name")), str(array.attrs.get("units"))
    )
    return bounds[0] <= value <= bounds[1], *bounds


def _missing(per_cell: Array, size: int) -> Missing:
    count = int(per_cell.sum())
    times = size // per_cell.size
    comes_and_goes = (per_cell > 0) & (per_cell < times)
    moving = int(per_cell[comes_and_goes].sum())
    cells = int(comes_and_goes.sum())
    return Missing(count, count / size, moving, cells, bool((per_cell > 0).all()))


def _judge(array: xr.DataArray, value: float, declared: tuple[float, float] | None) -> None:
    unit = str(array.attrs.get("units"))
    bounds = declared or _plausible(str(array.attrs.get("standard_name")), unit)
    fill = declared is None and bool(np.isclose(value, _FILLS, rtol=1e-6, atol=0).any())
    if bounds[0] <= value <= bounds[1] and not fill:
        return
    count = int((array == np.float32(value)).sum())
    exact = str(np.float32(value))  # the shortest text that reads back as the same float32
    reason = "looks like a fill value" if fill or abs(value) >= _HUGE else "is out of range"
    raise SourceError(
        f"{array.name}: {exact} {reason} ({count} times; unit {unit!r}). If it stands for "
        f"missing, declare it: [source] missing = {{ {toml_key(array.name)} = {exact} }}; if it is "
        f"right: [source] valid_range = {{ {toml_key(array.name)} = [{min(value, bounds[0]):g}, "
        f"{max(value, bounds[1]):g}] }}"
    )


def _plausible(name: str, unit: str) -> tuple[float, float]:
    """Lowest and highest value of a standard_name, in the unit of the file."""
    zero, base = based(0.0, unit)
    scale = based(1.0, unit)[0] - zero
    known, low, high = _PLAUSIBLE.get(name, ("", -_HUGE, _HUGE))
    if known == base:
        return (low - zero) / scale, (high - zero) / scale
    return (_COLDEST if base == "K" and zero else -_HUGE), _HUGE
