"""What the values of a field are like: a few numbers for a block of times, which add up.

Blocks are looked at where they are read, by whoever writes them; the sums say what a whole series
has, however long it is: its extremes, and how often each cell is missing.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import xarray as xr

__all__ = ["Survey", "survey_of", "total"]

Array = np.ndarray[Any, Any]

PACKED = ("missing", "declared", "zeros")
BLOCK_BYTES = 64 << 20  # looked at together


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What was seen of a variable at some times; `declared` may stand for missing."""

    times: int
    cells: tuple[int, ...]
    low: float  # of what is neither missing nor the declared value; inf if there is nothing
    high: float
    missing: bytes = b""  # how often in each cell, compressed; nothing where never
    declared: bytes = b""
    empty: tuple[int, ...] = ()  # places of the times that have no value anywhere
    zeros: bytes = b""  # cells that are exactly 0 at all times, compressed; nothing where none is
    beside: tuple[float, float] | None = None  # extremes of what is not 0, where some cells are

    @classmethod
    def of(cls, values: Array, declared: float | None = None, *, map: bool = False) -> Survey:
        """Survey values (time, cells...), or a map (cells...)."""
        block = np.asarray(values)[None] if map else np.asarray(values)
        hits = block == np.float32(declared) if declared is not None else None
        kept = (
            block if hits is None or not hits.any() else np.where(hits, np.float32(np.nan), block)
        )
        low, high = float(kept.min(initial=np.inf)), float(kept.max(initial=-np.inf))
        absent, zeros = None, _always_zero(block)
        beside = _extremes(kept[kept != 0]) if zeros is not None else None
        if not np.isfinite(low) or not np.isfinite(high):
            absent = np.isnan(block)
            low = float(np.fmin.reduce(kept, axis=None, initial=np.inf))
            high = float(np.fmax.reduce(kept, axis=None, initial=-np.inf))
        return cls(
            times=block.shape[0],
            cells=block.shape[1:],
            low=low,
            high=high,
            missing=_counts(absent),
            declared=_counts(hits),
            empty=_empty(block, absent, hits),
            zeros=zlib.compress(np.packbits(zeros).tobytes(), 1) if zeros is not None else b"",
            beside=beside,
        )

    def __add__(self, other: Survey) -> Survey:
        assert self.cells == other.cells
        zeros, ours, theirs = b"", self.beside, other.beside
        if ours and theirs and (both := self.always_zero() & other.always_zero()).any():
            zeros = zlib.compress(np.packbits(both).tobytes(), 1)
        return Survey(
            times=self.times + other.times,
            cells=self.cells,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
            missing=_sum(self.missing, other.missing),
            declared=_sum(self.declared, other.declared),
            empty=(*self.empty, *(self.times + place for place in other.empty)),
            zeros=zeros,
            beside=(min(ours[0], theirs[0]), max(ours[1], theirs[1]))
            if zeros and ours and theirs
            else None,
        )

    def always_zero(self) -> Array:
        """The cells that are exactly 0 at all times."""
        if not self.zeros:
            return np.zeros(self.cells, dtype=bool)
        packed = np.frombuffer(zlib.decompress(self.zeros), np.uint8)
        bits = np.unpackbits(packed, count=int(np.prod(self.cells)))
        return bits.reshape(self.cells).astype(bool)

    @property
    def zeros_stand_out(self) -> bool:
        """Whether 0 lies among the other values or far from them: then it is no least amount."""
        if self.beside is None:
            return False
        low, high = self.beside
        return low < 0.0 < high or low > 3.0 * (high - low) or -high > 3.0 * (high - low)

    def per_cell(self, declared: bool = False) -> Array:
        """How often each cell is missing, or has the declared value."""
        return _unpacked(self.declared if declared else self.missing, self.cells)

    def to_json(self) -> dict[str, Any]:
        """The survey as text and numbers, because JSON has no infinity."""
        plain: dict[str, Any] = {"times": self.times, "cells": list(self.cells)}
        if np.isfinite(self.low):
            plain |= {"low": self.low, "high": self.high}
        if self.empty:
            plain["empty"] = list(self.empty)
        for name in PACKED:
            if packed := getattr(self, name):
                plain[name] = base64.b64encode(packed).decode()
        if self.beside is not None and np.isfinite(self.beside).all():
            plain["beside"] = list(self.beside)
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Survey:
        packed = {name: base64.b64decode(plain.get(name, "")) for name in PACKED}
        known = plain.get("beside", (np.inf, -np.inf) if packed["zeros"] else None)
        return cls(
            beside=None if known is None else (known[0], known[1]),
            times=plain["times"],
            cells=tuple(plain["cells"]),
            low=plain.get("low", np.inf),
            high=plain.get("high", -np.inf),
            empty=tuple(plain.get("empty", ())),
            **packed,
        )


def total(surveys: Iterable[Survey]) -> Survey:
    return reduce(Survey.__add__, surveys)


def survey_of(array: xr.DataArray, declared: float | None = None) -> Survey:
    """Survey a whole field, a few times at once."""
    if "time" not in array.dims:
        return Survey.of(np.asarray(array.values), declared, map=True)
    times = array.sizes["time"]
    step = max(1, BLOCK_BYTES * times // max(1, 4 * array.size))
    return total(
        Survey.of(_read(array, slice(start, start + step)), declared)
        for start in range(0, times, step)
    )


def _read(array: xr.DataArray, times: slice) -> Array:
    block: Array = array.isel(time=times).load(scheduler="synchronous").values
    return block


def _empty(block: Array, absent: Array | None, hits: Array | None) -> tuple[int, ...]:
    """The times at which every cell is missing or has the declared value."""
    if (absent is None or not absent.any()) and (hits is None or not hits.any()):
        return ()
    lost = np.isnan(block) if hits is None else np.isnan(block) | hits
    return tuple(np.flatnonzero(lost.reshape(len(block), -1).all(axis=1)).tolist())


def _always_zero(block: Array) -> Array | None:
    """The cells that are 0 at all times of a block (time, cells...); None if there is none."""
    zeros = (block[0] == 0) & (block[-1] == 0)
    if zeros.any():
        zeros[zeros] = (block[:, zeros] == 0).all(axis=0)
    return zeros if zeros.any() else None


def _extremes(values: Array) -> tuple[float, float]:
    low = float(np.fmin.reduce(values, axis=None, initial=np.inf))
    return low, float(np.fmax.reduce(values, axis=None, initial=-np.inf))


def _counts(where: Array | None) -> bytes:
    if where is None or not where.any():
        return b""
    return zlib.compress(where.sum(axis=0, dtype="<u4").tobytes(), 1)


def _sum(one: bytes, other: bytes) -> bytes:
    if not one or not other:
        return one or other
    counts = [np.frombuffer(zlib.decompress(packed), "<u4") for packed in (one, other)]
    return zlib.compress((counts[0] + counts[1]).tobytes(), 1)


def _unpacked(packed: bytes, cells: tuple[int, ...]) -> Array:
    if not packed:
        return np.zeros(cells, dtype=np.int64)
    return np.frombuffer(zlib.decompress(packed), "<u4").reshape(cells).astype(np.int64)
