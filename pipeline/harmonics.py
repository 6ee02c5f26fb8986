"""Spherical harmonic analysis and synthesis between fields on a `RingGrid` and real coefficients.

Coefficients: real, orthonormal, degree-major on the last axis (pipeline/coefficients.py). On rings
of equal length a transform is two linear maps: an FFT along longitude, then for each order m a
matrix product along latitude (pipeline/legendre.py). HEALPix is left to ducc0. Differentiable
transforms: pipeline/torch_harmonics.py; winds: pipeline/vector_harmonics.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Protocol

import ducc0
import numpy as np
import numpy.typing as npt

from pipeline.coefficients import from_complex, orders, to_complex
from pipeline.legendre import sectors
from pipeline.sphere import FloatArray, RingGrid

__all__ = ["Harmonics", "plan"]

BLOCK_BYTES = 1 << 21


class Harmonics:
    """Transforms between one grid and one lmax, in one floating-point type; `plan` keeps them.

    Fields keep the data order of the grid. Work is done in blocks of bounded size, on one thread.
    Copies and pickles are found again through `plan`, so tables do not travel.
    """

    def __init__(self, grid: RingGrid, lmax: int, dtype: npt.DTypeLike = np.float32) -> None:
        self.grid, self.lmax, self.dtype = grid, lmax, np.dtype(dtype)
        if self.dtype not in (np.float32, np.float64):
            raise ValueError(f"transforms run in float32 or float64; got {self.dtype}")
        healpix = grid.kind == "healpix"
        self._maps: _Maps = _Healpix(grid, lmax) if healpix else _Rings(grid, lmax, self.dtype)

    def __reduce__(self) -> tuple[Callable[..., Harmonics], tuple[RingGrid, int, str]]:
        return plan, (self.grid, self.lmax, self.dtype.name)

    def analysis(self, fields: FloatArray) -> FloatArray:
        """Coefficients of fields; exact for fields of degrees up to lmax.

        Args:
            fields: Shape (..., *grid.shape), finite.
        Returns:
            Shape (..., (lmax + 1)**2), in the unit of the field.
        """
        return self._to_coefficients(fields, self._maps.analysis)

    def synthesis(self, coefficients: FloatArray) -> FloatArray:
        """Fields (..., *grid.shape) of coefficients (..., (lmax + 1)**2)."""
        return self._to_fields(coefficients, self._maps.synthesis)

    def analysis_adjoint(self, coefficients: FloatArray) -> FloatArray:
        """Fields (..., *grid.shape): the transposed matrix of `analysis` applied to coefficients.

        It carries gradients with respect to coefficients back to fields. Not on HEALPix, where
        analysis is an iteration.
        """
        return self._to_fields(coefficients, self._maps.analysis_adjoint)

    def synthesis_adjoint(self, fields: FloatArray) -> FloatArray:
        """Coefficients (..., (lmax + 1)**2): the transposed matrix of `synthesis` on fields."""
        return self._to_coefficients(fields, self._maps.synthesis_adjoint)

    def _to_coefficients(
        self, fields: FloatArray, kernel: Callable[[FloatArray], FloatArray]
    ) -> FloatArray:
        batch = require_shape("fields", fields, self.grid.shape)
        rows = fields.reshape(-1, *self.grid.shape)
        out = np.empty((len(rows), (self.lmax + 1) ** 2), self.dtype)
        for block in blocks(len(rows), self.grid, self.dtype):
            out[block] = kernel(np.ascontiguousarray(rows[block], self.dtype))
        return out.reshape(*batch, out.shape[-1])

    def _to_fields(
        self, coefficients: FloatArray, kernel: Callable[[FloatArray, FloatArray], None]
    ) -> FloatArray:
        batch = require_shape("coefficients", coefficients, ((self.lmax + 1) ** 2,))
        rows = coefficients.reshape(-1, coefficients.shape[-1])
        out = np.empty((len(rows), *self.grid.shape), self.dtype)
        for block in blocks(len(rows), self.grid, self.dtype):
            kernel(np.ascontiguousarray(rows[block], self.dtype), out[block])
        return out.reshape(*batch, *self.grid.shape)


def plan(grid: RingGrid, lmax: int, dtype: str = "float32") -> Harmonics:
    """The `Harmonics` of these arguments, made once per process."""
    return _plan(grid, lmax, dtype)


@lru_cache(maxsize=8)
def _plan(grid: RingGrid, lmax: int, dtype: str) -> Harmonics:
    return Harmonics(grid, lmax, dtype)


def blocks(rows: int, grid: RingGrid, dtype: np.dtype[Any]) -> Iterator[slice]:
    """Slices of so many fields that a block stays in the processor's cache."""
    step = max(32, BLOCK_BYTES // (grid.size * dtype.itemsize))
    return (slice(start, start + step) for start in range(0, rows, step))


def require_shape(what: str, x: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The leading axes of x, whose last ones must be `shape`."""
    leading = x.ndim - len(shape)
    if leading < 0 or tuple(x.shape[leading:]) != shape:
        raise ValueError(f"{what} must end in axes of {shape}; got {tuple(x.shape)}")
    return tuple(x.shape[:leading])


class _Maps(Protocol):
    def analysis(self, fields: FloatArray) -> FloatArray: ...
    def synthesis(self, coefficients: FloatArray, out: FloatArray) -> None: ...
    def analysis_adjoint(self, coefficients: FloatArray, out: FloatArray) -> None: ...
    def synthesis_adjoint(self, fields: FloatArray) -> FloatArray: ...


class _Rings:
    """FFT along longitude into a buffer (order, lat, field), then matrix products per sector."""

    def __init__(self, grid: RingGrid, lmax: int, dtype: np.dtype[Any]) -> None:
        self.sectors = sectors(grid, lmax, dtype.name)
        self.nlat, self.nlon = grid.shape
        self.half = (self.nlat + 1) // 2 if grid.symmetric else self.nlat
        sizes = [sector.degrees.size for sector in self.sectors]
        ends = np.cumsum(sizes)
        self.spans = [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
        # Sectors work on a real and an imaginary plane; at m = 0 the latter is void.
        self.spread = np.concatenate(
            [s.degrees * (s.degrees + 1) + s.order * np.array([[1], [-1]]) for s in self.sectors],
            axis=1,
        )
        self.pick = np.empty((lmax + 1) ** 2, np.intp)
        for plane in (1, 0):
            self.pick[self.spread[plane]] = plane * ends[-1] + np.arange(ends[-1])
        # A wave h_m of order m > 0 stands for that of -m too.
        self.weight = np.where(orders(lmax) == 0, 1.0, 2.0).astype(dtype)
        self.turn: npt.NDArray[np.complexfloating] | None = None
        if first := grid.first_longitudes[0]:
            turn = np.exp(-1j * np.arange(lmax + 1) * np.deg2rad(first))
            self.turn = turn.astype(np.result_type(dtype, np.complex64))[:, None, None]

    def analysis(self, fields: FloatArray) -> FloatArray:
        return self._from_waves(fields, [s.analysis for s in self.sectors], True)

    def synthesis(self, coefficients: FloatArray, out: FloatArray) -> None:
        self._to_waves(coefficients, [s.synthesis for s in self.sectors], out, False)

    def analysis_adjoint(self, coefficients: FloatArray, out: FloatArray) -> None:
        tables = [s.analysis for s in self.sectors]
        self._to_waves(coefficients / self.weight, tables, out, True)

    def synthesis_adjoint(self, fields: FloatArray) -> FloatArray:
        sums = self._from_waves(fields, [s.synthesis for s in self.sectors], False)
        sums *= self.weight
        return sums

    def _from_waves(self, fields: FloatArray, tables: list[FloatArray], mean: bool) -> FloatArray:
        """Coefficients from the means, or else the sums, along the rings times each wave."""
        count, real = len(fields), fields.dtype
        waves = np.empty((self.nlon // 2 + 1, self.nlat, count), np.result_type(real, np.complex64))
        spectrum = waves.transpose(2, 1, 0)
        ducc0.fft.r2c(fields, axes=(2,), forward=True, inorm=2 * mean, out=spectrum)
        if self.turn is not None:
            waves[: len(self.turn)] *= self.turn
        halves = waves.view(real)
        planes = np.empty((2 * count, self.spread.shape[1]), real)
        for sector, span, table in zip(self.sectors, self.spans, tables, strict=True):
            wave = halves[sector.order, : self.half]
            if sector.sign:
                mirrored = halves[sector.order, ::-1][: self.half]
                wave = wave + mirrored if sector.sign > 0 else wave - mirrored
                if self.nlat % 2:
                    wave[-1] /= 2  # the sum of hemispheres holds the equator twice
            np.matmul(wave.T, table, out=planes[:, span])
        return np.take(planes.reshape(count, -1), self.pick, axis=1)

    def _to_waves(
        self, coefficients: FloatArray, tables: list[FloatArray], out: FloatArray, mean: bool
    ) -> None:
        """The transposed map: fields from coefficients, over the length of a ring if `mean`."""
        count, real = len(coefficients), coefficients.dtype
        planes = np.take(coefficients, self.spread.ravel(), axis=1).reshape(2 * count, -1)
        waves = np.empty((self.nlon // 2 + 1, self.nlat, count), np.result_type(real, np.complex64))
        halves, south = waves.view(real), self.nlat - self.half
        for sector, span, table in zip(self.sectors, self.spans, tables, strict=True):
            target = halves[sector.order]
            wave = table @ planes[:, span].T
            if sector.sign >= 0:
                target[: self.half] = wave
                target[self.half :] = wave[:south][::-1]
            else:
                target[: self.half] += wave
                target[self.half :] -= wave[:south][::-1]
        waves[self.sectors[-1].order + 1 :] = 0.0
        if self.turn is not None:
            waves[: len(self.turn)] *= self.turn.conj()
        ducc0.fft.c2r(
            waves.transpose(2, 1, 0),
            axes=(2,),
            lastsize=self.nlon,
            forward=False,
            inorm=2 * mean,
            out=out,
        )


class _Healpix:
    """ducc0's synthesis, and its least-squares inverse by iteration; float64 inside."""

    def __init__(self, grid: RingGrid, lmax: int) -> None:
        if not 0 <= lmax <= grid.max_lmax:
            raise ValueError(
                f"analysis on {grid.describe()} inverts synthesis for lmax 0 to {grid.max_lmax} "
                f"(2 nside); got lmax={lmax}"
            )
        self.geometry = {**ring_geometry(grid), "lmax": lmax, "spin": 0, "nthreads": 1}
        self.positions = grid.ring_positions
        self.cells = np.argsort(self.positions)

    def analysis(self, fields: FloatArray) -> FloatArray:
        maps = fields.astype(np.float64)[:, None, self.cells]
        alm = ducc0.sht.pseudo_analysis(map=maps, maxiter=60, epsilon=1e-11, **self.geometry)[0]
        return from_complex(alm[:, 0])

    def synthesis(self, coefficients: FloatArray, out: FloatArray) -> None:
        alm = to_complex(coefficients.astype(np.float64))[:, None]
        out[...] = ducc0.sht.synthesis(alm=alm, **self.geometry)[:, 0, self.positions]

    def analysis_adjoint(self, coefficients: FloatArray, out: FloatArray) -> None:
        raise ValueError(
            "analysis on HEALPix is an iteration without an adjoint; use a grid of equal rings"
        )

    def synthesis_adjoint(self, fields: FloatArray) -> FloatArray:
        maps = fields.astype(np.float64)[:, None, self.cells]
        alm = ducc0.sht.adjoint_synthesis(map=maps, **self.geometry)
        return from_complex(alm[:, 0])


def ring_geometry(grid: RingGrid) -> dict[str, Any]:
    """The rings of a grid as ducc0 wants them told."""
    points = np.asarray(grid.points, np.uint64)
    return {
        "theta": np.deg2rad(90.0 - np.asarray(grid.latitudes)),
        "phi0": np.deg2rad(grid.first_longitudes),
        "nphi": points,
        "ringstart": np.cumsum(points) - points,
    }
