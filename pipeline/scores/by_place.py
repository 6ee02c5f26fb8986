"""Scores that belong to a place: maps over dates, tails, correlations. The sphere is divided.

A unit has all dates of some cells and looks at one realization after the other; sums over the cells
with their area come back. The 99.9 % quantile of the whole sphere is divided by realizations.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.arrays import FloatArray, summed
from pipeline.scores.arena import NUMBERS, TRUTH, Arena, Variable
from pipeline.scores.maps import (
    STATISTICS,
    IntArray,
    correlation_squares,
    map_squares,
    pooled_quantile,
    standardised,
)

__all__ = [
    "MapSums",
    "MapUnit",
    "PairUnit",
    "TailUnit",
    "added",
    "band_units",
    "everywhere",
    "map_sums",
    "pair_sums",
    "pair_units",
    "tail_quantiles",
    "tail_units",
]


@dataclass(frozen=True)
class MapUnit:
    """All cells of some bands (`Arena.bands`) of a candidate.

    Attributes:
        shown: whether its maps come back, to be looked at.
    """

    owner: str
    variable: Variable
    bands: tuple[int, int]
    shown: bool = False

    def __str__(self) -> str:
        return f"of {self.variable.name}, {self.owner}, bands {self.bands[0]} to {self.bands[1]}"


@dataclass(frozen=True, kw_only=True)
class MapSums:
    """Of some cells: sums over them of area times squared errors of their maps, by statistic,
    (replicate,); of area times the variance of the truth about its season; and of the area.

    Attributes:
        maps: places among the valid cells, and the maps there of truth and ensemble, (2, statistic,
            cell), float32; None where they are not shown.
    """

    squares: dict[str, FloatArray]
    variance: float
    area: float
    maps: tuple[IntArray, FloatArray] | None = None

    def __add__(self, other: MapSums) -> MapSums:
        squares: dict[str, FloatArray] = {
            name: each + other.squares[name] for name, each in self.squares.items()
        }
        maps = None
        if self.maps is not None and other.maps is not None:
            both = zip(self.maps, other.maps, strict=True)
            cells, values = (np.concatenate(pair, axis=-1) for pair in both)
            maps = cells, values
        return MapSums(
            squares=squares,
            variance=self.variance + other.variance,
            area=self.area + other.area,
            maps=maps,
        )


@dataclass(frozen=True)
class TailUnit:
    """Some realizations of a candidate, or of the truth."""

    owner: str
    variable: Variable
    realizations: tuple[int, int]

    def __str__(self) -> str:
        return f"of {self.variable.name}, {self.owner}, realizations from {self.realizations[0]}"


@dataclass(frozen=True)
class PairUnit:
    """Some cells of a candidate; `variables` of it are correlated with each other."""

    owner: str
    variables: tuple[str, ...]
    cells: tuple[int, int]

    def __str__(self) -> str:
        return f"of {self.owner}, cells {self.cells[0]} to {self.cells[1]}"


def band_units(
    arena: Arena, variables: Iterable[Variable], shown: str | None = None
) -> Iterator[MapUnit]:
    """Bands in units, so large that the arrays of one have `NUMBERS` numbers or so.

    Args:
        shown: the candidate whose maps are looked at.
    """
    # Each cell has its dates, and tables of replicates: three of four statistics.
    most = max(1, NUMBERS // max(8 * arena.dates, 12 * len(arena.weights)))
    for variable in variables:
        sizes = np.bincount(arena.bands(variable))
        before = np.cumsum(sizes) - sizes
        part = before // most  # bands that begin within the same so many cells
        edges = [0, *(np.flatnonzero(np.diff(part)) + 1).tolist(), len(sizes)]
        for owner in arena.candidates:
            for start, stop in itertools.pairwise(edges):
                yield MapUnit(owner, variable, (start, stop), owner == shown)


def map_sums(arena: Arena, unit: MapUnit) -> MapSums:
    """The sums of one unit."""
    (cells, area, _), band = arena.cells(unit.variable), arena.bands(unit.variable)
    inside = np.flatnonzero((band >= unit.bands[0]) & (band < unit.bands[1]))
    cells, area, band = cells[inside], area[inside], band[inside] - unit.bands[0]
    name = unit.variable.name
    truth, shift = arena.ensemble(TRUTH, name, cells)[0], arena.usual(name, cells)
    members = (
        arena.ensemble(unit.owner, name, cells, slice(number, number + 1))[0]
        for number in range(arena.fields_of(unit.owner).realizations)
    )
    found = map_squares(members, truth, shift, area, band, arena.weights)
    maps = None
    if unit.shown:
        both = [[each[one] for one in STATISTICS] for each in (found.truth, found.ensemble)]
        maps = inside, np.array(both, np.float32)
    return MapSums(
        squares=found.squares,
        variance=float((truth - shift).var(axis=0, ddof=1) @ area),
        area=float(area.sum()),
        maps=maps,
    )


def added(units: Sequence[MapUnit], found: Sequence[MapSums]) -> dict[tuple[str, str], MapSums]:
    """By variable and owner, all cells together."""
    return summed([(unit.variable.name, unit.owner) for unit in units], found)


def tail_units(arena: Arena, variables: Iterable[Variable]) -> Iterator[TailUnit]:
    """As many realizations in a unit as have `NUMBERS` values together; one at least."""
    for variable in variables:
        values = arena.dates * len(variable.cells(arena.area.size))
        for owner in (TRUTH, *arena.candidates):
            number = arena.fields_of(owner).realizations
            step = max(1, NUMBERS // max(1, values))
            for start in range(0, number, step):
                yield TailUnit(owner, variable, (start, min(start + step, number)))


def tail_quantiles(arena: Arena, unit: TailUnit) -> FloatArray:
    """The 99.9 % quantile of standardised values of the whole sphere, (realization, replicate)."""
    cells, area, _ = arena.cells(unit.variable)
    step, name = max(1, NUMBERS // arena.dates), unit.variable.name
    places = [slice(start, start + step) for start in range(0, len(cells), step)]

    def parts(number: int) -> Iterator[tuple[FloatArray, FloatArray]]:
        for place in places:
            one = slice(number, number + 1)
            values = arena.ensemble(unit.owner, name, cells[place], one)[0]
            yield standardised(values - arena.usual(name, cells[place])), area[place]

    size, whole = arena.dates * len(cells), float(area.sum())
    return np.stack(
        [
            pooled_quantile(lambda n=number: parts(n), size, whole, arena.weights)  # type: ignore[misc]
            for number in range(*unit.realizations)
        ]
    )


def tail_ratios(
    units: Sequence[TailUnit], found: Sequence[FloatArray]
) -> dict[tuple[str, str], FloatArray]:
    """By variable and owner: the mean quantile of the realizations over the truth's."""
    sums: dict[tuple[str, str], list[FloatArray]] = defaultdict(list)
    for unit, rows in zip(units, found, strict=True):
        sums[unit.variable.name, unit.owner].append(rows)
    means = {place: np.concatenate(rows).mean(axis=0) for place, rows in sums.items()}
    return {
        (name, owner): mean / means[name, TRUTH]
        for (name, owner), mean in means.items()
        if owner != TRUTH
    }


