"""Harmonics of stacked channels: scalars by themselves, pairs of wind components as one field.

Channel i of the fields is variable i. Channel i of the coefficients belongs to it too, but of a
pair (u, v) the first holds the divergent wind (spheroidal coefficients) and the second the
rotational wind (toroidal ones): vector_harmonics.py. A wind has no degree 0; what draws have there
is not looked at.
"""

from __future__ import annotations

import ducc0
import numpy as np

from pipeline.arrays import FloatArray
from pipeline.sphere.coefficients import lmax_of, to_complex
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import plan
from pipeline.sphere.interpolation import synthesis as scalar_synthesis
from pipeline.sphere.pairs import Pairs
from pipeline.sphere.rings import ring_geometry
from pipeline.sphere.vector_harmonics import vector_plan

__all__ = ["analysis", "synthesis"]


def analysis(
    grid: RingGrid, lmax: int, pairs: Pairs, fields: FloatArray, precision: str = "float64"
) -> FloatArray:
    """Coefficients (..., channel, (lmax + 1)**2), in this precision, of fields
    (..., channel, *grid)."""
    if not pairs:
        return plan(grid, lmax, precision).analysis(fields)
    axis = fields.ndim - len(grid.shape) - 1
    count = fields.shape[axis]
    out = np.empty((*fields.shape[:axis], count, (lmax + 1) ** 2), precision)
    at = np.moveaxis(fields, axis, 0)
    scalars = _scalars(count, pairs)
    if scalars:
        out[..., scalars, :] = plan(grid, lmax, precision).analysis(fields.take(scalars, axis))
    for east, north in pairs:
        parts = vector_plan(grid, lmax, precision).analysis(at[east], at[north])
        out[..., east, :], out[..., north, :] = parts
    return out


def synthesis(grid: RingGrid, pairs: Pairs, coefficients: FloatArray) -> FloatArray:
    """Fields (..., channel, *grid) of coefficients (..., channel, (lmax + 1)**2), float64.

    The grid need not resolve the degrees.
    """
    if not pairs:
        return scalar_synthesis(grid, coefficients)
    *batch, count, _ = coefficients.shape
    out = np.empty((*batch, count, *grid.shape))
    at = np.moveaxis(out, len(batch), 0)
    scalars = _scalars(count, pairs)
    if scalars:
        fields = scalar_synthesis(grid, np.ascontiguousarray(coefficients[..., scalars, :]))
        at[scalars] = np.moveaxis(fields, len(batch), 0)
    for east, north in pairs:
        parts = [coefficients[..., place, :].copy() for place in (east, north)]
        for part in parts:
            part[..., 0] = 0.0
        at[east], at[north] = _winds(grid, *parts)
    return out


def _winds(
    grid: RingGrid, spheroidal: FloatArray, toroidal: FloatArray
) -> tuple[FloatArray, FloatArray]:
    lmax = lmax_of(spheroidal.shape[-1])
    if lmax <= grid.max_lmax:
        return vector_plan(grid, lmax, "float64").synthesis(spheroidal, toroidal)
    parts = np.stack([spheroidal, toroidal], axis=-2).reshape(-1, 2, spheroidal.shape[-1])
    maps = ducc0.sht.synthesis(
        alm=to_complex(parts), lmax=lmax, spin=1, nthreads=1, **ring_geometry(grid)
    )[..., grid.ring_positions]
    shape = (*spheroidal.shape[:-1], *grid.shape)
    return maps[:, 1].reshape(shape), -maps[:, 0].reshape(shape)


def _scalars(count: int, pairs: Pairs) -> list[int]:
    vectors = {place for pair in pairs for place in pair}
    return [place for place in range(count) if place not in vectors]
