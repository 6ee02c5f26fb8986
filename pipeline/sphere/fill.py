"""Filling cells without data, as smoothly as the cells around allow.

Spherical harmonics need a value everywhere. Masked cells get the solution of Laplace's equation
with the data as boundary values: no new extremes, no edges at the coast. The fill is linear and
depends on the mask alone, so it is factorised once. It fluctuates less than the data do; where that
matters, the caller divides it by its own scale (pipeline/fields/climatology, `with_holes`).
"""

from __future__ import annotations

from functools import lru_cache

import ducc0
import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csc_array, diags_array
from scipy.sparse.linalg import splu

from pipeline.arrays import FloatArray
from pipeline.sphere.grid import IntArray, RingGrid

__all__ = ["HarmonicFill", "harmonic_fill"]


class HarmonicFill:
    """Replaces the values of masked cells (`mask` True, shape `grid.shape`)."""

    def __init__(self, grid: RingGrid, mask: npt.NDArray[np.bool_]) -> None:
        if mask.shape != grid.shape:
            raise ValueError(
                f"a mask on {grid.describe()} has shape {grid.shape}; got {mask.shape}"
            )
        if mask.all():
            raise ValueError("all cells are masked; there is nothing to fill from")
        self.grid = grid
        self.holes, self.known = np.flatnonzero(mask), np.flatnonzero(~mask)
        if self.holes.size:
            laplacian = _laplacian(grid)[self.holes]
            self._boundary = laplacian[:, self.known].tocsr()
            self._interior = splu(laplacian[:, self.holes].tocsc())

    def __call__(self, fields: FloatArray) -> FloatArray:
        """A copy of fields (..., *grid.shape) without holes; what is not masked is untouched."""
        filled = fields.reshape(-1, self.grid.size).copy()
        if self.holes.size:
            inflow = self._boundary @ filled[:, self.known].T.astype(np.float64)
            filled[:, self.holes] = self._interior.solve(-inflow).T
        return filled.reshape(fields.shape)


def harmonic_fill(grid: RingGrid, mask: npt.NDArray[np.bool_]) -> HarmonicFill:
    """The fill of a mask, kept for the next call of this process."""
    return _cached(grid, mask.astype(bool).tobytes())


@lru_cache(maxsize=64)
def _cached(grid: RingGrid, packed: bytes) -> HarmonicFill:
    return HarmonicFill(grid, np.frombuffer(packed, bool).reshape(grid.shape))


def _laplacian(grid: RingGrid) -> csc_array:
    """Symmetric graph Laplacian: conductance between neighbouring cells, minus its sum."""
    left, right, conductance = _healpix_edges(grid) if grid.kind == "healpix" else _ring_edges(grid)
    size = (grid.size, grid.size)
    links = coo_array(
        (np.tile(conductance, 2), (np.r_[left, right], np.r_[right, left])), shape=size
    )
    return csc_array(links - diags_array(links.sum(axis=1)))


def _ring_edges(grid: RingGrid) -> tuple[IntArray, IntArray, FloatArray]:
    """Finite volumes on latitude-longitude cells: face length over distance of centres."""
    nlat, nlon = grid.shape
    cell = np.arange(nlat * nlon).reshape(nlat, nlon)
    latitude = np.deg2rad(grid.latitudes)
    middle = 0.5 * (latitude[1:] + latitude[:-1])
    step = 2.0 * np.pi / nlon
    pole = np.copysign(np.pi / 2.0, latitude[-1] - latitude[0])
    height = np.abs(np.diff(np.concatenate([[-pole], middle, [pole]])))
    width = np.maximum(np.cos(latitude) * step, 1e-3 * step)
    along = np.repeat(height / width, nlon)
    across = np.repeat(np.cos(middle) * step / np.abs(np.diff(latitude)), nlon)
    left = np.concatenate([cell.ravel(), cell[:-1].ravel()])
    right = np.concatenate([np.roll(cell, -1, axis=1).ravel(), cell[1:].ravel()])
    return left, right, np.concatenate([along, across])


def _healpix_edges(grid: RingGrid) -> tuple[IntArray, IntArray, FloatArray]:
    """Links between neighbouring cells, eight or fewer each, by inverse square distance."""
    scheme = "NEST" if grid.ordering == "nested" else "RING"
    neighbour = ducc0.healpix.Healpix_Base(max(grid.points) // 4, scheme).neighbors(
        np.arange(grid.size)
    )
    left, at = np.nonzero(neighbour >= 0)
    right = neighbour[left, at]
    latitude, longitude = np.deg2rad(grid.coordinates)
    position = np.stack(
        [
            np.cos(latitude) * np.cos(longitude),
            np.cos(latitude) * np.sin(longitude),
            np.sin(latitude),
        ],
        axis=1,
    )
    distance = np.linalg.norm(position[left] - position[right], axis=1)
    return left, right, 0.5 / distance**2
