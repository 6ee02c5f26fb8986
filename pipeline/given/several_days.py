"""The mean of a functional over several days of the linear law of sequences, and days that have a
mean that is asked for.

    u = 1/D sum_d (A z_d + T e_d + w C^1/2 n_d)

z follows the law of sequences (bridge.py), and the noise of tail and remainder remembers by a
number for each of its parts (pipeline/gaussian/persistence). All three are Gaussian, so u is normal
and its tail is known, and days come to have a mean by Matheron's rule: each part moves by its
covariance with u over the variance of u. Notation: docs/mathematics.md, 11.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.arrays import FloatArray
from pipeline.given.bridge import Bridge
from pipeline.given.edges import lags_of
from pipeline.given.seen import Seen

__all__ = ["MeanOverDays", "Parts"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """Days of draws, taken apart.

    Attributes:
        x: whitened coefficients up to lmax, (day, draw, channel, coefficient).
        beyond: white noise of the tail, (day, draw, channel, coefficient); None without a tail.
        left: the remainder, (day, draw, channel, *grid).
    """

    x: FloatArray
    beyond: FloatArray | None
    left: FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class MeanOverDays:
    """The law of the mean of one functional over days that follow each other.

    Attributes:
        seen: the functional, of a single day.
        x: covariance with the mean of the coefficients of each day, (day, channel, coefficient).
        beyond: the same of the noise of the tail; None without a tail.
        left: the same of the remainder of the functional's variable, (day, *grid).
        deviation: of the mean, in scaled anomalies.
    """

    seen: Seen
    x: FloatArray
    beyond: FloatArray | None
    left: FloatArray
    deviation: float

    @classmethod
    def of(
        cls,
        bridge: Bridge,
        seen: Seen,
        persistence: NDArray[np.floating],
        tail_persistence: NDArray[np.floating],
    ) -> MeanOverDays:
        """That of the days of a window of which none is known.

        Args:
            seen: one functional.
            persistence: of the remainder, by variable, broadcast against its grid.
            tail_persistence: of the noise of the tail, by coefficient.
        """
        days, place = bridge.length, int(seen.functionals.variable[0])
        x = bridge.covariance(np.repeat(seen.operator[None] / days, days, axis=0))[:, 0]
        weights = seen.functionals.weights.toarray()
        spread = seen.spread(place, weights).reshape(seen.known.grid.shape)
        left = _with_mean(persistence[place], days) * spread
        beyond, total = None, (seen.operator[0] * x).sum()
        total += (weights.reshape(spread.shape) * left).sum()
        if seen.beyond is not None:
            beyond = _with_mean(tail_persistence, days)[:, None] * seen.beyond[0]
            total += (seen.beyond[0] * beyond).sum()
        deviation = math.sqrt(float(total) / days)
        return cls(seen=seen, x=x, beyond=beyond, left=left, deviation=deviation)

    def values(self, drawn: Parts) -> FloatArray:
        """The mean of each draw, (draw,), in scaled anomalies."""
        found = self.seen.functionals(drawn.left)[..., 0]
        found = found + np.tensordot(drawn.x, self.seen.operator[0], axes=2)
        if drawn.beyond is not None and self.seen.beyond is not None:
            found = found + np.tensordot(drawn.beyond, self.seen.beyond[0], axes=2)
        mean: FloatArray = found.mean(axis=0)
        return mean

    def moved(self, drawn: Parts, values: NDArray[np.floating]) -> Parts:
        """The same draws with these means, (draw,)."""
        pull = ((values - self.values(drawn)) / self.deviation**2)[:, None, None]
        left, place = drawn.left.copy(), int(self.seen.functionals.variable[0])
        along = pull.reshape(-1, *(1 for _ in self.seen.known.grid.shape))
        left[:, :, place] += along * self.left[:, None]
        beyond = drawn.beyond
        if beyond is not None and self.beyond is not None:
            beyond = beyond + pull * self.beyond[:, None]
        return Parts(x=drawn.x + pull * self.x[:, None], beyond=beyond, left=left)


def _with_mean(a: NDArray[np.floating], days: int) -> FloatArray:
    """Covariance of noise that remembers with its mean over the days, (day, ...)."""
    number = np.arange(days)
    mean: FloatArray = lags_of(a, days)[abs(np.subtract.outer(number, number))].mean(axis=1)
    return mean
