"""The normals of a law whose fields are wanted on another grid.

Coefficients know no grid; the maps that go with them have one number for each cell of the source.
The climatology moves exactly up to the band limit (pipeline/sphere/interpolation); scale,
deviations and fitted ranks move bilinearly, so that they stay positive, in order, and gain no
extremes; what masked cells lack is first filled from around them. A cell is masked where more than
half of its bilinear weight is.

The remainder is white noise on the source's own grid. Elsewhere it is noise of the degrees beyond
the tail, as many as the source has cells: one realization is one function on the sphere, whatever
the grid that it is shown on, and has no finer scales than the source.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.special import ndtri

from pipeline.arrays import FloatArray
from pipeline.fields.standardisation import Normals
from pipeline.sphere.fill import harmonic_fill
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.interpolation import bilinear
from pipeline.sphere.named_grids import grid_coordinates
from pipeline.sphere.pairs import Pairs
from pipeline.sphere.stacked import analysis, synthesis

__all__ = ["moved", "placed_normals"]


def placed_normals(normals: xr.Dataset, grid: RingGrid) -> xr.Dataset:
    """The normals (schema: flows/stages/preprocess/normals) of the same law with fields on this
    grid.

    Their attribute `noise_lmax` is the last degree of the remainder's noise.
    """
    known = Normals.of(normals)
    source = known.grid
    climatology, scale = known.climatology.copy(), known.scale.copy()
    log_scale = known.log_scale.copy()
    for channel, mask in enumerate(known.mask):
        if mask.any():
            fill = harmonic_fill(source, mask)
            climatology[:, channel] = fill(climatology[:, channel])
            scale[channel] = fill(scale[channel])
            if len(log_scale):
                log_scale[:, channel] = fill(log_scale[:, channel])
    seasonal = moved(climatology, source, grid, known.tail, known.pairs).swapaxes(0, 1)
    masked = bilinear(known.mask.astype(np.float64), source, grid) > 0.5
    dims = ("channel", *grid.dims)
    placed = normals.drop_dims(source.dims).assign(
        climatology=(("channel", "season", *grid.dims), seasonal),
        scale=(dims, bilinear(scale, source, grid)),
        mask=(dims, masked.astype(np.int8)),
        remainder=(dims, bilinear(known.remainder, source, grid)),
    )
    if len(log_scale):
        changes = bilinear(log_scale, source, grid).swapaxes(0, 1)
        placed = placed.assign(log_scale=(("channel", "change", *grid.dims), changes))
    if "ranked" in normals.dims:
        placed = placed.assign(_ranks(normals, source, grid))
    attrs = {"grid": grid.describe(), "noise_lmax": int(np.sqrt(source.size)) - 1}
    return (
        placed.drop_vars("crs", errors="ignore")
        .assign_coords(grid_coordinates(grid))
        .assign_attrs(attrs)
    )


def moved(
    maps: FloatArray, source: RingGrid, target: RingGrid, lmax: int, pairs: Pairs = ()
) -> FloatArray:
    """Maps (..., channel, *source) at the points of another grid.

    Exact for degrees up to lmax; what is left of the maps moves bilinearly.
    """
    coefficients = analysis(source, lmax, pairs, maps)
    left = maps - synthesis(source, pairs, coefficients)
    return synthesis(target, pairs, coefficients) + bilinear(left, source, target)


def _ranks(normals: xr.Dataset, source: RingGrid, grid: RingGrid) -> dict[str, xr.Variable]:
    """The fitted ranks on another grid; the atom keeps its depth below the lowest score."""
    rarest = 1.0 - normals["rank_levels"].isel(knot=-1)
    worlds = ("world",) if "world" in normals.dims else ()
    ones = [1] * (len(worlds) + len(grid.dims))
    floor = rarest.to_numpy().reshape(-1, *ones)
    dims = ("ranked", *worlds, *grid.dims)
    fills = [
        harmonic_fill(source, mask)
        for mask in normals["mask"]
        .sel(channel=normals["ranked"].to_numpy())
        .transpose("channel", *source.dims)
        .to_numpy()
        .astype(bool)
    ]

    def moved_bilinearly(maps: FloatArray) -> FloatArray:
        filled = np.stack([fill(part) for fill, part in zip(fills, maps, strict=True)])
        return bilinear(filled, source, grid)

    share, atom, quantiles, scale = (
        normals[f"rank_{part}"].transpose("ranked", *worlds, ..., *source.dims).to_numpy()
        for part in ("share", "atom", "quantiles", "tail_scale")
    )
    depth = moved_bilinearly(ndtri(np.maximum(share, floor)) - atom)
    share = moved_bilinearly(share)
    return {
        "rank_quantiles": xr.Variable(
            ("ranked", *worlds, "knot", *grid.dims), moved_bilinearly(quantiles)
        ),
        "rank_share": xr.Variable(dims, share),
        "rank_tail_scale": xr.Variable(dims, moved_bilinearly(scale)),
        "rank_atom": xr.Variable(dims, ndtri(np.maximum(share, floor)) - depth),
    }
