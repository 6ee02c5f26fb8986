"""Which coordinate of a variable is its time, latitude, longitude, level or member.

A role is found by what the configuration declares, else by standard_name, units, usual names, or
the CF attribute `axis`, in this order, among coordinates along dimensions of the variable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from storage.errors import SourceError, UnsafeSource

__all__ = [
    "Axes",
    "SourceError",
    "UnsafeSource",
    "find_axes",
    "follows_the_ground",
    "is_pressure",
    "positions_in_two_dimensions",
    "toml_key",
]

Array = np.ndarray[Any, Any]


_LATITUDES = ("degrees_north", "degree_north", "degrees_n", "degree_n", "degreesn", "degreen")
_LONGITUDES = ("degrees_east", "degree_east", "degrees_e", "degree_e", "degreese", "degreee")
_PRESSURES = ("pa", "hpa", "mb", "mbar", "millibar", "millibars", "dbar", "bar", "kpa")
_LEVELS = (
    *("air_pressure", "altitude", "height", "depth", "model_level_number", "air_potential_temp"),
    *("atmosphere_sigma_coordinate", "atmosphere_hybrid_sigma_pressure_coordinate"),
    *("atmosphere_hybrid_height_coordinate", "air_potential_temperature", "geopotential_height"),
)
_STANDARD_NAMES: Mapping[str, tuple[str, ...]] = {
    "time": ("time",),
    "lat": ("latitude",),
    "lon": ("longitude",),
    "level": _LEVELS,
    "member": ("realization",),
}
_UNITS: Mapping[str, tuple[str, ...]] = {
    "lat": _LATITUDES,
    "lon": _LONGITUDES,
    "level": _PRESSURES,
}
_NAMES: Mapping[str, tuple[str, ...]] = {
    "time": ("time", "t", "date", "valid_time", "datetime", "times"),
    "lat": ("lat", "latitude", "latitudes", "nav_lat", "nlat", "lats", "y", "j", "xlat"),
    "lon": ("lon", "longitude", "longitudes", "nav_lon", "nlon", "lons", "x", "i", "xlong"),
    "level": (
        *("level", "lev", "levels", "plev", "pressure", "pressure_level", "isobaric", "height"),
        *("isobaricinhpa", "isobaricinpa", "depth", "altitude", "z", "model_level", "plevel"),
        *("heightaboveground", "hybrid", "sigma", "ilev", "lvl"),
    ),
    "member": (
        *("member", "member_id", "realization", "realisation", "number", "ensemble", "ens"),
        *("ensemble_member", "ensmember", "variant", "variant_label", "realiz", "sample"),
    ),
}
_AXES = {"time": "T", "lat": "Y", "lon": "X", "level": "Z", "member": "E"}


def toml_key(name: object) -> str:
    """A name as the key of a TOML table: in quotes if it needs them."""
    return str(name) if re.fullmatch(r"[A-Za-z0-9_-]+", str(name)) else f'"{name}"'


@dataclass(frozen=True, kw_only=True)
class Axes:
    """Names of the coordinate variables of one variable, None where there is none of the role."""

    time: str | None
    lat: str | None
    lon: str | None
    level: str | None
    member: str | None


def samples_name(table: xr.Dataset, member: str) -> str:
    """What tells members apart: their coordinate, or its dimension where labels are repeated."""
    coordinate = table[member]
    unique = len(np.unique(coordinate)) == coordinate.size
    return member if unique else str(coordinate.dims[0])


def find_axes(table: xr.Dataset, name: str, declared: Mapping[str, str], where: str) -> Axes:
    """The coordinates of variable `name`.

    Args:
        declared: Coordinate or dimension by role.
    Raises:
        SourceError: If two coordinates claim a role, or a declared one is not there.
    """
    return Axes(
        **{
            role: _declared(table, name, role, declared, where)
            if role in declared
            else _found(table, name, role, where, set(declared.values()))
            for role in ("time", "lat", "lon", "level", "member")
        }
    )


def is_pressure(coordinate: xr.DataArray) -> bool:
    """Whether levels lie at constant pressure: by their unit, unless they say another thing."""
    units = str(coordinate.attrs.get("units", "")).strip().lower()
    return units in _PRESSURES and not follows_the_ground(coordinate)


def follows_the_ground(coordinate: xr.DataArray) -> bool:
    """Whether levels are those of a model, whose pressure is another one in each place.

    Models write their hybrid levels with nominal pressures: the unit alone is no pressure axis.
    """
    said = str(coordinate.attrs.get("standard_name", "")).strip()
    if said == "air_pressure":
        return False
    named = said.startswith("atmosphere_") and said.endswith("_coordinate")
    words = str(coordinate.attrs.get("long_name", "")).lower()
    told = any(word in words for word in ("hybrid", "sigma", "eta level", "ref full pressure"))
    return named or "formula_terms" in coordinate.attrs or told


def _declared(
    table: xr.Dataset, name: str, role: str, declared: Mapping[str, str], where: str
) -> str | None:
    wanted = declared[role]
    known = [str(n) for n in (*table.variables, *table.dims)]
    if wanted not in known:
        raise SourceError(
            f"{where}: source.dims.{role} is {wanted!r}, which is not there; there are "
            f"{', '.join(dict.fromkeys(known))}"
        )
    if wanted in table.variables:
        return wanted if set(table[wanted].dims) <= set(table[name].dims) else None
    along = [n for n in _candidates(table, name) if table[n].dims == (wanted,)]
    try:
        found = _chosen(table, along, role, where)
    except SourceError:
        found = None
    if found or len(along) == 1 or wanted not in table[name].dims:
        return found or (along[0] if along else None)
    raise SourceError(
        f"{where}: source.dims.{role} is the dimension {wanted}, along which no variable says "
        f"what its {role}s are; name a coordinate, or add one to the file"
    )


def _found(table: xr.Dataset, name: str, role: str, where: str, taken: set[str]) -> str | None:
    horizontal = role in ("lat", "lon")
    candidates = [n for n in _candidates(table, name, horizontal) if n not in taken]
    if horizontal and (named := [n for n in candidates if n in _named(table, name)]):
        believed = _chosen(table, named, role, where)
        if believed is not None:  # what the variable itself names, before any axis
            return believed
    if role in ("level", "member"):
        candidates = [n for n in candidates if table[n].ndim < 2]
    return _chosen(table, candidates, role, where)


def positions_in_two_dimensions(table: xr.Dataset, name: str, role: str) -> list[str]:
    """Variables that say the latitude or longitude of every cell of a variable."""
    by_name, by_unit, *_ = _tests(table, role)
    found = []
    for other in _candidates(table, name, horizontal=True):
        variable = table.variables[other]
        if variable.ndim == 2 and any(
            test(other, variable.attrs, variable) for test in (by_name, by_unit)
        ):
            found.append(other)
    return found


def _named(table: xr.Dataset, name: str) -> list[str]:
    """What the attribute `coordinates` of a variable names."""
    variable = table.variables[name]
    return str(variable.attrs.get("coordinates", variable.encoding.get("coordinates", ""))).split()


def _candidates(table: xr.Dataset, name: str, horizontal: bool = False) -> list[str]:
    """Variables along dimensions of `name` that could be its coordinates.

    Only positions may have both of its dimensions: a map beside it is none of its coordinates.
    """
    dims = set(table[name].dims)
    bounds = {str(v.attrs[k]) for v in table.variables.values() for k in _BOUNDS & v.attrs.keys()}
    found = []
    for other, variable in table.variables.items():
        small = variable.ndim < 2 or (
            variable.ndim == 2 and (horizontal or variable.dims != table[name].dims)
        )
        if other != name and str(other) not in bounds and small and set(variable.dims) <= dims:
            found.append(str(other))
    return found


_BOUNDS = {"bounds", "climatology"}


def _chosen(table: xr.Dataset, candidates: list[str], role: str, where: str) -> str | None:
    for test in _tests(table, role):
        found = [n for n in candidates if test(n, table.variables[n].attrs, table.variables[n])]
        for preferred in (
            [n for n in found if n in table.dims],
            [n for n in found if table.variables[n].ndim == 1],
            [n for n in found if table.variables[n].ndim == 2],
            found,
        ):
            if len(preferred) == 1:
                return preferred[0]
            if preferred and all(table.variables[n].ndim == 0 for n in preferred):
                continue  # several single values: those of other variables, or of none
            if role == "member" and len({table.variables[n].dims for n in preferred}) == 1:
                return preferred[0]  # several labels of the same members
            if preferred:
                raise SourceError(
                    f"{where}: {', '.join(preferred)} all claim to be {role}; say which: "
                    f'[source] dims = {{ {role} = "{preferred[0]}" }}'
                )
    return None


Test = Callable[[str, Mapping[str, Any], xr.Variable], bool]


def _tests(table: xr.Dataset, role: str) -> tuple[Test, ...]:
    def standard_name(name: str, attrs: Mapping[str, Any], variable: xr.Variable) -> bool:
        return str(attrs.get("standard_name", "")).strip() in _STANDARD_NAMES[role]

    def units(name: str, attrs: Mapping[str, Any], variable: xr.Variable) -> bool:
        text = str(attrs.get("units", "")).strip().lower()
        if role == "time":
            dated = re.search(r"\w+\s+(since|as)\s+\S", text) is not None
            return dated and unclaimed(attrs) and variable.ndim == 1 and name in variable.dims
        listed = variable.ndim > 0 or name in table.coords  # else P0, a constant of the file
        return text in _UNITS.get(role, ()) and unclaimed(attrs) and listed

    def usual(name: str, attrs: Mapping[str, Any], variable: xr.Variable) -> bool:
        own = variable.ndim == 0 or name in variable.dims or variable.ndim == 2
        short = len(name) == 1
        fitting = name in variable.dims if short else own or variable.ndim == 1
        named = name.lower() in _NAMES[role] or (role == "level" and "level" in name.lower())
        return named and fitting and unclaimed(attrs)

    def axis(name: str, attrs: Mapping[str, Any], variable: xr.Variable) -> bool:
        return attrs.get("axis") == _AXES[role] and unclaimed(attrs)

    def unclaimed(attrs: Mapping[str, Any]) -> bool:
        claimed = str(attrs.get("standard_name", "")).strip()
        others = [n for r, names in _STANDARD_NAMES.items() if r != role for n in names]
        foreign = ("grid_latitude", "grid_longitude", "projection_x_coordinate")
        never = (*foreign, "projection_y_coordinate", "forecast_reference_time", "forecast_period")
        return claimed not in (*others, *never)

    return standard_name, units, usual, axis
