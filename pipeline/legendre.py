"""Associated Legendre functions on the latitudes of a grid, and their least-squares inverses.

The matrix of synthesis at order m holds P_lm(latitude); the matrix of analysis is its inverse in
the least-squares sense of the quadrature weights. So analysis is exact on any latitudes that
determine the coefficients: Gaussian, with or without poles, or irregular.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline.sphere import FloatArray, RingGrid

__all__ = ["LegendreTables", "legendre_tables"]

AMPLIFICATION_LIMIT = 50.0


@dataclass(frozen=True, kw_only=True)
class LegendreTables:
    """Matrices by order m: synthesis (lat, degrees m..lmax), analysis (degrees m..lmax, lat)."""

    synthesis: tuple[FloatArray, ...]
    analysis: tuple[FloatArray, ...]


@lru_cache(maxsize=4)
def legendre_tables(grid: RingGrid, lmax: int) -> LegendreTables:
    """Orthonormal associated Legendre functions of a grid's latitudes, in float64.

    Raises:
        ValueError: If lmax is beyond `grid.max_lmax`, or if so many latitudes are missing that
            analysis would amplify noise beyond use.
    """
    if not 0 <= lmax <= grid.max_lmax:
        raise ValueError(
            f"a {grid.describe()} grid determines degrees 0 to {grid.max_lmax}; got lmax={lmax}"
        )
    if len(set(grid.points)) > 1:
        raise ValueError(f"tables need rings of one length; {grid.describe()} has others")
    weight = np.sqrt(grid.ring_weights * np.asarray(grid.points))
    synthesis, analysis = [], []
    for m, table in enumerate(_legendre(np.deg2rad(grid.latitudes), lmax)):
        left, singular, right = np.linalg.svd(weight[:, None] * table, full_matrices=False)
        if singular[-1] * AMPLIFICATION_LIMIT < 1.0:
            raise ValueError(
                f"the latitudes of this {grid.describe()} grid, {grid.latitudes[0]:.2f} to "
                f"{grid.latitudes[-1]:.2f}, leave degrees up to {lmax} undetermined at order {m}: "
                f"noise would grow {1.0 / max(singular[-1], 1e-300):.3g} times; complete the "
                "latitudes or lower lmax"
            )
        synthesis.append(table)
        analysis.append((right.T / singular) @ left.T * weight)
    return LegendreTables(synthesis=tuple(synthesis), analysis=tuple(analysis))


def _legendre(latitudes: FloatArray, lmax: int) -> list[FloatArray]:
    """P_lm with (-1)^m, normalised to int |P e^{im phi}|^2 = 1: one (lat, degree) for each m."""
    height, cosine = np.sin(latitudes), np.cos(latitudes)
    sectoral = np.full_like(height, np.sqrt(0.25 / np.pi))
    tables: list[FloatArray] = []
    for m in range(lmax + 1):
        if m > 0:
            sectoral = -np.sqrt((2 * m + 1) / (2 * m)) * cosine * sectoral
        table = np.zeros((height.size, lmax + 1 - m))
        table[:, 0] = sectoral
        if lmax > m:
            table[:, 1] = np.sqrt(2 * m + 3) * height * sectoral
        for degree in range(m + 2, lmax + 1):
            a = np.sqrt((4 * degree**2 - 1) / (degree**2 - m**2))
            b = np.sqrt(((degree - 1) ** 2 - m**2) / (4 * (degree - 1) ** 2 - 1))
            i = degree - m
            table[:, i] = a * (height * table[:, i - 1] - b * table[:, i - 2])
        tables.append(table)
    return tables
