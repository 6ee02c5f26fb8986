"""Differentiable spherical harmonic analysis and synthesis, on any device.

On the CPU they are the numpy transforms (pipeline/sphere/harmonics.py). On other devices the same
tables run as batched products of orders that follow each other, with a matrix for the Fourier step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.sphere.coefficients import of_columns, places_among
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import Harmonics, plan, require_shape
from pipeline.sphere.legendre import TOGETHER, Sectors, folding, require_lmax
from pipeline.sphere.tables import tables

__all__ = ["TorchHarmonics"]

ADJOINT = {
    "analysis": "analysis_adjoint",
    "synthesis": "synthesis_adjoint",
    "analysis_adjoint": "analysis",
    "synthesis_adjoint": "synthesis",
}
GROUP = 16 // TOGETHER  # sectors in one batched product


class TorchHarmonics(torch.nn.Module):
    """Transforms as `Harmonics` does them, with gradients of any order; HEALPix on the CPU only.

    Works in float32, in float64 after `.double()`, never below: autocast is off inside. Tables are
    shared between modules, and belong to no state dict.
    """

    place: Tensor  # has the device and precision of the tables

    def __init__(self, grid: RingGrid, lmax: int) -> None:
        super().__init__()
        require_lmax(grid, lmax)
        self.grid, self.lmax = grid, lmax
        self.register_buffer("place", torch.zeros(()), persistent=False)

    def analysis(self, fields: Tensor) -> Tensor:
        """Coefficients (..., (lmax + 1)**2) of fields (..., *grid.shape)."""
        require_shape("fields", fields, self.grid.shape)
        return _apply(fields, self._maps(), "analysis")

    def synthesis(self, coefficients: Tensor) -> Tensor:
        """Fields (..., *grid.shape) of coefficients (..., (lmax + 1)**2)."""
        require_shape("coefficients", coefficients, ((self.lmax + 1) ** 2,))
        return _apply(coefficients, self._maps(), "synthesis")

    def _maps(self) -> _Maps:
        if self.place.is_cpu:
            return _OnCpu(plan(self.grid, self.lmax, str(self.place.dtype).removeprefix("torch.")))
        if self.grid.kind == "healpix":
            raise ValueError(
                f"transforms on {self.grid.describe()} run on the CPU only; this one is on "
                f"{self.place.device}: move it, or use a grid with rings of one length"
            )
        return _grouped(self.grid, self.lmax, self.place.dtype, self.place.device)

    def _apply(self, fn: Any, recurse: bool = True) -> TorchHarmonics:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.place.dtype != torch.float64:
            self.place = self.place.float()
        return self


class _Maps(Protocol):
    """The two maps and their transposed matrices; what they get is of any floating-point type."""

    def analysis(self, x: Tensor) -> Tensor: ...
    def synthesis(self, x: Tensor) -> Tensor: ...
    def analysis_adjoint(self, x: Tensor) -> Tensor: ...
    def synthesis_adjoint(self, x: Tensor) -> Tensor: ...


class _Linear(torch.autograd.Function):
    """One of the maps; its gradient is its adjoint, its derivative itself."""

    @staticmethod
    def forward(x: Tensor, maps: _Maps, name: str) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            result: Tensor = getattr(maps, name)(x)
            return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, ctx.maps, ctx.name = inputs
        ctx.dtype = x.dtype

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _apply(gradient, ctx.maps, ADJOINT[ctx.name]).to(ctx.dtype), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Any:
        return _apply(tangent, ctx.maps, ctx.name)


def _apply(x: Tensor, maps: _Maps, name: str) -> Tensor:
    result: Tensor = _Linear.apply(x, maps, name)  # type: ignore[no-untyped-call]
    return result


class _OnCpu:
    """The numpy transforms on tensors of the CPU."""

    def __init__(self, transform: Harmonics) -> None:
        self.transform = transform
        self.dtype = torch.float64 if transform.dtype == np.float64 else torch.float32

    def analysis(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.transform.analysis(self._array(x)))

    def synthesis(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.transform.synthesis(self._array(x)))

    def analysis_adjoint(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.transform.analysis_adjoint(self._array(x)))

    def synthesis_adjoint(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.transform.synthesis_adjoint(self._array(x)))

    def _array(self, x: Tensor) -> Any:
        return x.detach().to(self.dtype).numpy()


@lru_cache(maxsize=8)
def _grouped(grid: RingGrid, lmax: int, dtype: torch.dtype, device: torch.device) -> _Grouped:
    return _Grouped(grid, lmax, dtype, device)


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Tables (order, lat, degree) of orders that follow each other, padded with zeros."""

    sign: int  # of the southern hemisphere when folded, else 0
    orders: slice
    analysis: Tensor
    synthesis: Tensor


