"""The score card: every candidate ensemble against held-out fields, beside its noise floor.

All candidates (the model, its Gaussian baselines, real fields of other years) pass through the same
code. What is asked of an arena is cut into units, each of which holds a bounded part of it, and
which whoever asks may hand to many processes: by dates (by_date), by places (by_place), by degrees
(by_degree). The result is plain nested dicts, ready for JSON:

    scores[variable][score][candidate] = {value, standard_error, ratio: {value, low, high} | None,
                                          excess}
    joint[score][candidate]            = the same; correlations between variables, whole fields
    spectra[variable]                  = {degree, held_out, ratio: {candidate: {value, low, high}}}
    ranks[variable][candidate]         = frequencies of rank 0 ... R
    distances[candidate]               = {realizations, dates}: how many the distances of whole
                                         fields are taken between

`ratio` is the score over the noise floor's, `excess` its difference to it in standard errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from pipeline.arrays import FloatArray, summed
from pipeline.scores import by_date, by_degree, by_place
from pipeline.scores.arena import CLIMATOLOGY, FLOOR, Arena, Variable
from pipeline.scores.bootstrap import Blocks, Estimate, Ratio, fair_root, mean_over_dates
from pipeline.scores.by_degree import Spectra
from pipeline.scores.maps import STATISTICS
from pipeline.scores.proper_scores import Energies, reliability_error

__all__ = ["Each", "Maps", "ScoreCard", "here", "score_card"]

Table = dict[str, Any]
U = TypeVar("U")
R = TypeVar("R")

# Does a function of the arena for each unit, in their order; the text says what the units are.
Each = Callable[[Callable[[Arena, Any], Any], Sequence[Any], str], list[Any]]
Maps = Mapping[str, tuple[xr.Dataset, xr.Dataset]]  # by variable: of the truth, of a candidate


def here(arena: Arena) -> Each:
    """Everything in this process."""
    return lambda function, units, _: [function(arena, unit) for unit in units]


@dataclass(frozen=True, kw_only=True)
class ScoreCard:
    """The table of the module, and maps to look at: mean, sd, skewness and q999."""

    table: Table
    maps: Maps


def score_card(arena: Arena, each: Each, names: Sequence[str], shown: str) -> ScoreCard:
    """Score every candidate; see the module for the result.

    Where the arena has a climatology, `skill` = 1 - CRPS / its CRPS is added to the entries of
    score "crps".

    Args:
        each: does the units.
        names: of the variables, wind speeds among them.
        shown: the candidate whose maps come back.
    """
    variables: list[Variable] = each(Arena.variable, names, "held-out fields")
    rows, ranks, climatology = _by_date(arena, each, variables)
    maps, units, shapes = _by_place(arena, each, variables, shown)
    scores: Table = {}
    for name in names:
        both = {owner: shapes[name][owner] | rows[name][owner] for owner in arena.candidates}
        scores[name] = _entries(both, arena.blocks)
        for score in ("mean", "sd", "q999"):
            for entry in scores[name][score].values():
                entry["relative"] = entry["value"] / units[name]
        if name in climatology:
            for entry in scores[name]["crps"].values():
                entry["skill"] = 1 - entry["value"] / climatology[name]
    spectra, errors = _spectra(arena)
    for name, entries in errors.items():
        scores[name]["spectrum"] = entries
    joint, distances = _joint(arena, each, variables)
    table = {
        "scores": scores,
        "joint": _entries(joint, arena.blocks),
        "spectra": spectra,
        "ranks": ranks,
        "distances": distances,
    }
    return ScoreCard(table=table, maps=maps)


Rows = dict[str, dict[str, dict[str, FloatArray]]]  # by variable, candidate and score


def _by_date(
    arena: Arena, each: Each, variables: Sequence[Variable]
) -> tuple[Rows, Table, dict[str, float]]:
    """Rows of the scores of dates; rank histograms; the CRPS of the climatology by variable."""
    units = list(by_date.date_units(arena, variables))
    sums = by_date.added(units, each(by_date.date_sums, units, "scores of dates"))
    rows: Rows = {}
    ranks: Table = {}
    climatology: dict[str, float] = {}
    for variable in variables:
        name, area = variable.name, float(arena.cells(variable)[1].sum())
        rows[name], ranks[name] = {}, {}
        for owner in arena.candidates:
            found = sums[name, owner]
            spread, error = (
                mean_over_dates(part, arena.weights) for part in (found.variance, found.error)
            )
            rows[name][owner] = {
                "crps": mean_over_dates(found.crps / area, arena.weights),
                "spread": np.sqrt(spread / error),
                "ranks": reliability_error(found.groups / area, arena.weights),
            }
            histogram = mean_over_dates(found.ranks / area, arena.weights[:1])[0]
            ranks[name][owner] = histogram.tolist()
        if arena.climatology is not None:
            climatology[name] = float(sums[name, CLIMATOLOGY].crps.mean() / area)
    return rows, ranks, climatology


def _by_place(
    arena: Arena, each: Each, variables: Sequence[Variable], shown: str
) -> tuple[dict[str, tuple[xr.Dataset, xr.Dataset]], dict[str, float], Rows]:
    """Maps to look at; the standard deviation about the season, and rows, by variable."""
    units = list(by_place.band_units(arena, variables, shown))
    sums = by_place.added(units, each(by_place.map_sums, units, "maps over dates"))
    tails = list(by_place.tail_units(arena, variables))
    ratios = by_place.tail_ratios(tails, each(by_place.tail_quantiles, tails, "tails"))
    maps, deviations = {}, {}
    rows: Rows = {}
    for variable in variables:
        name = variable.name
        rows[name] = {}
        for owner in arena.candidates:
            found = sums[name, owner]
            squares = found.squares.items()
            rows[name][owner] = {one: fair_root(total / found.area) for one, total in squares}
            rows[name][owner]["tail"] = ratios[name, owner]
            deviations[name] = float(np.sqrt(found.variance / found.area))
        maps[name] = _shown(arena, variable, sums[name, shown])
    return maps, deviations, rows


def _shown(
    arena: Arena, variable: Variable, found: by_place.MapSums
) -> tuple[xr.Dataset, xr.Dataset]:
    assert found.maps is not None
    cells, values = found.maps
    ordered = values[..., np.argsort(cells)]
    truth, ensemble = (
        xr.Dataset(
            {one: arena.on_grid(variable, row) for one, row in zip(STATISTICS, part, strict=True)}
        )
        for part in ordered
    )
    return truth, ensemble


def _joint(
    arena: Arena, each: Each, variables: Sequence[Variable]
) -> tuple[dict[str, dict[str, FloatArray]], Table]:
    """Correlations between variables per cell, and distances of whole fields, by candidate; and
    how many fields the latter are taken between."""
    pairs = list(by_place.pair_units(arena, by_place.everywhere(arena, variables)))
    found: dict[str, FloatArray] = summed(
        [unit.owner for unit in pairs], each(by_place.pair_sums, pairs, "correlations")
    )
    rows: dict[str, dict[str, FloatArray]] = {}
    distances: Table = {}
    for owner, sample in arena.candidates.items():
        errors = fair_root(found[owner] / arena.area.values.sum()) if owner in found else None
        own = {} if errors is None else {"correlation": np.sqrt(np.square(errors).mean(axis=0))}
        realizations, dates = by_degree.chosen(arena, sample)
        units = by_degree.energy_units(arena, owner)
        parts: list[FloatArray] = each(by_degree.products, units, f"distances of {owner}")
        products = reduce(np.add, parts)
        energies, weights = Energies.of_products(products, realizations), arena.weights[:, dates]
        rows[owner] = own | {
            "energy_score": energies.score(weights),
            "energy_distance": energies.distance(weights, arena.block, dates),
        }
        distances[owner] = {"realizations": realizations, "dates": len(dates)}
    return rows, distances


def _spectra(arena: Arena) -> tuple[Table, Table]:
    """Power per degree: curves by channel, and the entries of the score `spectrum` by variable."""
    found: dict[str, Spectra] = {
        owner: by_degree.spectra_of(arena, sample) for owner, sample in arena.candidates.items()
    }
    truth = by_degree.mean_power(arena, arena.truth, 0)
    curves: Table = {}
    for place, name in enumerate(arena.channels):
        ratios: Table = {}
        for owner, spectra in found.items():
            log = np.log(spectra.mean[:, place] / truth[:, place])
            width = arena.blocks.half_width(log[1:])
            ratios[owner] = {
                "value": np.exp(log[0]).tolist(),
                "low": np.exp(log[0] - width).tolist(),
                "high": np.exp(log[0] + width).tolist(),
            }
        curves[name] = {
            "degree": list(range(truth.shape[-1])),
            "held_out": truth[0, place].tolist(),
            "ratio": ratios,
        }
    errors = {}
    for name in by_degree.parts_of(arena):
        rows = {owner: {"spectrum": one.errors[name]} for owner, one in found.items()}
        errors[name] = _entries(rows, arena.blocks)["spectrum"]
    return curves, errors


def _entries(rows: Mapping[str, Mapping[str, FloatArray]], blocks: Blocks) -> Table:
    """Rows by candidate and score, turned to entries by score and candidate."""
    table: Table = {}
    floor = rows.get(FLOOR)
    for owner, by_score in rows.items():
        for score, row in by_score.items():
            entry: Table = asdict(Estimate.of(row, blocks)) | {"ratio": None, "excess": None}
            if floor is not None and owner != FLOOR:
                # An energy distance has either sign: its floor is 0, and no ratio has a meaning.
                if score != "energy_distance":
                    entry["ratio"] = asdict(Ratio.of(row, floor[score], blocks))
                difference = Estimate.of(row - floor[score], blocks)
                entry["excess"] = difference.value / max(difference.standard_error, 1e-300)
            table.setdefault(score, {})[owner] = entry
    return table
