"""Global maps in the Equal Earth projection, drawn by matplotlib alone.

A field is resampled to the pixels of the map bilinearly. Coastlines: coastline-110m.md.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize

from pipeline.arrays import FloatArray
from pipeline.sphere.interpolation import at_points, interpolation
from pipeline.sphere.named_grids import grid_of

NO_DATA = "#dfe3e8"
COASTLINE = "coastline-110m.json"
POLYNOMIAL = np.array([1.340264, -0.081106, 0.000893, 0.003796])  # Equal Earth, A1 ... A4
POWERS = np.array([1, 3, 7, 9])
M = np.sqrt(3) / 2

DARK = ["#042333", "#0f3375", "#403891", "#6b4596", "#90548b"]
BRIGHT = ["#b8627d", "#de7065", "#f68f46", "#f9b641", "#e8fa5b"]
THERMAL = LinearSegmentedColormap.from_list("thermal", [*DARK, *BRIGHT])


def project(longitude: FloatArray, latitude: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Equal Earth coordinates of degrees, longitude in [-180, 180].

    References:
        Šavrič, Patterson & Jenny (2019), doi:10.1080/13658816.2018.1504949
    """
    theta = np.arcsin(M * np.sin(np.deg2rad(latitude)))
    y = sum(a * theta**n for a, n in zip(POLYNOMIAL, POWERS, strict=True))
    x = np.deg2rad(longitude) * np.cos(theta) / (M * _slope(theta))
    return x, y


def unproject(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Degrees of Equal Earth coordinates; longitude beyond +-180 lies outside the map."""
    theta = y / POLYNOMIAL[0]
    for _ in range(12):
        value = sum(a * theta**n for a, n in zip(POLYNOMIAL, POWERS, strict=True))
        theta = theta - (value - y) / _slope(theta)
    longitude = np.rad2deg(M * x * _slope(theta) / np.cos(theta))
    return longitude, np.rad2deg(np.arcsin(np.clip(np.sin(theta) / M, -1, 1)))


def _slope(theta: FloatArray) -> FloatArray:
    terms = zip(POLYNOMIAL, POWERS, strict=True)
    return np.asarray(sum(a * n * theta ** (n - 1) for a, n in terms))


class Raster:
    """The way from one grid to the pixels of a map."""

    def __init__(self, grid: xr.DataArray | xr.Dataset, width: int = 420) -> None:
        """Args: grid: Anything on the grid, with its coordinates."""
        (right, _), (_, top) = project(np.array([180.0, 0]), np.array([0.0, 90]))
        self.extent = (-right, right, -top, top)
        height = round(width * top / right)
        x = (np.arange(width) + 0.5) / width * 2 * right - right
        y = (np.arange(height) + 0.5) / height * 2 * top - top
        longitude, latitude = unproject(*np.meshgrid(x, y))
        self.inside = np.abs(longitude) <= 180
        rings = grid_of(grid.to_dataset(name="grid") if isinstance(grid, xr.DataArray) else grid)
        self.dims = rings.dims
        self._weights = interpolation(rings, latitude[self.inside], longitude[self.inside])

    def __call__(self, field: xr.DataArray) -> FloatArray:
        """Pixels, south first, NaN outside the map and where most of what is around is missing."""
        pixels = np.full(self.inside.shape, np.nan)
        values = field.transpose(*self.dims).values.ravel()
        pixels[self.inside] = at_points(values, self._weights)
        return pixels


@functools.cache
def coastlines() -> list[FloatArray]:
    """Projected polylines, each (point, 2)."""
    text = Path(__file__).with_name(COASTLINE).read_text(encoding="utf-8")
    lines = (np.asarray(line).reshape(-1, 2) for line in json.loads(text))
    return [np.stack(project(line[:, 0], line[:, 1]), axis=1) for line in lines]


def draw(
    axes: Axes, raster: Raster, field: xr.DataArray, cmap: Colormap | str, norm: Normalize
) -> Any:
    """Draw a field with coastlines and the outline of the globe, grey where it is missing.

    Returns:
        The image.
    """
    image = axes.imshow(
        raster(field), extent=raster.extent, origin="lower", cmap=cmap, norm=norm,
        interpolation="bilinear", rasterized=True,
    )  # fmt: skip
    axes.add_collection(LineCollection(coastlines(), color="black", linewidth=0.45, alpha=0.65))
    edge = np.linspace(-90, 90, 181)
    sides = [project(np.full(181, side), edge) for side in (-180.0, 180.0)]
    x = np.concatenate([sides[0][0], sides[1][0][::-1], sides[0][0][:1]])
    y = np.concatenate([sides[0][1], sides[1][1][::-1], sides[0][1][:1]])
    (outline,) = axes.fill(x, y, facecolor="none", edgecolor="#333", linewidth=0.6)
    axes.fill(x, y, facecolor=NO_DATA, zorder=-1)
    image.set_clip_path(outline)
    margin = 0.015 * raster.extent[1]
    axes.set_xlim(-raster.extent[1] - margin, raster.extent[1] + margin)
    axes.set_ylim(-raster.extent[3] - margin, raster.extent[3] + margin)
    axes.set_aspect("equal")
    axes.axis("off")
    return image
