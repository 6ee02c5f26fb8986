"""Spherical harmonic analysis and synthesis between fields on a `RingGrid` and real coefficients.

Coefficients: real, orthonormal, degree-major on the last axis (pipeline/coefficients.py). On rings
of equal length a transform is two linear maps: Fourier along longitude, then for each order m a
matrix product along latitude (pipeline/legendre.py). `Harmonics` runs them in numpy with an FFT,
and leaves HEALPix to ducc0; `TorchHarmonics` runs them as differentiable batched products.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import ducc0
import numpy as np
import numpy.typing as npt
import torch

from pipeline.coefficients import degrees, from_complex, lmax_of, orders, to_complex
from pipeline.legendre import legendre_tables
from pipeline.sphere import FloatArray, RingGrid

__all__ = [
    "Harmonics",
    "TorchHarmonics",
    "degrees",
    "from_complex",
    "lmax_of",
    "orders",
    "plan",
    "to_complex",
]

BLOCK_BYTES = 1 << 21


class Harmonics:
    """Transforms between one grid and one lmax, in one floating-point type; `plan` keeps them.

    Fields keep the data order of the grid. Work is done in blocks of bounded size, on one thread.
    """

    def __init__(self, grid: RingGrid, lmax: int, dtype: npt.DTypeLike = np.float32) -> None:
        self.grid, self.lmax, self.dtype = grid, lmax, np.dtype(dtype)
        if self.dtype not in (np.float32, np.float64):
            raise ValueError(f"transforms run in float32 or float64; got {self.dtype}")
        healpix = grid.kind == "healpix"
        self._maps: _Maps = _Healpix(grid, lmax) if healpix else _Rings(grid, lmax, self.dtype)

    def analysis(self, fields: FloatArray) -> FloatArray:
        """Coefficients of fields; exact for fields of degrees up to lmax.

        Args:
            fields: Shape (..., *grid.shape), finite.
        Returns:
            Shape (..., (lmax + 1)**2), in the unit of the field.
        """
        batch = _batch("fields", fields, self.grid.shape)
        rows = fields.reshape(-1, *self.grid.shape)
        out = np.empty((len(rows), (self.lmax + 1) ** 2), self.dtype)
        for block in self._blocks(len(rows)):
            out[block] = self._maps.analysis(np.ascontiguousarray(rows[block], self.dtype))
        return out.reshape(*batch, out.shape[-1])

    def synthesis(self, coefficients: FloatArray) -> FloatArray:
        """Fields (..., *grid.shape) of coefficients (..., (lmax + 1)**2)."""
        batch = _batch("coefficients", coefficients, ((self.lmax + 1) ** 2,))
        rows = coefficients.reshape(-1, coefficients.shape[-1])
        out = np.empty((len(rows), *self.grid.shape), self.dtype)
        for block in self._blocks(len(rows)):
            self._maps.synthesis(np.ascontiguousarray(rows[block], self.dtype), out[block])
        return out.reshape(*batch, *self.grid.shape)

    def _blocks(self, rows: int) -> Iterator[slice]:
        step = max(32, BLOCK_BYTES // (self.grid.size * self.dtype.itemsize))
        return (slice(start, start + step) for start in range(0, rows, step))


@lru_cache(maxsize=8)
def plan(grid: RingGrid, lmax: int, dtype: str = "float32") -> Harmonics:
    """The `Harmonics` of these arguments, made once per process."""
    return Harmonics(grid, lmax, dtype)


class _Maps(Protocol):
    def analysis(self, fields: FloatArray) -> FloatArray: ...
    def synthesis(self, coefficients: FloatArray, out: FloatArray) -> None: ...


@dataclass(frozen=True, kw_only=True)
class _Sector:
    """The coefficients of one order, and of one parity of l - m where hemispheres are folded."""

    order: int
    sign: int  # of the southern hemisphere when folded, else 0
    span: slice  # in rows ordered by (order, parity, degree)
    analysis: FloatArray  # (lat, degree)
    synthesis: FloatArray  # (degree, lat)


class _Rings:
    """FFT along longitude into a buffer (order, lat, field), then matrix products per order.

    On latitudes that mirror at the equator, even l - m meet the sum of the hemispheres and odd
    ones the difference: half the work.
    """

    def __init__(self, grid: RingGrid, lmax: int, dtype: np.dtype[Any]) -> None:
        tables = legendre_tables(grid, lmax)
        self.nlat, self.nlon = grid.shape
        self.half = (self.nlat + 1) // 2 if grid.symmetric else self.nlat
        parities = ((slice(0, None, 2), 1), (slice(1, None, 2), -1))
        self.sectors, pairs, end = [], [], 0
        for m in range(lmax + 1):
            scale = np.sqrt(2.0) if m else 1.0
            for chosen, sign in parities if grid.symmetric else ((slice(None), 0),):
                degree = np.arange(m, lmax + 1)[chosen]
                forth = tables.analysis[m][chosen, : self.half].T * scale
                if sign and self.nlat % 2:
                    forth[-1] /= 2.0  # the sum of hemispheres holds the equator twice
                back = tables.synthesis[m][: self.half, chosen].T / scale
                self.sectors.append(
                    _Sector(
                        order=m,
                        sign=sign,
                        span=slice(end, end + degree.size),
                        analysis=np.ascontiguousarray(forth, dtype),
                        synthesis=np.ascontiguousarray(back, dtype),
                    )
                )
                pairs.append(degree * (degree + 1) + m * np.array([[1], [-1]]))
                end += degree.size
        # Sectors work on a real and an imaginary plane of `end` rows; at m = 0 the latter is void.
        self.spread = np.concatenate(pairs, axis=1)
        self.pick = np.empty((lmax + 1) ** 2, np.intp)
        for plane in (1, 0):
            self.pick[self.spread[plane]] = plane * end + np.arange(end)
        self.turn: npt.NDArray[np.complexfloating] | None = None
        if first := grid.first_longitudes[0]:
            turn = np.exp(-1j * np.arange(lmax + 1) * np.deg2rad(first))
            self.turn = turn.astype(np.result_type(dtype, np.complex64))[:, None, None]

    def analysis(self, fields: FloatArray) -> FloatArray:
        count, real = len(fields), fields.dtype
        waves = np.empty((self.nlon // 2 + 1, self.nlat, count), np.result_type(real, np.complex64))
        ducc0.fft.r2c(fields, axes=(2,), forward=True, inorm=2, out=waves.transpose(2, 1, 0))
        if self.turn is not None:
            waves[: len(self.turn)] *= self.turn
        halves = waves.view(real)
        planes = np.empty((2 * count, self.spread.shape[1]), real)
        for sector in self.sectors:
            wave = halves[sector.order, : self.half]
            if sector.sign:
                mirrored = halves[sector.order, ::-1][: self.half]
                wave = wave + mirrored if sector.sign > 0 else wave - mirrored
            np.matmul(wave.T, sector.analysis, out=planes[:, sector.span])
        return np.take(planes.reshape(count, -1), self.pick, axis=1)

    def synthesis(self, coefficients: FloatArray, out: FloatArray) -> None:
        count, real = len(coefficients), coefficients.dtype
        planes = np.take(coefficients, self.spread.ravel(), axis=1).reshape(2 * count, -1)
        waves = np.empty((self.nlon // 2 + 1, self.nlat, count), np.result_type(real, np.complex64))
        halves, south = waves.view(real), self.nlat - self.half
        for sector in self.sectors:
            target = halves[sector.order]
            wave = sector.synthesis.T @ planes[:, sector.span].T
            if sector.sign >= 0:
                target[: self.half] = wave
                target[self.half :] = wave[:south][::-1]
            else:
                target[: self.half] += wave
                target[self.half :] -= wave[:south][::-1]
        waves[self.sectors[-1].order + 1 :] = 0.0
        if self.turn is not None:
            waves[: len(self.turn)] *= self.turn.conj()
        spectrum = waves.transpose(2, 1, 0)
        ducc0.fft.c2r(spectrum, axes=(2,), lastsize=self.nlon, forward=False, out=out)


class _Healpix:
    """ducc0's synthesis, and its least-squares inverse by iteration; float64 inside."""

    def __init__(self, grid: RingGrid, lmax: int) -> None:
        if not 0 <= lmax <= grid.max_lmax:
            raise ValueError(
                f"analysis on {grid.describe()} inverts synthesis for lmax 0 to {grid.max_lmax} "
                f"(2 nside); got lmax={lmax}"
            )
        points = np.asarray(grid.points, np.uint64)
        self.geometry: dict[str, Any] = {
            "theta": np.deg2rad(90.0 - np.asarray(grid.latitudes)),
            "phi0": np.deg2rad(grid.first_longitudes),
            "nphi": points,
            "ringstart": np.cumsum(points) - points,
            "lmax": lmax,
            "spin": 0,
            "nthreads": 1,
        }

    def analysis(self, fields: FloatArray) -> FloatArray:
        maps = fields.astype(np.float64)[:, None]
        alm = ducc0.sht.pseudo_analysis(map=maps, maxiter=60, epsilon=1e-11, **self.geometry)[0]
        return from_complex(alm[:, 0])

    def synthesis(self, coefficients: FloatArray, out: FloatArray) -> None:
        alm = to_complex(coefficients.astype(np.float64))[:, None]
        out[...] = ducc0.sht.synthesis(alm=alm, **self.geometry)[:, 0]


