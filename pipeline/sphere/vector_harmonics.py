"""Vector spherical harmonics: winds and other tangent fields on a `RingGrid`, and their potentials.

A tangent field (u eastward, v northward) on the unit sphere is the gradient of a velocity potential
plus the rotation of a stream function, V = grad chi + k x grad psi, k upward. Its coefficients are

    spheroidal_lm = sqrt(l(l+1)) chi_lm,      toroidal_lm = sqrt(l(l+1)) psi_lm,

those of the orthonormal bases grad R_lm / sqrt(l(l+1)) and k x grad R_lm / sqrt(l(l+1)) with the
real harmonics R_lm and the layout of pipeline/sphere/coefficients.py; the coefficient of degree 0
is zero. Divergence and vorticity have the coefficients -sqrt(l(l+1)) times these. In healpy's
spin-1 convention, maps (southward = -v, eastward = u), they are E and B.

With z = v - i u and c = spheroidal + i toroidal both parts come apart by signed order m:

    z(lat, lon) = sum_m exp(i m lon) sum_l W_lm(lat) g_lm,    g_l,+-m = (c_lm +- i c_l,-m) / sqrt2,

where W_lm = (dP_l|m| / dlat + m P_l|m| / cos lat) / sqrt(l(l+1)) is real, and g_l0 = c_l0. So
analysis is one complex FFT along the rings and one real least-squares matrix per signed order, and
it is exact for both parts at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Protocol

import ducc0
import numpy as np
import numpy.typing as npt

from pipeline.arrays import FloatArray
from pipeline.sphere.coefficients import from_complex, to_complex
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import blocks, require_shape
from pipeline.sphere.legendre import inverse, legendre, require_rings
from pipeline.sphere.rings import ring_geometry

__all__ = ["VectorHarmonics", "vector_plan"]


class VectorHarmonics:
    """Transforms of tangent fields between one grid and one lmax; `vector_plan` keeps them.

    Fields keep the data order of the grid. Work is done in blocks of bounded size, on one thread.
    """

    def __init__(self, grid: RingGrid, lmax: int, dtype: npt.DTypeLike = np.float32) -> None:
        self.grid, self.lmax, self.dtype = grid, lmax, np.dtype(dtype)
        if self.dtype not in (np.float32, np.float64):
            raise ValueError(f"transforms run in float32 or float64; got {self.dtype}")
        if lmax < 1:
            raise ValueError(f"tangent fields have degrees from 1 on; got lmax={lmax}")
        self._complex = np.result_type(self.dtype, np.complex64)  # of a pair of fields in work
        healpix = grid.kind == "healpix"
        self._maps: _Maps = (
            _Healpix(grid, lmax, self.dtype) if healpix else _Rings(grid, lmax, self.dtype)
        )

    def analysis(
        self, eastward: FloatArray, northward: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Spheroidal and toroidal coefficients; exact for fields of degrees up to lmax.

        At a pole the components are along east and north of the meridian of each longitude.

        Args:
            eastward, northward: Shape (..., *grid.shape), finite.
        Returns:
            Two arrays (..., (lmax + 1)**2), in the unit of the field.
        """
        batch = require_shape("eastward", eastward, self.grid.shape)
        require_shape("northward", northward, (*batch, *self.grid.shape))
        u, v = (part.reshape(-1, *self.grid.shape) for part in (eastward, northward))
        out = np.empty((2, len(u), (self.lmax + 1) ** 2), self.dtype)
        for block in blocks(len(u), self.grid, self._complex):
            self._maps.analysis(u[block], v[block], out[:, block])
        spheroidal, toroidal = out.reshape(2, *batch, -1)
        return spheroidal, toroidal

    def synthesis(
        self, spheroidal: FloatArray, toroidal: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Eastward and northward fields (..., *grid.shape) of coefficients (..., (lmax + 1)**2).

        Raises:
            ValueError: If a coefficient of degree 0 is not zero: no tangent field has one.
        """
        shape = ((self.lmax + 1) ** 2,)
        batch = require_shape("spheroidal", spheroidal, shape)
        require_shape("toroidal", toroidal, (*batch, *shape))
        for name, part in (("spheroidal", spheroidal), ("toroidal", toroidal)):
            if np.any(part[..., 0]):
                raise ValueError(
                    f"{name} coefficients of degree 0 must be zero; got "
                    f"{np.abs(part[..., 0]).max():.6g}"
                )
        s, t = (part.reshape(-1, *shape) for part in (spheroidal, toroidal))
        out = np.empty((2, len(s), *self.grid.shape), self.dtype)
        for block in blocks(len(s), self.grid, self._complex):
            self._maps.synthesis(s[block], t[block], out[:, block])
        eastward, northward = out.reshape(2, *batch, *self.grid.shape)
        return eastward, northward


def vector_plan(grid: RingGrid, lmax: int, dtype: str = "float32") -> VectorHarmonics:
    """The `VectorHarmonics` of these arguments, made once per process."""
    return _plan(grid, lmax, dtype)


@lru_cache(maxsize=8)
def _plan(grid: RingGrid, lmax: int, dtype: str) -> VectorHarmonics:
    return VectorHarmonics(grid, lmax, dtype)


class _Maps(Protocol):
    def analysis(self, eastward: FloatArray, northward: FloatArray, out: FloatArray) -> None: ...
    def synthesis(self, spheroidal: FloatArray, toroidal: FloatArray, out: FloatArray) -> None: ...


class _Rings:
    """Complex FFT of z into a buffer (order, lat, field), then a matrix for each signed order."""

    def __init__(self, grid: RingGrid, lmax: int, dtype: np.dtype[Any]) -> None:
        self.nlat, self.nlon = grid.shape
        self.lmax, self.complex = lmax, np.result_type(dtype, np.complex64)
        weight = np.sqrt(grid.ring_weights * np.asarray(grid.points))
        self.analyses: dict[int, FloatArray] = {}
        self.syntheses: dict[int, FloatArray] = {}
        for m, table in spin_tables(grid, lmax):
            self.analyses[m] = np.ascontiguousarray(inverse(grid, lmax, m, weight, table), dtype)
            self.syntheses[m] = np.ascontiguousarray(table, dtype)
        # Rows of g: order 0, orders 1 to lmax, orders -1 to -lmax, each with its degrees.
        degree = [np.arange(max(m, 1), lmax + 1) for m in range(lmax + 1)]
        ends = np.cumsum([part.size for part in degree])
        self.spans = {
            m: slice(end - part.size, end)
            for m, part, end in zip(range(lmax + 1), degree, ends.tolist(), strict=True)
        }
        negative = int(ends[-1]) - lmax
        for m in range(1, lmax + 1):
            span = self.spans[m]
            self.spans[-m] = slice(span.start + negative, span.stop + negative)
        self.parts = slice(0, lmax), slice(lmax, int(ends[-1])), slice(int(ends[-1]), None)
        centre = np.concatenate([part * (part + 1) for part in degree])
        order = np.concatenate([np.full(part.size, m) for m, part in enumerate(degree)])
        self.zonal = centre[:lmax]
        self.plus, self.minus = (centre + order)[lmax:], (centre - order)[lmax:]
        self.turn: npt.NDArray[np.complexfloating] | None = None
        if first := grid.first_longitudes[0]:
            turn = np.exp(-1j * np.fft.fftfreq(self.nlon, 1 / self.nlon) * np.deg2rad(first))
            self.turn = turn.astype(self.complex)[:, None, None]

    def analysis(self, eastward: FloatArray, northward: FloatArray, out: FloatArray) -> None:
        count, real = len(eastward), out.dtype
        z = np.empty(eastward.shape, self.complex)
        z.real, z.imag = northward, -eastward
        waves = np.empty((self.nlon, self.nlat, count), self.complex)
        ducc0.fft.c2c(z, axes=(2,), forward=True, inorm=2, out=waves.transpose(2, 1, 0))
        if self.turn is not None:
            waves *= self.turn
        g = np.empty(((self.lmax + 1) ** 2 - 1, count), self.complex)
        for m, table in self.analyses.items():
            np.matmul(table, waves[m].view(real), out=g[self.spans[m]].view(real))
        zonal, plus, minus = (g[part] for part in self.parts)
        c = np.zeros(((self.lmax + 1) ** 2, count), self.complex)
        c[self.zonal] = zonal
        c[self.plus] = (plus + minus) * math.sqrt(0.5)
        c[self.minus] = (plus - minus) * (-1j * math.sqrt(0.5))
        out[0], out[1] = c.real.T, c.imag.T

    def synthesis(self, spheroidal: FloatArray, toroidal: FloatArray, out: FloatArray) -> None:
        count, real = len(spheroidal), out.dtype
        c = np.empty(((self.lmax + 1) ** 2, count), self.complex)
        c.real, c.imag = spheroidal.T, toroidal.T
        plus, minus = c[self.plus] * math.sqrt(0.5), c[self.minus] * (1j * math.sqrt(0.5))
        g = np.concatenate([c[self.zonal], plus + minus, plus - minus])
        waves = np.empty((self.nlon, self.nlat, count), self.complex)
        for m, table in self.syntheses.items():
            np.matmul(table, g[self.spans[m]].view(real), out=waves[m].view(real))
        waves[self.lmax + 1 : self.nlon - self.lmax] = 0.0
        if self.turn is not None:
            waves *= self.turn.conj()
        z = ducc0.fft.c2c(waves.transpose(2, 1, 0), axes=(2,), forward=False)
        np.negative(z.imag, out=out[0])
        out[1] = z.real


class _Healpix:
    """ducc0's spin-1 synthesis, and its least-squares inverse by iteration; float64 inside."""

    def __init__(self, grid: RingGrid, lmax: int, dtype: np.dtype[Any]) -> None:
        if lmax > grid.max_lmax:
            raise ValueError(
                f"analysis on {grid.describe()} inverts synthesis for lmax 1 to {grid.max_lmax} "
                f"(2 nside); got lmax={lmax}"
            )
        self.geometry = {**ring_geometry(grid), "lmax": lmax, "spin": 1, "nthreads": 1}
        self.accuracy = 1e-11 if dtype == np.float64 else 1e-7
        self.positions = grid.ring_positions
        self.cells = np.argsort(self.positions)

    def analysis(self, eastward: FloatArray, northward: FloatArray, out: FloatArray) -> None:
        maps = np.stack([-northward, eastward], axis=1).astype(np.float64)[..., self.cells]
        alm = ducc0.sht.pseudo_analysis(
            map=maps, maxiter=60, epsilon=self.accuracy, **self.geometry
        )[0]
        out[0], out[1] = from_complex(alm[:, 0]), from_complex(alm[:, 1])
        out[..., 0] = 0.0

    def synthesis(self, spheroidal: FloatArray, toroidal: FloatArray, out: FloatArray) -> None:
        parts = np.stack([spheroidal, toroidal], axis=1).astype(np.float64)
        maps = ducc0.sht.synthesis(alm=to_complex(parts), **self.geometry)[..., self.positions]
        out[0], out[1] = maps[:, 1], -maps[:, 0]


def spin_tables(grid: RingGrid, lmax: int) -> Iterator[tuple[int, FloatArray]]:
    """Signed order m and W_lm, (lat, degrees max(1, |m|)..lmax), in float64.

    Raises:
        ValueError: If the grid's rings differ in length or do not determine lmax.
    """
    require_rings(grid, lmax)
    latitude = np.deg2rad(grid.latitudes)
    height, cosine = np.sin(latitude)[:, None], np.cos(latitude)[:, None]
    for m, over in enumerate(legendre(latitude, lmax, over_cosine=True), start=1):
        if m == 1:
            yield 0, -cosine * over
        degree = np.arange(m, lmax + 1)
        slope = -degree * height * over
        below = np.sqrt((degree**2 - m**2) * (2 * degree + 1) / (2 * degree - 1))
        slope[:, 1:] += below[1:] * over[:, :-1]
        norm = np.sqrt(degree * (degree + 1))
        yield m, (slope + m * over) / norm
        yield -m, (slope - m * over) / norm
