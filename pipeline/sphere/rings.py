"""The way between fields on a `RingGrid` and the waves along its rings.

Waves are the Fourier coefficients h_m of the rings in an array (order, ring, sign, field): where
the hemispheres mirror each other, of their sum and difference (sign +1, -1), with rings up to the
equator; else of all rings (sign 0). Hemispheres are folded before the Fourier transform, where it
is one pass through contiguous memory, and the Fourier transform writes the order that the matrix
products of the Legendre stage read.
"""

from __future__ import annotations

from typing import Any, Protocol

import ducc0
import numpy as np
import numpy.typing as npt

from pipeline.arrays import FloatArray
from pipeline.sphere.coefficients import ComplexArray
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.legendre import folding
from pipeline.sphere.workspace import room

__all__ = ["Rings", "ring_geometry", "rings"]

CACHED_BYTES = 1 << 22  # of the fields that are folded and transformed together
PAGE = 4096  # bytes; what is a multiple of it apart shares a few lines of the nearest cache


class Rings(Protocol):
    @property
    def signs(self) -> tuple[int, ...]: ...

    def to_waves(self, fields: FloatArray, mean: bool) -> ComplexArray:
        """Means over each folded ring of fields (field, *grid) times exp(-i m longitude), or sums;
        an equator is counted once."""
        ...

    def from_waves(self, waves: ComplexArray, mean: bool, out: FloatArray) -> None:
        """Fields h_0 + 2 Re sum_m h_m exp(i m longitude), over the points of each ring if `mean`;
        waves are used up."""
        ...

    def empty(self, count: int, dtype: np.dtype[Any]) -> ComplexArray:
        """Room for the waves of so many fields of this real type."""
        ...


def rings(grid: RingGrid, lmax: int, dtype: npt.DTypeLike) -> Rings:
    """The rings of a grid for orders up to lmax."""
    kind = _Unequal if grid.kind == "healpix" else _Equal
    return kind(grid, lmax, np.result_type(dtype, np.complex64))


