"""The mean of a functional over several days of the linear law of sequences, and days that have a
mean that is asked for.

    u = 1/D sum_d (A_d z_d + T_d e_d + w_d C^1/2 n_d)

z follows the law of sequences (bridge.py), and the noise of tail and remainder remembers by a
number for each of its parts (pipeline/gaussian/persistence). All three are Gaussian, so u is normal
and its tail is known, and days come to have a mean by Matheron's rule: each part moves by its
covariance with u over the variance of u. Notation: docs/mathematics.md, 11.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
        seen: the functional on each of the days, whose scales may differ.
        x: covariance with the mean of the coefficients of each day, (day, channel, coefficient).
        beyond: the same of the noise of the tail; None without a tail.
        left: the same of the remainder of the functional's variable, (day, *grid).
        deviation: of the mean, in transformed units.
    """

    seen: Sequence[Seen]
    x: FloatArray
    beyond: FloatArray | None
    left: FloatArray
    deviation: float

    @classmethod
    def of(
        cls,
        bridge: Bridge,
        seen: Sequence[Seen],
        persistence: NDArray[np.floating],
        tail_persistence: NDArray[np.floating],
    ) -> MeanOverDays:
        """That of the days of a window of which none is known.

        Args:
            seen: one functional on each day.
            persistence: of the remainder, by variable, broadcast against its grid.
            tail_persistence: of the noise of the tail, by coefficient.
        """
        days, place = bridge.length, int(seen[0].functionals.variable[0])
        rows = np.stack([one.operator for one in seen])
        x = bridge.covariance(rows / days)[:, 0]
        weights = [one.functionals.weights.toarray() for one in seen]
        grid = seen[0].known.grid.shape
        spread = [one.spread(place, w) for one, w in zip(seen, weights, strict=True)]
        left = _with_mean(persistence[place], np.reshape(spread, (days, *grid)))
        total = (rows[:, 0] * x).sum() + (np.reshape(weights, left.shape) * left).sum()
        tails = [one.beyond[0] for one in seen if one.beyond is not None]
        beyond = _with_mean(tail_persistence, np.stack(tails)) if tails else None
        if beyond is not None:
            total += (np.stack(tails) * beyond).sum()
        deviation = math.sqrt(float(total) / days)
        return cls(seen=seen, x=x, beyond=beyond, left=left, deviation=deviation)

    def values(self, drawn: Parts) -> FloatArray:
        """The mean of each draw, (draw,), as a departure from the climatology."""
        mean: FloatArray = np.mean([self._of(drawn, day) for day in range(len(self.seen))], axis=0)
        return mean

    def moved(self, drawn: Parts, values: NDArray[np.floating]) -> Parts:
        """The same draws with these means, (draw,)."""
        pull = ((values - self.values(drawn)) / self.deviation**2)[:, None, None]
        left, first = drawn.left.copy(), self.seen[0]
        along = pull.reshape(-1, *(1 for _ in first.known.grid.shape))
        left[:, :, int(first.functionals.variable[0])] += along * self.left[:, None]
        beyond = drawn.beyond
        if beyond is not None and self.beyond is not None:
            beyond = beyond + pull * self.beyond[:, None]
        return Parts(x=drawn.x + pull * self.x[:, None], beyond=beyond, left=left)

    def _of(self, drawn: Parts, day: int) -> FloatArray:
        """The functional of a day, (draw,)."""
        seen = self.seen[day]
        found: FloatArray = seen.functionals(drawn.left[day])[..., 0]
        found = found + np.tensordot(drawn.x[day], seen.operator[0], axes=2)
        if drawn.beyond is not None and seen.beyond is not None:
            found = found + np.tensordot(drawn.beyond[day], seen.beyond[0], axes=2)
        return found


def _with_mean(a: NDArray[np.floating], rows: FloatArray) -> FloatArray:
    """Covariance of noise that remembers with the mean over days of rows of it, (day, ...)."""
    number = np.arange(len(rows))
    lags = lags_of(a, len(rows))
    return np.stack(
        [(_shaped(lags, rows)[abs(number - day)] * rows).mean(axis=0) for day in number]
    )


def _shaped(lags: FloatArray, rows: FloatArray) -> FloatArray:
    """Lags (lag, coefficient) or (lag, 1, 1) against rows (day, channel, coefficient) or (day,
    *grid)."""
    return lags.reshape(len(lags), *(1,) * (rows.ndim - lags.ndim), *lags.shape[1:])
