"""Where the stamp of a time stands in what it stands for: an instant, a day, a month, its bounds.

A mean over January may be stamped on 1 January, in the middle of the month, or on 1 February. What
the bounds say is asked for all files of a variable together, so that no file is treated otherwise
than the next; where there are no bounds, the configuration may say what a stamp means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import xarray as xr

from storage.conventions.axes import SourceError
from storage.conventions.times import iso, said_time, usual_step

__all__ = [
    "Stamped",
    "bounds_like",
    "one_convention",
    "require_even_steps",
    "same_stamps",
    "stamps_on",
]

Array = np.ndarray[Any, Any]

EDGE = 0.01  # of the width of bounds: what stands nearer to one of them stands there
SECOND = 1.0
_DAY, _MONTH = 86400.0, 27.9 * 86400.0
_WHOLE = {"month": "month", "month-end": "month", "day": "day", "day-end": "day"}
_MEANS = ("mean", "sum", "maximum", "minimum")


@dataclass(frozen=True, kw_only=True)
class Stamped:
    """The times of one file, as they are stamped.

    Attributes:
        where: The file.
        dates: One-dimensional.
        bounds: Shape (time, 2), if there are some.
        methods: The cell methods of the variable, which say whether it is of instants.
        kept: The places of these records in the file.
    """

    where: str
    dates: Array
    bounds: Array | None
    methods: str
    kept: Array

    @property
    def instants(self) -> bool:
        return "time: point" in self.methods

    @property
    def is_mean(self) -> bool:
        return any(f"time: {method}" in self.methods for method in _MEANS)

    def take(self, kept: Array) -> Stamped:
        """Some of the records."""
        bounds = None if self.bounds is None else self.bounds[kept]
        return replace(self, dates=self.dates[kept], bounds=bounds, kept=self.kept[kept])


def one_convention(
    series: Sequence[Stamped], declared: str | None, notes: list[str]
) -> list[Stamped]:
    """The times of all files of a variable, stamped alike.

    Stamps at the end of bounds, and stamps of which some stand elsewhere in their bounds than the
    others, are put in the middle. A single instant among means is left out.

    Args:
        series: By file.
        declared: "kept", or what each stamp stands for: "day", "month", "day-end", "month-end".
    Raises:
        SourceError: If some files have no bounds to decide by, or a day or month has two times.
    """
    series = _without_instants(series, notes)
    if declared in _WHOLE:
        return [_as_whole(one, str(declared)) if one.dates.size else one for one in series]
    bounded = [
        one for one in series if one.dates.size and one.bounds is not None and not one.instants
    ]
    if declared == "kept" or not bounded or not any(_wide(one).any() for one in bounded):
        return series
    places = np.concatenate([_place(one) for one in bounded])
    ended, started = np.abs(places - 1) <= EDGE, places <= EDGE
    if outside := [text for one in bounded if (text := _outside(one))]:
        if ended.any():
            raise SourceError(
                f"{outside[0]}, while other times stand at the end of theirs; repair the bounds, "
                'or say what the stamps are: [source] stamps = "kept", "day-end" or "month-end"'
            )
        notes.append(f"{outside[0]}; the bounds of times are left out")
        return [replace(one, bounds=None) for one in series]
    if not ended.any() and (started.all() or not started.any()):
        return series
    for one in series:
        if one.dates.size and one.bounds is None and not one.instants:
            raise _unbounded(one, bounded[0])
    where = "stood at the end of their bounds" if ended.all() else "stood here and there in bounds"
    notes.append(f"times {where}, put in the middle")
    return [replace(one, dates=_middles(one)) if one in bounded else one for one in series]


def require_even_steps(
    times: Array, pieces: Array, own: Sequence[Stamped], files: Sequence[str]
) -> None:
    """Raise SourceError if two stamps are much nearer to each other than those of a record are.

    Args:
        times: Sorted.
        pieces: The number of the piece of each.
        own: The pieces.
        files: Where each piece comes from.
    """
    new = np.flatnonzero(np.r_[True, times[1:] != times[:-1]])
    if new.size < 3:
        return
    steps = seconds(np.diff(times[new]))
    usual = float(np.median(steps))
    regular = bool((np.abs(steps - usual) <= 0.11 * usual).mean() >= 0.5)
    alone = [usual_step(one.dates) if one.dates.size > 2 else 0.0 for one in own]
    for at, step in enumerate(steps):
        one, other = int(pieces[new[at]]), int(pieces[new[at + 1]])
        least = usual / 6 if regular else 0.0
        if one != other and min(alone[one], alone[other]) > 0:
            monthly = min(alone[one], alone[other]) >= _MONTH
            if monthly or (own[one].is_mean and own[other].is_mean):
                least = max(least, 0.75 * min(alone[one], alone[other]))
                usual = max(usual, min(alone[one], alone[other]))
        if step < least:
            first, second = times[new[at]], times[new[at + 1]]
            raise SourceError(
                f"{said_time(first)} ({files[one]}) and {said_time(second)} ({files[other]}) are "
                f"{_spoken(step)} apart, where the usual step is {_spoken(usual)}; "
                f"{_remedy(first, second, usual, apart=one != other)}"
            )


def same_stamps(ours: Array, theirs: Array) -> str | None:
    """What `source.stamps` has to say for two series that differ to be the same; None if nothing.

    Means in the middle of their day and instants at its end are those of the same day.
    """
    for kind, least in (("month", _MONTH), ("day", 0.99 * _DAY)):
        if min(map(usual_step, (ours, theirs))) < least:
            continue
        for declared, shift in ((kind, 0.0), (f"{kind}-end", SECOND)):
            inside = [times - timedelta_like(times, shift) for times in (ours, theirs)]
            one, other = (np.unique(edges(times, kind)[0]) for times in inside)
            alone = one.size == np.unique(ours).size and other.size == np.unique(theirs).size
            if alone and np.intersect1d(one, other).size == min(one.size, other.size):
                return declared
    return None


def bounds_like(source: xr.Dataset, time: xr.DataArray) -> xr.DataArray | None:
    """Bounds for `time`, placed as the source's are; None if those are absent or follow no rule.

    Bounds that lie as far from every time are put as far; else the day, month or year of a time
    are its bounds, if those of the source are days, months or years.
    """
    name = source["time"].attrs.get("bounds", source["time"].encoding.get("bounds", ""))
    if name not in source.variables:
        return None
    bounds, stamps = source[name].values, source["time"].values
    reach = bounds - stamps[:, None]
    if (reach == reach[0]).all():
        return xr.DataArray(time.values[:, None] + reach[0], dims=("time", "bnds"))
    middles = bounds[:, 0] + (bounds[:, 1] - bounds[:, 0]) / 2
    for kind in ("day", "month", "year"):
        start, end = edges(middles, kind)
        if (start == bounds[:, 0]).all() and (end == bounds[:, 1]).all():
            late = stamps >= bounds[:, 1]
            inside = time.values - timedelta_like(stamps, SECOND) if late.all() else time.values
            return xr.DataArray(np.stack(edges(inside, kind), axis=1), dims=("time", "bnds"))
    return None


def stamps_on(days: Sequence[str], times: Array) -> Array:
    """The stamps that a source has on some days, or would have there.

    On a day of the source its first time; on another one the time of day that the source has on
    that day of another year, else in that month, else on most days.

    Args:
        days: ISO dates.
        times: Those of the source, sorted.
    Raises:
        ValueError: If the calendar has no such day.
    """
    text = iso(times).astype(str)
    known, first = np.unique(text.astype("U10"), return_index=True)
    clocks = [text[at][10:] for at in first]
    rules: list[dict[str, str]] = [{}, {}]
    for day, clock in zip(known, clocks, strict=True):
        rules[0].setdefault(day[5:], clock)
        rules[1].setdefault(day[5:7], clock)
    usual = max(sorted(set(clocks)), key=clocks.count)
    there = dict(zip(known.tolist(), first.tolist(), strict=True))
    stamps = np.empty(len(days), dtype=times.dtype)
    for place, day in enumerate(days):
        if day in there:
            stamps[place] = times[there[day]]
            continue
        clock = rules[0].get(day[5:]) or rules[1].get(day[5:7], usual)
        stamps[place] = _dated(day, clock, times[0])
    return stamps


def _dated(day: str, clock: str, example: Any) -> Any:
    if isinstance(example, np.datetime64):
        return np.datetime64(f"{day}{clock}")
    year, month, date = (int(part) for part in day.split("-"))
    hour, minute, second = (int(part) for part in clock[1:9].split(":"))
    return example.replace(
        year=year, month=month, day=date, hour=hour, minute=minute, second=second, microsecond=0
    )


def edges(dates: Array, kind: str) -> tuple[Array, Array]:
    """Begin and end of the day, month or year of each date."""
    if dates.dtype.kind == "M":
        unit: Any = {"day": "M8[D]", "month": "M8[M]", "year": "M8[Y]"}[kind]
        start = dates.astype(unit)
        return start.astype(dates.dtype), (start + 1).astype(dates.dtype)

    def begin(date: Any) -> Any:
        day = date.replace(hour=0, minute=0, second=0, microsecond=0)
        return (
            day if kind == "day" else day.replace(day=1, **({"month": 1} if kind[0] == "y" else {}))
        )

    def end(date: Any) -> Any:
        if kind == "day":
            return date + timedelta(days=1)
        year = date.year + (kind == "year" or date.month == 12)
        return date.replace(year=year, month=1 if kind == "year" else date.month % 12 + 1)

    start = _each(begin, dates)
    return start, _each(end, start)


def seconds(spans: Array) -> Array:
    """Differences of dates as numbers of seconds."""
    whole: Array = spans.astype("timedelta64[us]").astype(np.float64) / 1e6
    return whole


def timedelta_like(dates: Array, count: float) -> Any:
    """So many seconds, to be added to dates of this kind."""
    span = timedelta(seconds=count)
    return np.timedelta64(span) if dates.dtype.kind == "M" else span


def _each(change: Callable[[Any], Any], dates: Array) -> Array:
    result = np.empty(dates.shape, dtype=object)
    for place, date in np.ndenumerate(dates):
        result[place] = change(date)
    return result


def _wide(one: Stamped) -> Array:
    assert one.bounds is not None
    wide: Array = one.bounds[:, 0] != one.bounds[:, 1]
    return wide


def _place(one: Stamped) -> Array:
    """Where stamps stand between their bounds: 0 at the begin, 1 at the end."""
    assert one.bounds is not None
    low, high = np.minimum(*one.bounds.T), np.maximum(*one.bounds.T)
    width = np.maximum(seconds(high - low), SECOND)
    place: Array = seconds(one.dates - low) / width
    return place


def _middles(one: Stamped) -> Array:
    assert one.bounds is not None
    middles: Array = one.bounds[:, 0] + (one.bounds[:, 1] - one.bounds[:, 0]) / 2
    return middles


def _without_instants(series: Sequence[Stamped], notes: list[str]) -> list[Stamped]:
    """The files without records whose bounds are equal, if the others are means of some time."""
    wide = [None if one.bounds is None or one.instants else _wide(one) for one in series]
    if not any(each is not None and each.any() for each in wide):
        return list(series)
    result = []
    for one, each in zip(series, wide, strict=True):
        instant = np.zeros(one.dates.size, bool) if each is None else ~each & (_place(one) == 0)
        if not instant.any():
            result.append(one)
            continue
        lost = one.dates[instant]
        notes.append(
            f"{one.where}: {lost.size} time{'s' * (lost.size > 1)} dropped, an instant among means "
            f"(its bounds are equal): {', '.join(map(said_time, lost[:5]))}"
        )
        result.append(one.take(~instant))
    return result


def _outside(one: Stamped) -> str:
    assert one.bounds is not None
    place = _place(one)
    wrong = np.flatnonzero((place < -EDGE) | (place > 1 + EDGE))
    if not wrong.size:
        return ""
    date, (low, high) = one.dates[wrong[0]], one.bounds[wrong[0]]
    return (
        f"{one.where}: {said_time(date)} is not within its bounds, {said_time(low)} to "
        f"{said_time(high)}"
    )


def _as_whole(one: Stamped, declared: str) -> Stamped:
    """Each time as the middle of the day or month that it is said to stand for."""
    kind, inside = _WHOLE[declared], one.dates
    if one.bounds is not None and not one.instants and not _outside(one):
        inside = np.where(_wide(one), _middles(one), one.dates)
    elif declared != kind:
        inside = one.dates - timedelta_like(one.dates, SECOND)
    start, end = edges(inside, kind)
    order = np.argsort(start, kind="stable")
    twice = np.flatnonzero(
        (start[order][1:] == start[order][:-1]) & (one.dates[order][1:] != one.dates[order][:-1])
    )
    if twice.size:
        first, second = (said_time(one.dates[order][twice[0] + i]) for i in (0, 1))
        raise SourceError(
            f'source.stamps = "{declared}" says that a time stands for a {kind}, but {one.where} '
            f"has {first} and {second} in one {kind}; take it out of [source]"
        )
    return replace(one, dates=start + (end - start) / 2, bounds=np.stack([start, end], axis=1))


def _unbounded(one: Stamped, other: Stamped) -> SourceError:
    assert other.bounds is not None
    width = float(np.median(seconds(other.bounds[:, 1] - other.bounds[:, 0])))
    kind = "month" if width >= _MONTH else "day" if width >= 0.99 * _DAY else None
    remedy = (
        f'if its stamps are at the end of a {kind}, too, say so: [source] stamps = "{kind}-end"; '
        f'if they are in it, stamps = "{kind}"'
        if kind
        else 'add its bounds, or take all stamps as they are: [source] stamps = "kept"'
    )
    return SourceError(
        f"{other.where} has times at the end of their bounds, {one.where} has no bounds to tell "
        f"where its stamps stand; {remedy}"
    )


def _remedy(first: Any, second: Any, usual: float, *, apart: bool) -> str:
    """What to write about two stamps that are too near, of two files if they are apart."""
    both = np.empty(2, dtype="M8[ns]" if isinstance(first, np.datetime64) else object)
    both[:] = [first, second]
    drop = f'drop = ["{iso(both)[1]}"]'
    for kind, least in (("month", _MONTH), ("day", 0.99 * _DAY)) if apart else ():
        starts = edges(both, kind)[0]
        if usual >= least and starts[0] == starts[1]:
            return (
                f"if they are the same {kind}, say that stamps stand for one: [source] stamps = "
                f'"{kind}"; else take one of them out: {drop}'
            )
    return f"take one of them out: [source] {drop}"


def _spoken(span: float) -> str:
    if span >= 2 * _DAY:
        return f"{span / _DAY:g} days"
    return f"{span / 3600:g} hours" if span >= 3600 else f"{span:g} seconds"
