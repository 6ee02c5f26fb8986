"""Values of a functional beyond a threshold, proposed so that rare events cost no more than others.

Under a Gaussian law with standard deviation s, u above c is drawn from the law cut there, exactly.
For a learned law, whose tail may be longer, u = c + v with v from an exponential law of the rate
c / s^2 with which the Gaussian density decays at c: the ratio of the density to it stays bounded.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import log_ndtr, ndtri_exp

from pipeline.arrays import FloatArray

__all__ = ["log_probability", "proposed_cut", "proposed_exponential"]


def log_probability(threshold: float, deviation: float) -> float:
    """log of the probability that a Gaussian functional with mean 0 is above a threshold."""
    return float(log_ndtr(-threshold / deviation))


def proposed_cut(
    threshold: float, deviation: float, uniform: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Values above a threshold from the Gaussian law cut there, and the logs of 1 / q.

    Args:
        uniform: numbers in (0, 1), one for each value.
    """
    whole = log_probability(threshold, deviation)
    values: FloatArray = -deviation * ndtri_exp(whole + np.log(np.maximum(uniform, 1e-300)))
    volume = math.log(deviation) + 0.5 * math.log(2.0 * math.pi)
    logs: FloatArray = whole + 0.5 * np.square(values / deviation) + volume
    return values, logs


def proposed_exponential(
    threshold: float, deviation: float, uniform: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The same from an exponential law; from the law cut there where that is not far out."""
    if threshold < deviation:
        return proposed_cut(threshold, deviation, uniform)
    rate = threshold / deviation**2
    beyond = -np.log1p(-np.clip(uniform, 0.0, 1.0 - 1e-12)) / rate
    logs: FloatArray = rate * beyond - math.log(rate)
    return threshold + beyond, logs
