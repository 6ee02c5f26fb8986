"""What a field is, in CF's words: spellings of units and standard names, and conversions.

Files spell units in ways that UDUNITS takes for something else (`C` is coulomb, `mb` millibarn) or
does not know (`DEG C`, `M/S`, `gpm`); an ensemble has CF's spelling. The value is never changed.
"""

from __future__ import annotations

import re

import numpy as np
import xarray as xr

from storage.conventions.axes import SourceError

__all__ = ["based", "cf_standard_name", "cf_unit", "conversion", "in_unit"]

# By the spelling in small letters, single spaces.
_SPELLINGS = {
    **dict.fromkeys(
        ("c", "deg c", "degree c", "degrees c", "deg. c", "degc", "celsius", "degree celsius"),
        "degC",
    ),
    **dict.fromkeys(("degrees celsius", "deg celsius", "°c", "centigrade"), "degC"),
    **dict.fromkeys(("deg k", "degree k", "degrees k", "degrees kelvin", "kelvins"), "K"),
    **dict.fromkeys(("mb", "hpa", "mbar", "millibar", "millibars"), "hPa"),
    **dict.fromkeys(("pa", "pascal", "pascals"), "Pa"),
    **{"kpa": "kPa", "dbar": "dbar", "bar": "bar"},
    **dict.fromkeys(("gpm", "geopotential meter", "geopotential metre", "gpmeters"), "m"),
    "gpdm": "dam",
    **dict.fromkeys(
        ("m/s", "ms-1", "m/sec", "meter/sec", "meters/second", "metres/second"), "m s-1"
    ),
    "g/kg": "g kg-1",
    "kg/kg": "kg kg-1",
    **dict.fromkeys(("(0 - 1)", "(0-1)", "0-1", "fraction", "proportion", "unitless"), "1"),
    **dict.fromkeys(("dimensionless", "numeric", "[]", "(-)", "-"), "1"),
    **dict.fromkeys(("psu", "practical salinity units"), "1e-3"),
    **dict.fromkeys(("m of water equivalent", "m of water", "m water equivalent"), "m"),
    **dict.fromkeys(
        ("mm/d", "mm d-1", "mm per day", "millimeter/day", "millimeters/day"), "mm day-1"
    ),
}
_VALID_AS_IT_IS = {"m/s", "g/kg", "kg/kg", "mbar", "millibar", "millibars", "Pascals", "pascals"}
_VALID_AS_IT_IS |= {"celsius", "Celsius", "pascal", "mm d-1", "millimeters/day"}
_STANDARD_NAME = re.compile(r"[a-z][a-z0-9_]*")

_DEGREES = ("deg", "deg_", "degree", "degree_", "degrees", "degrees_")
_CELSIUS = [degree + name for degree in _DEGREES for name in ("C", "c")]
_CELSIUS += ["degree_Celsius", "degree_celsius", "degrees_Celsius", "degrees_celsius"]
_KELVIN = [degree + name for degree in _DEGREES for name in ("K", "k")]
_KELVIN += ["degree_Kelvin", "degree_kelvin", "degrees_Kelvin", "degrees_kelvin"]

