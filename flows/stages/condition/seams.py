"""How filled days do: at the seams, beside the record where it has them, and at observed places.

The pattern of a day resembles that of the day before by so much in the record; the figures say by
how much it does where a gap begins, within it, and where it ends. Where days were drawn that the
record has, they are compared with it by how far the nearest known day is.
"""

import itertools
from typing import Any

import numpy as np
import xarray as xr

from flows.config.schema import RunConfig
from flows.stages.condition.findings import (
    BAND,
    coverage_words,
    nominal_coverage,
    publish_card,
)
from flows.stages.condition.gaps import Gaps
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
    gaps: Gaps,
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
    drawn = _standard(ensemble, gaps.times, known)
    card["seams"] = _seams(gaps, known, fields, drawn)
    if told := _beside_record(gaps, known, fields, drawn):
        card["record"] = told
    return publish_card(config, layout, conditioned, card, observed) | _figures(card)


def _figures(card: dict[str, Any]) -> dict[str, Any]:
    """The few numbers of gaps that are worth a line in the log."""
    figures: dict[str, Any] = {"gaps": len(card["gaps"])}
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


def _standard(fields: xr.Dataset, times: xr.Dataset, known: Normals) -> FloatArray:
    """Anomalies in climatological standard deviations, (realization, time, variable, *grid)."""
    rows = known.rows(times)
    parts = [
        known.anomalies(stack_variables(fields.isel(realization=k), known.pointwise), rows)
        for k in range(fields.sizes["realization"])
    ]
    return np.stack(parts)


def _of_record(fields: xr.Dataset, known: Normals) -> FloatArray:
    """The same of days of the record, (time, variable, *grid)."""
    return known.anomalies(stack_variables(fields, known.pointwise), known.rows(fields))


def _rows(fields: xr.Dataset) -> dict[Any, int]:
    """Where the record has each of its days."""
    return {time: row for row, time in enumerate(fields["time"].values)}


def _seams(
    gaps: Gaps, known: Normals, fields: xr.Dataset, drawn: FloatArray
) -> dict[str, list[dict[str, float]]]:
    """By variable, how days resemble the day before: mean and deviation of correlations."""
    places = {number: column for column, number in enumerate(gaps.wanted)}
    there = _rows(fields)
    found: dict[str, list[FloatArray]] = {}

    def beside(number: int) -> FloatArray | None:
        row = there.get(gaps.time(number)) if number not in places else None
        return None if row is None else _of_record(fields.isel(time=[row]), known)[0]

    for run in gaps.runs:
        columns = [places[number] for number in run]
        sides = {"first day": (run[0] - 1, columns[0]), "last day": (run[-1] + 1, columns[-1])}
        for name, (number, column) in sides.items():
            if (day := beside(number)) is not None:
                found.setdefault(name, []).append(_resemblance(known, drawn[:, column], day))
        for earlier, later in itertools.pairwise(columns):
            both = drawn[:, later], drawn[:, earlier]
            found.setdefault("within", []).append(_resemblance(known, *both))
    pairs = _pairs(gaps, fields)
    if pairs.size:
        before, after = (_of_record(fields.isel(time=at), known) for at in (pairs, pairs + 1))
        found["record"] = [_resemblance(known, after, before)]
    return {name: _by_variable(np.concatenate(parts)) for name, parts in found.items()}


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


def _pairs(gaps: Gaps, fields: xr.Dataset) -> FloatArray:
    """Places of days of the record that the next one follows, in the season of the filled days."""
    times = fields["time"]
    follows = np.flatnonzero(np.diff(times.values) == gaps.step)
    asked = np.unique(np.round(season_phase(gaps.times["time"]), 2))
    apart = np.subtract.outer(season_phase(times)[follows], asked)
    near = np.abs((apart + np.pi) % (2.0 * np.pi) - np.pi).min(axis=1) < SEASON
    filled = np.isin(times.values, gaps.times["time"].values)
    kept = follows[near & ~filled[follows] & ~filled[follows + 1]]
    return kept[np.linspace(0, len(kept) - 1, min(PAIRS, len(kept))).astype(int)]


def _beside_record(
    gaps: Gaps, known: Normals, fields: xr.Dataset, drawn: FloatArray
) -> dict[str, Any] | None:
    """Scores of filled days that the record has, by how far the nearest known day is."""
    there = _rows(fields)
    by_distance: dict[int, list[dict[str, float]]] = {}
    column = 0
    for run in gaps.runs:
        for place in range(len(run)):
            row = there.get(gaps.time(run[place]))
            if row is not None and len(drawn) > 1:
                truth = _of_record(fields.isel(time=[row]), known)[0]
                distance = min(place + 1, len(run) - place)
                scores = _scores(known, drawn[:, column], truth)
                by_distance.setdefault(distance, []).append(scores)
            column += 1
    if not by_distance:
        return None
    return {
        "nominal": nominal_coverage(len(drawn)),
        "by distance": {
            str(distance): {"days": len(scores)}
            | {name: float(np.mean([one[name] for one in scores])) for name in scores[0]}
            for distance, scores in sorted(by_distance.items())
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
