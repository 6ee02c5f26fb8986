"""An event as something observed: the mean over a box is beyond a threshold.

Values u of the mean beyond the threshold c are proposed from a law q (pipeline/given/events); each
particle is drawn given its own u, and weighs p(u) / q(u), with p(u) the evidence of the chain. The
mean weight is the probability of the event: for Gaussian laws without variance, however rare it is.
"""

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from flows.config.schema import RunConfig
from flows.config.sections.given import Event
from flows.stages.conditions import conditioned
from pipeline.arrays import FloatArray
from pipeline.errors import UnusableData
from pipeline.fields.pointwise.maps import Identity
from pipeline.fields.standardisation import Normals
from pipeline.gaussian.baselines import Baseline
from pipeline.gaussian.conditional_tail import GaussianTail
from pipeline.given.events import log_probability, proposed_cut, proposed_exponential
from pipeline.given.functionals import box
from pipeline.given.seen import Seen

__all__ = ["EventSeen", "box_seen", "event_at", "limit_of", "other_world", "require_event"]


@dataclass(frozen=True, kw_only=True, eq=False)
class EventSeen:
    """What an event sees of a law at one time.

    Attributes:
        threshold: the mean's anomaly beyond which it happens.
        above: whether beyond means above.
    """

    seen: Seen
    threshold: float
    above: bool

    def deviation(self, baseline: Baseline) -> float:
        """Of the mean's anomaly under a Gaussian law."""
        rows = baseline.rotate(torch.from_numpy(self.seen.operator).to(baseline.variance))
        variance = float((rows.square() * baseline.variance).sum())
        return (variance + float(self.seen.noise[0, 0])) ** 0.5

    def proposed(
        self, baseline: Baseline, uniform: FloatArray, learned: bool
    ) -> tuple[FloatArray, FloatArray]:
        """Values (member,) of the mean's anomaly, and the logs of 1 / q."""
        sign = 1.0 if self.above else -1.0
        propose = proposed_exponential if learned else proposed_cut
        values, logs = propose(sign * self.threshold, self.deviation(baseline), uniform)
        return sign * values, logs

    def log_probability(self, baseline: Baseline) -> float:
        """Of the event under a Gaussian law."""
        sign = 1.0 if self.above else -1.0
        return log_probability(sign * self.threshold, self.deviation(baseline))


def event_at(
    known: Normals, tail: GaussianTail | None, event: Event, rows: FloatArray
) -> EventSeen:
    """The event at a time whose terms of the climatology are `rows`, (term,)."""
    return EventSeen(
        seen=box_seen(known, tail, event, rows),
        threshold=limit_of(known, event, rows[None]),
        above=event.above is not None,
    )


def box_seen(known: Normals, tail: GaussianTail | None, event: Event, rows: FloatArray) -> Seen:
    """The mean over the box of an event, at a time with these terms of the climatology, (term,)."""
    place = known.variables.index(event.variable)
    return Seen.of(known.at(rows), tail, box(known.grid, event.box, place), np.zeros(1))


def limit_of(known: Normals, event: Event, rows: FloatArray) -> float:
    """The anomaly beyond which an event happens, of the mean over days whose terms of the
    climatology are `rows`, (day, term)."""
    limit = event.above if event.above is not None else event.below
    assert limit is not None
    functionals = box(known.grid, event.box, known.variables.index(event.variable))
    usual = functionals(np.tensordot(rows, known.climatology, axes=(1, 0)))
    return limit - float(usual.mean())


def other_world(config: RunConfig, times: xr.DataArray, normals: xr.Dataset) -> xr.Dataset | None:
    """The times of an event with the covariates that it is compared with; None if there are none.

    Args:
        times: without what they are conditioned on.
    """
    event = config.condition.event
    if event is None or not event.against:
        return None
    given = {**config.generate.covariates, **event.against}
    return conditioned(times.reset_coords(drop=True), given, normals)


def require_event(config: RunConfig, known: Normals) -> None:
    """Refuse events that are none of this model.

    Raises:
        UnusableData: Naming the key, with the remedy.
    """
    event = config.condition.event
    if event is None:
        return
    if event.variable not in known.variables:
        raise UnusableData(
            f"condition.event.variable: the model has no {event.variable!r}; it has "
            f"{', '.join(known.variables)}"
        )
    place = known.variables.index(event.variable)
    if not isinstance(known.transforms[place], Identity):
        raise UnusableData(
            f"condition.event.variable: {event.variable} is modelled by its "
            f"{known.transforms[place].name}, so its mean over a box is no linear functional; take "
            "a variable without transform"
        )
    if (
        known.mask[place].any()
        and box(known.grid, event.box, place)(known.mask.astype(np.float64))[0] > 0
    ):
        raise UnusableData(
            "condition.event.box: the model has no data in a part of it; take a box without "
            "masked cells"
        )
    strange = [name for name in event.against if name not in known.trend.names]
    if strange and (config.conditions_sequences or not config.draws_by_network):
        raise UnusableData(
            f"condition.event.against: a Gaussian law follows {strange[0]} only where source.trend "
            "names it, and would give the same probability in both worlds; name it there, or "
            "train a network of single days"
        )
