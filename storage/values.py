"""Whether values are what they claim to be: fill values, missing values, ranges, units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from storage.axes import SourceError, toml_key

# (standard_name, unit) -> values beyond which no weather on this planet goes.
_PLAUSIBLE = {
    ("air_temperature", "K"): (100.0, 400.0),
    ("air_temperature", "degC"): (-173.0, 127.0),
    ("sea_surface_temperature", "K"): (200.0, 350.0),
    ("sea_surface_temperature", "degC"): (-73.0, 77.0),
    ("eastward_wind", "m s-1"): (-300.0, 300.0),
    ("northward_wind", "m s-1"): (-300.0, 300.0),
    ("geopotential_height", "m"): (-2000.0, 100000.0),
    ("precipitation_flux", "kg m-2 s-1"): (-0.001, 1.0),
    ("air_pressure_at_mean_sea_level", "Pa"): (5e4, 1.2e5),
    ("surface_air_pressure", "Pa"): (2e4, 1.2e5),
    ("specific_humidity", "1"): (-0.01, 0.2),
    ("relative_humidity", "%"): (-20.0, 300.0),
}
_FILLS = (-999.0, -9999.0, -99999.0, -32768.0, -32767.0, 9999.0, 99999.0, -99.99)
_HUGE = 1e15

# unit -> (base unit, factor, offset)
_UNITS = {
    "K": ("K", 1.0, 0.0),
    "kelvin": ("K", 1.0, 0.0),
    "degK": ("K", 1.0, 0.0),
    "degC": ("K", 1.0, 273.15),
    "celsius": ("K", 1.0, 273.15),
    "degrees_celsius": ("K", 1.0, 273.15),
    "deg_C": ("K", 1.0, 273.15),
    "C": ("K", 1.0, 273.15),
    "Pa": ("Pa", 1.0, 0.0),
    "hPa": ("Pa", 100.0, 0.0),
    "mbar": ("Pa", 100.0, 0.0),
    "millibar": ("Pa", 100.0, 0.0),
    "m": ("m", 1.0, 0.0),
    "gpm": ("m", 1.0, 0.0),
    "km": ("m", 1000.0, 0.0),
    "m s-1": ("m s-1", 1.0, 0.0),
    "m/s": ("m s-1", 1.0, 0.0),
    "m s**-1": ("m s-1", 1.0, 0.0),
    "kg m-2 s-1": ("kg m-2 s-1", 1.0, 0.0),
    "mm/day": ("kg m-2 s-1", 1 / 86400, 0.0),
    "mm day-1": ("kg m-2 s-1", 1 / 86400, 0.0),
}


@dataclass(frozen=True)
class Missing:
    """Missing values of a variable: how many, which part, and whether always the same cells."""

    count: int
    fraction: float
    static: bool


def in_unit(array: xr.DataArray, unit: str, where: str) -> xr.DataArray:
    """The values in another unit.

    Raises:
        SourceError: If the two units do not convert.
    """
    old = array.attrs["units"]
    base, factor, offset = _UNITS.get(old, (old, 1.0, 0.0))
    target, target_factor, target_offset = _UNITS.get(unit, (unit, 1.0, 0.0))
    if base != target:
        raise SourceError(
            f"{where}: {array.name} is in {old!r}, other files have {unit!r}, and no conversion "
            f"is known; a value there is {float(array[(0,) * array.ndim])}. Convert the file first"
        )
    scale, shift = factor / target_factor, (offset - target_offset) / target_factor
    converted: xr.DataArray = (array.astype(np.float64) * scale + shift).astype(array.dtype)
    return converted.assign_attrs({**array.attrs, "units": unit})


def mask_declared(
    dataset: xr.Dataset, missing: Mapping[str, float], notes: list[str]
) -> xr.Dataset:
    """NaN for the declared fill values.

    A value within the range of the others may also be a measurement: then only cells that hold
    it at every time are missing.
    """
    masked = dataset.copy()
    for name, value in missing.items():
        if name not in dataset:
            raise SourceError(f"source.missing names {name!r}, which is not among the variables")
        array = dataset[name]
        hit = array == np.float32(value)
        dims = [dim for dim in array.dims if dim == "time"]
        others = array.where(~hit)
        seen = xr.Dataset(
            {"always": hit.all(dims), "hits": hit.sum(), "low": others.min(), "high": others.max()}
        ).compute()
        count, cells = int(seen["hits"]), int(seen["always"].sum())
        if not count:
            raise SourceError(f"source.missing declares {name} = {value:g}, which never occurs")
        if float(seen["low"]) <= value <= float(seen["high"]):
            kept = count - cells * (array.sizes["time"] if dims else 1)
            notes.append(
                f"{name}: {cells} cells that are always {value:g} are missing; {kept} single "
                f"values of {value:g} elsewhere are kept"
            )
            masked[name] = array.where(~seen["always"])
        else:
            notes.append(f"{name}: {count} values of {value:g} are missing")
            masked[name] = others
        masked[name].attrs = dict(array.attrs)
    return masked


def missing_values(dataset: xr.Dataset, variables: Sequence[str]) -> dict[str, Missing]:
    """Which variables have missing values, and whether their mask is the same at all times."""
    found = {}
    for name in variables:
        per_cell = dataset[name].isnull().sum([d for d in dataset[name].dims if d == "time"])
        found[name] = _missing(per_cell.values, dataset[name].size)
    return {name: missing for name, missing in found.items() if missing.count}


def examine(
    dataset: xr.Dataset, names: Sequence[str], valid_range: Mapping[str, tuple[float, float]]
) -> dict[str, Missing]:
    """Read everything once; the variables with missing values.

    Raises:
        SourceError: If values look like a fill value that nobody declared, or lie outside the
            valid range.
    """
    strangers = set(valid_range) - set(names)
    if strangers:
        raise SourceError(f"source.valid_range names {min(strangers)!r}, not among the variables")
    lazy = {}
    for name in names:
        array = dataset[name]
        lazy[name, "low"], lazy[name, "high"] = array.min(), array.max()
        lazy[name, "missing"] = array.isnull().sum([d for d in array.dims if d == "time"])
    seen = xr.Dataset(lazy).compute()
    found = {}
    for name in names:
        missing = _missing(seen[name, "missing"].values, dataset[name].size)
        if missing.fraction == 1:
            raise SourceError(f"{name}: all values are missing")
        for extreme in ("low", "high"):
            _judge(dataset[name], float(seen[name, extreme]), valid_range.get(name))
        if missing.count:
            found[name] = missing
    return found


def _missing(per_cell: np.ndarray[tuple[int, ...], np.dtype[np.int64]], size: int) -> Missing:
    count = int(per_cell.sum())
    times = size // per_cell.size
    return Missing(count, count / size, bool(np.isin(per_cell, (0, times)).all()))


def _judge(array: xr.DataArray, value: float, declared: tuple[float, float] | None) -> None:
    key = (str(array.attrs.get("standard_name")), str(array.attrs.get("units")))
    bounds = declared or _PLAUSIBLE.get(key, (-_HUGE, _HUGE))
    fill = declared is None and bool(np.isclose(value, _FILLS, rtol=1e-6, atol=0).any())
    if bounds[0] <= value <= bounds[1] and not fill:
        return
    count = int((array == np.float32(value)).sum())
    exact = str(np.float32(value))  # the shortest text that reads back as the same float32
    reason = "looks like a fill value" if fill or abs(value) >= _HUGE else "is out of range"
    raise SourceError(
        f"{array.name}: {exact} {reason} ({count} times; unit {key[1]!r}). If it stands for "
        f"missing, declare it: [source] missing = {{ {toml_key(array.name)} = {exact} }}; if it is "
        f"right: [source] valid_range = {{ {toml_key(array.name)} = [{min(value, bounds[0]):g}, "
        f"{max(value, bounds[1]):g}] }}"
    )
