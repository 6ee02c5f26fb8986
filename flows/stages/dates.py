"""The dates of a configuration held against the times there are, before any work begins."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import xarray as xr

from flows.config.schema import DRAW, ConfigError, DrawnSequence, RunConfig, Split, within
from flows.stages.splits import SPLITS, Name, course_of, in_courses, part_of, spans_of
from pipeline.errors import UnusableData
from pipeline.fields.climatology import season_phase
from pipeline.fields.seasons import (
    Stretch,
    harmonics_of,
    in_stretches,
    spoken_stretches,
    unseen_stretches,
)
from pipeline.gaussian.lags import contiguous
from storage.conventions.stamps import stamps_on

__all__ = [
    "SEQUENCES",
    "at_dates",
    "day_before",
    "require_dates",
    "require_day",
    "require_seen",
    "step_in",
    "times_from",
]

SEQUENCES = "generate.sequences"


def require_dates(config: RunConfig, times: xr.DataArray) -> None:
    """Refuse dates that the calendar of the data does not have, periods without data, a yearly
    cycle that the training times do not determine, asked dates of a season they have not seen, and
    sequences that cannot be drawn.

    Args:
        times: Of the fields, in order.
    Raises:
        ConfigError: If a date is none.
        UnusableData: For all else, with the key and the remedy.
    """
    for name in SPLITS:
        _require_split(config.split, name, times)
    phase = season_phase(part_of(times, config.split, "train"))
    harmonics_of(phase, config.spectral.harmonics)
    unseen = unseen_stretches(phase)
    require_seen(at_dates(config.generate.times, times), unseen)
    for asked in config.generate.sequences:
        require_seen(times_from(asked, times), unseen, SEQUENCES)
        if asked.from_ != DRAW:
            last = day_before(asked, times)
            if not asked.of:
                require_day(asked, last, times)


def times_from(asked: DrawnSequence, source: xr.DataArray, lead: int = 0) -> xr.DataArray:
    """The times of a sequence in the calendar of the source.

    Args:
        lead: so many times before the first stand before it.
    Raises:
        ConfigError, UnusableData: If its start is no date of that calendar, or times are not
            equally far apart.
    """
    step = step_in(source)
    (first,) = at_dates((asked.start,), source, f"{SEQUENCES}.start").values
    values = np.array([first + step * day for day in range(-lead, asked.days)])
    return xr.DataArray(values, dims="time", coords={"time": values}, name="time")


def step_in(source: xr.DataArray, key: str = SEQUENCES) -> Any:
    """The step of the source's times.

    Args:
        key: what asks for it in the configuration.
    Raises:
        UnusableData: If they are not equally far apart, as months are not.
    """
    along = in_courses(source)
    times = along.values
    steps = np.concatenate([np.diff(times[part]) for part in contiguous(course_of(along))])
    if not steps.size or (steps != steps[0]).any():
        ends = (steps.min(), steps.max()) if steps.size else ()
        raise UnusableData(
            f"{key}: the times of the source are not equally far apart: "
            f"{' to '.join(map(_spoken, ends)) or 'there is one'}; take a source whose times are, "
            "as days are and calendar months are not, or leave this key out"
        )
    return steps[0]


def day_before(asked: DrawnSequence, source: xr.DataArray) -> Any:
    """The time of the source after which a sequence that goes on from it begins.

    Raises:
        ConfigError: If the sequence does not begin one step after the date it goes on from.
    """
    (start,) = at_dates((asked.start,), source, f"{SEQUENCES}.start").values
    last = start - step_in(source)
    if str(last)[:10] != asked.from_:
        raise ConfigError(
            f"{SEQUENCES}.from: {asked.start} does not follow {asked.from_}; the time before it is "
            f"{str(last)[:16]}"
        )
    return last


def require_day(asked: DrawnSequence, last: Any, source: xr.DataArray) -> None:
    """Refuse to go on from a day that the source does not have.

    Args:
        last: that day.
    Raises:
        ConfigError: With the days that it has.
    """
    times = source.values
    if not (times == last).any():
        raise ConfigError(
            f"{SEQUENCES}.from: the source has no day {asked.from_}; it has "
            f"{str(times[0])[:10]} to {str(times[-1])[:10]}"
        )


def _require_split(split: Split, name: Name, times: xr.DataArray) -> None:
    for period in split.periods(name):
        for day in (period[0], str(within(period).stop or period[0])):
            _require_date(f"{day}-01"[:10], times, f"split.{name}")
    spans = spans_of(times, split, name)
    empty = [
        f"from {first} to {last}"
        for (first, last), span in zip(split.periods(name), spans, strict=True)
        if span.start == span.stop
    ]
    if labels := split.members(name):
        none = not part_of(times, split, name).size
        empty += [f"of the members {', '.join(labels)} from {split.spoken(name)}"] * none
    if empty:
        first, last = times.values[0], times.values[-1]
        raise UnusableData(
            f"split.{name}: the data have no times {empty[0]}; they run from {str(first)[:10]} to "
            f"{str(last)[:10]}"
        )


def require_seen(
    asked: xr.DataArray, unseen: Sequence[Stretch], key: str = "generate.times"
) -> None:
    """Refuse dates in parts of the year that the training times have not seen.

    Args:
        key: where they stand in the configuration.
    Raises:
        UnusableData: With the dates and the remedy.
    """
    strange = [str(time)[:10] for time in asked.values[in_stretches(asked, unseen)]]
    if strange:
        more = f" and {len(strange) - 3} more" if len(strange) > 3 else ""
        raise UnusableData(
            f"{key}: {', '.join(strange[:3])}{more}: split.train has no data within half "
            f"a month of that season ({spoken_stretches(unseen)}), so its mean would be "
            "extrapolated. Ask for dates of the seasons that were learned, or train on whole years"
        )


def at_dates(
    dates: Sequence[str], times: xr.DataArray, key: str = "generate.times"
) -> xr.DataArray:
    """Dates of the configuration as times of the data's calendar, stamped as the data are.

    Args:
        key: where they stand in it.
    Raises:
        ConfigError: If a date is none of that calendar.
    """
    for day in dates:
        _require_date(day, times, key)
    values = stamps_on(dates, times.values)
    return xr.DataArray(values, dims="time", coords={"time": values}, name="time")


def _spoken(span: Any) -> str:
    """A step in days or hours."""
    days = float(np.timedelta64(span) / np.timedelta64(1, "D"))
    return f"{days:g} days" if days >= 1.0 else f"{24.0 * days:g} hours"


def _require_date(day: str, times: xr.DataArray, key: str) -> None:
    first = times.values[0]
    year, month, number = map(int, day.split("-"))
    try:
        if isinstance(first, np.datetime64):
            datetime(year, month, number)
        else:
            first.replace(year=year, month=month, day=number)
    except ValueError as error:
        raise ConfigError(
            f"{key}: {day} is no date of the calendar of the data, {times.dt.calendar}; write one "
            "that it has"
        ) from error
