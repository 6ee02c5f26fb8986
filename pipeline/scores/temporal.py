"""How days follow each other: autocorrelations of sequences by channel and degree.

All orders of a degree together; anomalies, so that no mean is taken away. Parts of a series add up,
and no two days across a gap are paired. Notation: docs/mathematics.md, 10.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pipeline.arrays import FloatArray
from pipeline.sphere.coefficients import lmax_of, sum_by_degree


def lag_products(x: FloatArray, lags: int) -> FloatArray:
    """Mean products of days h = 0 ... `lags` apart: (lag, channel, degree).

    Args:
        x: consecutive days, (day, channel, coefficient).
    Returns:
        NaN where no two days are so far apart.
    """
    days, channels, size = x.shape
    found = np.full((lags + 1, channels, lmax_of(size) + 1), np.nan)
    for lag in range(min(lags, days - 1) + 1):
        products = np.einsum("kci,kci->ci", x[lag:], x[: days - lag]) / (days - lag)
        found[lag] = sum_by_degree(products)
    return found


def autocorrelation(products: Iterable[FloatArray]) -> FloatArray:
    """R(h) of the mean of products of several sequences, (lag, channel, degree).

    NaN for what never varies, as the degree 0 of winds.
    """
    mean = np.nanmean(np.stack(list(products)), axis=0)
    correlation: FloatArray = np.divide(
        mean, mean[0], out=np.full_like(mean, np.nan), where=mean[0] > 0
    )
    return correlation


def misses(correlation: FloatArray, truth: FloatArray) -> FloatArray:
    """Root mean square over degrees of a difference of autocorrelations: (lag, channel)."""
    missed: FloatArray = np.sqrt(np.nanmean(np.square(correlation - truth), axis=-1))
    return missed
