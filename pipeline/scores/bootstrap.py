"""Scores with their uncertainty over dates, fair to the size of the ensemble.

*A score is a function of date weights.* `weights` (replicate, date) has ones in row 0 and the
counts of a block bootstrap below; a score has one number per row. Row 0 is its value, the rows
below its uncertainty, and two candidates scored with the same weights are paired.

*Fair to ensemble size.* Squares of ensemble means are taken between different realizations, so
a score has the same expectation for 2 realizations as for 2000.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.arrays import FloatArray
from pipeline.scores.intervals import hidden, student_width


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """How dates were drawn: so many of them, in runs of `block` (pipeline/scores/intervals.py)."""

    dates: int
    block: int

    def error(self, replicates: FloatArray) -> FloatArray:
        """Standard errors from the scatter over the first axis, (replicate, ...) to (...).

        Few blocks scatter less about their own mean than about the truth; that is made up for.
        """
        scatter = np.std(replicates, axis=0, ddof=1)
        error: FloatArray = scatter * np.sqrt(hidden(self.dates, self.block))
        return error

    def half_width(self, replicates: FloatArray) -> FloatArray:
        """The distance from a value to the end of its 95 % interval, by Student's t."""
        return student_width(self.dates, self.block) * self.error(replicates)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A score and its standard error over dates, from the replicates that have the score."""

    value: float
    standard_error: float

    @classmethod
    def of(cls, rows: FloatArray, blocks: Blocks) -> Estimate:
        known = rows[1:][np.isfinite(rows[1:])]
        error = float(blocks.error(known)) if len(known) > 1 else float("nan")
        return cls(value=float(rows[0]), standard_error=error)


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A positive score over the noise floor's, with a 95 % interval (even in the logarithm)."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, rows: FloatArray, floor: FloatArray, blocks: Blocks) -> Ratio:
        tiny = np.finfo(np.float64).tiny
        logs = np.log(np.maximum(rows, tiny)) - np.log(np.maximum(floor, tiny))
        width = float(blocks.half_width(logs[1:]))
        low, value, high = np.exp(np.clip(logs[0] + width * np.array([-1, 0, 1]), -50, 50))
        return cls(value=float(value), low=float(low), high=float(high))


def date_weights(
    dates: int, *, block: int, replicates: int, generator: np.random.Generator
) -> FloatArray:
    """Row 0: ones. Below: how often a circular block bootstrap draws each date.

    Args:
        block: Consecutive dates drawn together; should outlast the memory of the weather.
    Raises:
        ValueError: If fewer than two blocks fit.
    References:
        Politis & Romano (1992), A circular block-resampling procedure for stationary data.
    """
    if not 1 <= block <= dates // 2:
        raise ValueError(
            f"blocks of {block} dates cannot be resampled from {dates} dates: "
            "ask for more verification dates or a shorter block"
        )
    starts = generator.integers(dates, size=(replicates, -(-dates // block)))
    drawn = ((starts[:, :, None] + np.arange(block)) % dates).reshape(replicates, -1)[:, :dates]
    counts = np.zeros((replicates + 1, dates))
    counts[0] = 1.0
    np.add.at(counts, (np.arange(1, replicates + 1)[:, None], drawn), 1.0)
    return counts


def mean_over_dates(per_date: FloatArray, weights: FloatArray) -> FloatArray:
    """(date, ...) -> (replicate, ...)"""
    rows: FloatArray = np.tensordot(weights, per_date, axes=1) / weights.sum(1).reshape(
        -1, *[1] * (per_date.ndim - 1)
    )
    return rows


def fair_square(statistic: FloatArray, truth: FloatArray) -> FloatArray:
    """Square of (ensemble mean - truth) without the noise of a finite ensemble.

    It is the mean of (s_r - truth)(s_q - truth) over r != q: unbiased for the squared difference
    to the law's expectation whatever the number of realizations, and may be slightly negative.

    Args:
        statistic: (realization, ...).
        truth: (...).
    """
    realizations = len(statistic)
    if realizations < 2:
        raise ValueError(f"fair scores need at least 2 realizations; got {realizations}")
    centred = statistic.mean(axis=0) - truth
    square: FloatArray = centred**2 - statistic.var(axis=0, ddof=1) / realizations
    return square


def fair_sum(square_of_sum: FloatArray, sum_of_squares: FloatArray, number: int) -> FloatArray:
    """`fair_square` of differences d_r between realizations and the truth, by their sums.

    Args:
        square_of_sum: (sum_r d_r)^2, or a sum of such over cells.
        sum_of_squares: sum_r d_r^2, likewise.
        number: of realizations.
    """
    if number < 2:
        raise ValueError(f"fair scores need at least 2 realizations; got {number}")
    square: FloatArray = (square_of_sum - sum_of_squares) / (number * (number - 1))
    return square


def fair_root(mean_square: FloatArray) -> FloatArray:
    """The root of a mean of `fair_square`; 0 where that is negative."""
    root: FloatArray = np.sqrt(np.maximum(mean_square, 0.0))
    return root
