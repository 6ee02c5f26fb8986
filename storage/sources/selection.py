"""What is taken along each dimension of a variable that is neither time nor grid.

A level is taken by its name (`t@850`), another dimension by `select`; one of size 1 is dropped with
a note, a longer one is refused with what to write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from storage.conventions.axes import SourceError, samples_name, toml_key
from storage.conventions.healpix import Grid
from storage.conventions.levels import choose, level_index, level_of, nominal, said, same_label
from storage.conventions.stored import Stored
from storage.sources.forecasts import is_span

__all__ = ["EXPVER", "selected"]

EXPVER = "expver"  # ERA5 has final and preliminary data side by side, missing where the other is


def selected(
    stored: Stored, grid: Grid, level: str | None, *, static: bool
) -> tuple[dict[Any, int] | None, dict[str, Any]]:
    """The index along each dimension that is neither time nor grid, and what the level is.

    None instead of indices if the file does not have the level.

    Raises:
        SourceError: If a longer dimension is left, or there is no time.
    """
    chosen = _declared_labels(stored, grid)
    if chosen is None:
        return None, {}
    attrs: dict[str, Any] = {}
    if stored.axes.level is not None and not static:
        taken = _level(stored, level, chosen)
        if taken is None:
            return None, {}
        chosen, attrs = taken
    elif level is not None:
        return None, {}
    kept = set(grid.dims)
    if not static:
        kept |= set(_time_dims(stored, chosen))
    for other in stored.array.dims:
        if other in kept or other in chosen or other == EXPVER:
            continue
        if stored.array.sizes[other] > 1:
            raise _too_many(stored, str(other))
        chosen[other] = 0
        stored.notes.append(f"{stored.name}: dimension {other} of size 1 dropped")
    return chosen, attrs


def _declared_labels(stored: Stored, grid: Grid) -> dict[Any, int] | None:
    """The indices that `source.select` means; None if the table is about another label."""
    table, array = stored.table, stored.array
    names = {
        str(table[c].dims[0]): c
        for c in (stored.axes.level, stored.axes.member)
        if c and table[c].ndim == 1 and len(np.unique(table[c])) == table[c].size
    }
    chosen: dict[Any, int] = {}
    for dim, wanted in stored.declared.select.items():
        if dim in table.variables and table[dim].ndim == 0 and not same_label(table[dim], wanted):
            return None
        labelled = dim in table.variables and table[dim].ndim == 1
        known = table[dim].dims[0] if labelled else dim
        if known in array.dims and known not in grid.dims:
            asked = {str(known): dim} if labelled else {}
            chosen[known] = choose(array, str(known), wanted, {**names, **asked}, stored.where)
    return chosen


def _level(
    stored: Stored, level: str | None, chosen: dict[Any, int]
) -> tuple[dict[Any, int], dict[str, Any]] | None:
    """The index of the level beside those that are chosen, and what it is; None if not there."""
    coordinate = stored.table[stored.axes.level]
    along = coordinate.dims[0] if coordinate.ndim else None
    if level is not None and along not in chosen:
        index = level_index(coordinate, level, stored.name, stored.where)
        if index is None:
            return None
        more = {} if along is None else {along: index}
        return {**chosen, **more}, level_of(coordinate, index)
    if along in chosen or coordinate.size == 1:
        attrs = level_of(coordinate, chosen.get(along, 0)) if _numeric(coordinate) else {}
        return chosen, attrs
    return chosen, {}


def _time_dims(stored: Stored, chosen: Mapping[Any, int]) -> list[Any]:
    key = stored.key
    if stored.axes.time is None:
        dims = ", ".join(f"{d} of {n}" for d, n in stored.array.sizes.items())
        raise SourceError(
            f"{stored.where}: {key} has no time coordinate (its dims are {dims}); set "
            'standard_name and units of one, or name it: [source] dims = { time = "..." }. If the '
            "date is in the name of the file, add it first, e.g. cdo "
            "settaxis,2000-01-01,12:00,1day; a map "
            f'without time belongs to [source] static = ["{key}"]'
        )
    return [dim for dim in stored.table[stored.axes.time].dims if dim not in chosen]


def _too_many(stored: Stored, dim: str) -> SourceError:
    table, axes, where, name = stored.table, stored.axes, stored.where, stored.name
    size = table.sizes[dim]
    if axes.level is not None and table[axes.level].dims == (dim,):
        levels = said(table[axes.level])
        first = levels.split(",")[0] + (str(axes.level) if nominal(table[axes.level]) else "")
        return SourceError(
            f"{where}: {name} has {size} levels ({levels}); write the one that is meant after "
            f'@, e.g. variables = ["{stored.key}@{first}"]'
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