class _Equal:
    """Rings of one length: one real FFT."""

    def __init__(self, grid: RingGrid, lmax: int, dtype: np.dtype[Any]) -> None:
        (self.nlat, self.nlon), self.lmax = grid.shape, lmax
        self.half = len(folding(grid))
        self.signs = (1, -1) if grid.symmetric else (0,)
        self.turn: npt.NDArray[np.complexfloating] | None = None
        if first := grid.first_longitudes[0]:
            turn = np.exp(-1j * np.arange(lmax + 1) * np.deg2rad(first))
            self.turn = turn.astype(dtype)[:, None, None, None]

    def empty(self, count: int, dtype: np.dtype[Any]) -> ComplexArray:
        dtype = np.result_type(dtype, np.complex64)
        spare = 4 * _crowded(self.half * len(self.signs) * count * dtype.itemsize)
        shape = self.nlon // 2 + 1, self.half, len(self.signs), count + spare
        return room("waves", shape, dtype)[..., :count]

    def to_waves(self, fields: FloatArray, mean: bool) -> ComplexArray:
        waves = self.empty(len(fields), fields.dtype)
        few = len(fields)
        if fields[:8].nbytes <= CACHED_BYTES:
            few = max(8, CACHED_BYTES // 4 // fields[0].nbytes)
        for some in (slice(start, start + few) for start in range(0, len(fields), few)):
            folded = self._folded(fields[some])
            spectrum = waves[..., some].transpose(2, 3, 1, 0)
            ducc0.fft.r2c(folded, axes=(3,), forward=True, inorm=2 * mean, out=spectrum)
        if self.turn is not None:
            waves[: self.lmax + 1] *= self.turn
        return waves

    def _folded(self, fields: FloatArray) -> FloatArray:
        """Sum and difference of the hemispheres (sign, field, ring, longitude)."""
        if len(self.signs) == 1:
            return fields[None]
        spare = _crowded(self.half * self.nlon * fields.itemsize)
        shape = 2, len(fields), self.half + spare, self.nlon
        folded = room("folded", shape, fields.dtype)[:, :, : self.half]
        north, south = fields[:, : self.half], fields[:, ::-1][:, : self.half]
        np.add(north, south, out=folded[0])
        np.subtract(north, south, out=folded[1])
        if self.nlat % 2:
            folded[0, :, -1] /= 2  # the sum of hemispheres holds the equator twice
        return folded

    def from_waves(self, waves: ComplexArray, mean: bool, out: FloatArray) -> None:
        waves[self.lmax + 1 :] = 0.0
        if self.turn is not None:
            waves[: self.lmax + 1] *= self.turn.conj()
        folded = out[None]
        if len(self.signs) > 1:
            folded = room("folded", (2, len(out), self.half, self.nlon), out.dtype)
        ducc0.fft.c2r(
            waves.transpose(2, 3, 1, 0),
            axes=(3,),
            lastsize=self.nlon,
            forward=False,
            inorm=2 * mean,
            out=folded,
        )
        if len(self.signs) > 1:
            (even, odd), south = folded, self.nlat - self.half
            np.add(even, odd, out=out[:, : self.half])
            np.subtract(even[:, :south], odd[:, :south], out=out[:, ::-1][:, :south])


def _crowded(stride: int) -> bool:
    """Whether rows so many bytes apart need something between them, to lie apart in the caches."""
    return stride % PAGE == 0


class _Unequal:
    """Rings of several lengths that mirror each other at an equator: HEALPix in either order."""

    def __init__(self, grid: RingGrid, lmax: int, dtype: np.dtype[Any]) -> None:
        assert grid.symmetric and len(grid.points) % 2
        self.lmax, self.signs, self.half = lmax, (1, -1), len(folding(grid))
        points = np.asarray(grid.points)
        start = np.cumsum(points) - points
        cells = np.argsort(grid.ring_positions)
        self.northern = int(points[: self.half].sum())
        self.equator = int(start[self.half - 1])
        mirrored = np.concatenate(
            [start[-1 - ring] + np.arange(points[ring]) for ring in range(self.half)]
        )
        north, self.south = cells[: self.northern], cells[mirrored]
        self.place = np.empty(grid.size, np.intp)
        self.place[self.south] = self.northern + np.arange(self.northern)
        self.place[north] = np.arange(self.northern)
        self.north = None if grid.ordering == "ring" else north  # None: they come first
        geometry = ring_geometry(grid)
        self.rings = {n: geometry[n][: self.half] for n in ("nphi", "phi0", "ringstart")}
        self.share = 1.0 / points[: self.half]

    def empty(self, count: int, dtype: np.dtype[Any]) -> ComplexArray:
        shape = self.lmax + 1, self.half, len(self.signs), count
        return room("waves", shape, np.result_type(dtype, np.complex64))

    def to_waves(self, fields: FloatArray, mean: bool) -> ComplexArray:
        shape = len(fields), self.northern
        north, south = room("both", (2, *shape), fields.dtype)
        if self.north is None:
            north = fields[:, : self.northern]
        else:
            np.take(fields, self.north, axis=1, out=north, mode="clip")
        np.take(fields, self.south, axis=1, out=south, mode="clip")
        folded = room("folded", (2, *shape), fields.dtype)
        np.add(north, south, out=folded[0])
        np.subtract(north, south, out=folded[1])
        folded[0, :, self.equator :] /= 2
        waves = self.empty(len(fields), fields.dtype)
        leg = waves.reshape(*waves.shape[:2], -1).transpose(2, 1, 0)
        ducc0.sht.map2leg(
            map=folded.reshape(-1, self.northern),
            leg=leg,
            mmax=self.lmax,
            ringfactor=self.share if mean else None,
            nthreads=1,
            **self.rings,
        )
        return waves

    def from_waves(self, waves: ComplexArray, mean: bool, out: FloatArray) -> None:
        folded = room("folded", (2, len(out), self.northern), out.dtype)
        ducc0.sht.leg2map(
            leg=waves.reshape(*waves.shape[:2], -1).transpose(2, 1, 0),
            map=folded.reshape(-1, self.northern),
            ringfactor=self.share if mean else None,
            nthreads=1,
            **self.rings,
        )
        both = room("both", (len(out), 2, self.northern), out.dtype)
        np.add(folded[0], folded[1], out=both[:, 0])
        np.subtract(folded[0], folded[1], out=both[:, 1])
        np.take(both.reshape(len(out), -1), self.place, axis=1, out=out, mode="clip")


def ring_geometry(grid: RingGrid) -> dict[str, Any]:
    """The rings of a grid as ducc0 wants them told."""
    points = np.asarray(grid.points, np.uint64)
    return {
        "theta": np.deg2rad(90.0 - np.asarray(grid.latitudes)),
        "phi0": np.deg2rad(grid.first_longitudes),
        "nphi": points,
        "ringstart": np.cumsum(points) - points,
    }
