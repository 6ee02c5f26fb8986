"""Exact analysis on rings of different lengths, HEALPix, where orders are not independent.

On a ring of n points the waves of orders m and m' look alike if m' = m + q n. The least-squares
matrices of each order (pipeline/sphere/legendre.py) know nothing of that. With P their synthesis, A
their analysis and K what the waves on a ring add to each other, least squares over all cells asks
for

    (1 + A K P) a = A u,        u_m = mean over each ring of field exp(-i m longitude),

where K is zero but for a few rings near the poles: elsewhere one of any two orders that look alike
is too high to be felt there. On these few waves, R of all,

    a = A u - A R' Z R P A u,       Z = K (1 + R P A R' K)^-1,

by the matrix inversion lemma: a small dense product corrects the analysis, without iteration. It
falls apart by hemispheric sign, by m mod 4 (rings have multiples of four points), and into real
and imaginary parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.arrays import FloatArray
from pipeline.sphere.coefficients import ComplexArray
from pipeline.sphere.grid import IntArray, RingGrid
from pipeline.sphere.legendre import Sectors, folding, legendre

__all__ = ["Correction", "Coupling", "coupled_waves", "couplings"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Coupling:
    """One independent part: the waves (order, ring) of one sign, and Z for each part of them."""

    sign: int
    waves: IntArray  # (wave, 2), by order and ring
    real: FloatArray
    imaginary: FloatArray


def coupled_waves(grid: RingGrid, lmax: int, negligible: float) -> list[IntArray]:
    """Independent sets of waves (order, ring up to the equator) that look like others there."""
    half, weight = len(folding(grid)), grid.ring_weights * np.asarray(grid.points)
    felt = np.stack(
        [np.abs(table).max(axis=1) for table in legendre(np.deg2rad(grid.latitudes[:half]), lmax)]
    )
    found: list[list[tuple[int, int]]] = [[], [], []]
    for ring in range(half):
        points = grid.points[ring]
        strongest = np.zeros(lmax + 1)
        for q in range(1, 2 * lmax // points + 1):
            for order in (np.arange(lmax + 1) + q * points, q * points - np.arange(lmax + 1)):
                other = np.abs(order)
                inside = other <= lmax
                strongest[inside] = np.maximum(strongest[inside], felt[other[inside], ring])
        here = np.flatnonzero(strongest * felt[:, ring] * weight[ring] > negligible)
        for m in here.tolist():
            found[(0, 1, 2, 1)[m % 4]].append((m, ring))
    return [np.array(sorted(waves), np.intp).reshape(-1, 2) for waves in found]


def couplings(
    grid: RingGrid, sets: Iterable[IntArray], sectors: Iterable[Sectors]
) -> list[Coupling]:
    """The corrections of all independent sets of waves, from the matrices in float64."""
    fold, sets, found = folding(grid), list(sets), []
    back = [{1: np.zeros((len(s),) * 2), -1: np.zeros((len(s),) * 2)} for s in sets]
    for sector in sectors:
        for i, order in enumerate(range(sector.orders.start, sector.orders.stop)):
            for waves, products in zip(sets, back, strict=True):
                own = np.flatnonzero((waves[:, 0] == order) & _within(waves[:, 1], sector))
                ring = waves[own, 1]
                at = ring - sector.rows.start
                product = sector.synthesis[i, at] @ sector.analysis[i, at].T
                products[sector.sign][np.ix_(own, own)] = product * fold[ring]
    for waves, products in zip(sets, back, strict=True):
        real, imaginary = _look_alikes(grid, waves)
        for sign, product in products.items():
            if len(waves):
                z = [k @ np.linalg.inv(np.eye(len(k)) + product @ k) for k in (real, imaginary)]
                found.append(Coupling(sign=sign, waves=waves, real=z[0], imaginary=z[1]))
    return found


def _look_alikes(grid: RingGrid, waves: IntArray) -> tuple[FloatArray, FloatArray]:
    """K on the real and on the imaginary parts of waves."""
    place = {(m, ring): i for i, (m, ring) in enumerate(waves.tolist())}
    real, imaginary = np.zeros((len(waves),) * 2), np.zeros((len(waves),) * 2)
    top = int(waves[:, 0].max(initial=0))
    for (m, ring), i in place.items():
        points = grid.points[ring]
        first = np.deg2rad(grid.first_longitudes[ring]) * points  # 0 or pi: phases are real
        for q in range(-((top + m) // points), (top - m) // points + 1):
            other = m + q * points
            j = place.get((abs(other), ring))
            if q and j is not None:
                phase = np.round(np.cos(q * first))
                real[i, j] += phase
                imaginary[i, j] += phase * np.sign(other) * (m > 0)
    return real, imaginary


class Correction:
    """Takes the aliasing of one coupling out of coefficients, or applies the transpose of that.

    Both work in place on the columns of pipeline/sphere/harmonics.py, (column, field).

    Args:
        columns: of each order and sign: its first column, its sectors and its place therein.
        fold: of `folding`.
    """

    def __init__(
        self,
        coupling: Coupling,
        columns: dict[tuple[int, int], tuple[int, Sectors, int]],
        fold: FloatArray,
    ) -> None:
        self.parts = coupling.real, coupling.imaginary
        self.steps: list[tuple[slice, slice, FloatArray, FloatArray]] = []
        order, ring = coupling.waves.T
        for m in np.unique(order).tolist():
            if (m, coupling.sign) not in columns:
                continue
            start, sector, i = columns[m, coupling.sign]
            own = np.flatnonzero((order == m) & _within(ring, sector))
            at = ring[own] - sector.rows.start
            synthesis, analysis = sector.synthesis[i, at], sector.analysis[i, at]
            here = slice(start, start + synthesis.shape[1])
            weight = fold[ring[own], None].astype(analysis.dtype)
            self.steps.append((_span(own), here, synthesis, analysis * weight))

    def __call__(self, columns: ComplexArray) -> None:
        self._apply(columns, self.steps, self.parts)

    def transposed(self, columns: ComplexArray) -> None:
        real, imaginary = self.parts
        swapped = [(rows, at, a, p) for rows, at, p, a in self.steps]
        self._apply(columns, swapped, (real.T, imaginary.T))

    def _apply(
        self,
        columns: ComplexArray,
        steps: list[tuple[slice, slice, FloatArray, FloatArray]],
        parts: tuple[FloatArray, FloatArray],
    ) -> None:
        halves = columns.view(columns.real.dtype)
        waves = np.zeros((len(parts[0]), halves.shape[1]), halves.dtype)
        for rows, at, there, _ in steps:
            np.matmul(there, halves[at], out=waves[rows])
        pairs = waves.reshape(len(waves), -1, 2)
        for part, z in enumerate(parts):
            pairs[..., part] = z @ np.ascontiguousarray(pairs[..., part])
        for rows, at, _, back in steps:
            halves[at] -= back.T @ waves[rows]


def _within(ring: IntArray, sector: Sectors) -> npt.NDArray[np.bool_]:
    inside: npt.NDArray[np.bool_] = (ring >= sector.rows.start) & (ring < sector.rows.stop)
    return inside


def _span(indices: IntArray) -> slice:
    """Indices that follow each other, as a slice."""
    start = int(indices[0]) if indices.size else 0
    assert (np.diff(indices) == 1).all()
    return slice(start, start + indices.size)
