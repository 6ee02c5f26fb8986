"""How draws given observations do: at the observed places, at those withheld, beside kriging.

`findings/conditioned.json` has the figures, `findings/conditioned.html` is the page about them.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy.special import ndtr

from flows.config.schema import RunConfig
from flows.report.conditioned_page import render
from flows.stages.condition.draws import (
    AGAINST,
    EFFECTIVE,
    EVIDENCE,
    GAUSSIAN_EVIDENCE,
    group_of,
)
from flows.stages.condition.observed import (
    coarse_degree,
    conditions_of,
    functionals_of,
    given_at,
)
from flows.stages.preprocess.normals import baseline_of, tail_of
from flows.stages.trained_model import baseline_name
from pipeline.arrays import FloatArray
from pipeline.fields.standardisation import Normals, transformed
from pipeline.gaussian.posterior import GaussianPosterior
from pipeline.given.carried import carry
from pipeline.given.events import ratio
from pipeline.given.seen import Seen, Summary
from pipeline.scores.proper_scores import fair_crps
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout

KIND = "findings"
BAND = 0.9
MOST = 2000  # withheld observations that kriging is asked for
BINS = 10  # of ranks
LEAST = -700.0  # nats of a probability; below it its inverse is no number


def publish_findings(
    config: RunConfig,
    layout: StoreLayout,
    conditioned: artifacts.Published,
    observed: artifacts.Published | None,
) -> dict[str, Any]:
    """The figures of a conditioned ensemble, published with their page; returns those to print."""
    ensemble = artifacts.open_artifact(conditioned)
    card: dict[str, Any] = {
        "title": f"Given {', '.join(config.condition.given) or 'an event'}",
        "model": config.train.model,
        "weighed": config.draws_by_network and not config.conditions_sequences,
        "particles": config.condition.particles,
        "realizations": config.condition.realizations,
        "times": [str(time) for time in ensemble["time"].values],
        "log_evidence": _by_group(config, ensemble[EVIDENCE]),
        "log_evidence_gaussian": _by_group(config, ensemble[GAUSSIAN_EVIDENCE]),
        "effective": float(ensemble[EFFECTIVE].min()),
        "digest": conditioned.digest,
    }
    if config.condition.event is not None:
        card["event"] = _event(config, ensemble)
    return publish_card(config, layout, conditioned, card, observed) | _figures(card)


def publish_card(
    config: RunConfig,
    layout: StoreLayout,
    conditioned: artifacts.Published,
    card: dict[str, Any],
    observed: artifacts.Published | None,
) -> dict[str, Any]:
    """Publish what was found, with what it says of observations, and its page; returns the few
    numbers of any card that are worth a line in the log."""
    ensemble = artifacts.open_artifact(conditioned)
    if observed is not None:
        card |= _against_observations(config, layout, ensemble, observed)
    files = {
        "conditioned.json": json.dumps(card, indent=1, allow_nan=False).encode(),
        "conditioned.html": render(card, ensemble, _places(observed)).encode(),
    }
    attrs = {"conditioned_digest": conditioned.digest}
    artifacts.publish_files(layout, KIND, conditioned.key, files, attrs)
    covered = {}
    if (there := card.get("observed")) is not None:
        words = f"{there['coverage']:.3f} (draws have seen them)"
        covered["coverage at observed places"] = words
    if (there := card.get("withheld")) is not None:
        words = coverage_words(there["coverage"], there["nominal"])
        covered["coverage at withheld places"] = words
    return {"realizations": card["realizations"], "times": len(card["times"]), **covered}


def _figures(card: dict[str, Any]) -> dict[str, Any]:
    """The few numbers of weights and events that are worth a line in the log."""
    figures: dict[str, Any] = {
        "effective sample size": round(card["effective"], 4),
        "log evidence": round(float(np.mean(card["log_evidence"])), 2),
    }
    if "event" in card:
        dates = list(card["event"]["dates"].values())
        figures["probability"] = _spoken([one["probability"] for one in dates], 3)
        figures["standard error"] = _spoken([one["standard_error"] for one in dates], 2)
        if "ratio" in dates[0]:
            ratios = [one["ratio"] for one in dates]
            figures["times as likely"] = _spoken([one["probability"] for one in ratios], 3)
            errors = [one["log_error"] for one in ratios]
            figures["standard error of its log"] = _spoken(errors, 2)
    return figures


def _spoken(values: Sequence[float], digits: int) -> float | str:
    """A number of one date; the range of those of several."""
    low, high = (f"{one:.{digits}g}" for one in (min(values), max(values)))
    return float(low) if low == high else f"{low} to {high}"


def _by_group(config: RunConfig, figure: xr.DataArray) -> list[float]:
    """The mean over groups of particles, by time."""
    return [float(value) for value in figure.mean("realization").values]


def _event(config: RunConfig, ensemble: xr.Dataset) -> dict[str, Any]:
    """Probability, standard error and return period from each date on, here and elsewhere."""
    event, group = config.condition.event, group_of(config)
    assert event is not None
    first = ensemble.isel(
        realization=slice(None, None, group), time=slice(None, None, event.days)
    ).load()
    worlds = {"": _chances(first, group)}
    if event.against:
        worlds[AGAINST] = _chances(first, group, AGAINST)
    dates = {}
    for place, time in enumerate(first["time"].values):
        told = {world: _probability(*one, place) for world, one in worlds.items()}
        dates[str(time)[:10]] = told[""]
        if AGAINST in told:
            here, there = (worlds[world][0][:, place] for world in ("", AGAINST))
            errors = told[""]["standard_error"], told[AGAINST]["standard_error"]
            dates[str(time)[:10]] |= {
                "against": told[AGAINST],
                "ratio": asdict(ratio(here, there, errors)),
            }
    about: dict[str, Any] = {"variable": event.variable, "box": list(event.box)}
    about |= {"above": event.above} if event.above is not None else {"below": event.below}
    about |= {"days": event.days, "against": dict(event.against)}
    return {"about": about, "dates": dates}


def _chances(
    first: xr.Dataset, group: int, world: str = ""
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Of each group (group, time): the estimated probability, its standard error, and what the
    Gaussian law says."""
    nats, gaussian, share = (
        first[name + world].values.astype(np.float64)
        for name in (EVIDENCE, GAUSSIAN_EVIDENCE, EFFECTIVE)
    )
    chances = np.exp(np.maximum(nats, LEAST))
    each = chances * np.sqrt(np.maximum(1.0 / share - 1.0, 0.0) / group)
    return chances, each, np.exp(gaussian)


