"""One level of a variable, by a name like `t@850`, and one index of any other dimension.

A bare number is in hPa on a pressure axis, otherwise in the unit of the file; a unit may follow
it: `t@85000Pa`, `u@10m`. Levels of a model that are numbered by nominal pressures are asked for by
the name of their coordinate: `t@992.5lev`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import xarray as xr

from storage.conventions.axes import SourceError, follows_the_ground, is_pressure
from storage.conventions.quantities import cf_unit, conversion

__all__ = ["choose", "level_index", "level_of", "nominal", "said", "same_label", "split_name"]

_LEVEL = re.compile(r"(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([A-Za-z][A-Za-z0-9_]*)?")


def split_name(name: str) -> tuple[str, str | None]:
    """`t@850` is the variable t and the level "850"; a name without @ has no level.

    Raises:
        SourceError: If what follows @ is no number.
    """
    variable, at, level = name.partition("@")
    if at and not _LEVEL.fullmatch(level):
        raise SourceError(f'{name}: after @ comes a level, e.g. "{variable}@850" or "@85000Pa"')
    return variable, level if at else None


def level_index(coordinate: xr.DataArray, level: str, name: str, where: str) -> int | None:
    """Where the level is on its axis (0 on a scalar one); None if it is not among the levels.

    Raises:
        SourceError: If its unit does not fit the axis.
    """
    number, unit = _parsed(level)
    values = np.atleast_1d(np.asarray(coordinate.values, dtype=np.float64))
    if nominal(coordinate):
        if unit != str(coordinate.name).lower():
            raise SourceError(
                f"{where}: {name}: the {coordinate.attrs['units']} of {coordinate.name} are "
                f"nominal, its levels follow the ground ({_kind(coordinate)}); interpolate to "
                "pressure levels first (e.g. cdo ml2pl), or take levels of the model as they are: "
                f'variables = ["{split_name(name)[0]}@{values[-1]:.10g}{coordinate.name}"]'
            )
    elif is_pressure(coordinate) or unit:
        values, number = _comparable(coordinate, values, number, unit, name, where)
    hits = np.flatnonzero(np.isclose(values, number, rtol=1e-4, atol=1e-6))
    return int(hits[0]) if len(hits) else None


def nominal(coordinate: xr.DataArray) -> bool:
    """Whether levels of a model are numbered by pressures that they have nowhere."""
    own = str(coordinate.attrs.get("units", ""))
    return _conversion(own, "hPa") is not None and follows_the_ground(coordinate)


def said(coordinate: xr.DataArray) -> str:
    """The levels as one writes them after @, with their unit."""
    values = np.atleast_1d(np.asarray(coordinate.values, dtype=np.float64))
    unit = str(coordinate.attrs.get("units", "")).strip()
    if is_pressure(coordinate):
        values, unit = values * (_conversion(unit, "hPa") or 1.0), "hPa"
    shown = [f"{value:g}" for value in values]
    if nominal(coordinate):
        unit = f"{coordinate.name}, nominal {unit}"
    if len(shown) > 24:
        shown = [*shown[:12], "...", *shown[-4:]]
    return f"{', '.join(shown)} {unit}".strip()


def level_of(coordinate: xr.DataArray, index: int) -> dict[str, str | float]:
    """Attributes of a variable that is one level."""
    value = float(np.atleast_1d(np.asarray(coordinate.values, dtype=np.float64))[index])
    attrs: dict[str, str | float] = {"level": value}
    unit = str(coordinate.attrs.get("units", "")).strip()
    if unit:
        attrs["level_units"] = unit
    if kind := _kind(coordinate):
        attrs["level_kind"] = kind
    return attrs


def _kind(coordinate: xr.DataArray) -> str:
    """What levels are where their unit does not say it: depths, levels of a model."""
    said = str(coordinate.attrs.get("standard_name", "")).strip()
    if follows_the_ground(coordinate):
        return said or str(coordinate.attrs.get("long_name") or "model level")
    names = (said, str(coordinate.name).lower())
    down = coordinate.attrs.get("positive") == "down" and not is_pressure(coordinate)
    return "depth" if down or any(name.startswith("depth") for name in names) else ""


def choose(
    array: xr.DataArray, dim: str, wanted: float | str, names: Mapping[str, str], where: str
) -> int:
    """The index along `dim` where its coordinate is `wanted`; without one, `wanted` itself.

    Raises:
        SourceError: If it is not there, or more than once; the message has what is.
    """
    labels = array.coords.get(names.get(dim, dim))
    if labels is None or labels.ndim != 1:
        index, size = int(float(wanted)), array.sizes[dim]
        if not 0 <= index < size:
            raise SourceError(f"{where}: source.select.{dim} = {wanted}, but {dim} has size {size}")
        return index
    found = np.flatnonzero([same_label(label, wanted) for label in labels.values])
    if not len(found):
        raise SourceError(
            f"{where}: source.select.{dim} = {wanted!r} is not there; {dim} has "
            f"{', '.join(map(_text, labels.values[:24]))}"
        )
    if len(found) > 1:
        raise SourceError(
            f"{where}: source.select.{labels.name} = {wanted!r} is said of {len(found)} along "
            f"{dim}, numbers {', '.join(map(str, found[:24]))}; choose by another coordinate"
        )
    return int(found[0])


def same_label(label: object, wanted: float | str) -> bool:
    """Whether a coordinate's value is the one that the configuration names."""
    label = label.values[()] if isinstance(label, xr.DataArray) else label
    try:
        return bool(np.isclose(float(label), float(wanted)))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return _text(label) == str(wanted).strip()


def _text(label: object) -> str:
    return (label.decode() if isinstance(label, bytes) else str(label)).strip()


def _parsed(level: str) -> tuple[float, str]:
    match = _LEVEL.fullmatch(level)
    assert match
    return float(match[1]), (match[2] or "").lower()


def _comparable(
    coordinate: xr.DataArray,
    values: np.ndarray[tuple[int], np.dtype[np.float64]],
    number: float,
    unit: str,
    name: str,
    where: str,
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], float]:
    own = str(coordinate.attrs.get("units", "")).strip()
    for usual in ("hPa", "m"):
        here, there = _conversion(own, usual), _conversion(unit or usual, usual)
        if here is not None and there is not None:
            return values * here, number * there
    if unit == own.lower():
        return values, number
    raise SourceError(
        f"{where}: {name}: its levels are in {own or 'no unit'}, not in {unit or 'hPa'}; "
        f"there are {said(coordinate)}"
    )


def _conversion(unit: str, to: str) -> float | None:
    """The factor between two units of levels; None if they do not convert."""
    found = conversion(cf_unit(unit.strip()), to)
    return None if found is None else found[0]
