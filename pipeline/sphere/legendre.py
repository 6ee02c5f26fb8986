"""Associated Legendre functions on the latitudes of a grid, and their least-squares inverses.

The matrix of synthesis at order m takes real coefficients to the Fourier coefficients of the rings;
the matrix of analysis is its inverse in the least-squares sense of the quadrature weights. So
analysis is exact on any latitudes that determine the coefficients: Gaussian, with or without poles,
or irregular. On latitudes that mirror at the equator, even l - m meet the sum of the hemispheres
and odd ones the difference: half the work.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack

from pipeline.arrays import FloatArray
from pipeline.sphere.grid import IntArray, RingGrid

__all__ = [
    "TOGETHER",
    "Sectors",
    "folding",
    "inverse",
    "legendre",
    "matrices",
    "require_lmax",
    "require_rings",
]

TOGETHER = 8  # orders in one batched product
AMPLIFICATION_LIMIT = 50.0
WELL_CONDITIONED = 0.01  # of a Gram matrix, which a Cholesky factor inverts to 1e-13


@dataclass(frozen=True, kw_only=True, eq=False)
class Sectors:
    """The matrices of orders that follow each other, of one parity of l - m where folded.

    They act on real and imaginary parts of the Fourier coefficients h_m of the rings, where a field
    is h_0 + 2 Re sum_m h_m exp(i m longitude). The real part belongs to the coefficients of order
    m, the imaginary one to those of order -m. Rings where no function of theirs is felt are left
    out; where orders have fewer degrees than the first, the last columns are zero.
    """

    orders: slice
    sign: int  # of the southern hemisphere when folded, else 0
    rows: slice  # of the rings, up to the equator when folded
    degrees: IntArray  # (order, degree), -1 where there is none
    analysis: FloatArray  # (order, row, degree), of the folded rings: an equator is counted once
    synthesis: FloatArray  # (order, row, degree)


def matrices(grid: RingGrid, lmax: int, negligible: float) -> Iterator[Sectors]:
    """All sectors of a grid, in float64; functions are cut off where they are below `negligible`.

    Raises:
        ValueError: If lmax is beyond `grid.max_lmax`, or if so many latitudes are missing that
            analysis would amplify noise beyond use.
    """
    require_lmax(grid, lmax)
    fold = folding(grid)
    points, half = np.asarray(grid.points), len(fold)
    weight = np.sqrt((grid.ring_weights * points)[:half] * fold)
    tables = legendre(np.deg2rad(grid.latitudes[:half]), lmax)
    parities = ((0, 1), (1, -1)) if grid.symmetric else ((0, 0),)
    for first in range(0, lmax + 1, TOGETHER):
        group = list(itertools.islice(tables, TOGETHER))
        for start, sign in parities:
            step = 2 if sign else 1
            degrees = first + np.arange(len(group))[:, None] + start
            degrees = degrees + np.arange(0, max(lmax + 1 - first - start, 0), step)
            felt = np.flatnonzero(np.abs(group[0]).max(axis=1) > negligible)
            rows = slice(int(felt[0]), int(felt[-1]) + 1)
            shape = len(group), rows.stop - rows.start, degrees.shape[1]
            analysis, synthesis = np.zeros(shape), np.zeros(shape)
            for i, table in enumerate(group):
                order, own = first + i, table[rows, start::step]
                if own.size:
                    left = inverse(grid, lmax, order, weight[rows], own) / fold[rows]
                    scale = np.sqrt(2.0) if order else 1.0
                    analysis[i, :, : own.shape[1]] = left.T * scale
                    synthesis[i, :, : own.shape[1]] = own / scale
            yield Sectors(
                orders=slice(first, first + len(group)),
                sign=sign,
                rows=rows,
                degrees=np.where(degrees <= lmax, degrees, -1),
                analysis=analysis,
                synthesis=synthesis,
            )


def folding(grid: RingGrid) -> FloatArray:
    """How many rings each ring up to the equator stands for, or each ring where none are folded."""
    nlat = len(grid.points)
    fold = np.ones((nlat + 1) // 2 if grid.symmetric else nlat)
    if grid.symmetric:
        fold[: nlat // 2] = 2.0
    return fold


def require_lmax(grid: RingGrid, lmax: int) -> None:
    """ValueError unless the grid determines degrees up to lmax."""
    if not 0 <= lmax <= grid.max_lmax:
        raise ValueError(
            f"a {grid.describe()} grid determines degrees 0 to {grid.max_lmax}; got lmax={lmax}"
        )


def require_rings(grid: RingGrid, lmax: int) -> None:
    """ValueError unless the grid has rings of one length and determines degrees up to lmax."""
    require_lmax(grid, lmax)
    if len(set(grid.points)) > 1:
        raise ValueError(f"tables need rings of one length; {grid.describe()} has others")


def inverse(
    grid: RingGrid, lmax: int, order: int, weight: FloatArray, matrix: FloatArray
) -> FloatArray:
    """Left inverse (degree, lat) of a matrix (lat, degree): least squares with these weights.

    Raises:
        ValueError: If it would amplify noise more than `AMPLIFICATION_LIMIT` times.
    """
    weighted = weight[:, None] * matrix
    gram = weighted.T @ weighted
    factor, failed = lapack.dpotrf(gram)
    if not failed and lapack.dpocon(factor, np.abs(gram).sum(0).max())[0] > WELL_CONDITIONED:
        solution: FloatArray = lapack.dpotrs(factor, weighted.T)[0]
        return solution * weight
    left, singular, right = np.linalg.svd(weighted, full_matrices=False)
    if len(weighted) < len(gram) or singular[-1] * AMPLIFICATION_LIMIT < 1.0:
        raise ValueError(
            f"the latitudes of this {grid.describe()} grid, {grid.latitudes[0]:.2f} to "
            f"{grid.latitudes[-1]:.2f}, leave degrees up to {lmax} undetermined at order {order}: "
            f"noise would grow {1.0 / max(singular[-1], 1e-300):.3g} times; complete the "
            "latitudes or lower lmax"
        )
    solution = (right.T / singular) @ left.T * weight
    return solution


def legendre(latitudes: FloatArray, lmax: int, over_cosine: bool = False) -> Iterator[FloatArray]:
    """P_lm with (-1)^m, normalised to int |P e^{im phi}|^2 = 1: (lat, degrees m..lmax) for each m.

    Args:
        latitudes: in radians.
        over_cosine: Give P_lm / cos(latitude), from m = 1 on; finite at the poles.
    """
    height, cosine = np.sin(latitudes), np.cos(latitudes)
    sectoral = np.full_like(height, np.sqrt(0.25 / np.pi))
    for m in range(lmax + 1):
        if m > 0:
            factor = 1.0 if over_cosine and m == 1 else cosine
            sectoral = -np.sqrt((2 * m + 1) / (2 * m)) * factor * sectoral
        table = np.empty((lmax + 1 - m, height.size))
        table[0] = sectoral
        if lmax > m:
            table[1] = np.sqrt(2 * m + 3) * height * sectoral
        degree = np.arange(m + 2, lmax + 1)
        a = np.sqrt((4 * degree**2 - 1) / (degree**2 - m**2))
        b = np.sqrt(((degree - 1) ** 2 - m**2) / (4 * (degree - 1) ** 2 - 1))
        for i in range(2, lmax + 1 - m):
            table[i] = a[i - 2] * (height * table[i - 1] - b[i - 2] * table[i - 2])
        if m > 0 or not over_cosine:
            yield table.T
