"""The remainder: variance of the fields that no coefficient up to lmax carries.

Point-like fields (precipitation) have a good part of their variance at scales that the grid shows
and the band limit does not. A score learned below the band limit says nothing of it, so generated
fields get it back as noise: white on the grid, freed of everything that analysis up to lmax sees,
with the standard deviation that each cell had in training. Spectra up to lmax do not change, and
the pointwise variance is whole again. On other grids than the source's the noise is white in the
degrees beyond, up to as many as the source has cells (pipeline/fields/other_grid).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from pipeline.arrays import FloatArray
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.pairs import Pairs
from pipeline.sphere.stacked import analysis, synthesis

PROBES = 128


def remainder(fields: FloatArray, grid: RingGrid, lmax: int, pairs: Pairs = ()) -> FloatArray:
    """Fields (..., channel, *grid) less what their coefficients up to lmax give back.

    Without pairs of winds, the channel axis may be absent.
    """
    coefficients = analysis(grid, lmax, pairs, fields)
    left: FloatArray = fields - synthesis(grid, pairs, coefficients)
    return left


def remainder_noise(
    white: FloatArray, deviation: FloatArray, grid: RingGrid, lmax: int, pairs: Pairs = ()
) -> FloatArray:
    """Noise with the given standard deviation, without degrees up to lmax but for what a deviation
    that varies from cell to cell mixes into them.

    Args:
        white: white noise on the grid, (..., channel, *grid).
        deviation: standard deviation of the remainder in each cell, broadcast against it.
    """
    noise = deviation * remainder(white, grid, lmax, pairs)
    at = np.moveaxis(noise, noise.ndim - len(grid.shape) - 1, 0) if pairs else noise
    winds = {place for pair in pairs for place in pair}
    for place in range(len(at)) if pairs else ():
        at[place] /= white_deviation(grid, lmax, place in winds)
    return noise if pairs else noise / white_deviation(grid, lmax)


def band_noise(white: FloatArray, grid: RingGrid, lmax: int, pairs: Pairs = ()) -> FloatArray:
    """Isotropic noise (..., channel, *grid) of variance one, of the degrees beyond lmax.

    Args:
        white: white coefficients, (..., channel, (last + 1)**2); those up to lmax are not looked
            at.
    """
    first, size = (lmax + 1) ** 2, white.shape[-1]
    coefficients = np.sqrt(4.0 * np.pi / (size - first)) * white.astype(np.float64)
    coefficients[..., :first] = 0.0
    return synthesis(grid, pairs, coefficients)


@lru_cache(maxsize=8)
def white_deviation(grid: RingGrid, lmax: int, wind: bool = False) -> FloatArray:
    """Standard deviation of the remainder of white noise, the same along a ring, by probing.

    Of a wind that of a component, the same for both.
    """
    components, pairs = (2, ((0, 1),)) if wind else (1, ())
    white = np.random.default_rng(0).standard_normal((PROBES, components, *grid.shape))
    cells = np.square(remainder(white, grid, lmax, pairs)).mean(axis=(0, 1)).ravel()
    ring = np.repeat(np.arange(len(grid.points)), grid.points)[grid.ring_positions]
    rings = np.bincount(ring, weights=cells) / np.asarray(grid.points)
    deviation: FloatArray = np.sqrt(rings[ring]).reshape(grid.shape)
    return deviation
