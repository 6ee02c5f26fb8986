"""Linear functionals of fields: what is observed of a variable, as weights of the cells of a grid.

    points       bilinear, as maps are read between cells (pipeline/sphere/interpolation)
    cells        some cells as they are: a field with holes
    box          the mean over the cells whose centres lie in it, by their areas
    low_degrees  the coefficients up to a degree: a coarse field, whatever its grid

They act on fields after the pointwise transform of the variable, so a mean of a variable that has
one is no functional of this kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, vstack

from pipeline.arrays import FloatArray
from pipeline.errors import UnusableData
from pipeline.sphere.grid import IntArray, RingGrid
from pipeline.sphere.harmonics import plan
from pipeline.sphere.interpolation import interpolation

__all__ = ["Functionals", "box", "cells", "joined", "low_degrees", "points"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Functionals:
    """Functionals of one variable each.

    Attributes:
        weights: of the cells, (row, cell).
        variable: place of the variable of each row, (row,).
    """

    weights: csr_array
    variable: IntArray

    def __len__(self) -> int:
        return len(self.variable)

    def __call__(self, fields: FloatArray) -> FloatArray:
        """Values (..., row) of fields (..., variable, *grid)."""
        size = self.weights.shape[1]
        axis = fields.ndim - (2 if fields.shape[-1] == size else 3)
        flat = np.moveaxis(fields, axis, 0).reshape(fields.shape[axis], -1, size)
        found = np.empty((flat.shape[1], len(self)))
        for place in np.unique(self.variable):
            rows = np.flatnonzero(self.variable == place)
            found[:, rows] = (self.weights[rows] @ flat[place].T).T
        return found.reshape(*fields.shape[:axis], len(self))

    def of(self, rows: IntArray) -> Functionals:
        """Some of them."""
        return Functionals(weights=self.weights[rows], variable=self.variable[rows])


def joined(parts: Sequence[Functionals]) -> Functionals:
    """All of several, one after the other."""
    return Functionals(
        weights=csr_array(vstack([part.weights for part in parts])),
        variable=np.concatenate([part.variable for part in parts]),
    )


def points(
    grid: RingGrid, latitude: FloatArray, longitude: FloatArray, variable: IntArray
) -> Functionals:
    """Values at points [degrees], each of its variable; all (row,)."""
    weights = interpolation(grid, latitude, np.asarray(longitude) % 360.0)
    return Functionals(weights=weights, variable=np.asarray(variable, np.intp))


def cells(grid: RingGrid, cell: IntArray, variable: int) -> Functionals:
    """Values of some cells, by their number in a field."""
    row = np.arange(len(cell))
    weights = csr_array((np.ones(len(cell)), (row, cell)), shape=(len(cell), grid.size))
    return Functionals(weights=weights, variable=np.full(len(cell), variable, np.intp))


def box(grid: RingGrid, edges: tuple[float, float, float, float], variable: int) -> Functionals:
    """The mean over a box.

    Args:
        edges: south, north, west and east [degrees]; west may be larger than east.
    Raises:
        UnusableData: If no cell has its centre in the box.
    """
    south, north, west, east = edges
    latitude, longitude = (part.ravel() for part in grid.coordinates)
    width = (east - west) % 360.0 or 360.0
    within = (latitude >= south) & (latitude <= north)
    within &= (longitude - west) % 360.0 <= width
    area = np.where(within, grid.area.ravel(), 0.0)
    if not area.any():
        raise UnusableData(
            f"no cell of {grid.describe()} has its centre between {south:g} and {north:g} degrees "
            f"north, {west:g} and {east:g} degrees east; take a larger box"
        )
    weights = csr_array(area[None] / area.sum())
    return Functionals(weights=weights, variable=np.array([variable]))


def low_degrees(grid: RingGrid, lmax: int, variable: int) -> Functionals:
    """The coefficients up to a degree, as analysis gives them."""
    size = (lmax + 1) ** 2
    rows = plan(grid, lmax, "float64").analysis_adjoint(np.eye(size)).reshape(size, -1)
    return Functionals(weights=csr_array(rows), variable=np.full(size, variable, np.intp))
