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


def group_histograms(
    ensemble: FloatArray, truth: FloatArray, area: FloatArray, size: int
) -> FloatArray:
    """`rank_histogram` of disjoint groups of `size` realizations, (group, date, rank)."""
    groups = [ensemble[g : g + size] for g in range(0, len(ensemble) - size + 1, size)]
    return np.stack([rank_histogram(group, truth, area) for group in groups])


def reliability_error(histograms: FloatArray, weights: FloatArray) -> FloatArray:
    """Share of cases in the wrong bin of `group_histograms`: (replicate,).

    Half the sum of |frequency - 1/(size + 1)|, the mean over the groups: ensembles of different
    sizes have equally many bins, and as the error of each group is taken before their mean, equally
    much chance in each.
    """
    size = histograms.shape[-1] - 1
    frequency = np.stack([mean_over_dates(histogram, weights) for histogram in histograms])
    error: FloatArray = 0.5 * np.abs(frequency - 1 / (size + 1)).sum(axis=2).mean(axis=0)
    return error


def distances(x: FloatArray, y: FloatArray) -> FloatArray:
    """Euclidean, between the rows of (n, feature) and (k, feature): (n, k), float64.

    Features go through a few at a time: rows that are long are not copied.
    """
    step = max(1, PRODUCTS // (len(x) + len(y)))
    total = np.zeros((len(x), len(y)))
    for start in range(0, x.shape[1], step):
        a, b = (rows[:, start : start + step].astype(np.float64) for rows in (x, y))
        total += np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * (a @ b.T)
    root: FloatArray = np.sqrt(np.maximum(total, 0.0))
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
        """Of fields (realization, date, feature) and (date, feature)."""
        r, d, features = ensemble.shape
        rows = np.concatenate([ensemble.reshape(r * d, features), truth]).astype(np.float64)
        return cls.of_products(rows @ rows.T, r)

    @classmethod
    def of_products(cls, products: FloatArray, realizations: int) -> Energies:
        """Of the inner products of all fields: those of each realization, then the true ones."""
        r, d = realizations, len(products) // (realizations + 1)
        squares = np.diag(products)
        apart = squares[:, None] + squares - 2 * products
        apart = np.sqrt(np.maximum(apart, 0.0, out=apart), out=apart)
        flat = r * d
        pairs = apart[:flat, :flat].reshape(r, d, r, d)
        within = (pairs.sum(axis=(0, 2)) - np.einsum("rdre->de", pairs)) / (r * (r - 1))
        between = apart[:flat, flat:].reshape(r, d, d).mean(axis=0)
        return cls(between, within, apart[flat:, flat:])

    def score(self, weights: FloatArray) -> FloatArray:
        """Fair energy score, mean over dates: (replicate,)."""
        return mean_over_dates(np.diag(self.between) - np.diag(self.within) / 2, weights)

    def distance(
        self, weights: FloatArray, gap: int, dates: npt.NDArray[np.integer] | None = None
    ) -> FloatArray:
        """Energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| of the two laws: (replicate,).

        All three means run over the same pairs of dates at least `gap` apart, where true fields
        are independent; so it is 0 in expectation, of either sign, when the laws are the same.
        A replicate without such a pair has none (nan).

        Args:
            dates: the number of each date, where only some of all are here.
        """
        if dates is None:
            dates = np.arange(len(self.truth))
        apart = (np.abs(dates[:, None] - dates) >= gap).astype(np.float64)
        kernel = (2 * self.between - self.within - self.truth) * apart
        pairs = np.einsum("bd,de,be->b", weights, apart, weights, optimize=True)
        sums = np.einsum("bd,de,be->b", weights, kernel, weights, optimize=True)
        found: FloatArray = np.full(len(pairs), np.nan)
        np.divide(sums, pairs, out=found, where=pairs > 0)
        return found


PRODUCTS = 1 << 23  # numbers of the rows whose products are made at once
MEMORY_LEVELS = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95)


class Bank(Protocol):
    """Fields in memory or on disk; a slice becomes an array when it is asked to."""

    def __len__(self) -> int: ...

    def __getitem__(self, fields: slice, /) -> Any: ...


ROWS = 256  # of a bank that are in memory at once, if they are not long


def rows_at_once(size: int, numbers: int) -> int:
    """Fields of so many numbers each that are in memory together."""
    return max(1, min(ROWS, numbers // size))


def nearest(queries: Bank, bank: Bank, numbers: int = 1 << 29) -> FloatArray:
    """Euclidean distance of each query (n, ...) to its nearest field of the bank (k, ...).

    The bank is read once, a few fields at a time, and the queries for each part of it: neither need
    fit into memory.

    Args:
        numbers: of the fields of the bank that are in memory; the queries have a quarter of it.
    """
    least: FloatArray = np.full(len(queries), np.inf)
    if not len(bank):
        return least
    size = int(np.prod(np.shape(bank[:1])[1:]))
    step, asked = (rows_at_once(size, most) for most in (numbers, numbers // 4))
    for start in range(0, len(bank), step):
        part = np.asarray(bank[start : start + step]).reshape(-1, size)
        for first in range(0, len(queries), asked):
            rows = slice(first, first + asked)
            found = distances(np.asarray(queries[rows]).reshape(-1, size), part).min(axis=1)
            np.minimum(least[rows], found, out=least[rows])
    return least


def memorisation(generated: FloatArray, held_out: FloatArray, size: int) -> dict[str, list[float]]:
    """Quantiles of the distances to the nearest training field, generated beside held-out.

    A model that copies its training fields has generated distances far below the held-out ones.

    Args:
        generated, held_out: what `nearest` says of whitened coefficients, so that it is the
            Cameron-Martin norm; (field,).
        size: number of the coefficients, by the root of which it is divided.
    """
    return {
        "levels": list(MEMORY_LEVELS),
        "generated": np.quantile(generated / np.sqrt(size), MEMORY_LEVELS).tolist(),
        "held_out": np.quantile(held_out / np.sqrt(size), MEMORY_LEVELS).tolist(),
    }
