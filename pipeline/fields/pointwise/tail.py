"""Beyond the largest value of a cell: a generalised-Pareto tail, pooled over its surroundings.

    P(value > v) = P(value > largest) (1 + shape (v - largest) / scale)^(-1 / shape)

A cell has a handful of large values, and a desert a handful of wet days: what it had so far does
not tell how much more may come. A straight line through its own last ranks made scores of hundreds
out of one storm in a desert. `scale` is the mean excess over the cells' `THRESHOLD` quantiles,
averaged over some cells around, and `shape` one number for all cells, never negative: a value
beyond a finite end would have no score.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr, ndtri_exp

from pipeline.arrays import FloatArray
from pipeline.sphere.coefficients import degrees
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import plan

__all__ = ["RankTail", "Smooth", "alone", "over_surroundings"]

THRESHOLD = 0.95  # of a cell's values above the bound
LEAST_SHAPE, LARGEST_SHAPE = 1e-6, 0.25
REACH = 2.0  # cells, the standard deviation of the weights of a cell's surroundings
PRIOR = 1.0  # exceedances with the mean excess of all cells, that each cell has besides its own

Smooth = Callable[[FloatArray], FloatArray]  # sums (2, *grid) to sums over surroundings


@dataclass(frozen=True, kw_only=True)
class RankTail:
    """The tail of every cell.

    Attributes:
        scale: [value], positive, (*grid).
        shape: of all cells, from `LEAST_SHAPE`, which is exponential, to `LARGEST_SHAPE`.
    """

    scale: FloatArray
    shape: float

    @classmethod
    def fit(
        cls, values: FloatArray, counts: FloatArray, quantiles: FloatArray, smooth: Smooth
    ) -> RankTail:
        """Fitted to how often each cell has which values.

        Args:
            values, counts: a histogram of each cell, (bin, *grid).
            quantiles: of each cell at `THRESHOLD` and 1, (2, *grid).
            smooth: sums over the surroundings of each cell.
        """
        over = np.maximum(values - quantiles[0], 0.0)
        seen = counts * (over > 0.0)
        number, first = seen.sum(axis=0), (seen * over).sum(axis=0)
        usual = max(float(first.sum() / max(number.sum(), 1)), np.finfo(float).tiny)
        around = np.maximum(smooth(np.stack([number, first])), 0.0)
        mean = (around[1] + PRIOR * usual) / (around[0] + PRIOR)
        ratio = float((seen * np.square(over / mean)).sum() / max(number.sum(), 1))
        # E Y^2 / (E Y)^2 = 2 (1 - shape) / (1 - 2 shape)
        shape = float(np.clip((ratio - 2) / (2 * max(ratio - 1, 0.5)), LEAST_SHAPE, LARGEST_SHAPE))
        scale = (1 - shape) * mean + shape * (quantiles[1] - quantiles[0])
        return cls(scale=scale, shape=shape)

    def score(self, excess: FloatArray, last: FloatArray, scale: FloatArray) -> FloatArray:
        """Scores of values that exceed the largest, whose score is `last`, by `excess`."""
        rarer = np.log1p(self.shape * excess / scale) / self.shape
        scores: FloatArray = -ndtri_exp(log_ndtr(-last) - rarer)
        return scores

    def excess(self, scores: FloatArray, last: FloatArray, scale: FloatArray) -> FloatArray:
        """The inverse of `score`."""
        rarer = log_ndtr(-last) - log_ndtr(-scores)
        excess: FloatArray = scale * np.expm1(self.shape * rarer) / self.shape
        return excess


def alone(sums: FloatArray) -> FloatArray:
    """Every cell by itself."""
    return sums


def over_surroundings(grid: RingGrid) -> Smooth:
    """Averages over some `REACH` cells around, by the heat kernel."""

    def smooth(sums: FloatArray) -> FloatArray:
        lmax = grid.max_lmax
        degree = degrees(lmax)
        width = REACH * np.sqrt(4 * np.pi / grid.size)
        heat = np.exp(-0.5 * degree * (degree + 1) * width**2)
        harmonics = plan(grid, lmax, "float64")
        return harmonics.synthesis(heat * harmonics.analysis(sums))

    return smooth
