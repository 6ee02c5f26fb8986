"""Pieces of files put together: one series of times for each variable, one grid for all."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from storage.conventions.axes import SourceError, toml_key
from storage.conventions.grids import Grid, aligned
from storage.conventions.labels import member_word
from storage.conventions.quantities import in_unit
from storage.conventions.stamps import Stamped, one_convention, require_even_steps, same_stamps
from storage.conventions.stored import Declared
from storage.conventions.times import iso, one_calendar, said_time
from storage.sources.pieces import Piece
from storage.sources.records import Records

__all__ = [
    "OverlappingForecasts",
    "Series",
    "in_order",
    "join_in_time",
    "merge",
    "numbered",
    "on_one_grid",
]

Array = np.ndarray[Any, Any]


class OverlappingForecasts(SourceError):
    """A time has several fields, which are forecasts of several leads.

    Attributes:
        select: one of them, as `source.select` takes it; `line` says it as the configuration does.
    """

    def __init__(self, message: str, name: str, value: float) -> None:
        number = f"{value:.0f}" if value.is_integer() else repr(value)
        self.line = f"select = {{ {toml_key(name)} = {number} }}"
        self.select = {name: value}
        super().__init__(f"{message}[source] {self.line}")


@dataclass(frozen=True, kw_only=True)
class Series:
    """One variable at all its times, in order, each once.

    Attributes:
        members: The number of each member by its label; nothing if there are none.
        dropped: Times that were left out, as the configuration says.
    """

    records: Records
    members: Mapping[str | None, int]
    data: da.Array
    attrs: Mapping[str, Any]
    dropped: Array


def on_one_grid(pieces: Sequence[Piece], first: Piece, notes: list[str]) -> list[Piece]:
    """Pieces with the grid of the first one.

    Raises:
        SourceError: If a grid has other points.
    """
    return [piece if piece is first else _moved(piece, first, notes) for piece in pieces]


def numbered(labels: Collection[str | None], notes: list[str]) -> dict[str | None, int]:
    """The number of each member: its label, or its place in their order (r2 before r10)."""
    order = sorted(labels, key=lambda label: [(len(p), p) for p in re.split(r"(\d+)", label or "")])
    if len(order) > 1:
        notes.append(f"{len(order)} members are samples, numbered as {', '.join(map(str, order))}")
    own = all(re.fullmatch(r"0|[1-9]\d{0,8}", label or "") for label in order)
    return {label: int(label or 0) if own else place for place, label in enumerate(order)}


def in_order(scenarios: Iterable[str], found: Collection[str | None]) -> dict[str | None, int]:
    """The number of each scenario: its place in the configuration.

    Raises:
        SourceError: If the files of one have none of the variables.
    """
    for name in scenarios:
        if name not in found:
            raise SourceError(
                f"source.scenarios.{name}: its files have none of the variables; give the files "
                "that have them, or leave the scenario out"
            )
    return {name: place for place, name in enumerate(scenarios)}


def labels_of_members(members: Mapping[str | None, int]) -> dict[str, Any]:
    """Attributes by which CF says what numbers stand for; none where labels are the numbers."""
    if all(str(number) == label for label, number in members.items()):
        return {}
    meanings = [member_word(label) for label in members]
    return {"flag_values": [*members.values()], "flag_meanings": " ".join(meanings)}


def join_in_time(
    pieces: Sequence[Piece],
    name: str,
    members: Mapping[str | None, int],
    declared: Declared,
    notes: list[str],
) -> Series:
    """The pieces of a variable in one row; members of the same time follow each other.

    Raises:
        SourceError: If calendars or units do not go together, a time has two values, or two times
            are much nearer to each other than the others are.
    """
    pieces, stamped = _stamped_alike(pieces, name, declared, notes)
    order = sorted(
        range(len(pieces)), key=lambda i: (stamped[i].dates.min(), members[pieces[i].member])
    )
    if len(members) < 2 and order != list(range(len(order))):
        notes.append("times were not in order, sorted")
    unit = pieces[0].attrs["units"]
    attrs = dict(pieces[0].attrs)
    pieces, stamped = [pieces[i] for i in order], [stamped[i] for i in order]
    data = [_in_unit(piece, name, unit, notes) for piece in pieces]
    joined = _in_a_row(pieces, stamped, members)
    records = joined.in_order()
    if len(members) < 2 and records is not joined:
        notes.append("times were not in order, sorted")
    records = _within(records, declared.period, name)
    files = [piece.where for piece in pieces]
    records, dropped = _without(records, declared.drop, name, notes)
    records = _once(records, data, name, pieces, notes)
    require_even_steps(records.times, records.piece, stamped, files)
    return Series(
        records=records,
        members=members if len(members) > 1 else {},
        data=records.values(data),
        attrs=attrs,
        dropped=dropped,
    )


def merge(series: Mapping[str, Series], maps: Mapping[str, Piece], grid: Grid) -> xr.Dataset:
    """All variables as one data set with the coordinates of the grid.

    Raises:
        SourceError: If the variables have different times.
    """
    (first, one), *others = series.items()
    for name, other in others:
        ours, theirs = one.records, other.records
        if ours.times.shape != theirs.times.shape or not (ours.times == theirs.times).all():
            raise _apart(first, ours.times, name, theirs.times)
        if one.members and not np.array_equal(ours.member, theirs.member):
            raise SourceError(f"{first} and {name} have different members at the same times")
    dims = grid.names
    dataset = xr.Dataset(
        {name: (("time", *dims), s.data, dict(s.attrs)) for name, s in series.items()}
        | {name: (dims, piece.data, dict(piece.attrs)) for name, piece in maps.items()},
        coords={"time": ("time", one.records.times), **grid.coords},
    )
    if one.members:
        number = one.records.member.astype(np.int32)
        labelled = ("time", number, labels_of_members(one.members))
        dataset = dataset.assign_coords(member=labelled)
    known = (s.records.bounds for s in series.values() if s.records.bounds is not None)
    bounds = next(known, None)
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


def _stamped_alike(
    pieces: Sequence[Piece], name: str, declared: Declared, notes: list[str]
) -> tuple[list[Piece], list[Stamped]]:
    """Pieces that have times left, with their times in one convention and one calendar."""
    stamped = [
        Stamped(
            where=piece.where,
            dates=piece.times,
            bounds=piece.bounds,
            methods=str(piece.attrs.get("cell_methods", "")),
            kept=np.arange(piece.times.size),
        )
        for piece in pieces
        if piece.times is not None
    ]
    alike = one_convention(stamped, declared.stamps, notes)
    left = [i for i, one in enumerate(alike) if one.dates.size]
    if not left:
        raise SourceError(f"{pieces[0].where}: {name} has no time that is no single instant")
    files, alike = [pieces[i].where for i in left], [alike[i] for i in left]
    dates = one_calendar([one.dates for one in alike], files)
    bounds = {i: one.bounds for i, one in enumerate(alike) if one.bounds is not None}
    known = one_calendar([*dates, *bounds.values()], [*files, *(files[i] for i in bounds)])
    bounds = dict(zip(bounds, known[len(dates) :], strict=True))
    return [pieces[i] for i in left], [
        replace(one, dates=known[i], bounds=bounds.get(i)) for i, one in enumerate(alike)
    ]


def _in_a_row(
    pieces: Sequence[Piece], stamped: Sequence[Stamped], members: Mapping[str | None, int]
) -> Records:
    sizes = [one.dates.size for one in stamped]
    edges = [one.bounds for one in stamped if one.bounds is not None]
    return Records(
        times=np.concatenate([one.dates for one in stamped]),
        member=np.repeat([members[piece.member] for piece in pieces], sizes),
        file=np.repeat([piece.file for piece in pieces], sizes),
        piece=np.repeat(np.arange(len(pieces)), sizes),
        place=np.concatenate([one.kept for one in stamped]),
        bounds=np.concatenate(edges) if len(edges) == len(pieces) else None,
    )


def _in_unit(piece: Piece, name: str, unit: str, notes: list[str]) -> da.Array:
    old = piece.attrs["units"]
    if old == unit:
        return piece.data
    array = xr.DataArray(piece.data, dims=piece.dims, attrs=dict(piece.attrs), name=name)
    notes.append(f"{piece.where}: {name} converted from {old} to {unit}")
    converted: da.Array = in_unit(array, unit, piece.where).data
    return converted


def _within(records: Records, period: tuple[str, str] | None, name: str) -> Records:
    if period is None:
        return records
    day = iso(records.times).astype("U10")  # a day beyond the end of its month is the end
    inside = (day >= period[0]) & (day <= period[1])
    if not inside.any():
        raise SourceError(
            f"{name}: no time lies in source.period {period[0]} to {period[1]}; there are "
            f"{said_time(records.times[0])} to {said_time(records.times[-1])}"
        )
    return records.take(inside)


def _without(
    records: Records, drop: Sequence[str], name: str, notes: list[str]
) -> tuple[Records, Array]:
    """The records but for the times that `drop` names, and those times."""
    text, out = iso(records.times), np.zeros(len(records), dtype=bool)
    for entry in drop:
        if entry == "empty":
            continue  # which times have no value, nobody knows before the values are read
        first, _, last = entry.partition("/")
        last = last or first
        inside = (text.astype(f"U{len(first)}") >= first) & (text.astype(f"U{len(last)}") <= last)
        if not inside.any():
            raise SourceError(
                f"source.drop names {entry!r}, when {name} has no time; it has "
                f"{said_time(records.times[0])} to {said_time(records.times[-1])}"
            )
        out |= inside
    if out.all():
        raise SourceError(f"{name}: source.drop leaves no time")
    dropped = records.times[out]
    if dropped.size:
        span = f"{said_time(dropped[0])} to {said_time(dropped[-1])}"
        notes.append(
            f"{dropped.size} times dropped, as source.drop says, {span}"
            if dropped.size > 1
            else f"1 time dropped, as source.drop says, {said_time(dropped[0])}"
        )
    return records.take(~out), dropped


def _once(
    records: Records, data: Sequence[da.Array], name: str, pieces: Sequence[Piece], notes: list[str]
) -> Records:
    """The records without repetition; what is repeated has to be equal, or empty but for one."""
    new = (records.times[1:] != records.times[:-1]) | (records.member[1:] != records.member[:-1])
    starts = np.flatnonzero(np.r_[True, new, True])
    kept, repeated, emptier = starts[:-1].copy(), 0, 0
    for number, (start, stop) in enumerate(pairwise(starts.tolist())):
        for at in range(start + 1, stop):
            best = int(kept[number])
            known = _better(records.field(best, data), records.field(at, data))
            if known is None:
                raise _twice(records, best, at, name, pieces)
            kept[number] = at if known > 0 else best
            repeated, emptier = repeated + 1, emptier + (known != 0)
    if repeated > emptier:
        first = records.times[starts[:-1][np.diff(starts) > 1][0]]
        notes.append(
            f"{repeated - emptier} repeated times with equal values dropped, "
            f"first {said_time(first)}"
        )
    if emptier:
        notes.append(f"{emptier} repeated times with fewer values of {name} dropped")
    return records.take(kept)


def _better(one: Array, other: Array) -> int | None:
    """Compare two fields by their values: -1, 0 (equal) or 1; None if they contradict."""
    first, second = np.isfinite(one), np.isfinite(other)
    if not np.array_equal(one[first & second], other[first & second]):
        return None
    if np.array_equal(first, second):
        return 0
    if (first | ~second).all():
        return -1
    return 1 if (second | ~first).all() else None


def _twice(
    records: Records, one: int, other: int, name: str, pieces: Sequence[Piece]
) -> SourceError:
    found = [pieces[int(records.piece[row])] for row in (one, other)]
    where = dict.fromkeys(piece.where for piece in found)
    text = (
        f"time {said_time(records.times[one])} occurs twice with different values of {name} "
        f"(file{'s' * (len(where) > 1)} {', '.join(where)})"
    )
    own = [piece.only_lead for piece in found]
    lead = found[0].lead or (own[0] if None not in own and own[0] != own[1] else None)
    if lead is not None:
        return OverlappingForecasts(
            f"{text}; these are forecasts that overlap: choose one of their leads, e.g. ", *lead
        )
    return SourceError(
        f"{text}; remove one of them. If they are members of an ensemble or overlapping forecasts, "
        'give the files of one only, or say what tells members apart: [source] samples = "..."'
    )


def _apart(first: str, ours: Array, name: str, theirs: Array) -> SourceError:
    if type(ours[0]) is not type(theirs[0]):
        return SourceError(f"{first} and {name} have different calendars; bring them to one")
    lonely = [(first, name, t) for t in np.setdiff1d(ours, theirs)[:1]]
    lonely += [(name, first, t) for t in np.setdiff1d(theirs, ours)[:1]]
    has, lacks, when = lonely[0]
    return SourceError(
        f"{first} has {ours.size} times, {name} {theirs.size}: {has} has "
        f"{said_time(when)}, {lacks} does not; {_together(ours, theirs)}"
    )


def _together(ours: Array, theirs: Array) -> str:
    """How two variables with different times can be taken together."""
    start, end = max(ours[0], theirs[0]), min(ours[-1], theirs[-1])
    common = np.intersect1d(ours, theirs)
    inside = [((times >= start) & (times <= end)).sum() for times in (ours, theirs)]
    if common.size and inside == [common.size] * 2:
        days = [str(common[i])[:10] for i in (0, -1)]
        return f'take the common part: [source] period = ["{days[0]}", "{days[1]}"]'
    if stamps := same_stamps(ours, theirs):
        kind, _, end = stamps.partition("-")
        what = f"stand at the end of their {kind}" if end else f"stand for a {kind}"
        return (
            f"they stamp the same {kind}s otherwise; say that stamps {what}: "
            f'[source] stamps = "{stamps}"'
        )
    return "bring them to the same times"