# unit -> (base unit, factor, offset)
_UNITS = {
    **dict.fromkeys((*_KELVIN, "K", "kelvin", "kelvins", "Kelvin"), ("K", 1.0, 0.0)),
    **dict.fromkeys((*_CELSIUS, "celsius", "Celsius"), ("K", 1.0, 273.15)),
    **dict.fromkeys(("Pa", "pascal", "pascals", "Pascals"), ("Pa", 1.0, 0.0)),
    **dict.fromkeys(("hPa", "mbar", "millibar", "millibars"), ("Pa", 100.0, 0.0)),
    "kPa": ("Pa", 1000.0, 0.0),
    "dbar": ("Pa", 1e4, 0.0),
    "bar": ("Pa", 1e5, 0.0),
    **dict.fromkeys(("m", "meter", "metre", "meters", "metres"), ("m", 1.0, 0.0)),
    "dam": ("m", 10.0, 0.0),
    **dict.fromkeys(
        ("km", "kilometre", "kilometer", "kilometres", "kilometers"), ("m", 1000.0, 0.0)
    ),
    **dict.fromkeys(
        ("cm", "centimetre", "centimeter", "centimetres", "centimeters"), ("m", 0.01, 0.0)
    ),
    "mm": ("m", 0.001, 0.0),
    **dict.fromkeys(("m s-1", "m/s"), ("m s-1", 1.0, 0.0)),
    **dict.fromkeys(
        ("kg m-2 s-1", "kg/(m^2*s)", "mm s-1"),
        ("kg m-2 s-1", 1.0, 0.0),
    ),
    **dict.fromkeys(("mm/day", "mm day-1", "mm d-1"), ("kg m-2 s-1", 1 / 86400, 0.0)),
    **dict.fromkeys(("mm/hr", "mm hr-1", "mm hour-1", "mm h-1"), ("kg m-2 s-1", 1 / 3600, 0.0)),
    **dict.fromkeys(("1", "kg kg-1", "kg/kg", "kg kg**-1", "kg kg^-1"), ("1", 1.0, 0.0)),
    **dict.fromkeys(("g kg-1", "g/kg"), ("1", 0.001, 0.0)),
    **dict.fromkeys(("%", "percent"), ("1", 0.01, 0.0)),
}
_FACTOR = re.compile(r"\s*([/.*]?)\s*([A-Za-z_%]+)\s*(?:(?:\*\*|\^)?\s*([+-]?\d+))?")


def cf_unit(text: str) -> str:
    """A unit as UDUNITS reads it; what is not known to be spelled otherwise, as it is."""
    if text in _VALID_AS_IT_IS or text in _UNITS:
        return text
    return _SPELLINGS.get(" ".join(text.lower().split()), text)


def cf_standard_name(text: str) -> str:
    """A standard name, or nothing where files write `unknown` or a sentence in its place."""
    name = text.partition(" ")[0] if text.partition(" ")[2] in _MODIFIERS else text
    known = _STANDARD_NAME.fullmatch(name) is not None and name not in ("unknown", "none")
    return text if known else ""


_MODIFIERS = ("detection_minimum", "number_of_observations", "standard_error", "status_flag")


def _plain(unit: str) -> str:
    """A product of units as CF writes it, "kg m-2 s-1"; what is no such product, as it is.

    Powers are `m2`, `m^2` or `m**2`; a slash is for the one factor after it, as in UDUNITS.
    """
    powers: dict[str, int] = {}
    place = 0
    while place < len(unit):
        found = _FACTOR.match(unit, place)
        if found is None or (place == 0 and found[1]):
            return unit
        sign = -1 if found[1] == "/" else 1
        powers[found[2]] = powers.get(found[2], 0) + sign * int(found[3] or 1)
        place = found.end()
    if 0 in powers.values():  # kg kg-1 is of a mixing ratio, and no mere number
        return unit
    return " ".join(name + (str(power) if power != 1 else "") for name, power in powers.items())


def _meaning(unit: str) -> tuple[str, float, float]:
    """The base unit of a unit, factor and offset; itself if it is not known."""
    plain = _plain(unit)
    return _UNITS.get(unit) or _UNITS.get(plain) or (plain, 1.0, 0.0)


def based(value: float, unit: str) -> tuple[float, str]:
    """A value in the base unit of its kind, and that unit."""
    base, factor, offset = _meaning(unit)
    return value * factor + offset, base


def conversion(old: str, new: str) -> tuple[float, float] | None:
    """Factor and offset from one unit to another; None if they do not convert."""
    base, factor, offset = _meaning(old)
    target, target_factor, target_offset = _meaning(new)
    if base != target:
        return None
    return factor / target_factor, (offset - target_offset) / target_factor


def in_unit(array: xr.DataArray, unit: str, where: str) -> xr.DataArray:
    """The values in another unit.

    Raises:
        SourceError: If the two units do not convert.
    """
    old = array.attrs["units"]
    found = conversion(old, unit)
    if found is None:
        raise SourceError(
            f"{where}: {array.name} is in {old!r}, other files have {unit!r}, and no conversion "
            f"is known; a value there is {float(array[(0,) * array.ndim])}. Convert the file first"
        )
    scale, shift = found
    if (scale, shift) == (1.0, 0.0):
        return array.assign_attrs({**array.attrs, "units": unit})
    converted: xr.DataArray = (array.astype(np.float64) * scale + shift).astype(array.dtype)
    return converted.assign_attrs({**array.attrs, "units": unit})
