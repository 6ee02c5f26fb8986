"""Values of a functional beyond a threshold, proposed so that rare events cost no more than others.

Under a Gaussian law with standard deviation s, u above c is drawn from the law cut there, exactly.
For a learned law, whose tail may be longer, u = c + v with v from an exponential law of the rate
c / s^2 with which the Gaussian density decays at c: the ratio of the density to it stays bounded.

Two worlds are compared by estimates that are made in pairs, of the same noise: what errs alike in
both leaves their ratio alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr, ndtri_exp

from pipeline.arrays import FloatArray

__all__ = ["Ratio", "log_probability", "proposed_cut", "proposed_exponential", "ratio"]

FEWEST = 8  # pairs that tell how much their ratio varies


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


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How much likelier an event is in one world than in another.

    Attributes:
        probability: of the two probabilities.
        odds: of P / (1 - P).
        log_error, log_odds_error: standard errors of their logs.
        paired: whether these know that the estimates err alike; else they are those of independent
            ones.
    """

    probability: float
    odds: float
    log_error: float
    log_odds_error: float
    paired: bool


def ratio(here: FloatArray, there: FloatArray, errors: tuple[float, float]) -> Ratio:
    """Of the means of estimates of two probabilities, (pair,), each pair of the same noise.

    Args:
        errors: standard errors of the two means, for fewer than `FEWEST` pairs.
    """
    p, q = float(here.mean()), float(there.mean())
    paired = len(here) >= FEWEST

    def error(a: float, b: float) -> float:
        if not paired:
            return math.hypot(a * errors[0], b * errors[1])
        return float((a * here - b * there).std(ddof=1)) / math.sqrt(len(here))

    left, right = (max(1.0 - one, 1e-300) for one in (p, q))
    return Ratio(
        probability=p / q,
        odds=p * right / (q * left),
        log_error=error(1.0 / p, 1.0 / q),
        log_odds_error=error(1.0 / (p * left), 1.0 / (q * right)),
        paired=paired,
    )
