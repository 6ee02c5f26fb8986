"""The covariance of each order, averaged with those of its neighbours and then shrunk.

    S_m <- (1 - towards) ((1 - across) S_m + across mean of S_m', |m' - m| <= REACH) + towards S_l

What is near in order is near in its statistics, and three years know one order less well than five
of them. How much of either, for each order, is chosen on validation fields. The law that results
is an m-block law, and so are its scores (pipeline/gaussian/baselines). Notation:
docs/mathematics.md, 6.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import solve_triangular

from pipeline.arrays import FloatArray
from pipeline.gaussian.baselines import SMALLEST_VARIANCE, Averaged
from pipeline.gaussian.moments import ComplexArray, Moments

__all__ = ["averaged_covariance", "choose_averages", "factor_of", "fit_averaged"]

ACROSS = (0.0, 0.1, 0.2, 0.35, 0.5)  # of the neighbouring orders
TOWARDS = (0.01, 0.03, 0.1, 0.3, 0.7)  # the channel covariances
WIDTH = 1.0  # of the weights of neighbouring orders, in orders
REACH = 2


Blocks = Callable[[int], ComplexArray]  # S_m of an order, rows by channel, then degree


def fit_averaged(train: Moments, across: FloatArray, towards: FloatArray) -> Averaged:
    """The law of these moments; what validation fields chose is (block degree + 1,) each."""
    target = train.channel_covariance()
    mixed = (
        averaged_covariance(train.covariance, target, m, float(across[m]), float(towards[m]))
        for m in range(train.degree + 1)
    )
    return Averaged.of_covariances(mixed, target)


def choose_averages(train: Moments, held_out: Moments) -> tuple[FloatArray, FloatArray]:
    """For each order the mixture under which the held-out fields are most likely.

    Returns:
        across and towards, (block degree + 1,) each.
    """
    target = train.channel_covariance()
    chosen = np.empty((train.degree + 1, 2))
    pairs = [(across, towards) for across in ACROSS for towards in TOWARDS]
    for m in range(train.degree + 1):
        observed, misfits = held_out.covariance(m), []
        parts = _parts(train.covariance, target, m)
        for across, towards in pairs:
            factor = factor_of(_mixture(*parts, across, towards))
            half = solve_triangular(factor, observed, lower=True)
            whole = solve_triangular(factor, half.conj().T, lower=True)
            volume = 2 * np.log(np.diagonal(factor).real).sum()
            misfits.append(float(np.trace(whole).real + volume))
        chosen[m] = pairs[int(np.argmin(misfits))]
    return chosen[:, 0], chosen[:, 1]


def averaged_covariance(
    blocks: Blocks, target: FloatArray, m: int, across: float, towards: float
) -> ComplexArray:
    """S_m averaged with its neighbours and moved towards S_l, rows by channel, then degree.

    Args:
        target: S_l, (lmax + 1, channel, channel).
    """
    return _mixture(*_parts(blocks, target, m), across, towards)


def factor_of(block: ComplexArray) -> ComplexArray:
    """Cholesky factor; directions without variance (winds have no degree 0) get the smallest."""
    factor = np.linalg.cholesky(block + SMALLEST_VARIANCE * np.eye(len(block)))
    return factor.astype(np.complex128)


def _parts(
    blocks: Blocks, target: FloatArray, m: int
) -> tuple[ComplexArray, ComplexArray, FloatArray]:
    """S_m, the mean of its neighbours, and S_l of its degrees."""
    channels, lmax = target.shape[1], len(target) - 1
    own = blocks(m)
    degree = m + len(own) // channels - 1
    usual = _diagonal(target[: degree + 1], m)
    total, weights = np.zeros_like(own), 0.0
    for other in range(max(0, m - REACH), min(lmax, m + REACH) + 1):
        if other == m:
            continue
        weight = np.exp(-0.5 * ((other - m) / WIDTH) ** 2)
        # Orders beyond the block degree have none of these degrees: they know the usual of them.
        known = other <= degree
        near = _on_degrees(blocks(other), usual, channels, other - m) if known else usual
        total += weight * near
        weights += weight
    if m == 0:  # orders -1 and -2 are neighbours, too, and have the conjugates
        total = total.real.astype(own.dtype)
    return own, (total / weights if weights else own), usual


def _mixture(
    own: ComplexArray, around: ComplexArray, usual: FloatArray, across: float, towards: float
) -> ComplexArray:
    mixed = (1 - across) * own + across * around
    mixture: ComplexArray = (1 - towards) * mixed + towards * usual
    return mixture


def _diagonal(target: FloatArray, m: int) -> FloatArray:
    """S_l of the degrees from m on as a covariance of order m."""
    channels, n = target.shape[1], len(target) - m
    spread = np.zeros((channels, n, channels, n))
    spread[:, range(n), :, range(n)] = target[m:]
    return spread.reshape(channels * n, channels * n)


def _on_degrees(block: ComplexArray, usual: FloatArray, channels: int, higher: int) -> ComplexArray:
    """A neighbour's covariance on the degrees of an order that is lower by `higher`.

    Degrees that the neighbour does not have are the usual ones, by themselves.
    """
    n = len(block) // channels
    rows = block.reshape(channels, n, channels, n)
    if higher <= 0:
        size = channels * (n + higher)
        return rows[:, -higher:, :, -higher:].reshape(size, size)
    result = usual.astype(np.complex128).reshape(channels, n + higher, channels, n + higher)
    result[:, higher:, :, :] = 0.0
    result[:, :, :, higher:] = 0.0
    result[:, higher:, :, higher:] = rows
    return result.reshape(usual.shape)
