"""Spherical harmonic analysis and synthesis between fields on a `RingGrid` and real coefficients.

Coefficients: real, orthonormal, degree-major on the last axis (pipeline/sphere/coefficients.py). A
transform is two linear maps: an FFT along longitude (pipeline/sphere/rings.py), then for each order
m a matrix product along latitude (pipeline/sphere/legendre.py). On HEALPix analysis has a third,
for the orders that look alike on short rings (pipeline/sphere/aliasing.py). Differentiable
transforms are in pipeline/sphere/torch_harmonics.py, those of winds in
pipeline/sphere/vector_harmonics.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import ducc0
import numpy as np
import numpy.typing as npt

from pipeline.arrays import FloatArray
from pipeline.sphere.aliasing import Correction
from pipeline.sphere.coefficients import ComplexArray, of_columns, places_among
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.legendre import folding
from pipeline.sphere.rings import rings
from pipeline.sphere.tables import tables
from pipeline.sphere.workspace import KEPT_BYTES, room

__all__ = ["Harmonics", "plan"]

BLOCK_BYTES = 1 << 20


class Harmonics:
    """Transforms between one grid and one lmax, in one floating-point type; `plan` keeps them.

    Fields keep the data order of the grid. Work is done in blocks of bounded size, on one thread.
    Copies and pickles are found again through `plan`, so tables do not travel.
    """

    def __init__(self, grid: RingGrid, lmax: int, dtype: npt.DTypeLike = np.float32) -> None:
        self.grid, self.lmax, self.dtype = grid, lmax, np.dtype(dtype)
        if self.dtype not in (np.float32, np.float64):
            raise ValueError(f"transforms run in float32 or float64; got {self.dtype}")
        self._maps = _Maps(grid, lmax, self.dtype)

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

        It carries gradients with respect to coefficients back to fields.
        """
        return self._to_fields(coefficients, self._maps.analysis_adjoint)

    def synthesis_adjoint(self, fields: FloatArray) -> FloatArray:
        """Coefficients (..., (lmax + 1)**2): the transposed matrix of `synthesis` on fields."""
        return self._to_coefficients(fields, self._maps.synthesis_adjoint)

    def _to_coefficients(
        self, fields: FloatArray, kernel: Callable[[FloatArray, FloatArray], None]
    ) -> FloatArray:
        batch = require_shape("fields", fields, self.grid.shape)
        rows = fields.reshape(-1, *self.grid.shape)
        out = np.empty((len(rows), (self.lmax + 1) ** 2), self.dtype)
        for block in blocks(len(rows), self.grid, self.dtype):
            kernel(np.ascontiguousarray(rows[block], self.dtype), out[block])
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
    """Slices of so many fields that products have 32 or more, if working memory allows."""
    each = round(1.01 * grid.size * dtype.itemsize)  # of a field's waves
    step = max(8, min(max(32, BLOCK_BYTES // each), KEPT_BYTES // each))
    return (slice(start, start + step) for start in range(0, rows, step))


def require_shape(what: str, x: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The leading axes of x, whose last ones must be `shape`."""
    leading = x.ndim - len(shape)
    if leading < 0 or tuple(x.shape[leading:]) != shape:
        raise ValueError(f"{what} must end in axes of {shape}; got {tuple(x.shape)}")
    return tuple(x.shape[:leading])


class _Maps:
    """Waves along the rings, then matrix products for each group of orders and sign.

    Products go to and from complex `columns` (column, field), one for each order and degree: the
    real part belongs to order m, the imaginary one, void at m = 0, to -m.
    """

    def __init__(self, grid: RingGrid, lmax: int, dtype: np.dtype[Any]) -> None:
        made = tables(grid, lmax, dtype.name)
        self.rings, self.sectors = rings(grid, lmax, dtype), made.sectors
        ends = np.cumsum([s.degrees.size for s in self.sectors]).tolist()
        self.spans = [
            slice(end - s.degrees.size, end) for s, end in zip(self.sectors, ends, strict=True)
        ]
        degree = np.concatenate([s.degrees.ravel() for s in self.sectors])
        order = np.concatenate(
            [
                np.repeat(np.arange(s.orders.start, s.orders.stop), s.degrees.shape[1])
                for s in self.sectors
            ]
        )
        # Where columns find their coefficient, the first one if they have none, and back.
        self.spread, self.pick = of_columns(degree, order), np.empty((lmax + 1) ** 2, np.intp)
        places_among(self.spread, degree, np.arange(2 * degree.size).reshape(2, -1), self.pick)
        # A wave h_m of order m > 0 stands for that of -m too.
        self.double = np.where(order == 0, 1.0, 2.0).astype(dtype)[:, None]
        columns = {
            (m, s.sign): (span.start + i * s.degrees.shape[1], s, i)
            for s, span in zip(self.sectors, self.spans, strict=True)
            for i, m in enumerate(range(s.orders.start, s.orders.stop))
        }
        fold = folding(grid)
        self.corrections = [Correction(one, columns, fold) for one in made.couplings]

    def analysis(self, fields: FloatArray, out: FloatArray) -> None:
        waves = self.rings.to_waves(fields, True)
        columns = self._project(waves, [s.analysis for s in self.sectors])
        for correction in self.corrections:
            correction(columns)
        self._gather(columns, out)

    def synthesis(self, coefficients: FloatArray, out: FloatArray) -> None:
        waves = self._expand(self._scattered(coefficients), [s.synthesis for s in self.sectors])
        self.rings.from_waves(waves, False, out)

    def analysis_adjoint(self, coefficients: FloatArray, out: FloatArray) -> None:
        columns = self._scattered(coefficients)
        for correction in self.corrections:
            correction.transposed(columns)
        parts = columns.view(columns.real.dtype)  # complex numbers would be divided as such
        parts *= 1.0 / self.double
        waves = self._expand(columns, [s.analysis for s in self.sectors])
        self.rings.from_waves(waves, True, out)

    def synthesis_adjoint(self, fields: FloatArray, out: FloatArray) -> None:
        waves = self.rings.to_waves(fields, False)
        columns = self._project(waves, [s.synthesis for s in self.sectors])
        parts = columns.view(columns.real.dtype)
        parts *= self.double
        self._gather(columns, out)

    def _gather(self, columns: ComplexArray, out: FloatArray) -> None:
        parts = room("parts", (2, *columns.shape), out.dtype)
        parts[0], parts[1] = columns.real, columns.imag
        rows = parts.reshape(-1, len(out))
        for some in _slices(len(self.pick)):
            ducc0.misc.transpose(rows.take(self.pick[some], axis=0).T, out[:, some])

    def _scattered(self, coefficients: FloatArray) -> ComplexArray:
        count, size = coefficients.shape
        rows = room("parts", (size, count), coefficients.dtype)
        ducc0.misc.transpose(coefficients, rows.T)
        columns: ComplexArray = room(
            "columns", (self.spread.shape[1], count), np.result_type(rows, np.complex64)
        )
        for some in _slices(len(columns)):
            columns.real[some] = rows.take(self.spread[0, some], axis=0)
            columns.imag[some] = rows.take(self.spread[1, some], axis=0)
        return columns

    def _project(self, waves: ComplexArray, tables: list[FloatArray]) -> ComplexArray:
        columns: ComplexArray = room(
            "columns", (self.spread.shape[1], waves.shape[-1]), waves.dtype
        )
        halves, parts = waves.view(waves.real.dtype), columns.view(columns.real.dtype)
        for sector, span, table in zip(self.sectors, self.spans, tables, strict=True):
            wave = halves[sector.orders, sector.rows, self.rings.signs.index(sector.sign)]
            target = parts[span].reshape(*sector.degrees.shape, halves.shape[-1])
            np.matmul(table.transpose(0, 2, 1), wave, out=target)
        return columns

    def _expand(self, columns: ComplexArray, tables: list[FloatArray]) -> ComplexArray:
        """The transposed map of `_project`."""
        waves = self.rings.empty(columns.shape[1], columns.real.dtype)
        halves, parts = waves.view(waves.real.dtype), columns.view(columns.real.dtype)
        for sector, span, table in zip(self.sectors, self.spans, tables, strict=True):
            wave = halves[sector.orders, :, self.rings.signs.index(sector.sign)]
            wave[:, : sector.rows.start] = 0.0
            wave[:, sector.rows.stop :] = 0.0
            part = parts[span].reshape(*sector.degrees.shape, halves.shape[-1])
            np.matmul(table, part, out=wave[:, sector.rows])
        return waves


def _slices(size: int, step: int = 1024) -> Iterator[slice]:
    """So many rows at a time that turning them stays in the nearest cache."""
    return (slice(start, start + step) for start in range(0, size, step))