def _probability(
    chances: FloatArray, each: FloatArray, gaussian: FloatArray, place: int
) -> dict[str, Any]:
    """Of all groups together, at one time."""
    chance = float(chances[:, place].mean())
    return {
        "probability": chance,
        "standard_error": float(np.sqrt(np.square(each[:, place]).sum()) / len(chances)),
        "gaussian": float(gaussian[0, place]),
        "return_period": 1.0 / chance,
    }


def _against_observations(
    config: RunConfig,
    layout: StoreLayout,
    ensemble: xr.Dataset,
    observed: artifacts.Published,
) -> dict[str, Any]:
    """Coverage, ranks and scores at observed and at withheld places, in standard units."""
    constants = artifacts.open_published(layout, "normals").load()
    known, tail = Normals.of(constants), tail_of(constants)
    baseline = baseline_of(constants, baseline_name(config))
    table = artifacts.open_artifact(observed)
    terms, lmax = known.rows(conditions_of(config, table, constants)), coarse_degree(table)
    rng = np.random.default_rng(config.run.seed)
    collected: dict[str, list[FloatArray]] = {}

    def collect(name: str, *parts: FloatArray) -> None:
        for number, part in enumerate(parts):
            collected.setdefault(f"{name}/{number}", []).append(part)

    for time in range(table.sizes["time"]):
        given = given_at(table, time)
        functionals = functionals_of(given, known, lmax)
        carried = carry(
            known, functionals, terms[time], given["value"].values, given["error"].values
        )
        drawn = _transformed(ensemble.sel(time=table["time"].values[time]), known, terms[time])
        anomalies = functionals(drawn)
        withheld = given["withheld"].values == 1
        spread = np.maximum(carried.spread, 1e-30)
        noisy = anomalies + np.sqrt(carried.error) * rng.standard_normal(anomalies.shape)
        for name, rows in (("observed", ~withheld), ("withheld", withheld)):
            if rows.any():
                collect(name, noisy[:, rows] / spread[rows], (carried.values / spread)[rows])
        if withheld.any() and (~withheld).any():
            rows = np.flatnonzero(withheld)[:MOST]
            seen = Seen.of(
                known.at(terms[time]),
                tail,
                functionals.of(np.flatnonzero(~withheld)),
                carried.error[~withheld],
            )
            mean, variance = _kriging(
                seen, baseline, carried.values[~withheld], functionals.of(rows), tail
            )
            deviation = np.sqrt(np.maximum(variance + carried.error[rows], 1e-30))
            z = (carried.values[rows] - mean) / deviation
            collect("kriging", z[None], deviation / spread[rows])
    found = {
        name: _scores(
            np.concatenate(collected[f"{name}/0"], 1), np.concatenate(collected[f"{name}/1"])
        )
        for name in ("observed", "withheld")
        if f"{name}/0" in collected
    }
    if "kriging/0" in collected:
        z = np.concatenate(collected["kriging/0"], 1)[0]
        deviation = np.concatenate(collected["kriging/1"])
        found["kriging"] = _gaussian_scores(z, deviation)
    return found


