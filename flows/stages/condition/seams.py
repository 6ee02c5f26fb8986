"""How filled days do: at the seams, beside the record where it has them, and at observed places.

The pattern of a day resembles that of the day before by so much in the record; the figures say by
how much it does where a gap begins, within it, and where it ends. Where days were drawn that the
record has, they are compared with it by how far the nearest known day is.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from flows.config.schema import RunConfig
from flows.stages.condition.draws import EVIDENCE
from flows.stages.condition.findings import (
    BAND,
    coverage_words,
    nominal_coverage,
    publish_card,
)
from flows.stages.condition.gaps import DrawnDays
from pipeline.arrays import FloatArray
from pipeline.fields.climatology import season_phase
from pipeline.fields.standardisation import Normals
from pipeline.fields.whitening import stack_variables
from pipeline.scores.proper_scores import fair_crps
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout

__all__ = ["publish_seams"]

SEASON = np.pi / 6  # a month: how far pairs of the record may lie from the filled days in the year
PAIRS = 100  # of the record, at most


def publish_seams(
    config: RunConfig,
    layout: StoreLayout,
    conditioned: artifacts.Published,
    gaps: DrawnDays,
    observed: artifacts.Published | None,
) -> dict[str, Any]:
    """The figures of filled days, published with their page; returns those to print."""
    ensemble = artifacts.open_artifact(conditioned)
    known = Normals.of(artifacts.open_published(layout, "normals").load())
    fields = artifacts.open_published(layout, "fields")
    what = "the days beside the gaps"
    card: dict[str, Any] = {
        "title": f"Given {', '.join([*config.condition.given, what])}",
        "model": config.train.model,
        "weighed": False,
        "realizations": config.condition.realizations,
        "times": [str(time) for time in ensemble["time"].values],
        "gaps": gaps.spoken,
        "digest": conditioned.digest,
        "names": list(known.variables),
    }
    card |= _looked_at(gaps, known, fields, ensemble)
    card |= _evidence(gaps, ensemble)
    return publish_card(config, layout, conditioned, card, observed) | _figures(card)


def _figures(card: dict[str, Any]) -> dict[str, Any]:
    """The few numbers of gaps that are worth a line in the log."""
    evidence = round(float(np.mean(card["log_evidence"])), 2)
    figures: dict[str, Any] = {"gaps": len(card["gaps"]), "log evidence": evidence}
    means = {
        name: np.mean([one["mean"] for one in card["seams"][name]])
        for name in ("first day", "last day", "record")
        if name in card["seams"]
    }
    for name, mean in means.items():
        words = "of days of the record" if name == "record" else f"of the {name} with its neighbour"
        figures[f"correlation {words}"] = round(float(mean), 3)
    if "record" in card:
        whole = [one["coverage"] for one in card["record"]["by distance"].values()]
        words = coverage_words(float(np.mean(whole)), card["record"]["nominal"])
        figures["coverage on days that the record has"] = words
    return figures


def _standard(ensemble: xr.Dataset, times: xr.Dataset, known: Normals, column: int) -> FloatArray:
    """Anomalies of a day in climatological deviations, (realization, variable, *grid)."""
    day, row = ensemble.isel(time=[column]), known.rows(times.isel(time=[column]))
    maps = known.pointwise(row)
    parts = [
        known.anomalies(stack_variables(day.isel(realization=k), maps), row)[0]
        for k in range(day.sizes["realization"])
    ]
    return np.stack(parts)


def _of_record(fields: xr.Dataset, known: Normals) -> FloatArray:
    """The same of days of the record, (time, variable, *grid)."""
    rows = known.rows(fields)
    return known.anomalies(stack_variables(fields, known.pointwise(rows)), rows)


def _looked_at(
    gaps: DrawnDays, known: Normals, fields: xr.Dataset, ensemble: xr.Dataset
) -> dict[str, Any]:
    """What a card says of the days of gaps, of which two are in memory at a time."""
    there = {time: row for row, time in enumerate(fields["time"].values)}
    wanted, column = set(gaps.wanted), 0
    found: dict[str, list[FloatArray]] = {}
    scores: dict[int, list[dict[str, float]]] = {}

    def of_record(number: int) -> FloatArray | None:
        row = there.get(gaps.time(number))
        return None if row is None else _of_record(fields.isel(time=[row]), known)[0]

    def compare(name: str, day: FloatArray, other: FloatArray | None) -> None:
        if other is not None:
            found.setdefault(name, []).append(_resemblance(known, day, other))

    def beside(number: int) -> FloatArray | None:
        return None if number in wanted else of_record(number)

    for run in gaps.runs:
        before = None
        for place, number in enumerate(run):
            day = _standard(ensemble, gaps.times, known, column)
            column += 1
            if place == 0:
                compare("first day", day, beside(number - 1))
            compare("within", day, before)
            if place == len(run) - 1:
                compare("last day", day, beside(number + 1))
            truth = of_record(number) if len(day) > 1 else None
            if truth is not None:
                distance = min(place + 1, len(run) - place)
                scores.setdefault(distance, []).append(_scores(known, day, truth))
            before = day
    found |= _of_pairs(gaps, known, fields)
    told = _by_distance(scores, ensemble.sizes["realization"])
    seams = {name: _by_variable(np.concatenate(parts)) for name, parts in found.items()}
    return {"seams": seams} | ({"record": told} if told else {})


def _evidence(gaps: DrawnDays, ensemble: xr.Dataset) -> dict[str, Any]:
    """log of the density of all that is known of each gap [nats]; of gaps that are drawn together,
    together."""
    columns = {number: column for column, number in enumerate(gaps.wanted)}
    first = [min(number for number in window.days if number in columns) for window in gaps.windows]
    nats = ensemble[EVIDENCE].isel(realization=0, time=[columns[number] for number in first])
    return {"log_evidence": [float(one) for one in nats.values]}


def _area(known: Normals) -> FloatArray:
    """Of the cells of each variable, 0 where it is masked, (variable, *grid)."""
    return np.where(known.mask, 0.0, known.grid.area)


def _by_variable(correlations: FloatArray) -> list[dict[str, float]]:
    """Of correlations (pair, variable)."""
    return [
        {"mean": float(one.mean()), "deviation": float(one.std()), "pairs": len(one)}
        for one in correlations.T
    ]


def _resemblance(known: Normals, a: FloatArray, b: FloatArray) -> FloatArray:
    """Correlation over the sphere of anomalies (pair, variable, *grid), (pair, variable)."""
    weight = _area(known)
    axes = tuple(range(-len(known.grid.shape), 0))

    def product(one: FloatArray, other: FloatArray) -> FloatArray:
        total: FloatArray = (weight * one * other).sum(axis=axes)
        return total

    scale = np.sqrt(product(a, a) * product(b, b))
    return product(a, b) / np.where(scale > 0.0, scale, 1.0)


def _of_pairs(gaps: DrawnDays, known: Normals, fields: xr.Dataset) -> dict[str, list[FloatArray]]:
    """How days of the record resemble the day before, in the season of the filled days."""
    found = []
    for row in _pairs(gaps, fields):
        before, after = _of_record(fields.isel(time=[row, row + 1]), known)
        found.append(_resemblance(known, after[None], before))
    return {"record": found} if found else {}


def _pairs(gaps: DrawnDays, fields: xr.Dataset) -> FloatArray:
    """Places of days of the record that the next one follows, in the season of the filled days."""
    times = fields["time"]
    follows = np.flatnonzero(np.diff(times.values) == gaps.step)
    asked = np.unique(np.round(season_phase(gaps.times["time"]), 2))
    apart = np.subtract.outer(season_phase(times)[follows], asked)
    near = np.abs((apart + np.pi) % (2.0 * np.pi) - np.pi).min(axis=1) < SEASON
    filled = np.isin(times.values, gaps.times["time"].values)
    kept = follows[near & ~filled[follows] & ~filled[follows + 1]]
    return kept[np.linspace(0, len(kept) - 1, min(PAIRS, len(kept))).astype(int)]


def _by_distance(
    scores: Mapping[int, Sequence[Mapping[str, float]]], realizations: int
) -> dict[str, Any]:
    """Scores of filled days that the record has, by how far the nearest known day is."""
    if not scores:
        return {}
    return {
        "nominal": nominal_coverage(realizations),
        "by distance": {
            str(distance): {"days": len(some)}
            | {name: float(np.mean([one[name] for one in some])) for name in some[0]}
            for distance, some in sorted(scores.items())
        },
    }


def _scores(known: Normals, drawn: FloatArray, truth: FloatArray) -> dict[str, float]:
    """Of draws (realization, variable, *grid) of a day, means over the sphere and variables."""
    weight = _area(known)
    weight = weight / weight.sum()
    low, high = np.quantile(drawn, [(1 - BAND) / 2, (1 + BAND) / 2], axis=0)
    crps = fair_crps(drawn[:, None], truth[None])[0]
    error = np.square(drawn.mean(axis=0) - truth)
    return {
        "coverage": float((weight * ((truth >= low) & (truth <= high))).sum()),
        "crps": float((weight * crps).sum()),
        "error": float(np.sqrt((weight * error).sum())),
        "spread": float(np.sqrt((weight * drawn.var(axis=0, ddof=1)).sum())),
    }
