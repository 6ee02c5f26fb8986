"""Associated Legendre functions on the latitudes of a grid, and their least-squares inverses.

The matrix of synthesis at order m takes real coefficients to the Fourier coefficients of the rings;
the matrix of analysis is its inverse in the least-squares sense of the quadrature weights. So
analysis is exact on any latitudes that determine the coefficients: Gaussian, with or without poles,
or irregular. On latitudes that mirror at the equator, even l - m meet the sum of the hemispheres
and odd ones the difference: half the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.linalg import lapack

from pipeline.sphere import FloatArray, IntArray, RingGrid

__all__ = ["Sector", "inverse", "legendre", "require_rings", "sectors"]

AMPLIFICATION_LIMIT = 50.0
WELL_CONDITIONED = 0.01  # of a Gram matrix, which a Cholesky factor inverts to 1e-13


@dataclass(frozen=True, kw_only=True, eq=False)
class Sector:
    """The matrices of one order, and of one parity of l - m where hemispheres are folded.

    They act on real and imaginary parts of the Fourier coefficients h_m of the rings, where a field
    is h_0 + 2 Re sum_m h_m exp(i m longitude). The real part belongs to the coefficients of order
    m, the imaginary one to those of order -m.
    """

    order: int
    sign: int  # of the southern hemisphere when folded, else 0
    degrees: IntArray
    analysis: FloatArray  # (lat, degree), of the folded rings: an equator is counted once
    synthesis: FloatArray  # (lat, degree), of the rings up to the equator when folded


@lru_cache(maxsize=8)
def sectors(grid: RingGrid, lmax: int, dtype: str) -> tuple[Sector, ...]:
    """All sectors of a grid, computed in float64 and kept in `dtype`, by order and parity.

    Raises:
        ValueError: If lmax is beyond `grid.max_lmax`, or if so many latitudes are missing that
            analysis would amplify noise beyond use.
    """
    require_rings(grid, lmax)
    half = (len(grid.points) + 1) // 2 if grid.symmetric else len(grid.points)
    parities = ((slice(0, None, 2), 1), (slice(1, None, 2), -1))
    weight = np.sqrt(grid.ring_weights * np.asarray(grid.points))[:half]
    fold = np.ones(half)  # rings that one folded ring stands for
    if grid.symmetric:
        fold[: len(grid.points) // 2] = 2.0
    weight = weight * np.sqrt(fold)
    found = []
    for m, table in enumerate(legendre(np.deg2rad(grid.latitudes[:half]), lmax)):
        scale = np.sqrt(2.0) if m else 1.0
        for chosen, sign in parities if grid.symmetric else ((slice(None), 0),):
            degrees, synthesis = np.arange(m, lmax + 1)[chosen], table[:, chosen]
            if not degrees.size:
                continue
            analysis = inverse(grid, lmax, m, weight, synthesis) / fold
            found.append(
                Sector(
                    order=m,
                    sign=sign,
                    degrees=degrees,
                    analysis=np.ascontiguousarray(analysis.T * scale, dtype),
                    synthesis=np.ascontiguousarray(synthesis.T / scale, dtype).T,
                )
            )
    return tuple(found)


def require_rings(grid: RingGrid, lmax: int) -> None:
    """ValueError unless the grid has rings of one length and determines degrees up to lmax."""
    if not 0 <= lmax <= grid.max_lmax:
        raise ValueError(
            f"a {grid.describe()} grid determines degrees 0 to {grid.max_lmax}; got lmax={lmax}"
        )
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
