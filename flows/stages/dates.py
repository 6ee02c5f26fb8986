"""The dates of a configuration held against the times there are, before any work begins."""

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import xarray as xr

from flows.config.schema import ConfigError, RunConfig, Split, within
from flows.stages.splits import SPLITS, Name, part_of, spans_of
from pipeline.errors import UnusableData
from pipeline.fields.climatology import season_phase
from pipeline.fields.seasons import (
    Stretch,
    harmonics_of,
    in_stretches,
    spoken_stretches,
    unseen_stretches,
)
from storage.conventions.stamps import stamps_on

__all__ = ["at_dates", "require_dates", "require_seen"]


def require_dates(config: RunConfig, times: xr.DataArray) -> None:
    """Refuse dates that the calendar of the data does not have, periods without data, a yearly
    cycle that the training times do not determine, and asked dates of a season they have not seen.

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
    require_seen(at_dates(config.generate.times, times), unseen_stretches(phase))


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
