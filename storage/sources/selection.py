"""What is taken along each dimension of a variable that is neither time nor grid.

A level is taken by its name (`t@850`), another dimension by `select`; one of size 1 is dropped with
a note, a longer one is refused with what to write.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from storage.conventions.axes import Axes, SourceError, samples_name, toml_key
from storage.conventions.grids import Grid
from storage.conventions.levels import choose, level_index, level_of, said, same_label
from storage.sources.forecasts import is_span

__all__ = ["EXPVER", "Declared", "selected"]

EXPVER = "expver"  # ERA5 has final and preliminary data side by side, missing where the other is


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What the configuration says about the files."""

    dims: Mapping[str, str] = field(default_factory=dict)  # coordinate or dimension, by role
    select: Mapping[str, float | str] = field(default_factory=dict)  # one label, by dimension
    samples: str = ""  # what tells members apart, all of which are taken
    units: Mapping[str, str] = field(default_factory=dict)  # by variable
    healpix: str | None = None  # order of cells that the file does not say
    stamps: str | None = None  # what a stamp of time stands for, where no bounds say it
    period: tuple[str, str] | None = None  # first and last day
    drop: tuple[str, ...] = ()  # times, or "first/last", that are left out


def selected(
    table: xr.Dataset,
    stored: str,
    axes: Axes,
    grid: Grid,
    name: str,
    level: str | None,
    declared: Declared,
    where: str,
    notes: list[str],
    static: bool,
) -> tuple[dict[Any, int] | None, dict[str, Any]]:
    """The index along each dimension that is neither time nor grid, and what the level is.

    None instead of indices if the file does not have the level.

    Raises:
        SourceError: If a longer dimension is left, or there is no time.
    """
    array = table[stored]
    names = {
        str(table[c].dims[0]): c
        for c in (axes.level, axes.member)
        if c and table[c].ndim == 1 and len(np.unique(table[c])) == table[c].size
    }
    chosen: dict[Any, int] = {}
    for dim, wanted in declared.select.items():
        if dim in table.variables and table[dim].ndim == 0 and not same_label(table[dim], wanted):
            return None, {}
        labelled = dim in table.variables and table[dim].ndim == 1
        known = table[dim].dims[0] if labelled else dim
        if known in array.dims and known not in grid.dims:
            asked = {str(known): dim} if labelled else {}
            chosen[known] = choose(array, str(known), wanted, {**names, **asked}, where)
    attrs: dict[str, Any] = {}
    if axes.level is not None and not static:
        coordinate = table[axes.level]
        along = coordinate.dims[0] if coordinate.ndim else None
        if level is not None and along not in chosen:
            index = level_index(coordinate, level, name, where)
            if index is None:
                return None, {}
            attrs = level_of(coordinate, index)
            if along is not None:
                chosen[along] = index
        elif along in chosen or coordinate.size == 1:
            attrs = level_of(coordinate, chosen.get(along, 0)) if _numeric(coordinate) else {}
    elif level is not None:
        return None, {}
    kept = set(grid.dims)
    if not static:
        kept |= set(_time_dims(table, stored, axes, chosen, declared, where))
    for other in array.dims:
        if other in kept or other in chosen or other == EXPVER:
            continue
        if array.sizes[other] > 1:
            raise _too_many(table, stored, name, str(other), axes, where)
        chosen[other] = 0
        notes.append(f"{name}: dimension {other} of size 1 dropped")
    return chosen, attrs


def _time_dims(
    table: xr.Dataset,
    stored: str,
    axes: Axes,
    chosen: Mapping[Any, int],
    declared: Declared,
    where: str,
) -> list[Any]:
    if axes.time is None:
        dims = ", ".join(f"{d} of {n}" for d, n in table[stored].sizes.items())
        raise SourceError(
            f"{where}: {stored} has no time coordinate (its dims are {dims}); set standard_name "
            'and units of one, or name it: [source] dims = { time = "..." }. If the date is in '
            "the name of the file, add it first, e.g. cdo settaxis,2000-01-01,12:00,1day; a map "
            f'without time belongs to [source] static = ["{stored}"]'
        )
    return [dim for dim in table[axes.time].dims if dim not in chosen]


def _too_many(
    table: xr.Dataset, stored: str, name: str, dim: str, axes: Axes, where: str
) -> SourceError:
    size = table.sizes[dim]
    if axes.level is not None and table[axes.level].dims == (dim,):
        levels = said(table[axes.level])
        first = levels.split(",")[0]
        return SourceError(
            f"{where}: {name} has {size} levels ({levels}); write the one that is meant after "
            f'@, e.g. variables = ["{stored}@{first}"]'
        )
    labels = table[dim].values if dim in table.coords else np.arange(size)
    shown = ", ".join(str(label) for label in labels[:8]) + (", ..." if size > 8 else "")
    what = "members" if axes.member and table[axes.member].dims == (dim,) else f"values of {dim}"
    value = labels[0] if labels.dtype.kind in "iuf" else f'"{labels[0]}"'
    every = ""
    if axes.member and what == "members":
        every = f'; or take all as samples: samples = "{samples_name(table, axes.member)}"'
    if is_span(table[dim].attrs.get("units", "")):
        every += f'; if it is the lead of a forecast, say so, too: dims = {{ lead = "{dim}" }}'
    return SourceError(
        f"{where}: {name} has {size} {what} ({shown}); choose one: "
        f"[source] select = {{ {toml_key(dim)} = {value} }}{every}"
    )


def _numeric(coordinate: xr.DataArray) -> bool:
    return coordinate.dtype.kind in "fiu"
