"""Proper scores, calibration and distances between laws of fields.

Shapes: `ensemble` (realization, date, cell), `truth` (date, cell), `area` (cell); a cell may be
any feature. `weights` (replicate, date) and rows (replicate,): pipeline/scores/bootstrap.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.arrays import FloatArray
from pipeline.scores.bootstrap import mean_over_dates


def fair_crps(
    ensemble: FloatArray, truth: FloatArray, groups: npt.NDArray[np.integer] | None = None
) -> FloatArray:
    """E|X - y| - E|X - X'| / 2 with unbiased means over realizations, cell by cell.

    Args:
        groups: (realization, date), what each realization is of; those of one group hang together,
            and X and X' are of different ones. By default every realization is by itself.
    References:
        Ferro (2014), Fair scores for ensemble forecasts, doi:10.1002/qj.2270
    """
    realizations = len(ensemble)
    if realizations < 2:
        raise ValueError(f"the fair CRPS needs at least 2 realizations; got {realizations}")
    rank = np.arange(realizations).reshape(-1, *[1] * truth.ndim)
    apart = np.sum((2 * rank - realizations + 1) * np.sort(ensemble, axis=0), axis=0)
    pairs = np.full((len(truth), *[1] * (truth.ndim - 1)), realizations * (realizations - 1) / 2)
    if groups is not None:
        for r, q in combinations(range(realizations), 2):
            same = groups[r] == groups[q]
            apart[same] -= np.abs(ensemble[r, same] - ensemble[q, same])
            pairs[same] -= 1
    if not pairs.all():
        raise ValueError("the fair CRPS needs realizations of 2 groups at least, at every date")
    score: FloatArray = np.abs(ensemble - truth).mean(axis=0) - apart / pairs / 2
    return score


def spread_over_error(
    ensemble: FloatArray, truth: FloatArray, area: FloatArray, weights: FloatArray
) -> FloatArray:
    """Root of the ensemble's variance over the mean square error of its mean; 1 when reliable.

    The variance is inflated by 1 + 1/R, which makes the ratio fair to R realizations.
    """
    variance = ensemble.var(axis=0, ddof=1) * (1 + 1 / len(ensemble))
    error = (ensemble.mean(axis=0) - truth) ** 2
    spread, skill = (
        mean_over_dates(np.average(field, axis=-1, weights=area), weights)
        for field in (variance, error)
    )
    ratio: FloatArray = np.sqrt(spread / skill)
    return ratio


def rank_histogram(ensemble: FloatArray, truth: FloatArray, area: FloatArray) -> FloatArray:
    """Share of the area where the truth has each rank among the realizations: (date, rank).

    Where the truth ties with realizations (dry cells), its weight is divided evenly among the
    ranks it could have, which keeps the histogram flat in expectation and free of chance.
    """
    below = (ensemble < truth).sum(axis=0)
    ties = (ensemble == truth).sum(axis=0)
    share = area / area.sum()
    columns = [
        np.where((below <= rank) & (rank <= below + ties), share / (ties + 1), 0.0).sum(axis=-1)
        for rank in range(len(ensemble) + 1)
    ]
    return np.stack(columns, axis=-1)


def reliability_error(
    ensemble: FloatArray, truth: FloatArray, area: FloatArray, size: int, weights: FloatArray
) -> FloatArray:
    """Share of cases in the wrong bin of the rank histogram of `size` realizations: (replicate,).

    Half the sum of |frequency - 1/(size + 1)|, the mean over disjoint groups of `size`
    realizations: ensembles of different sizes have equally many bins, and as the error of each
    group is taken before their mean, equally much chance in each.
    """
    groups = [ensemble[g : g + size] for g in range(0, len(ensemble) - size + 1, size)]
    histograms = (rank_histogram(group, truth, area) for group in groups)
    frequency = np.stack([mean_over_dates(histogram, weights) for histogram in histograms])
    error: FloatArray = 0.5 * np.abs(frequency - 1 / (size + 1)).sum(axis=2).mean(axis=0)
    return error


def distances(x: FloatArray, y: FloatArray) -> FloatArray:
    """Euclidean, between the rows of (n, feature) and (k, feature): (n, k)."""
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * (x @ y.T)
    root: FloatArray = np.sqrt(np.maximum(squares, 0.0))
    return root


@dataclass(frozen=True)
class Energies:
    """Mean distances between dates, (date, date): the sufficient statistics of energy scores.

    Args:
        between: Of realizations at the row's date to the truth at the column's.
        within: Between different realizations.
        truth: Between true fields.
    """

    between: FloatArray
    within: FloatArray
    truth: FloatArray

    @classmethod
    def of(cls, ensemble: FloatArray, truth: FloatArray) -> Energies:
        r, d, features = ensemble.shape
        flat = ensemble.reshape(r * d, features).astype(np.float64)
        y = truth.astype(np.float64)
        between = distances(flat, y).reshape(r, d, d).mean(axis=0)
        pairs = distances(flat, flat).reshape(r, d, r, d)
        within = (pairs.sum(axis=(0, 2)) - np.einsum("rdre->de", pairs)) / (r * (r - 1))
        return cls(between, within, distances(y, y))

    def score(self, weights: FloatArray) -> FloatArray:
        """Fair energy score, mean over dates: (replicate,)."""
        return mean_over_dates(np.diag(self.between) - np.diag(self.within) / 2, weights)

    def distance(self, weights: FloatArray, gap: int) -> FloatArray:
        """Energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| of the two laws: (replicate,).

        All three means run over the same pairs of dates at least `gap` apart, where true fields
        are independent; so it is 0 in expectation, of either sign, when the laws are the same.
        A replicate without such a pair has none (nan).
        """
        dates = np.arange(len(self.truth))
        apart = (np.abs(dates[:, None] - dates) >= gap).astype(np.float64)
        kernel = (2 * self.between - self.within - self.truth) * apart
        pairs = np.einsum("bd,de,be->b", weights, apart, weights)
        sums = np.einsum("bd,de,be->b", weights, kernel, weights)
        found: FloatArray = np.full(len(pairs), np.nan)
        np.divide(sums, pairs, out=found, where=pairs > 0)
        return found


MEMORY_LEVELS = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95)


class Bank(Protocol):
    """Fields in memory or on disk; a slice becomes an array when it is asked to."""

    def __len__(self) -> int: ...

    def __getitem__(self, fields: slice, /) -> Any: ...


ROWS = 256  # of a bank that are in memory at once


def nearest(queries: FloatArray, bank: Bank) -> FloatArray:
    """Euclidean distance of each query (n, feature) to its nearest field of the bank.

    The bank (n, ...) is read once, a few fields at a time: it need not fit into memory.
    """
    least: FloatArray = np.full(len(queries), np.inf)
    for start in range(0, len(bank), ROWS):
        part = np.asarray(bank[start : start + ROWS])
        found = distances(queries, part.reshape(len(part), -1)).min(axis=1)
        np.minimum(least, found, out=least)
    return least


def memorisation(
    generated: FloatArray, held_out: FloatArray, training: Bank
) -> dict[str, list[float]]:
    """Quantiles of the distance to the nearest training field, generated beside held-out.

    A model that copies its training fields has generated distances far below the held-out ones.
    Rows are whitened coefficients, so that the distance is the Cameron-Martin norm, here divided
    by the root of the number of coefficients.
    """
    found = nearest(np.concatenate([generated, held_out]), training) / np.sqrt(generated.shape[1])
    return {
        "levels": list(MEMORY_LEVELS),
        "generated": np.quantile(found[: len(generated)], MEMORY_LEVELS).tolist(),
        "held_out": np.quantile(found[len(generated) :], MEMORY_LEVELS).tolist(),
    }
