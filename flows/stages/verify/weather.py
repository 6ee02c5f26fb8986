"""How weather goes on in drawn sequences: what they miss of held-out days, by candidate.

    means                days of the means
    variance_of_means    size of the logarithm of their variance over that of held-out days,
                         (n, channel)
    irreversibility      root mean square over cells of the difference from held-out days, (channel)
    spells               energy distance [days] of the lengths of spells below the first and above
                         the last tenth of the training days, (2, channel)
    eastward             root mean square over orders 1-10 of the difference of the part of the
                         moving power that travels east, 30-60N, (channel); absent for short periods
    spectrum             root mean square over orders 1-10 and octaves of the frequency, westward
                         and eastward, of the logarithm of the power over that of held-out days,
                         (band, channel); `bands` names them: the tropics, symmetric and
                         antisymmetric about the equator, and 30-60N
    truth                {irreversibility, eastward}: how large they are, (channel)

Candidates: `model`, the sequences that were drawn; `linear`, the law of sequences, where a law was
learned; `independent`, days of the same law by themselves; `floor`, training days in stretches as
long as the held-out ones. Anomalies up to degree 15 in units of the local standard deviation, rain
in normal scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from flows.stages.verify.forecasts import Shown
from pipeline.arrays import FloatArray
from pipeline.gaussian.dynamics import SequenceLaw
from pipeline.scores.weather import (
    EXTREME,
    MEANS,
    WINDOW,
    eastward_share,
    energy_distance,
    halves,
    irreversibility,
    power_distance,
    spells,
    travelling_power,
    variance_of_means,
)

MEMBERS = 4  # of the linear law that are drawn here
BAND = (30.0, 60.0)  # degrees north
TROPICS = 15.0  # degrees from the equator
BANDS = ("tropics, symmetric", "tropics, antisymmetric", "30-60N")


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Of some series together, (day, channel, cell) each.

    Attributes:
        power: by order and frequency, (band, channel, order, frequency); None if all are short.
    """

    means: FloatArray
    skew: FloatArray
    spells: FloatArray
    power: FloatArray | None

    @classmethod
    def of(
        cls, series: Sequence[FloatArray], shown: Shown, limits: tuple[FloatArray, FloatArray]
    ) -> "Statistics":
        long = [days for days in series if len(days) >= WINDOW]
        power = [_power(days.reshape(*days.shape[:2], *shown.grid.shape), shown) for days in long]
        return cls(
            means=_mean_of_known([variance_of_means(days, shown.area) for days in series]),
            skew=np.mean([irreversibility(days) for days in series], axis=0),
            spells=np.mean([spells(days, *limits) for days in series], axis=0),
            power=np.mean(power, axis=0) if power else None,
        )

    @property
    def east(self) -> FloatArray | None:
        """Part of the moving power that travels east, 30-60N, (channel, order)."""
        return None if self.power is None else eastward_share(self.power[-1])


def _mean_of_known(parts: Sequence[FloatArray]) -> FloatArray:
    """The mean of those that are known; NaN where none is, as of series that are all too short."""
    found = np.stack(parts)
    known = np.isfinite(found)
    number = np.where(known.any(axis=0), known.sum(axis=0), np.nan)
    mean: FloatArray = np.where(known, found, 0.0).sum(axis=0) / number
    return mean


def _power(days: FloatArray, shown: Shown) -> FloatArray:
    """Power of waves in each of `BANDS` of days on rings, (band, channel, order, frequency)."""
    latitudes = np.asarray(shown.grid.latitudes)
    near = np.abs(latitudes) <= max(TROPICS, np.abs(latitudes).min())
    north = (latitudes >= BAND[0]) & (latitudes <= BAND[1])
    parts = (*halves(days[:, :, near]), days[:, :, north])
    return np.stack([travelling_power(part) for part in parts])


def weather(
    normals: xr.Dataset,
    law: SequenceLaw,
    truth: Sequence[FloatArray],
    train: Sequence[FloatArray],
    drawn: Sequence[FloatArray],
    learned: bool,
) -> dict[str, Any]:
    """What each candidate misses; see the module.

    Args:
        truth, train, drawn: consecutive whitened days, (day, channel, coefficient).
        learned: whether `drawn` is by another law than the linear one.
    """
    shown = Shown.of(normals)
    length = max(len(part) for part in truth)
    known = [shown(part) for part in train]
    limits = np.quantile(np.concatenate(known), (EXTREME, 1 - EXTREME), axis=0)
    series: dict[str, list[FloatArray]] = {"model": [shown(part) for part in drawn]}
    white = np.random.default_rng(0).standard_normal((length, MEMBERS, *truth[0].shape[1:]))
    if learned:
        series["linear"] = list(np.swapaxes(shown(law.draw(white)), 0, 1))
    alone = np.stack([law.next(np.empty((MEMBERS, 0, *one.shape[1:])), one) for one in white])
    series["independent"] = list(np.swapaxes(shown(alone), 0, 1))
    real = Statistics.of([shown(part) for part in truth], shown, (limits[0], limits[1]))
    found = {
        name: _missed(Statistics.of(each, shown, (limits[0], limits[1])), real, shown.area)
        for name, each in series.items()
    }
    floors = [
        _missed(
            Statistics.of([part[k : k + length]], shown, (limits[0], limits[1])), real, shown.area
        )
        for part in known
        for k in range(0, len(part) - length + 1, length)
    ]
    if floors:
        found["floor"] = {
            score: np.sqrt(np.mean([np.square(each[score]) for each in floors], axis=0))
            for score in floors[0]
        }
    scores = [*found["model"]]
    table: dict[str, Any] = {
        score: {name: np.round(each[score], 4).tolist() for name, each in found.items()}
        for score in scores
    }
    sizes = {"irreversibility": _size(real.skew, shown.area)}
    if real.east is not None:
        sizes["eastward"] = real.east.mean(axis=-1)
    truth_sizes = {name: np.round(size, 4).tolist() for name, size in sizes.items()}
    return {"means": list(MEANS), "bands": list(BANDS), **table, "truth": truth_sizes}


def _missed(one: Statistics, real: Statistics, area: FloatArray) -> dict[str, FloatArray]:
    found = {
        "variance_of_means": np.abs(np.log(one.means / real.means)),
        "irreversibility": _size(one.skew - real.skew, area),
        "spells": energy_distance(one.spells, real.spells),
    }
    if one.east is not None and real.east is not None:
        found["eastward"] = np.sqrt(np.square(one.east - real.east).mean(axis=-1))
    if one.power is not None and real.power is not None:
        found["spectrum"] = power_distance(one.power, real.power)
    return found


def _size(values: FloatArray, area: FloatArray) -> FloatArray:
    """Root mean square over the area, (channel,)."""
    found: FloatArray = np.sqrt(np.average(np.square(values), axis=-1, weights=area))
    return found
