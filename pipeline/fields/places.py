"""The cell at a place and the mean over an area, on any global grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from pipeline.arrays import FloatArray
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.named_grids import grid_of

__all__ = ["Area", "area_mean", "cell_at"]


@dataclass(frozen=True, kw_only=True)
class Area:
    """Between two latitudes and, eastwards, two longitudes [degrees]; all longitudes by default."""

    south: float = -90.0
    north: float = 90.0
    west: float = 0.0
    east: float = 360.0

    def __post_init__(self) -> None:
        if not -90.0 <= self.south < self.north <= 90.0:
            raise ValueError(
                "an area lies between latitudes -90 <= south < north <= 90; "
                f"got south={self.south}, north={self.north}"
            )

    def holds(self, latitude: FloatArray, longitude: FloatArray) -> FloatArray:
        """1 for points of the area and 0 for others."""
        within = (latitude >= self.south) & (latitude <= self.north)
        width = self.east - self.west
        if width < 360.0:
            within &= (longitude - self.west) % 360.0 <= width % 360.0
        return within.astype(np.float64)


def cell_at(grid: RingGrid, latitude: float, longitude: float) -> dict[str, int]:
    """Index, by dimension, of the cell whose centre is nearest on the sphere."""
    lat, lon = np.deg2rad(grid.coordinates)
    here, east = np.deg2rad(latitude), np.deg2rad(longitude)
    cosine = np.sin(lat) * np.sin(here) + np.cos(lat) * np.cos(here) * np.cos(lon - east)
    index = np.unravel_index(int(np.argmax(cosine)), grid.shape)
    return {dim: int(i) for dim, i in zip(grid.dims, index, strict=True)}


def area_mean(dataset: xr.Dataset, name: str, area: Area) -> xr.DataArray:
    """Mean of a variable over an area, weighted by the quadrature of the grid.

    Missing cells do not count.

    Raises:
        ValueError: If no cell has its centre in the area.
    """
    grid = grid_of(dataset)
    weights = grid.area * area.holds(*grid.coordinates)
    if not weights.any():
        raise ValueError(f"no cell of {grid.describe()} has its centre in {area}")
    found: xr.DataArray = (
        dataset[name]
        .weighted(xr.DataArray(weights, dims=grid.dims))
        .mean(grid.dims, keep_attrs=True)
    )
    return found
