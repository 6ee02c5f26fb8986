"""Maps of one grid at the points of another.

Degrees move by synthesis, which is exact, whether the grid resolves them or not; values bilinearly
between the rings, so that they do not change at a point that both grids share.
"""

from __future__ import annotations

import ducc0
import numpy as np
from scipy.sparse import csr_array

from pipeline.arrays import FloatArray
from pipeline.sphere.coefficients import lmax_of, to_complex
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import plan
from pipeline.sphere.rings import ring_geometry

__all__ = ["at_points", "bilinear", "interpolation", "synthesis"]


def synthesis(grid: RingGrid, coefficients: FloatArray) -> FloatArray:
    """Values (..., *grid) at the points of a grid, which need not resolve the degrees.

    Args:
        coefficients: Shape (..., (lmax + 1)**2), float64.
    """
    lmax = lmax_of(coefficients.shape[-1])
    if lmax <= grid.max_lmax:
        return plan(grid, lmax, "float64").synthesis(coefficients)
    rows = to_complex(coefficients.reshape(-1, 1, coefficients.shape[-1]))
    values = ducc0.sht.synthesis(alm=rows, lmax=lmax, spin=0, nthreads=1, **ring_geometry(grid))
    placed: FloatArray = values[:, 0, grid.ring_positions]
    return placed.reshape(*coefficients.shape[:-1], *grid.shape)


def interpolation(grid: RingGrid, latitude: FloatArray, longitude: FloatArray) -> csr_array:
    """Weights (point, cell) of bilinear interpolation: linear along the two rings around a point
    and between them. Between the last ring and a pole, the pole has the mean of the ring.

    Args:
        latitude, longitude: of the points [degrees], shape (point,).
    """
    order = np.argsort(grid.latitudes)
    points = np.asarray(grid.points)
    start, first = np.cumsum(points) - points, np.asarray(grid.first_longitudes)
    edges = np.concatenate([[-90.0], np.asarray(grid.latitudes)[order], [90.0]])
    below = np.searchsorted(edges[1:-1], latitude, side="right")
    gap = edges[below + 1] - edges[below]
    up = np.divide(latitude - edges[below], gap, out=np.zeros_like(gap), where=gap > 0.0)
    rows, cells, shares = [], [], []
    for edge, share in ((below, 1.0 - up), (below + 1, up)):
        pole = (edge == 0) | (edge == len(edges) - 1)
        ring = order[np.clip(edge - 1, 0, len(order) - 1)]
        place = np.flatnonzero(~pole)
        at = ring[place]
        step = (longitude[place] - first[at]) / 360.0 * points[at] % points[at]
        left = np.floor(step).astype(np.intp)
        for column, part in ((left, 1.0 - (step - left)), (left + 1, step - left)):
            rows.append(place)
            cells.append(start[at] + column % points[at])
            shares.append(share[place] * part)
        place = np.flatnonzero(pole & (share > 0.0))
        around = points[ring[place]]
        within = np.arange(around.sum()) - np.repeat(np.cumsum(around) - around, around)
        rows.append(np.repeat(place, around))
        cells.append(np.repeat(start[ring[place]], around) + within)
        shares.append(np.repeat(share[place] / around, around))
    cell = np.argsort(grid.ring_positions)[np.concatenate(cells)]
    where = (np.concatenate(rows), cell)
    weights = csr_array((np.concatenate(shares), where), shape=(latitude.size, grid.size))
    weights.eliminate_zeros()
    return weights


def at_points(fields: FloatArray, weights: csr_array) -> FloatArray:
    """Fields (..., cell) at the points of weights (point, cell), of what is not missing.

    NaN where more than half of the weight is.
    """
    rows = fields.reshape(-1, fields.shape[-1]).astype(np.float64)
    known = np.isfinite(rows)
    share = (weights @ known.T.astype(np.float64)).T
    found = (weights @ np.where(known, rows, 0.0).T).T
    values: FloatArray = np.where(share > 0.5, found / np.maximum(share, 0.5), np.nan)
    return values.reshape(*fields.shape[:-1], -1)


def bilinear(maps: FloatArray, source: RingGrid, target: RingGrid) -> FloatArray:
    """Maps (..., *source) at the points of another grid, without new extremes."""
    latitude, longitude = target.coordinates
    weights = interpolation(source, latitude.ravel(), longitude.ravel())
    values: FloatArray = (weights @ maps.reshape(-1, source.size).T).T
    return np.ascontiguousarray(values).reshape(*maps.shape[: -len(source.shape)], *target.shape)