def _batch(what: str, x: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The leading axes of x, whose last ones must be `shape`."""
    leading = x.ndim - len(shape)
    if leading < 0 or tuple(x.shape[leading:]) != shape:
        raise ValueError(f"{what} must end in axes of {shape}; got {tuple(x.shape)}")
    return tuple(x.shape[:leading])


class TorchHarmonics(torch.nn.Module):
    """Differentiable transforms on rings of equal length, for any device.

    Works in float32, in float64 after `.double()`, never below: autocast is off inside. Both maps
    are linear, and the gradient of one runs with its own tables the other way.
    """

    legendre_analysis: torch.Tensor
    legendre_synthesis: torch.Tensor
    fourier: torch.Tensor
    pick: torch.Tensor
    spread: torch.Tensor

    def __init__(self, grid: RingGrid, lmax: int) -> None:
        super().__init__()
        self.grid, self.lmax = grid, lmax
        order = np.concatenate([np.arange(lmax + 1), -np.arange(1, lmax + 1)])
        tables = legendre_tables(grid, lmax)
        padded = np.zeros((2, 2 * lmax + 1, len(grid.points), lmax + 1))
        for i, m in enumerate(np.abs(order)):
            padded[0, i, :, m:] = tables.analysis[m].T / grid.points[0]
            padded[1, i, :, m:] = tables.synthesis[m]
        angle = (
            np.deg2rad(grid.first_longitudes[0])
            + 2.0 * np.pi * np.arange(grid.points[0]) / grid.points[0]
        )
        phase = np.outer(order, angle)
        wave = np.where(
            order[:, None] < 0, np.sqrt(2.0) * np.sin(phase), np.sqrt(2.0) * np.cos(phase)
        )
        wave[0] = 1.0
        self._tables = {
            "legendre_analysis": torch.from_numpy(padded[0]),
            "legendre_synthesis": torch.from_numpy(padded[1]),
            "fourier": torch.from_numpy(wave),
        }
        for name, table in self._tables.items():
            self.register_buffer(name, table.to(torch.float32), persistent=False)
        # Entries of the padded (order, degree) block without a coefficient point at the first one;
        # the tables are zero there.
        degree = np.arange(lmax + 1)
        spread = np.where(
            degree >= np.abs(order)[:, None], degree * (degree + 1) + order[:, None], 0
        )
        row = np.where(orders(lmax) < 0, lmax - orders(lmax), orders(lmax))
        self.register_buffer("spread", torch.from_numpy(spread.ravel()), persistent=False)
        self.register_buffer(
            "pick", torch.from_numpy(row * (lmax + 1) + degrees(lmax)), persistent=False
        )

    def analysis(self, fields: torch.Tensor) -> torch.Tensor:
        """Coefficients (..., (lmax + 1)**2) of fields (..., lat, lon)."""
        _batch("fields", fields, self.grid.shape)
        return _apply_linear(fields, self, self.legendre_analysis, False)

    def synthesis(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Fields (..., lat, lon) of coefficients (..., (lmax + 1)**2)."""
        _batch("coefficients", coefficients, ((self.lmax + 1) ** 2,))
        return _apply_linear(coefficients, self, self.legendre_synthesis, True)

    def _to_coefficients(self, fields: torch.Tensor, legendre: torch.Tensor) -> torch.Tensor:
        nlat, nlon = self.grid.shape
        rows = fields.to(legendre.dtype).reshape(-1, nlon)
        waves = torch.mm(self.fourier, rows.T).view(len(self.fourier), -1, nlat)
        block = torch.bmm(waves, legendre).transpose(0, 1).flatten(1)
        return block.index_select(1, self.pick).view(*fields.shape[:-2], -1)

    def _to_fields(self, coefficients: torch.Tensor, legendre: torch.Tensor) -> torch.Tensor:
        rows = coefficients.to(legendre.dtype).reshape(-1, coefficients.shape[-1])
        block = (
            rows.index_select(1, self.spread).view(len(rows), *legendre.shape[::2]).transpose(0, 1)
        )
        waves = torch.bmm(block, legendre.transpose(1, 2)).view(len(self.fourier), -1)
        return torch.mm(waves.T, self.fourier).view(*coefficients.shape[:-1], *self.grid.shape)

    def _apply(self, fn: Any, recurse: bool = True) -> TorchHarmonics:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        dtype = torch.float64 if self.fourier.dtype == torch.float64 else torch.float32
        for name, table in self._tables.items():
            setattr(self, name, table.to(device=self.pick.device, dtype=dtype))
        return self


class _Linear(torch.autograd.Function):
    """One of the two maps with one table; its adjoint is the other map with the same table."""

    @staticmethod
    def forward(
        x: torch.Tensor, transform: TorchHarmonics, legendre: torch.Tensor, to_fields: bool
    ) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            if to_fields:
                return transform._to_fields(x, legendre)
            return transform._to_coefficients(x, legendre)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, ctx.transform, ctx.legendre, ctx.to_fields = inputs
        ctx.dtype = x.dtype

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        adjoint = _apply_linear(gradient, ctx.transform, ctx.legendre, not ctx.to_fields)
        return adjoint.to(ctx.dtype), None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor, *_: Any) -> Any:
        return _apply_linear(tangent, ctx.transform, ctx.legendre, ctx.to_fields)


def _apply_linear(
    x: torch.Tensor, transform: TorchHarmonics, legendre: torch.Tensor, to_fields: bool
) -> torch.Tensor:
    result: torch.Tensor = _Linear.apply(x, transform, legendre, to_fields)  # type: ignore[no-untyped-call]
    return result