def everywhere(arena: Arena, variables: Iterable[Variable]) -> tuple[str, ...]:
    """The variables that are modelled and never missing anywhere."""
    whole = {each.name for each in variables if each.valid is None}
    return tuple(name for name in arena.modelled if name in whole)


def pair_units(arena: Arena, names: tuple[str, ...]) -> Iterator[PairUnit]:
    """Runs of cells, so large that the table of pairs and replicates has `NUMBERS` numbers or so;
    none where there is only one variable."""
    if len(names) < 2:
        return
    pairs, replicates = len(names) * (len(names) - 1) // 2, len(arena.weights)
    each = replicates * pairs + 4 * len(names) * (arena.dates + replicates)
    step, size = max(1, NUMBERS // each), arena.area.size
    for owner in arena.candidates:
        for start in range(0, size, step):
            yield PairUnit(owner, names, (start, min(start + step, size)))


def pair_sums(arena: Arena, unit: PairUnit) -> FloatArray:
    """Sums over cells of area times squared errors of correlations, (pair, replicate)."""
    cells = np.arange(*unit.cells)

    def read(owner: str, number: int) -> list[FloatArray]:
        one = slice(number, number + 1)
        return [arena.ensemble(owner, name, cells, one)[0] for name in unit.variables]

    realizations = arena.fields_of(unit.owner).realizations
    return correlation_squares(
        (read(unit.owner, number) for number in range(realizations)),
        read(TRUTH, 0),
        [arena.usual(name, cells) for name in unit.variables],
        arena.area.values.ravel()[cells],
        arena.weights,
    )
