"""Levels that are exceeded once in n draws, and how sure a sample is of them.

Nothing is extrapolated: the level of n is the quantile 1 - 1/n of the sample, and its interval are
two order statistics whose ranks hold that quantile with 95 % by the binomial law, whatever the
distribution. For periods of which the sample is too short there is none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.arrays import FloatArray

__all__ = ["ReturnLevels", "return_levels"]

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class ReturnLevels:
    """By period: the level, and the ends of its interval; NaN where the sample does not say."""

    period: FloatArray
    level: FloatArray
    low: FloatArray
    high: FloatArray


def return_levels(sample: FloatArray, period: FloatArray) -> ReturnLevels:
    """The levels that one of n draws exceeds.

    Args:
        sample: Independent draws, shape (draw,); missing ones are left out.
        period: n, shape (period,), each above 1.
    Returns:
        A level for each period up to the size of the sample. An end of an interval is NaN where
        no order statistic reaches far enough.
    Raises:
        ValueError: If a period is not above 1, or the sample is empty.
    References:
        David & Nagaraja (2003), Order Statistics, 7.1
    """
    from scipy.stats import binom

    given = np.asarray(sample, dtype=np.float64)
    values = np.sort(given[np.isfinite(given)])
    period = np.asarray(period, dtype=np.float64)
    if not (period > 1).all():
        raise ValueError(f"a period is a number of draws above 1; got {period.min()}")
    if not values.size:
        raise ValueError("a return level needs a sample; all values are missing")
    size, below = values.size, 1.0 - 1.0 / period
    known = period <= size
    level = np.where(known, np.quantile(values, below), np.nan)
    tail = (1.0 - CONFIDENCE) / 2.0
    # P(order statistic of rank r lies above the quantile) = P(fewer than r draws lie below it).
    first = binom.ppf(tail, size, below).astype(int)
    last = binom.ppf(1.0 - tail, size, below).astype(int) + 1
    low = np.where(known & (first >= 1), values[np.maximum(first, 1) - 1], np.nan)
    high = np.where(known & (last <= size), values[np.minimum(last, size) - 1], np.nan)
    return ReturnLevels(period=period, level=level, low=low, high=high)
