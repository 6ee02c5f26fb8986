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
from pipeline.gaussian.conditional_tail import GaussianTail
from pipeline.gaussian.moments import positions
from pipeline.gaussian.persistence import memory

__all__ = ["agreeing", "lags_of", "white_of_tail"]

SMALLEST_ROOT = 1e-8  # of the largest: directions of the tail that are nothing but rounding


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
    last = memory(a)
    powers = np.stack([np.asarray(a, np.float64) ** j for j in range(last + 1)])
    b = powers / np.sqrt(np.square(powers).sum(axis=0))
    found = np.zeros((days, *np.shape(a)))
    for lag in range(min(days, last + 1)):
        found[lag] = (b[: last + 1 - lag] * b[lag:]).sum(axis=0)
    return found


def white_of_tail(tail: GaussianTail, x: FloatArray, beyond: FloatArray) -> FloatArray:
    """The white noise of which the tail of whitened fields is made; undoes `GaussianTail.draw`.

    Args:
        x: degrees up to lmax, (..., channel, (lmax + 1)^2).
        beyond: the degrees beyond, (..., channel, coefficients beyond lmax).
    """
    known, size = (tail.lmax + 1) ** 2, (tail.degree + 1) ** 2
    left = beyond - tail.draw(x, np.zeros_like(beyond))
    padded = np.zeros((*left.shape[:-1], size))
    padded[..., known:] = left[..., : size - known]
    whole = padded.reshape(-1, tail.channels * size)
    found = np.zeros_like(whole)
    for m, root in enumerate(tail.root):
        plus, minus = positions(tail.channels, tail.degree, m)
        which = plus % size >= known
        inverse = np.linalg.pinv(root, rcond=SMALLEST_ROOT).T
        z = whole[:, plus[which]] + (1j * whole[:, minus[which]] if m else 0.0)
        white = z @ inverse
        if m:
            found[:, minus[which]] = white.imag
        found[:, plus[which]] = white.real
    low = found.reshape(*left.shape[:-1], size)[..., known:]
    return np.concatenate([low, left[..., size - known :]], axis=-1)
