"""Rank-Gaussianisation: the values of every cell to normal scores, fitted to training times.

    score = Phi^-1(share + (1 - share) G(value)),    atom where the value is at its lower bound

`share` is how often a cell is at the bound (dry days), G the distribution of its values above. Both
come from sums over times of one extent and one histogram per cell, so no process ever holds the
series. Between the knots of G the map is linear both ways, hence exactly inverted; below them it
goes on in a straight line, and beyond them as `tail` says. The largest of the training times
is as rare in every cell, however few of them are above the bound.

A Gaussian draw is at the bound where its score is below Phi^-1(share). Where the atom lies is free;
atom.py puts it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from pipeline.arrays import FloatArray
from pipeline.fields.pointwise.tail import THRESHOLD, RankTail, Smooth, alone

__all__ = ["Extent", "Histogram", "NormalScores"]

BINS = 128  # of a cell's values above the bound, at equal distances of their cube root
KNOTS = 41
LOWEST_SCORE = -2.5  # of the second knot among the values above the bound


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Smallest and largest value of every cell; add extents to join blocks."""

    least: FloatArray
    largest: FloatArray

    @classmethod
    def of(cls, values: FloatArray) -> Extent:
        """Measure the extent of physical values (time, *grid); without data it is infinite."""
        missing = np.isnan(values)
        return cls(
            least=np.where(missing, np.inf, values).min(axis=0, initial=np.inf),
            largest=np.where(missing, -np.inf, values).max(axis=0, initial=-np.inf),
        )

    def __add__(self, other: Extent) -> Extent:
        return Extent(
            least=np.minimum(self.least, other.least),
            largest=np.maximum(self.largest, other.largest),
        )


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts of every cell's values at the bound `low` and above it; add them to join blocks.

    Attributes:
        at_bound: Shape of the grid.
        counts: Shape (BINS, *grid); bin edges are cubes of equal steps from least to largest.
    """

    low: float
    extent: Extent
    times: int
    at_bound: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]

    @classmethod
    def of(cls, values: FloatArray, low: float, extent: Extent) -> Histogram:
        """Count physical values (time, *grid) that lie within this extent."""
        with np.errstate(invalid="ignore", divide="ignore"):
            place = np.cbrt((values - extent.least) / (extent.largest - extent.least))
            above = values > low
        bins = np.clip(np.nan_to_num(place) * BINS, 0, BINS - 1).astype(np.intp)
        cells = np.arange(extent.least.size).reshape(extent.least.shape)
        flat = (bins * extent.least.size + cells)[above]
        counts = np.bincount(flat, minlength=BINS * extent.least.size)
        return cls(
            low=low,
            extent=extent,
            times=len(values),
            at_bound=(values <= low).sum(axis=0, dtype=np.int32),
            counts=counts.reshape(BINS, *extent.least.shape).astype(np.int32),
        )

    def __add__(self, other: Histogram) -> Histogram:
        return replace(
            self,
            times=self.times + other.times,
            at_bound=self.at_bound + other.at_bound,
            counts=self.counts + other.counts,
        )

    def fit(self, high: float, smooth: Smooth = alone, times: int | None = None) -> NormalScores:
        """The map of these values, its atom provisionally one below the lowest score.

        Args:
            high: upper bound of the variable.
            smooth: sums over the surroundings of each cell, which its tail is fitted to.
            times: of which the last knot is the largest, where that are fewer than there are here.
        """
        times = min(self.times, times or self.times)
        lowest = max(LOWEST_SCORE, float(ndtri(1.0 / times)))
        scores = np.linspace(lowest, float(ndtri(1.0 - 0.5 / times)), KNOTS - 1)
        levels = np.concatenate([[0.0], ndtr(scores)])
        share = np.clip(self.at_bound / self.times, 0.0, 1.0 - 0.5 / times)
        grid = share.shape
        edges = (np.arange(BINS + 1) / BINS) ** 3
        counts = self.counts.reshape(BINS, -1)
        least, largest = (
            np.maximum(np.where(np.isfinite(part), part, self.low), self.low).ravel()
            for part in (self.extent.least, self.extent.largest)
        )
        quantiles, tops = np.empty((KNOTS, counts.shape[1])), np.ones((2, counts.shape[1]))
        observed = levels[:, None] * _observed(share.ravel(), levels)
        for cell, column in enumerate(counts.T):
            reached = np.concatenate([[0], np.cumsum(column)]) / max(column.sum(), 1)
            quantiles[:, cell] = np.interp(observed[:, cell], reached, edges)
            tops[0, cell] = np.interp(THRESHOLD, reached, edges)
        if times < self.times:
            tops[1] = quantiles[-1]
        quantiles, tops = (least + (largest - least) * part for part in (quantiles, tops))
        middles = least + (largest - least) * (0.5 * (edges[1:] + edges[:-1]))[:, None]
        tail = RankTail.fit(
            middles.reshape(BINS, *grid), self.counts.astype(float), tops.reshape(2, *grid), smooth
        )
        quantiles[0] = least
        if times == self.times:
            quantiles[-1] = largest
        typical = max(float(np.mean(largest - least)), np.finfo(float).tiny)
        ranks = NormalScores(
            low=self.low,
            high=high,
            levels=levels,
            share=share,
            quantiles=quantiles.reshape(KNOTS, *grid),
            atom=np.zeros(grid),
            slope=1e-3 * typical,
            tail=tail,
        )
        return replace(ranks, atom=ranks.scores[0] - 1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class NormalScores:
    """The map of every cell between its values and their normal scores.

    Attributes:
        low, high: Bounds of the variable; `high` is infinite where there is none.
        levels: Of the distribution above the bound, (KNOTS,), from 0 to less than 1.
        share: How often the cell is at `low`, (*grid).
        quantiles: Values at these levels, (KNOTS, *grid), not falling.
        atom: Score of a value at `low`, (*grid), below those of all others.
        slope: The least slope of the lines below the knots [value per unit score].
        tail: Of the values beyond the knots.
    """

    low: float
    high: float
    levels: FloatArray
    share: FloatArray
    quantiles: FloatArray
    atom: FloatArray
    slope: float
    tail: RankTail
    name: str = "rank"

    @cached_property
    def scores(self) -> FloatArray:
        """Normal scores of the knots, (KNOTS, *grid), rising."""
        level = self.levels.reshape(-1, *[1] * self.share.ndim)
        level = level * _observed(self.share, self.levels)
        reached = self.share + (1.0 - self.share) * level
        reached[0] = np.maximum(self.share, 1.0 - self.levels[-1])  # no less than 0.5 / times
        result: FloatArray = ndtri(reached)
        return result

    def at(self, forcing: FloatArray) -> NormalScores:
        return self

    def at_bound(self, scores: FloatArray) -> npt.NDArray[np.bool_]:
        """Whether scores (..., *grid) are those of values at the lower bound."""
        below: npt.NDArray[np.bool_] = (scores < self.scores[0]) & (self.share > 0.0)
        return below

    def forward(self, values: FloatArray) -> FloatArray:
        inside = self._mapped(values, self.quantiles, self.scores, middle=True)
        with np.errstate(invalid="ignore"):
            below, beyond = values < self.quantiles[0], values > self.quantiles[-1]
        inside = np.where(
            below, self.scores[0] + (values - self.quantiles[0]) / self._slope, inside
        )
        excess, last, scale = self._beyond(values - self.quantiles[-1], beyond)
        inside[beyond] = self.tail.score(excess, last, scale)
        result: FloatArray = np.where((values <= self.low) & (self.share > 0.0), self.atom, inside)
        return result

    def inverse(self, values: FloatArray) -> FloatArray:
        inside = self._mapped(values, self.scores, self.quantiles, middle=False)
        below, beyond = values - self.scores[0], values > self.scores[-1]
        inside = np.where(below < 0.0, self.quantiles[0] + below * self._slope, inside)
        scores, last, scale = self._beyond(values, beyond)
        largest = np.broadcast_to(self.quantiles[-1], values.shape)[beyond]
        inside[beyond] = largest + self.tail.excess(scores, last, scale)
        inside = np.where(self.at_bound(values), self.low, inside)
        result: FloatArray = np.clip(inside, self.low, self.high)
        return result

    def _beyond(
        self, values: FloatArray, where: npt.NDArray[np.bool_]
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Some of the values, with the score of the last knot and the scale of their cells."""
        last = np.broadcast_to(self.scores[-1], values.shape)[where]
        return values[where], last, np.broadcast_to(self.tail.scale, values.shape)[where]

    @cached_property
    def _slope(self) -> FloatArray:
        """Value per unit score below the first knot: the chord of a few knots."""
        few = KNOTS // 5
        rise = self.quantiles[few] - self.quantiles[0]
        run = self.scores[few] - self.scores[0]
        slope: FloatArray = np.maximum(rise / run, self.slope)
        return slope

    def _mapped(
        self, values: FloatArray, knots: FloatArray, to: FloatArray, middle: bool
    ) -> FloatArray:
        """Piecewise linear map of values (..., *grid) by the knots of their cell.

        Where several knots have the value, the middle one's result is taken (`middle`).
        """
        flat = values.reshape(-1, self.share.size)
        knots, to = (part.reshape(len(part), -1) for part in (knots, to))
        last = _place(flat, knots, right=True)
        left, right = np.maximum(last - 1, 0), np.minimum(last, len(knots) - 1)
        x0, x1 = np.take_along_axis(knots, left, 0), np.take_along_axis(knots, right, 0)
        y0, y1 = np.take_along_axis(to, left, 0), np.take_along_axis(to, right, 0)
        width = x1 - x0
        part = (flat - x0) / np.where(width > 0.0, width, 1.0)
        mapped = y0 + np.clip(part, 0.0, 1.0) * (y1 - y0)
        if middle:
            first = _place(flat, knots, right=False)
            tied = last - first > 1
            centre = np.minimum((first + last - 1) // 2, len(knots) - 1)
            mapped = np.where(tied, np.take_along_axis(to, centre, 0), mapped)
        result: FloatArray = np.where(np.isnan(flat), np.nan, mapped).reshape(values.shape)
        return result


def _observed(share: FloatArray, levels: FloatArray) -> FloatArray:
    """By how much the levels of a cell are lower for it has few values above the bound, (*grid).

    Its largest value is that of all times, and of rank n - 1/2 of its n values above the bound.
    """
    of_all = 1.0 - levels[-1]
    lower: FloatArray = np.maximum(1.0 - of_all / (1.0 - share), 0.5) / levels[-1]
    return lower


def _place(values: FloatArray, knots: FloatArray, right: bool) -> npt.NDArray[np.intp]:
    """How many knots of its column are below each value, or not above it (`right`)."""
    low = np.zeros(values.shape, np.intp)
    high = np.full(values.shape, len(knots), np.intp)
    for _ in range(len(knots).bit_length()):
        middle = (low + high) // 2
        at = np.take_along_axis(knots, np.minimum(middle, len(knots) - 1), 0)
        before = at <= values if right else at < values
        open_ = low < high
        low, high = (
            np.where(open_ & before, middle + 1, low),
            np.where(open_ & ~before, middle, high),
        )
    return low
