"""Scores that belong to a date: CRPS, spread and error, ranks. Dates and cells are divided.

A unit has some dates and some cells of one candidate, all its realizations; sums over the cells
with their area come back, which add up to the whole sphere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.arrays import FloatArray, Sums, summed
from pipeline.scores.arena import CLIMATOLOGY, NUMBERS, TRUTH, Arena, Variable
from pipeline.scores.proper_scores import fair_crps, group_histograms, rank_histogram

__all__ = ["DateSums", "DateUnit", "added", "date_sums", "date_units"]

MOST_DATES = 64  # of a unit


@dataclass(frozen=True)
class DateUnit:
    """Some dates and some of the valid cells of a candidate, or of the climatology."""

    owner: str
    variable: Variable
    dates: tuple[int, int]
    cells: tuple[int, int]

    def __str__(self) -> str:
        return f"of {self.variable.name}, {self.owner}, dates {self.dates[0]} to {self.dates[1]}"


@dataclass(frozen=True, kw_only=True)
class DateSums(Sums):
    """Sums over cells of area times something, by date.

    Attributes:
        crps, variance, error: (date,); of the ensemble, its mean squared error.
        ranks: (date, rank); groups: (group, date, rank) of `Arena.fewest` realizations each. None
            of the climatology.
    """

    crps: FloatArray
    variance: FloatArray
    error: FloatArray
    ranks: FloatArray = field(default_factory=lambda: np.zeros(0))
    groups: FloatArray = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def joined(cls, parts: Sequence[DateSums]) -> DateSums:
        """Of the dates of all parts, in their order."""

        def along(name: str, axis: int) -> FloatArray:
            return np.concatenate([getattr(each, name) for each in parts], axis=axis)

        groups = parts[0].groups.ndim == 3
        return cls(
            **{name: along(name, 0) for name in ("crps", "variance", "error", "ranks")},
            groups=along("groups", 1) if groups else parts[0].groups,
        )


def date_units(arena: Arena, variables: Iterable[Variable]) -> Iterator[DateUnit]:
    """All units, so large that an array of one has `NUMBERS` numbers at most."""
    owners = [*arena.candidates, *([CLIMATOLOGY] if arena.climatology is not None else [])]
    for variable in variables:
        size = len(variable.cells(arena.area.size))
        for owner in owners:
            numbers = max(1, NUMBERS // arena.fields_of(owner).realizations)
            cells = min(size, numbers)
            dates = min(MOST_DATES, max(1, numbers // max(1, size)))
            for start in range(0, arena.dates, dates):
                for first in range(0, size, cells):
                    yield DateUnit(
                        owner,
                        variable,
                        (start, min(start + dates, arena.dates)),
                        (first, min(first + cells, size)),
                    )


def date_sums(arena: Arena, unit: DateUnit) -> DateSums:
    """The sums of one unit."""
    cells, area, _ = arena.cells(unit.variable)
    part, dates = slice(*unit.cells), slice(*unit.dates)
    cells, area, name = cells[part], area[part], unit.variable.name
    ensemble = arena.ensemble(unit.owner, name, cells, dates=dates)
    truth = arena.ensemble(TRUTH, name, cells, dates=dates)[0]
    if unit.owner == CLIMATOLOGY:
        years = None if arena.years is None else arena.years[:, dates]
        crps = fair_crps(ensemble, truth, years) @ area
        return DateSums(crps=crps, variance=0 * crps, error=0 * crps)
    variance = ensemble.var(axis=0, ddof=1) * (1 + 1 / len(ensemble))
    return DateSums(
        crps=fair_crps(ensemble, truth) @ area,
        variance=variance @ area,
        error=np.square(ensemble.mean(axis=0) - truth) @ area,
        ranks=area.sum() * rank_histogram(ensemble, truth, area),
        groups=area.sum() * group_histograms(ensemble, truth, area, arena.fewest),
    )


def added(units: Sequence[DateUnit], found: Sequence[DateSums]) -> dict[tuple[str, str], DateSums]:
    """By variable and owner: all cells together, all dates one after the other."""
    by_dates: dict[tuple[str, str], dict[int, DateSums]] = defaultdict(dict)
    keys = [(unit.variable.name, unit.owner, unit.dates[0]) for unit in units]
    for (name, owner, start), sums in summed(keys, found).items():
        by_dates[name, owner][start] = sums
    return {
        place: DateSums.joined([known[start] for start in sorted(known)])
        for place, known in by_dates.items()
    }
