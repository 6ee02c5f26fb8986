"""White noise that remembers: what lies beyond the learned degrees does not flicker.

    w_k = sum_j b_j e_{k-j},    b_j ~ a^j,  j = 0 ... memory,  sum b_j^2 = 1

of white noise e_k with an address of its own for each day. Its lags are those of an autoregression
with coefficient a, as near as the memory is long, and w_k follows from addresses alone: a sequence
that is interrupted, extended or cut into units needs no state of it. Notation:
docs/mathematics.md, 10.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.arrays import FloatArray

FORGOTTEN = 0.03  # a^memory: 0.1 % of the variance is left out
LONGEST = 24  # days
LARGEST = 0.95  # persistence

Noise = Callable[[int], NDArray[np.floating]]  # white noise of a day, by its number


def persistence(products: NDArray[np.floating], squares: NDArray[np.floating]) -> FloatArray:
    """a: sums of products of neighbouring days over sums of squares, within [0, `LARGEST`]."""
    ratio = np.divide(products, squares, out=np.zeros_like(products), where=squares > 0)
    within: FloatArray = np.clip(ratio, 0.0, LARGEST)
    return within


def memory(a: NDArray[np.floating]) -> int:
    """Days that the noise looks back: the same for all its parts."""
    most = float(np.max(a, initial=0.0))
    return min(LONGEST, int(np.ceil(np.log(FORGOTTEN) / np.log(most)))) if most > 0 else 0


def kept(a: NDArray[np.floating]) -> list[FloatArray]:
    """b: what a day keeps of the noise of 0, 1, ... `memory` days before, each shaped as a."""
    last = memory(a)
    powers = [a**j for j in range(last + 1)]
    scale = np.sqrt(sum(power**2 for power in powers))
    return [power / scale for power in powers]


def persistent(noise: Noise, days: range, a: NDArray[np.floating]) -> FloatArray:
    """w of consecutive days, (day, ...): each the same number wherever the days begin.

    Args:
        noise: white noise of any day, those before the first included.
        a: persistence, broadcast against the noise of a day.
    """
    b = kept(a)
    first = days.start - len(b) + 1
    past = [np.asarray(noise(day), np.float64) for day in range(first, days.start)]
    found = []
    for day in days:
        past.append(np.asarray(noise(day), np.float64))
        found.append(sum(part * e for part, e in zip(b, past[::-1], strict=True)))
        past.pop(0)
    return np.stack(found)
