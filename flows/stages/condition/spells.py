"""An event that lasts: the mean over a box and over several days is beyond a threshold.

Under the linear law of sequences the mean is normal (pipeline/given/several_days). So its
probability is known, in another world, too, whose covariates move the climatology; values beyond
the threshold are drawn from the law cut there, and the days are drawn given theirs. Nothing is
known of the days before. Runs on workers; noise is addressed as that of gaps is.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy.special import ndtr

from flows.config.schema import ConfigError, RunConfig
from flows.config.sections.given import Event
from flows.stages.base import published_input
from flows.stages.condition.draws import AGAINST, EFFECTIVE, EVIDENCE, GAUSSIAN_EVIDENCE
from flows.stages.condition.events import box_seen, limit_of
from flows.stages.condition.filling import Model, WindowDrawn, beside, write_days
from flows.stages.condition.gaps import DrawnDays
from flows.stages.conditions import asked_times, conditioned, unseen_of
from flows.stages.dates import require_seen
from flows.stages.generate.draws import Draw
from flows.stages.generate.sequence_times import step_of
from flows.stages.kept import Kept
from flows.stages.trained_model import loaded_sequence_law
from pipeline.arrays import FloatArray
from pipeline.given.bridge import Bridge, Window
from pipeline.given.events import log_probability, proposed_cut
from pipeline.given.several_days import MeanOverDays, Parts
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from storage.places.places import Place

__all__ = ["spell_units", "spells_of"]

KEY = "condition.event.days"


def spells_of(config: RunConfig, layout: StoreLayout) -> DrawnDays:
    """The days of the event, which begins on each of `generate.times`.

    Raises:
        ConfigError, UnusableData: If events overlap, or dates are none of the model.
    """
    event = _event(config)
    first = asked_times(config, layout)["time"].values
    step, days = step_of(layout, KEY), event.days
    numbers = np.rint(np.asarray((first - first[0]) / step, np.float64)).astype(int).tolist()
    for one, other in itertools.pairwise(numbers):
        if other < one + days:
            raise ConfigError(
                f"generate.times: the {days} days of the event from {_day(first[0] + one * step)} "
                f"on reach those from {_day(first[0] + other * step)} on; give first days that "
                f"are {days} or more apart"
            )
    windows = tuple(Window(start=number, before=0, known=(False,) * days) for number in numbers)
    wanted = tuple(number for window in windows for number in window.days)
    values = np.array([time + day * step for time in first for day in range(days)])
    asked = xr.DataArray(values, dims="time", coords={"time": values}, name="time")
    published_input(layout, "normals")
    normals = artifacts.open_published(layout, "normals")
    require_seen(asked, unseen_of(normals), KEY)
    return DrawnDays(
        first=first[0],
        step=step,
        wanted=wanted,
        windows=windows,
        times=conditioned(asked, config.generate.covariates, normals),
    )


_BRIDGES = Kept[Bridge]()  # the law of whitened days does not change with the season


@dataclass(frozen=True, kw_only=True, eq=False)
class Spell:
    """The event in the days of a window, in one world.

    Attributes:
        mean: the law of the mean over the box and the days.
        limit: the mean's departure from the climatology beyond which it happens.
        sign: 1 if beyond is above, -1 if it is below.
    """

    mean: MeanOverDays
    limit: float
    sign: float

    @classmethod
    def of(cls, model: Model, bridge: Bridge, rows: FloatArray) -> "Spell":
        """That of days whose terms of the climatology are `rows`, (day, term)."""
        event = _event(model.config)
        seen = [box_seen(model.known, model.tail, event, row) for row in rows]
        return cls(
            mean=MeanOverDays.of(bridge, seen, model.persistence, model.tail_persistence),
            limit=limit_of(model.known, event, rows),
            sign=1.0 if event.above is not None else -1.0,
        )

    @property
    def log_probability(self) -> float:
        return log_probability(self.sign * self.limit, self.mean.deviation)

    def proposed(self, uniform: FloatArray) -> FloatArray:
        """Values of the mean, beyond the limit."""
        values, _ = proposed_cut(self.sign * self.limit, self.mean.deviation, uniform)
        beyond: FloatArray = self.sign * values
        return beyond


def spell_units(
    config: RunConfig,
    path: Place,
    normals: artifacts.Published,
    days: DrawnDays,
    against: xr.Dataset | None,
    draw: Draw,
) -> list[artifacts.Record]:
    """Draw the days of some units and write each. Runs on a worker.

    Args:
        against: the same days in another world.
    """
    units = artifacts.missing_units(path, draw.units)
    if not units:
        return []
    torch.set_num_threads(1)
    model, length = Model.of(config, normals, days), _event(config).days

    def make() -> Bridge:
        return Bridge(loaded_sequence_law(normals), before=0, known=(False,) * length)

    bridge = _BRIDGES((normals.digest, length), make)
    worlds = {"": days.times} | ({} if against is None else {AGAINST: against})
    rows = {name: model.known.rows(times) for name, times in worlds.items()}

    def drawn(window: Window, members: range, wanted: Sequence[int]) -> WindowDrawn:
        at = [column for column, day in enumerate(days.wanted) if day in window.days]
        spells = {name: Spell.of(model, bridge, part[at]) for name, part in rows.items()}
        made = _drawn(model, bridge, spells[""], window, members)
        return WindowDrawn(fields=(made(member) for member in wanted), figures=_figures(spells))

    return write_days(model, path, units, drawn)


def _figures(spells: Mapping[str, Spell]) -> dict[str, float]:
    """By world: the probability is exact, and needs no weights."""
    found: dict[str, float] = {}
    for world, spell in spells.items():
        nats = spell.log_probability
        parts = {EVIDENCE: nats, GAUSSIAN_EVIDENCE: nats, EFFECTIVE: 1.0}
        found |= {name + world: part for name, part in parts.items()}
    return found


def _drawn(
    model: Model, bridge: Bridge, spell: Spell, window: Window, members: range
) -> Callable[[int], FloatArray]:
    """What makes scaled anomalies (day, variable, *grid) of a member."""
    channels, lmax = model.channels, model.known.lmax
    white = [[model.noise(k, day).white(0, channels, lmax) for k in members] for day in window.days]
    none = np.empty((0, len(channels), (lmax + 1) ** 2))
    x = bridge.draw(np.array(white, np.float64), none, none)

    def fields(member: int) -> FloatArray:
        left, beyond = beside(model, window, {}, member)
        normal = model.noise(member, window.start).numbers(0, "event", 1)
        values = spell.proposed(ndtr(normal.astype(np.float64)))
        one = x[:, [member - members.start]]
        made = spell.mean.moved(Parts(x=one, beyond=beyond, left=left), values)
        low = made.x[:, 0]
        if model.tail is not None and made.beyond is not None:
            low = np.concatenate([low, model.tail.draw(low, made.beyond[:, 0])], axis=-1)
        whole: FloatArray = model.known.synthesis(low) + made.left[:, 0]
        return whole

    return fields


def _event(config: RunConfig) -> Event:
    event = config.condition.event
    assert event is not None
    return event


def _day(time: Any) -> str:
    return str(time)[:10]
