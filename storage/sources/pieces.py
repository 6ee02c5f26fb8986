"""One variable of one file, as (time, lat, lon) or (time, cell) in lazy blocks of few times.

Every dimension of the file is accounted for: time and grid are kept, of the others
storage.sources.selection takes one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from math import prod
from typing import Any
from uuid import uuid4

import dask.array as da
import numpy as np
import xarray as xr

from storage.conventions.axes import SourceError, find_axes, samples_name, toml_key
from storage.conventions.cmip import standard_name_of
from storage.conventions.grids import Grid, grid_of_variable
from storage.conventions.levels import split_name
from storage.conventions.quantities import cf_standard_name, cf_unit
from storage.conventions.stated_values import as_stated
from storage.conventions.stored import Declared, Stored
from storage.conventions.time_units import are_digits
from storage.conventions.times import bounds_of, decode_times
from storage.sources.forecasts import is_span, only_lead, with_valid_times
from storage.sources.selection import EXPVER, selected

__all__ = ["Declared", "Piece", "take"]

Array = np.ndarray[Any, Any]

BLOCK_BYTES = 8 << 20  # read at once: whole stored chunks, and times up to this

_KEPT_ATTRS = ("standard_name", "long_name", "units", "cell_methods", "comment")
_NO_UNIT = ("", "unknown", "undefined", "~", "none")


@dataclass(frozen=True)
class Piece:
    """A variable at the times of one file; `times` is None for a map."""

    where: str
    times: Array | None
    bounds: Array | None
    data: da.Array
    attrs: Mapping[str, Any]
    grid: Grid
    member: str | None = None  # its label, where members are samples
    file: int = 0  # its number among the files of the source
    lead: tuple[str, float] | None = None  # what selects one, where several are put in one row
    only_lead: tuple[str, float] | None = None  # the lead of a file with one

    @property
    def dims(self) -> tuple[str, ...]:
        return self.grid.names if self.times is None else ("time", *self.grid.names)


def take(
    table: xr.Dataset,
    name: str,
    declared: Declared,
    where: str,
    notes: list[str],
    *,
    static: bool = False,
) -> list[Piece]:
    """What a file has of a variable: nothing, a piece, or one for each member and forecast step.

    Raises:
        SourceError: If it is there but cannot be taken as it is.
    """
    if not static and declared.samples:
        return _members(table, name, declared, where, notes)
    base, level = split_name(name)
    key = name if name in table.variables else base
    level = None if key == name else level
    if key not in table.variables:
        return []
    known = _known(table, key, name, declared, where, notes, static=static)
    grid = grid_of_variable(known)
    chosen, of_level = selected(known, grid, level, static=static)
    if chosen is None:
        return []
    variable = known.array.variable
    attrs = {**_attrs(variable, name, declared, where, notes), **of_level}
    whole = variable.isel({d: i for d, i in chosen.items() if d in variable.dims})
    if static:
        return [_piece(whole, None, None, None, grid, attrs, known)]
    return _in_time(whole, chosen, grid, attrs, known)


def _known(
    table: xr.Dataset,
    key: str,
    name: str,
    declared: Declared,
    where: str,
    notes: list[str],
    *,
    static: bool,
) -> Stored:
    """The variable with its coordinates, its times those at which it is valid."""
    if not static:
        table = _with_times(table, key, declared, where)
    axes = find_axes(table, key, declared.dims, where)
    if not static:
        table, axes = with_valid_times(
            table, key, axes, declared.dims, declared.units, where, notes
        )
    if table[key].dtype.kind not in "fiu":
        raise SourceError(f"{where}: {name} has type {table[key].dtype}; fields are numbers")
    return Stored(
        table=table, key=key, name=name, axes=axes, declared=declared, where=where, notes=notes
    )


def _in_time(
    whole: xr.Variable,
    chosen: Mapping[Any, int],
    grid: Grid,
    attrs: Mapping[str, Any],
    known: Stored,
) -> list[Piece]:
    """One piece along time, or one for each of the fewer of starts and leads."""
    axis, table, where = known.axes.time, known.table, known.where
    assert axis
    along = table.variables[axis]
    times = along.isel({d: i for d, i in chosen.items() if d in along.dims})
    dates = decode_times(table.assign_coords({axis: times}), axis, where, known.notes)
    if are_digits(times):
        known.notes.append(f"{axis} has no units, its digits are dates")
    present = _present(table, known.key, chosen, times)
    if not present.all():
        known.notes.append(
            f"{where}: {int((~present).sum())} of {present.size} times of {known.name} have no "
            "message, left out"
        )
    if times.ndim == 2:
        return _forecasts(whole, times.dims, dates, present, grid, attrs, known)
    dim = times.dims[0] if times.ndim else None
    bounds = bounds_of(table, axis, dates)
    if dim is not None and not present.all():
        there = np.flatnonzero(present)
        whole, dates = whole.isel({dim: there}), dates[there]
        bounds = None if bounds is None else bounds[there]
    piece = _piece(whole, dim, np.atleast_1d(dates), bounds, grid, attrs, known)
    return [replace(piece, only_lead=only_lead(table, known.key, known.declared.dims))]


def _forecasts(
    whole: xr.Variable,
    dims: tuple[Any, ...],
    dates: Array,
    present: Array,
    grid: Grid,
    attrs: Mapping[str, Any],
    known: Stored,
) -> list[Piece]:
    """Valid times along reference time and step: a piece for each of the shorter."""
    short = min(dims, key=lambda d: whole.sizes[d])
    (long,) = (d for d in dims if d != short)
    known.notes.append(f"{known.name}: times along {long} and {short} put in one row")
    lead, axis, found = _lead_of(known.table, dims), dims.index(short), []
    for i in range(whole.sizes[short]):
        there = np.flatnonzero(np.take(present, i, axis))
        if there.size:
            part = whole.isel({short: i, long: there})
            column = np.take(dates, i, axis)[there]
            piece = _piece(part, long, column, None, grid, attrs, known)
            found.append(replace(piece, lead=lead))
    return found


def _present(
    table: xr.Dataset, stored: str, chosen: Mapping[Any, int], times: xr.Variable
) -> Array:
    """At which times the file has anything of a variable, in their shape."""
    known = table.encoding.get("messages", {}).get(stored)
    if known is None:
        return np.ones(times.shape, dtype=bool)
    known = known.isel({dim: place for dim, place in chosen.items() if dim in known.dims})
    for dim in (*known.dims,):
        if dim not in times.dims:
            known = known.any(dim)
    return np.asarray(known.set_dims(times.sizes).transpose(*times.dims).values)


def _lead_of(table: xr.Dataset, dims: tuple[Any, ...]) -> tuple[str, float]:
    """What selects one of the leads that times run along."""
    named = [dim for dim in dims if dim in table.coords]
    lead = next((d for d in named if is_span(table[d].attrs.get("units", ""))), dims[-1])
    first = table[lead].values[0] if lead in table.coords else 0
    return str(lead), float(first)


def _with_times(table: xr.Dataset, stored: str, declared: Declared, where: str) -> xr.Dataset:
    """The table with the unit of time that is declared; a dimension without numbers is counted."""
    unit, named = declared.units.get("time"), declared.dims.get("time")
    if unit is None:
        return table
    time = find_axes(table, stored, {}, where).time if named is None else named
    if time not in table.variables and time not in table[stored].dims:
        return table
    known = table.variables.get(time, xr.Variable((time,), np.arange(table.sizes.get(time, 1))))
    kept = {k: v for k, v in known.attrs.items() if k in ("calendar", "bounds", "standard_name")}
    return table.assign_coords({time: (known.dims, known.values, {**kept, "units": unit})})


def _members(
    table: xr.Dataset, name: str, declared: Declared, where: str, notes: list[str]
) -> list[Piece]:
    """The pieces of every member, which a dimension, a scalar or a global attribute tells."""
    samples, plain = declared.samples, replace(declared, samples="")
    stored = name if name in table.variables else split_name(name)[0]
    if stored not in table.variables:
        return []
    axes = find_axes(table, stored, declared.dims, where)
    # Not `get`: that makes up an index where a dimension has no labels.
    known = table.coords[samples] if samples in table.coords else None  # noqa: SIM401
    if known is None and axes.member is not None and table[axes.member].dims == (samples,):
        unique = samples_name(table, axes.member) != samples
        known = table[axes.member] if unique else None  # of a dimension without labels
    dim = known.dims[0] if known is not None and known.ndim == 1 else samples
    others = {d for a in (axes.time, axes.lat, axes.lon, axes.level) if a for d in table[a].dims}
    if dim in others:
        raise SourceError(
            f"{where}: source.samples is {samples!r}, along which {name} has its times, grid or "
            f"levels; its dimensions are {', '.join(map(str, table[stored].dims))}"
        )
    if dim not in table[stored].dims:
        if (known is None or known.ndim > 0) and samples not in table.attrs:
            raise SourceError(
                f"{where}: source.samples is {samples!r}, but {name} has no such dimension, and "
                "the file no such scalar or attribute to tell its member by; give files of one "
                "kind together, those with members alone"
            )
        label = str(table.attrs[samples] if known is None else known.values[()])
        return [replace(p, member=label) for p in take(table, name, plain, where, notes)]
    labels = range(table.sizes[dim]) if known is None else known.values
    return [
        replace(piece, member=str(label))
        for index, label in enumerate(labels)
        for piece in take(table.isel({dim: index}), name, plain, where, notes)
    ]


def _attrs(
    variable: xr.Variable, name: str, declared: Declared, where: str, notes: list[str]
) -> dict[str, Any]:
    attrs = {key: variable.attrs[key] for key in _KEPT_ATTRS if key in variable.attrs}
    said = str(attrs.pop("standard_name", "")).strip()
    if standard_name := standard_name_of(said) or cf_standard_name(said):
        attrs["standard_name"] = standard_name
    elif said not in ("", "unknown"):
        notes.append(f"{name}: {said!r} is no standard name, dropped")
        attrs.setdefault("long_name", said)
    unit = declared.units.get(name)
    if unit is not None and unit != attrs.get("units"):
        notes.append(f"{name}: unit {attrs.get('units')!r} is declared to be {unit!r}")
        attrs["units"] = unit
    if str(attrs.get("units", "")).strip().lower() in _NO_UNIT:
        raise SourceError(
            f"{where}: {name} has no units; declare them: "
            f'[source] units = {{ {toml_key(name)} = "..." }}'
        )
    spelled = cf_unit(str(attrs["units"]).strip())
    if spelled != attrs["units"]:
        notes.append(f"{name}: unit {attrs['units']!r} written as {spelled!r}")
        attrs["units"] = spelled
    return attrs


def _piece(
    variable: xr.Variable,
    time: Any,
    dates: Array | None,
    bounds: Array | None,
    grid: Grid,
    attrs: Mapping[str, Any],
    stored: Stored,
) -> Piece:
    roles = {**grid.dims, **({time: "time"} if time is not None else {})}
    assert set(variable.dims) <= {*roles, EXPVER}
    wanted = tuple(d for d in ("time", *grid.names) if d in roles.values())
    chunks = _blocks(variable, time)
    # Named here, for Dask would pickle the file's reader to make a name of it: half the time.
    blocks: Any = variable.chunk(chunks, name=f"piece-{uuid4().hex}")
    if EXPVER in blocks.dims:
        stored.notes.append(
            f"{stored.name}: the versions along {EXPVER} put together, the first that has a value"
        )
        first, *rest = (blocks.isel({EXPVER: i}) for i in range(blocks.sizes[EXPVER]))
        blocks = reduce(lambda have, other: have.where(have.notnull(), other), rest, first)
    lazy = xr.Variable(
        tuple(roles[d] for d in blocks.dims), as_stated(blocks.data, variable, stored)
    )
    if lazy.dims != wanted:
        stored.notes.append(f"{stored.name}: dims {variable.dims} put in the order {wanted}")
        lazy = lazy.transpose(*wanted)
    data = lazy.isel({dim: part for dim, part in grid.take.items() if dim in lazy.dims}).data
    if any(grid.padding):
        rows = [(0, 0)] * (data.ndim - 2) + [grid.padding, (0, 0)]
        data = da.pad(data.astype(np.float32), rows, constant_values=np.nan)
    data = data[None] if dates is not None and time is None else data
    data = data.astype(np.float32)
    return Piece(stored.where, dates, bounds, data, attrs, grid)


def _blocks(variable: xr.Variable, time: Any) -> dict[Any, int]:
    """Block sizes: whole stored chunks of the whole sphere, of a few times."""
    stored = variable.encoding.get("preferred_chunks") or {}
    sizes = variable.sizes
    chunk = {d: min(int(stored.get(d, 1 if d == time else n)), n) or 1 for d, n in sizes.items()}
    for dim in sorted(chunk, key=lambda d: d == time):
        fit = BLOCK_BYTES // (variable.dtype.itemsize * prod(chunk.values())) * chunk[dim]
        if dim != time:
            chunk[dim] = sizes[dim] if fit >= sizes[dim] else chunk[dim]
        else:
            chunk[dim] = min(max(fit, chunk[dim]), sizes[dim])
    return chunk
