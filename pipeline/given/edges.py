"""What lies beyond the learned degrees on the days of a gap, given what it is on days beside it.

There the noise remembers by a number of its own for each part (pipeline/gaussian/persistence), so
what is known of some days moves the others part by part, again by Matheron's rule:

    w_k + sum_e C_ke (C_ee^-1 (known - w))_e,    C_jk = sum_i b_i b_{i + |j - k|}.

Without it the smallest scales would break off where a gap begins and ends.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.arrays import FloatArray
from pipeline.gaussian.persistence import kept

__all__ = ["agreeing", "lags_of"]


def agreeing(
    drawn: FloatArray, known: Mapping[int, FloatArray], a: NDArray[np.floating]
) -> FloatArray:
    """Noise that remembers (day, draw, ...), given what it is on some days.

    Args:
        known: what it is, (...), by the place of the day.
        a: persistence, broadcast against the noise of a day.
    """
    if not known:
        return drawn
    places = sorted(known)
    lags = lags_of(a, len(drawn))
    number = np.arange(len(drawn))
    among = np.moveaxis(lags[abs(np.subtract.outer(places, places))], (0, 1), (-2, -1))
    across = np.moveaxis(lags[abs(np.subtract.outer(places, number))], (0, 1), (-2, -1))
    weights = np.moveaxis(np.linalg.solve(among, across), (-2, -1), (0, 1))
    moved = drawn.copy()
    for row, place in zip(weights, places, strict=True):
        gap = known[place] - drawn[place]
        for day in number:
            moved[day] += row[day] * gap
    for place in places:
        moved[place] = known[place]
    return moved


def lags_of(a: NDArray[np.floating], days: int) -> FloatArray:
    """Covariances of noise that remembers at lags of 0 ... days - 1, (lag, ...)."""
    b = np.stack(kept(a))
    found = np.zeros((days, *np.shape(a)))
    for lag in range(min(days, len(b))):
        found[lag] = (b[: len(b) - lag] * b[lag:]).sum(axis=0)
    return found