class _Grouped:
    """Batched products. The Fourier matrix has a cosine and a minus sine row for each order."""

    def __init__(self, grid: RingGrid, lmax: int, dtype: torch.dtype, device: torch.device) -> None:
        self.nlat, self.nlon = grid.shape
        name = str(dtype).removeprefix("torch.")
        first, step = np.deg2rad(grid.first_longitudes[0]), 2.0 * np.pi / self.nlon
        phase = np.outer(np.arange(lmax + 1), first + step * np.arange(self.nlon))
        wave = np.stack([np.cos(phase), -np.sin(phase)], axis=1).reshape(-1, self.nlon)
        self.fourier = torch.as_tensor(wave, dtype=dtype, device=device)
        self.groups: list[_Group] = []
        # Where padded entries find their coefficient, the first one if they have none, and back.
        spread, pick, end = [], np.empty((lmax + 1) ** 2, np.intp), 0
        self.half = len(folding(grid))
        for sign, group in _groups(tables(grid, lmax, name).sectors):
            orders = slice(group[0].orders.start, group[-1].orders.stop)
            count = orders.stop - orders.start
            shape = count, self.half, group[0].degrees.shape[1]
            analysis, synthesis = np.zeros(shape, name), np.zeros(shape, name)
            degree, order = np.full((count, shape[2]), -1), np.arange(count)[:, None] + orders.start
            for sector in group:
                own = slice(sector.orders.start - orders.start, sector.orders.stop - orders.start)
                at = own, sector.rows, slice(sector.degrees.shape[1])
                degree[own, at[2]] = sector.degrees
                analysis[at] = sector.analysis / self.nlon
                synthesis[at] = sector.synthesis * np.where(order[own], 2.0, 1.0)[..., None]
            columns = of_columns(degree, order)
            place = end + np.arange(columns.size).reshape(count, 2, shape[2]).swapaxes(0, 1)
            places_among(columns, degree, place, pick)
            spread.append(columns.swapaxes(0, 1).ravel())
            end += columns.size
            self.groups.append(
                _Group(
                    sign=sign,
                    orders=orders,
                    analysis=torch.as_tensor(analysis, device=device),
                    synthesis=torch.as_tensor(synthesis, device=device),
                )
            )
        self.pick = torch.as_tensor(pick, device=device)
        self.spread = torch.as_tensor(np.concatenate(spread), device=device)

    def analysis(self, x: Tensor) -> Tensor:
        return self._to_coefficients(x, [group.analysis for group in self.groups])

    def synthesis(self, x: Tensor) -> Tensor:
        return self._to_fields(x, [group.synthesis for group in self.groups])

    def analysis_adjoint(self, x: Tensor) -> Tensor:
        return self._to_fields(x, [group.analysis for group in self.groups])

    def synthesis_adjoint(self, x: Tensor) -> Tensor:
        return self._to_coefficients(x, [group.synthesis for group in self.groups])

    def _to_coefficients(self, x: Tensor, tables: list[Tensor]) -> Tensor:
        fields = x.to(self.fourier.dtype).reshape(-1, self.nlat, self.nlon)
        waves = {sign: self._analyse(fields, sign) for sign in {g.sign for g in self.groups}}
        parts = []
        for group, table in zip(self.groups, tables, strict=True):
            product = torch.bmm(waves[group.sign][group.orders], table)
            rows = product.view(len(table), 2, len(fields), -1).permute(2, 0, 1, 3)
            parts.append(rows.reshape(len(fields), -1))
        picked = torch.cat(parts, dim=1).index_select(1, self.pick)
        return picked.view(*x.shape[:-2], len(self.pick))

    def _to_fields(self, x: Tensor, tables: list[Tensor]) -> Tensor:
        rows = x.to(self.fourier.dtype).reshape(-1, len(self.pick))
        padded = rows.index_select(1, self.spread)
        sizes = [2 * table.shape[0] * table.shape[2] for table in tables]
        waves: dict[int, list[Tensor]] = {}
        for group, table, part in zip(
            self.groups, tables, torch.split(padded, sizes, 1), strict=True
        ):
            parts = part.view(len(rows), len(table), 2, -1).permute(1, 2, 0, 3)
            product = torch.bmm(parts.reshape(len(table), 2 * len(rows), -1), table.mT)
            waves.setdefault(group.sign, []).append(product)
        halves = {sign: self._synthesise(torch.cat(part)) for sign, part in waves.items()}
        if 0 in halves:
            fields = halves[0]
        else:
            even, odd = halves[1], halves.get(-1, torch.zeros(()))
            south = (even - odd)[:, : self.nlat - self.half].flip(1)
            fields = torch.cat([even + odd, south], dim=1)
        return fields.view(*x.shape[:-1], self.nlat, self.nlon)

    def _analyse(self, fields: Tensor, sign: int) -> Tensor:
        """Waves (order, part and field, lat) of the folded hemispheres."""
        folded = fields
        if sign:
            folded = fields[:, : self.half] + sign * fields.flip(1)[:, : self.half]
            if self.nlat % 2:
                folded[:, -1] /= 2  # the sum of hemispheres holds the equator twice
        waves = self.fourier @ folded.reshape(-1, self.nlon).T
        return waves.view(-1, 2 * len(fields), self.half)

    def _synthesise(self, waves: Tensor) -> Tensor:
        """Undoes the layout of `_analyse`, for as many orders as there are."""
        rows = waves.view(2 * len(waves), -1)
        fields = rows.T @ self.fourier[: len(rows)]
        return fields.view(-1, self.half, self.nlon)


def _groups(found: tuple[Sectors, ...]) -> Iterator[tuple[int, list[Sectors]]]:
    for sign in sorted({sector.sign for sector in found}, reverse=True):
        own = [sector for sector in found if sector.sign == sign]
        for start in range(0, len(own), GROUP):
            yield sign, own[start : start + GROUP]
