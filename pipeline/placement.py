"""The normals of a law whose fields are wanted on another grid.

Coefficients know no grid; the maps that go with them have one number for each cell of the source.
The climatology moves exactly up to the band limit (pipeline/regrid); scale, deviations and all else
bilinearly, so that they stay positive and gain no extremes; what masked cells lack is first filled
from around them. A cell is masked where more than half of its bilinear weight is.

The remainder is white noise on the source's own grid. Elsewhere it is noise of the degrees beyond
the tail, as many as the source has cells: one realization is one function on the sphere, whatever
the grid that it is shown on, and has no finer scales than the source.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from pipeline.grids import grid_coordinates
from pipeline.masks import harmonic_fill
from pipeline.regrid import bilinear, moved
from pipeline.sphere import FloatArray, RingGrid
from pipeline.transform import Normals

__all__ = ["placed_normals"]


def placed_normals(normals: xr.Dataset, grid: RingGrid) -> xr.Dataset:
    """The normals (schema: flows/normals) of the same law with fields on this grid.

    Their attribute `noise_lmax` is the last degree of the remainder's noise.
    """
    known = Normals.of(normals)
    source, maps = known.grid, {}
    for name, array in normals.data_vars.items():
        if set(source.dims) <= set(array.dims):
            ordered = array.transpose("channel", ..., *source.dims)
            values = _moved(str(name), ordered.to_numpy().astype(np.float64), known, grid)
            maps[name] = ([d for d in ordered.dims if d not in source.dims] + [*grid.dims], values)
    placed = normals.drop_dims(source.dims).drop_vars("crs", errors="ignore")
    attrs = {"grid": grid.describe(), "noise_lmax": int(np.sqrt(source.size)) - 1}
    return placed.assign(maps).assign_coords(grid_coordinates(grid)).assign_attrs(attrs)


def _moved(name: str, values: FloatArray, known: Normals, grid: RingGrid) -> FloatArray:
    if name == "mask":
        return (bilinear(values, known.grid, grid) > 0.5).astype(np.int8)
    for channel, mask in enumerate(known.mask):
        if mask.any():
            values[channel] = harmonic_fill(known.grid, mask)(values[channel])
    if name == "climatology":
        return moved(values, known.grid, grid, known.tail)
    return bilinear(values, known.grid, grid)
