"""Leading empirical orthogonal functions on top of a `channels` law.

Up to a degree the covariance is S = D + W W^T, with W the leading patterns of the training fields,
shrunk, and D block diagonal by degree: what the patterns leave of the channel covariances, which S
keeps exactly. Patterns are those of the fields u whitened by the `channels` law, where a direction
counts by how much likelier it makes the fields, not by its variance.

Choosing goes by the matrix inversion lemma; the law itself is one dense eigen-decomposition, exact
as every baseline is. Notation: docs/mathematics.md, 6 and 7.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh

from pipeline.arrays import FloatArray
from pipeline.gaussian.baselines import SMALLEST_VARIANCE, Eof, overlapping
from pipeline.gaussian.moments import Moments, low_degree
from pipeline.sphere.coefficients import degrees

DEGREES = (2, 4, 6, 8, 12, 16, 24, 32)
RANKS = (2, 10, 40, 160, 640)
SHRINKAGES = (0.0, 0.15, 0.3, 0.45, 0.6, 0.8)


def choose_eof(train: Moments, validation: Moments) -> FloatArray:
    """Degree, rank and shrinkage under which the validation fields are most likely, (3,).

    Rank 0, the `channels` law itself, is taken when no pattern helps.
    """
    highest = low_degree(train.channels, train.lmax)
    inverse_root = _roots(train)[1]
    u_train, u_validation = train.mixed(inverse_root), validation.mixed(inverse_root)
    best, chosen = 0.0, (0, 0, 0.0)
    for degree in sorted({*(d for d in DEGREES if d < highest), highest}):
        seen = u_validation.low_covariance(degree)
        values, patterns = _leading(u_train, degree, max(RANKS))
        for rank in (r for r in RANKS if r <= len(values)):
            for shrinkage in SHRINKAGES:
                w = patterns[:, :rank] * np.sqrt((1 - shrinkage) * values[:rank])
                gain = _gain(_rest(w, train.channels, degree), w, seen)
                if gain > best:
                    best, chosen = gain, (degree, rank, shrinkage)
    return np.array(chosen, dtype=np.float64)


def eof_parts(train: Moments, choice: FloatArray) -> tuple[FloatArray, FloatArray]:
    """D (degree + 1, channel, channel) and W (n, rank) of the covariance of the low coefficients.

    Args:
        choice: degree, rank and shrinkage.
    """
    degree, rank, shrinkage = int(choice[0]), int(choice[1]), float(choice[2])
    root, inverse = _roots(train)
    values, patterns = _leading(train.mixed(inverse), degree, rank)
    w = patterns * np.sqrt((1 - shrinkage) * values)
    low = root[degrees(degree)]
    rows = w.reshape(train.channels, len(low), -1)
    coloured = np.einsum("kcd,dkr->ckr", low, rows).reshape(w.shape)
    rest = _rest(w, train.channels, degree)
    return root[: degree + 1] @ rest @ root[: degree + 1], coloured


def fit_eof(train: Moments, choice: FloatArray) -> Eof:
    """The law of `eof_parts`, with the `channels` law of the training fields beyond its degree."""
    rest, w = eof_parts(train, choice)
    channels, size = train.channels, len(w) // train.channels
    covariance = (w @ w.T).reshape(channels, size, channels, size)
    places = np.arange(size)
    covariance[:, places, :, places] += rest[degrees(len(rest) - 1)]
    values, patterns = np.linalg.eigh(covariance.reshape(len(w), len(w)))
    order = overlapping(patterns)
    tail, vectors = np.linalg.eigh(train.channel_covariance())
    variance = np.maximum(tail, SMALLEST_VARIANCE)[degrees(train.lmax)].T
    variance[:, :size] = np.maximum(values, SMALLEST_VARIANCE)[order].reshape(channels, size)
    return Eof(patterns[:, order], vectors, variance)


def _roots(train: Moments) -> tuple[FloatArray, FloatArray]:
    """The symmetric root of each S_l and its inverse, (lmax + 1, channel, channel) both."""
    values, vectors = np.linalg.eigh(train.channel_covariance())
    root = np.sqrt(np.maximum(values, SMALLEST_VARIANCE))[:, None]
    turned = vectors.swapaxes(1, 2)
    return (vectors * root) @ turned, (vectors / root) @ turned


def _leading(u: Moments, degree: int, rank: int) -> tuple[FloatArray, FloatArray]:
    """The largest eigenvalues of the covariance of the low coefficients, and their patterns."""
    covariance = u.low_covariance(degree)
    n = len(covariance)
    rank = min(rank, n - 1, u.samples - 1)
    if rank == 0:
        return np.empty(0), np.empty((n, 0))
    values, patterns = eigh(covariance, subset_by_index=(n - rank, n - 1))
    return values[::-1], patterns[:, ::-1]


def _rest(w: FloatArray, channels: int, degree: int) -> FloatArray:
    """D_l = 1 minus the channel covariances that W W^T has on average over the orders of l."""
    rows = w.reshape(channels, (degree + 1) ** 2, -1)
    explained = np.einsum("ckr,dkr->kcd", rows, rows)
    size = 2 * np.arange(degree + 1) + 1
    mean = np.add.reduceat(explained, np.arange(degree + 1) ** 2) / size[:, None, None]
    rest: FloatArray = np.eye(channels) - mean
    return rest


def _gain(rest: FloatArray, w: FloatArray, seen: FloatArray) -> float:
    """Log-likelihood per field of N(0, D + W W^T) over N(0, 1), for fields of covariance `seen`.

    S^-1 = D^-1 - D^-1 W M^-1 W^T D^-1,  M = 1 + W^T D^-1 W,  log det S = log det D + log det M.
    """
    if np.linalg.eigvalsh(rest).min() <= SMALLEST_VARIANCE:
        return -np.inf  # the patterns of few fields leave nothing to D
    channels, degree = rest.shape[1], len(rest) - 1
    place = degrees(degree)
    inverse, size = np.linalg.inv(rest)[place], len(place)
    rows = w.reshape(channels, size, -1)
    weighted = np.einsum("kcd,dkr->ckr", inverse, rows).reshape(w.shape)
    m = np.eye(w.shape[1]) + w.T @ weighted
    places = np.arange(size)
    diagonal = seen.reshape(channels, size, channels, size)[:, places, :, places]
    quadratic = np.einsum("kcd,kdc->", inverse, diagonal)
    quadratic -= np.trace(np.linalg.solve(m, weighted.T @ (seen @ weighted)))
    determinant = (2 * np.arange(degree + 1) + 1) @ np.linalg.slogdet(rest)[1]
    determinant += np.linalg.slogdet(m)[1]
    return float(0.5 * (np.trace(seen) - quadratic - determinant))