def _transformed(ensemble: xr.Dataset, known: Normals, terms: FloatArray) -> FloatArray:
    """Transformed fields (realization, variable, *grid) less their climatology; missing is 0."""
    parts = [
        ensemble[name].transpose("realization", *known.grid.dims).values for name in known.variables
    ]
    values = transformed(parts, known.pointwise(terms))
    values -= np.tensordot(terms, known.climatology, axes=(0, 0))
    return np.where(np.isfinite(values), values, 0.0)


def _kriging(
    seen: Seen, baseline: Any, values: FloatArray, wanted: Any, tail: Any
) -> tuple[FloatArray, FloatArray]:
    """Mean and variance of functionals under the Gaussian law, given the observations.

    The tail and the remainder at the wanted places are taken as independent of the observations'.
    """
    summary = Summary.of(seen)
    law = GaussianPosterior(
        baseline, torch.from_numpy(summary.operator), torch.from_numpy(summary.noise)
    )
    there = Seen.of(seen.known, tail, wanted, np.zeros(len(wanted)))
    rows = torch.from_numpy(there.operator)
    observed, _ = summary.values(values)
    mean = torch.einsum("nck,ck->n", rows, law.mean(torch.from_numpy(observed))).numpy()
    variance = torch.diagonal(law.covariance(rows)).numpy() + np.diagonal(there.noise)
    return mean, variance


def _scores(drawn: FloatArray, truth: FloatArray) -> dict[str, Any]:
    """Of draws (realization, row) that carry the errors of the observations."""
    low, high = np.quantile(drawn, [(1 - BAND) / 2, (1 + BAND) / 2], axis=0)
    ranks = (drawn < truth).sum(axis=0) / (len(drawn) + 1)
    score = {
        "number": int(truth.size),
        "coverage": float(((truth >= low) & (truth <= high)).mean()),
        "nominal": nominal_coverage(len(drawn)),
        "ranks": np.histogram(ranks, bins=BINS, range=(0, 1))[0].tolist(),
        "spread": float(drawn.std(axis=0, ddof=1).mean()) if len(drawn) > 1 else 0.0,
        "error": float(np.sqrt(np.square(drawn.mean(axis=0) - truth).mean())),
    }
    if len(drawn) > 1:
        score["crps"] = float(fair_crps(drawn[:, None], truth[None]).mean())
    return score


def coverage_words(covered: float, nominal: float) -> str:
    """How much bands of draws cover, beside what they would if draws and truth were alike."""
    return f"{covered:.3f} ({nominal:.3f} if right)"


def nominal_coverage(number: int) -> float:
    """How often a band between quantiles of so many draws holds another draw of the same law."""
    width = (number - 1) * BAND  # numpy's quantiles, linear between order statistics
    return float(width / (number + 1))


def _gaussian_scores(z: FloatArray, deviation: FloatArray) -> dict[str, Any]:
    """Of a Gaussian prediction: z is the truth less its mean, over its deviation."""
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    crps = deviation * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi))
    return {
        "number": int(z.size),
        "coverage": float((np.abs(z) <= 1.6448536269514722).mean()),
        "ranks": np.histogram(ndtr(z), bins=BINS, range=(0, 1))[0].tolist(),
        "spread": float(deviation.mean()),
        "error": float(np.sqrt(np.square(z * deviation).mean())),
        "crps": float(crps.mean()),
    }


def _places(observed: artifacts.Published | None) -> xr.Dataset | None:
    """Where the first date has points, and which are withheld."""
    if observed is None:
        return None
    first = given_at(artifacts.open_artifact(observed), 0)
    return first[["lat", "lon", "withheld", "kind"]]
