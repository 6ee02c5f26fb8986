"""The scale of anomalies where it goes with the season and the trend.

    log scale(cell, time) = log scale(cell) + sum over terms k > 0 of row_k(time) b_k(cell)

row are the terms of the climatology (climatology.py). b is what makes independent Gaussian
anomalies likeliest, by steps of Fisher scoring from b = 0: a step adds

    (sum row row^T)^-1 sum over times of row (a^2 - 1) / 2,    a = anomaly / scale.

A cell alone tells b badly: a year has few independent days, so the maps of b are smoothed over the
sphere. How far is chosen on validation times, and so is whether the scale changes at all. The level
of each cell is not smoothed: over the training times squares of a have the mean that they have
under a scale that does not change, which is one but in cells that hardly vary (climatology.py).

References:
    Smyth (1989), Generalized linear models with varying dispersion, Journal of the Royal
    Statistical Society B 51, 47-60
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.arrays import FloatArray, Sums
from pipeline.fields.standardisation import Normals
from pipeline.fields.trend import Trend
from pipeline.sphere.coefficients import degrees
from pipeline.sphere.fill import harmonic_fill
from pipeline.sphere.harmonics import plan
from pipeline.sphere.pairs import in_pairs

__all__ = [
    "SMOOTHED_TO",
    "STEPS",
    "ScaleFit",
    "ScaleSums",
    "Tried",
    "chosen_scale",
    "smoothing_words",
    "stepped",
]

STEPS = 3  # of Fisher scoring: what further ones change is below the noise of years
SMOOTHED_TO = (4, 8, 16)  # degrees at which the maps are halved
LARGEST = 2.0  # change of the log of the scale along a term of deviation one: more is no estimate


@dataclass(frozen=True, kw_only=True)
class ScaleSums(Sums):
    """Sums over times that a step of Fisher scoring is made of.

    Attributes:
        gram: (term, term).
        cross: of row (a^2 - 1) / 2, (term, variable, *grid).
    """

    gram: FloatArray
    cross: FloatArray

    @classmethod
    def of(cls, known: Normals, values: FloatArray, rows: FloatArray) -> ScaleSums:
        """Of transformed values (time, variable, *grid) at rows (time, term)."""
        squares = np.square(known.departures(values, rows)) - 1.0
        cross = 0.5 * np.tensordot(rows, np.where(known.mask, 0.0, squares), axes=(0, 0))
        return cls(gram=rows.T @ rows, cross=cross)


@dataclass(frozen=True, kw_only=True)
class ScaleFit(Sums):
    """How scales do on some times, each in turn (the first axis).

    Attributes:
        count: of times.
        squares: of a, (scale, variable, *grid).
        logs: of how the log of the scale changes, (scale, variable, *grid).
    """

    count: int
    squares: FloatArray
    logs: FloatArray

    @classmethod
    def of(
        cls, known: Normals, tried: FloatArray, values: FloatArray, rows: FloatArray
    ) -> ScaleFit:
        """Of transformed values (time, variable, *grid) at rows (time, term).

        Args:
            known: with a scale that does not change.
            tried: (scale, term - 1, variable, *grid).
        """
        own = np.where(known.mask, 0.0, known.departures(values, rows))
        squares, logs = np.empty((2, len(tried), *own.shape[1:]))
        for place, changes in enumerate(tried):
            change = np.tensordot(rows[:, 1:], changes, axes=(1, 0))
            logs[place] = change.sum(axis=0)
            squares[place] = np.square(own * np.exp(-change)).sum(axis=0)
        return cls(count=len(rows), squares=squares, logs=logs)


def stepped(known: Normals, sums: ScaleSums) -> Normals:
    """The normals after a step of Fisher scoring; both components of a wind have one scale."""
    change = np.tensordot(np.linalg.inv(sums.gram), sums.cross, axes=(1, 0))
    change = in_pairs(change.swapaxes(0, 1), known.pairs).swapaxes(0, 1)
    before = known.log_scale if len(known.log_scale) else np.zeros_like(change[1:])
    size = np.clip(before + change[1:], -LARGEST, LARGEST)
    return replace(known, scale=known.scale * np.exp(change[0]), log_scale=size)


@dataclass(frozen=True, kw_only=True)
class Tried:
    """Ways in which the scale may change, the first of them not at all.

    Attributes:
        known: normals whose scale does not change.
        smoothed_to: the degree of each, -1 for the first.
        changes: (scale, term - 1, variable, *grid), float32.
    """

    known: Normals
    smoothed_to: tuple[int, ...]
    changes: FloatArray

    @classmethod
    def of(cls, scale: FloatArray, found: Normals) -> Tried:
        """The changes that scoring found, smoothed to each of `SMOOTHED_TO` that the grid has.

        Args:
            scale: that does not change, where scoring began.
        """
        known = replace(found, scale=scale, log_scale=np.empty(0))
        to = tuple(degree for degree in SMOOTHED_TO if degree <= known.grid.max_lmax)
        maps = [np.zeros_like(found.log_scale), *(_smooth(found, degree) for degree in to)]
        return cls(known=known, smoothed_to=(-1, *to), changes=np.stack(maps, dtype=np.float32))

    def level(self, train: ScaleFit) -> FloatArray:
        """Factors of the scale, (scale, ...), with which squares of a keep their mean."""
        squares = np.stack([in_pairs(one, self.known.pairs) for one in train.squares])
        varies = squares > 0.0
        part: FloatArray = np.divide(squares, squares[0], out=np.ones_like(squares), where=varies)
        return np.sqrt(part)

    def nats(self, train: ScaleFit, judged: ScaleFit) -> FloatArray:
        """Mean log-density of a cell [nats], beyond what scales share, (scale, variable).

        As if cells were independent; cells weigh by their area, those without data nothing.
        """
        level = self.level(train)
        each = -0.5 * judged.squares / np.square(level) / judged.count
        each -= np.log(level) + judged.logs / judged.count
        weight = np.where(self.known.mask, 0.0, self.known.grid.area)
        axes = tuple(range(-len(self.known.grid.shape), 0))
        mean: FloatArray = (weight * each).sum(axis=axes) / weight.sum(axis=axes)
        return in_pairs(mean.T, self.known.pairs).T


def chosen_scale(tried: Tried, train: ScaleFit, judged: ScaleFit) -> tuple[Normals, list[int]]:
    """The normals with the likeliest scale of each variable, and the degrees of smoothing."""
    best = tried.nats(train, judged).argmax(axis=0)
    each = np.arange(len(best))
    known = tried.known
    changes = np.moveaxis(tried.changes, 0, 2)[:, each, best].astype(np.float64)
    to = [tried.smoothed_to[place] for place in best]
    if not best.any():
        return known, to
    level = np.where(known.mask, 1.0, tried.level(train)[best, each])
    return replace(known, scale=known.scale * level, log_scale=changes), to


def smoothing_words(to: int, trend: Trend) -> str:
    """What was chosen for a variable, for people."""
    if to < 0:
        return "the same at all times"
    of_day = ("the time of day",) * (len(trend.names) > len(trend.asked))
    followed = ", ".join(["the season", *of_day, *trend.asked])
    return f"follows {followed}; smooth up to degree {to}"


def _smooth(found: Normals, degree: int) -> FloatArray:
    """Maps of changes (term - 1, variable, *grid), damped beyond a degree; 0 in masked cells."""
    harmonics = plan(found.grid, min(2 * degree, found.grid.max_lmax), "float64")
    l_of = degrees(harmonics.lmax)
    damping = 0.5 ** np.square(l_of * (l_of + 1.0) / (degree * (degree + 1.0)))
    smooth = np.empty_like(found.log_scale)
    for variable, mask in enumerate(found.mask):
        maps = found.log_scale[:, variable]
        whole = harmonic_fill(found.grid, mask)(maps) if mask.any() else maps
        maps = harmonics.synthesis(harmonics.analysis(whole) * damping)
        smooth[:, variable] = np.where(mask, 0.0, maps)
    return smooth
