"""The tables of transforms: made in float64, kept in the working type, by grid and lmax.

They take a time and a memory that grow as the cube of lmax. A process that is told of a `Shelf`
takes them from there, so that all processes of a host can read the same copy.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.sphere.aliasing import Coupling, coupled_waves, couplings
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.legendre import Sectors, matrices

__all__ = ["Arrays", "Parts", "Shelf", "Tables", "keep_on", "tables"]

Arrays = dict[str, npt.NDArray[Any]]
Parts = dict[str, list[npt.NDArray[Any]]]
DEAR = 64  # lmax from which tables are worth keeping: below, they are made in a hundredth second


class Shelf(Protocol):
    """Flat arrays of a name, kept for other processes.

    For what it does not have it calls `make`, which gives the parts of each array, of one type,
    as they follow each other.
    """

    def __call__(self, name: str, make: Callable[[], Parts]) -> Arrays: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Tables:
    sectors: tuple[Sectors, ...]
    couplings: tuple[Coupling, ...]  # none where all rings have one length


_shelf: Shelf | None = None


def keep_on(shelf: Shelf | None) -> None:
    """Take the tables of this process from there from now on; None: it makes its own."""
    global _shelf
    _shelf = shelf


@lru_cache(maxsize=8)
def tables(grid: RingGrid, lmax: int, dtype: str) -> Tables:
    """All matrices of a grid.

    Raises:
        ValueError: If lmax is beyond `grid.max_lmax`, or if so many latitudes are missing that
            analysis would amplify noise beyond use.
    """

    def make() -> Parts:
        return _parts(_made(grid, lmax, dtype))

    if _shelf is None or lmax < DEAR:
        return _made(grid, lmax, dtype)
    digest = hashlib.sha256(repr(grid).encode()).hexdigest()[:24]
    return _shaped(_shelf(f"{digest}-l{lmax}-{dtype}", make))


def _made(grid: RingGrid, lmax: int, dtype: str) -> Tables:
    negligible = 0.01 * float(np.finfo(dtype).eps)
    kept: list[Sectors] = []

    def exact() -> Any:
        for sector in matrices(grid, lmax, negligible):
            kept.append(_cast(sector, dtype))
            yield sector

    if grid.kind != "healpix":
        for _ in exact():
            pass
        return Tables(sectors=tuple(kept), couplings=())
    found = couplings(grid, coupled_waves(grid, lmax, 0.1 * float(np.finfo(dtype).eps)), exact())
    return Tables(
        sectors=tuple(kept),
        couplings=tuple(
            Coupling(
                sign=one.sign,
                waves=one.waves,
                real=one.real.astype(dtype),
                imaginary=one.imaginary.astype(dtype),
            )
            for one in found
        ),
    )


def _cast(sector: Sectors, dtype: str) -> Sectors:
    return Sectors(
        orders=sector.orders,
        sign=sector.sign,
        rows=sector.rows,
        degrees=sector.degrees,
        analysis=sector.analysis.astype(dtype),
        synthesis=sector.synthesis.astype(dtype),
    )


def _parts(made: Tables) -> Parts:
    """The same numbers as a shelf wants them."""
    sectors, pairs = made.sectors, made.couplings
    void, none = np.empty(0, sectors[0].analysis.dtype), np.empty(0, np.intp)
    heads = [
        (s.orders.start, s.orders.stop, s.sign, s.rows.start, s.rows.stop, s.degrees.shape[1])
        for s in sectors
    ]
    return {
        "sectors": [np.array(heads, np.intp)],
        "degrees": [s.degrees for s in sectors],
        "analysis": [s.analysis for s in sectors],
        "synthesis": [s.synthesis for s in sectors],
        "couplings": [none, *(np.array([c.sign, len(c.waves)], np.intp) for c in pairs)],
        "waves": [none, *(c.waves for c in pairs)],
        "real": [void, *(c.real for c in pairs)],
        "imaginary": [void, *(c.imaginary for c in pairs)],
    }


class _Cut:
    """Takes arrays of given shapes off the front of a flat one, without copying."""

    def __init__(self, flat: npt.NDArray[Any]) -> None:
        self.flat, self.end = flat, 0

    def __call__(self, *shape: int) -> npt.NDArray[Any]:
        start, self.end = self.end, self.end + math.prod(shape)
        return self.flat[start : self.end].reshape(shape)


def _shaped(arrays: Arrays) -> Tables:
    cut = {name: _Cut(array) for name, array in arrays.items()}
    sectors = []
    for first, last, sign, top, bottom, count in arrays["sectors"].reshape(-1, 6).tolist():
        shape = last - first, bottom - top, count
        sectors.append(
            Sectors(
                orders=slice(first, last),
                sign=sign,
                rows=slice(top, bottom),
                degrees=cut["degrees"](last - first, count),
                analysis=cut["analysis"](*shape),
                synthesis=cut["synthesis"](*shape),
            )
        )
    found = [
        Coupling(
            sign=sign,
            waves=cut["waves"](size, 2),
            real=cut["real"](size, size),
            imaginary=cut["imaginary"](size, size),
        )
        for sign, size in arrays["couplings"].reshape(-1, 2).tolist()
    ]
    return Tables(sectors=tuple(sectors), couplings=tuple(found))
