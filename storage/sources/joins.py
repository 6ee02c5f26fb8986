"""Pieces of files put together: one series of times for each variable, one grid for all."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from storage.conventions.axes import SourceError
from storage.conventions.grids import Grid, aligned
from storage.conventions.quantities import in_unit
from storage.conventions.times import one_calendar, said_time
from storage.sources.pieces import Piece

__all__ = ["join_in_time", "merge", "numbered", "on_one_grid"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Series:
    """One variable at all its times, in order, each once."""

    times: Array
    member: Array | None
    origin: Array  # number of the file of each time
    bounds: Array | None
    data: da.Array
    attrs: Mapping[str, Any]


def on_one_grid(pieces: Sequence[Piece], first: Piece, notes: list[str]) -> list[Piece]:
    """Pieces with the grid of the first one.

    Raises:
        SourceError: If a grid has other points.
    """
    same = []
    for piece in pieces:
        moved = piece if piece is first else _moved(piece, first, notes)
        same.append(moved)
    return same


def numbered(labels: Collection[str | None], notes: list[str]) -> dict[str | None, int]:
    """The number of each member, in the order of their labels (r2 before r10)."""
    order = sorted(labels, key=lambda label: [(len(p), p) for p in re.split(r"(\d+)", label or "")])
    if len(order) > 1:
        notes.append(f"{len(order)} members are samples, numbered as {', '.join(map(str, order))}")
    return {label: number for number, label in enumerate(order)}


def join_in_time(
    pieces: Sequence[Piece],
    name: str,
    members: Mapping[str | None, int],
    period: tuple[str, str] | None,
    notes: list[str],
) -> Series:
    """The pieces of a variable in one row; members of the same time follow each other.

    Raises:
        SourceError: If calendars or units do not go together, or a time has two values.
    """
    files = [piece.where for piece in pieces]
    dates = one_calendar([p.times for p in pieces if p.times is not None], files)
    order = sorted(range(len(pieces)), key=lambda i: (dates[i].min(), members[pieces[i].member]))
    unit = pieces[0].attrs["units"]
    data = [_in_unit(pieces[i], name, unit, notes) for i in order]
    times = np.concatenate([dates[i] for i in order])
    member = np.concatenate([np.full(dates[i].size, members[pieces[i].member]) for i in order])
    origin = np.concatenate([np.full(dates[i].size, pieces[i].file) for i in order])
    bounds = [pieces[i].bounds for i in order]
    known = [b for b in bounds if b is not None and b.dtype == times.dtype]
    edges = np.concatenate(known) if len(known) == len(bounds) else None
    joined: Any = da
    values = joined.concatenate(data) if len(data) > 1 else data[0]
    if len(members) < 2 and order != list(range(len(order))):
        notes.append("times were not in order, sorted")
    rank = np.unique(times, return_inverse=True)[1]
    places = np.lexsort((member, rank))
    if not np.array_equal(places, np.arange(places.size)):
        if len(members) < 2:
            notes.append("times were not in order, sorted")
        times, values = times[places], values[places]
        member, origin = member[places], origin[places]
        edges = edges[places] if edges is not None else None
    row = _rows(data, places)
    kept = _once(times, member, row, name, files, notes)
    if period is not None:
        kept = kept[_within(times[kept], period)]
        if not kept.size:
            raise SourceError(
                f"{name}: no time lies in source.period {period[0]} to {period[1]}; there are "
                f"{said_time(times[0])} to {said_time(times[-1])}"
            )
    if kept.size < times.size:
        times, values, member, origin = times[kept], values[kept], member[kept], origin[kept]
        edges = edges[kept] if edges is not None else None
    found = member.astype(np.int32) if len(members) > 1 else None
    return Series(times, found, origin, edges, values, dict(pieces[0].attrs))


def merge(series: Mapping[str, Series], maps: Mapping[str, Piece], grid: Grid) -> xr.Dataset:
    """All variables as one data set with the coordinates of the grid.

    Raises:
        SourceError: If the variables have different times.
    """
    (first, one), *others = series.items()
    for name, other in others:
        if one.times.shape != other.times.shape or not (one.times == other.times).all():
            raise _apart(first, one.times, name, other.times)
        ours, theirs = one.member, other.member
        if ours is not None and theirs is not None and not np.array_equal(ours, theirs):
            raise SourceError(f"{first} and {name} have different members at the same times")
    dims = grid.names
    dataset = xr.Dataset(
        {name: (("time", *dims), s.data, dict(s.attrs)) for name, s in series.items()}
        | {name: (dims, piece.data, dict(piece.attrs)) for name, piece in maps.items()},
        coords={"time": ("time", one.times), **grid.coords},
    )
    if one.member is not None:
        dataset = dataset.assign_coords(member=("time", one.member))
    bounds = next((s.bounds for s in series.values() if s.bounds is not None), None)
    if bounds is not None:
        dataset = dataset.assign_coords(time_bnds=(("time", "bnds"), bounds))
        dataset["time"].attrs["bounds"] = "time_bnds"
    return dataset


def _moved(piece: Piece, first: Piece, notes: list[str]) -> Piece:
    take = aligned(piece.grid, first.grid, piece.where, first.where)
    data, lead = piece.data, piece.data.ndim - len(piece.grid.names)
    for name, index in take.items():
        data = da.take(data, index, axis=lead + piece.grid.names.index(name))
        notes.append(f"{piece.where}: {name} put in the order of {first.where}")
    return replace(piece, data=data, grid=first.grid)


def _in_unit(piece: Piece, name: str, unit: str, notes: list[str]) -> da.Array:
    old = piece.attrs["units"]
    if old == unit:
        return piece.data
    array = xr.DataArray(piece.data, dims=piece.dims, attrs=dict(piece.attrs), name=name)
    notes.append(f"{piece.where}: {name} converted from {old} to {unit}")
    converted: da.Array = in_unit(array, unit, piece.where).data
    return converted


def _rows(data: Sequence[da.Array], places: Array) -> Callable[[int], Array]:
    """The field at a time of the row that pieces make in the order of `places`, computed.

    Not by the joined array: a place in many pieces costs a look at all of them.
    """
    ends = np.cumsum([len(part) for part in data])

    def row(at: int) -> Array:
        place = int(places[at])
        part = int(np.searchsorted(ends, place, side="right"))
        return np.asarray(data[part][place - int(ends[part])])  # from the end of the piece

    return row


def _once(
    times: Array,
    member: Array,
    row: Callable[[int], Array],
    name: str,
    files: Sequence[str],
    notes: list[str],
) -> Array:
    """Indices of the times without repetition; what is repeated has to be equal."""
    repeats = 1 + np.flatnonzero((times[1:] == times[:-1]) & (member[1:] == member[:-1]))
    for at in map(int, repeats):
        one, other = row(at - 1), row(at)
        if not np.array_equal(one, other, equal_nan=True):
            raise SourceError(
                f"time {said_time(times[at])} occurs twice with different values of {name} "
                f"(files {', '.join(dict.fromkeys(files[:3]))}); remove one of them. If they are "
                "members of an ensemble or overlapping forecasts, give the files of one only, or "
                'say what tells members apart: [source] samples = "..."'
            )
    if len(repeats):
        notes.append(
            f"{len(repeats)} repeated times with equal values dropped, "
            f"first {said_time(times[repeats[0]])}"
        )
    return np.setdiff1d(np.arange(len(times)), repeats)


def _within(times: Array, period: tuple[str, str]) -> Array:
    index: Any = xr.Dataset(coords={"time": times}).indexes["time"]
    part = index.slice_indexer(*period)
    inside = np.zeros(times.size, dtype=bool)
    inside[part] = True
    return inside


def _apart(first: str, ours: Array, name: str, theirs: Array) -> SourceError:
    if type(ours[0]) is not type(theirs[0]):
        return SourceError(f"{first} and {name} have different calendars; bring them to one")
    lonely = [(first, name, t) for t in np.setdiff1d(ours, theirs)[:1]]
    lonely += [(name, first, t) for t in np.setdiff1d(theirs, ours)[:1]]
    has, lacks, when = lonely[0]
    start, end = max(ours[0], theirs[0]), min(ours[-1], theirs[-1])
    common = np.intersect1d(ours, theirs)
    inside = common.size and common.size == ((ours >= start) & (ours <= end)).sum()
    remedy = "bring them to the same times"
    if inside and common.size == ((theirs >= start) & (theirs <= end)).sum():
        days = [str(common[i])[:10] for i in (0, -1)]
        remedy = f'take the common part: [source] period = ["{days[0]}", "{days[1]}"]'
    return SourceError(
        f"{first} has {ours.size} times, {name} {theirs.size}: {has} has "
        f"{said_time(when)}, {lacks} does not; {remedy}"
    )
