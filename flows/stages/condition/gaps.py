"""Which days of a record are filled, and the windows in which they are drawn.

Days are numbered from the first time of the record, in steps of it. A day is known if the record
has it and the configuration does not name it, so that days that there are can be drawn, too, and
compared with what they were.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from flows.config.schema import ConfigError, RunConfig
from flows.config.sections.given import ALL
from flows.stages.base import published_input
from flows.stages.conditions import conditioned, unseen_of
from flows.stages.dates import at_dates, require_seen
from flows.stages.generate.sequence_times import step_of
from pipeline.errors import UnusableData
from pipeline.given.bridge import Window, windows_of
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout

__all__ = ["DrawnDays", "gaps_of", "require_within"]

KEY = "condition.gaps"


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnDays:
    """Days that are drawn together, window by window.

    Attributes:
        first, step: the first time of the record, and how far apart its times are.
        wanted: numbers of the days that are drawn.
        windows: of days that are drawn together; each holds a wanted one.
        times: the wanted days, conditioned.
    """

    first: Any
    step: Any
    wanted: tuple[int, ...]
    windows: tuple[Window, ...]
    times: xr.Dataset

    def time(self, number: int) -> Any:
        """The time of a day of any number."""
        return self.first + number * self.step

    @property
    def runs(self) -> list[list[int]]:
        """Numbers of wanted days that follow each other, gap by gap."""
        cuts = np.flatnonzero(np.diff(self.wanted) > 1) + 1
        return [part.tolist() for part in np.split(np.array(self.wanted), cuts)]

    @property
    def spoken(self) -> list[tuple[str, str]]:
        """First and last day of each gap."""
        return [(_day(self.time(run[0])), _day(self.time(run[-1]))) for run in self.runs]


def gaps_of(config: RunConfig, layout: StoreLayout) -> DrawnDays:
    """The days that the configuration asks for.

    Raises:
        ConfigError, UnusableData: If there are none, or they are none of the record.
    """
    published_input(layout, "fields")
    published_input(layout, "normals")
    times = artifacts.open_published(layout, "fields")["time"]
    normals = artifacts.open_published(layout, "normals")
    step = step_of(layout, KEY)
    there = _numbered(times.values, times.values[0], step)
    known = np.zeros(int(there[-1]) + 1, bool)
    known[there] = True
    named = _named(config, times, step, len(known))
    known[named] = False
    wanted = tuple(int(number) for number in named)
    if config.condition.gaps == ALL:
        wanted = tuple(int(number) for number in np.flatnonzero(~known))
    if not wanted:
        raise UnusableData(
            f"{KEY}: the record has every day from {_day(times.values[0])} to "
            f'{_day(times.values[-1])}, so "{ALL}" is none; name first and last day of what is to '
            "be drawn"
        )
    windows = tuple(windows_of(known.tolist(), wanted, config.sequence.past))
    values = np.array([times.values[0] + number * step for number in wanted])
    asked = xr.DataArray(values, dims="time", coords={"time": values}, name="time")
    require_seen(asked, unseen_of(normals), KEY)
    return DrawnDays(
        first=times.values[0],
        step=step,
        wanted=wanted,
        windows=windows,
        times=conditioned(asked, config.generate.covariates, normals),
    )


def require_within(gaps: DrawnDays, observed: xr.Dataset) -> None:
    """Refuse observations of days that are not drawn.

    Raises:
        UnusableData: With the day and the remedy.
    """
    asked = {_day(time) for time in gaps.times["time"].values}
    beside = [day for day in map(_day, observed["time"].values) if day not in asked]
    if beside:
        raise UnusableData(
            f"condition: something is observed on {beside[0]}, which is none of the days that "
            f"{KEY} fills; name it there, too, or leave it out"
        )


def _named(config: RunConfig, times: xr.DataArray, step: Any, days: int) -> np.ndarray:
    """Numbers of the days of all gaps that are named."""
    found = [np.empty(0, np.intp)]
    for period in config.condition.periods:
        ends = at_dates(period, times, KEY).values
        first, last = _numbered(ends, times.values[0], step)
        if first < 0 or last >= days:
            raise ConfigError(
                f"{KEY}: {period[0]} to {period[1]} is not within the record, which has "
                f"{_day(times.values[0])} to {_day(times.values[-1])}; days beyond it are drawn by "
                "generate.sequences, from its last day"
            )
        found.append(np.arange(first, last + 1))
    return np.unique(np.concatenate(found))


def _numbered(times: np.ndarray, first: Any, step: Any) -> np.ndarray:
    """Numbers of times, counted in steps from the first.

    Raises:
        UnusableData: If a time does not lie at a whole number of steps.
    """
    steps = np.asarray((times - first) / step, np.float64)
    number = np.rint(steps).astype(np.intp)
    odd = np.flatnonzero(np.abs(steps - number) > 1e-6)
    if odd.size:
        raise UnusableData(
            f"{KEY}: {str(times[odd[0]])[:16]} does not lie a whole number of steps after "
            f"{str(first)[:16]}, so what is missing between them cannot be counted; give a record "
            "whose days have one time of day"
        )
    return number


def _day(time: Any) -> str:
    return str(time)[:10]
