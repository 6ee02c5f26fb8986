"""Stage 5: the generated law against held-out fields, as numbers and as a page.

Reads all artifacts, draws `verification` through flows/stages/generate/generate, and publishes
`report`, a directory of two files that `scores.json` and `report.html` below the root lead to.

scores.json
    schema, key, title
    made         realizations, grid, times, training_fields, matched (whether the power spectra
                 of the draws are those of the training fields by construction)
    protocol     dates, block [dates], block_days, replicates, realizations (by candidate), lmax,
                 grid, train, test, members (of each split, where members are split)
    variables    by name: long_name, standard_name, units, derived, factor, display_units
    scores, joint, spectra, ranks, distances       see pipeline/scores/score_card
    certificate  J_G, likelihood and bounds: see flows/stages/verify/certificate
    memorisation levels, generated, held_out: quantiles of distances to the nearest training field;
                 fields {generated, held_out}: how many were looked at
    caveats      sentences: what was asked for or scored outside of the training data
    response     what forcing does, for sources with scenarios: see flows/stages/verify/forced
    time         how days follow each other, for runs of sequences: see flows/stages/verify/in_time
    provenance   config, digests and seconds by artifact, software, source

The candidates are described in flows/stages/verify/candidates. Everything that grows with dates,
realizations or training fields is divided: fields are made (flows/stages/verify/compared) and
scored on the workers, a bounded part at a time, and only sums come back.
"""

import json
import math
import platform
import time as clock
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from statistics import median
from typing import TYPE_CHECKING, Any

import xarray as xr

from flows.cluster.map_units import map_units
from flows.config.schema import RunConfig
from flows.progress import Progress
from flows.report.model_card import model_card
from flows.report.worth import ratios
from flows.stages.base import Receipt, published_input
from flows.stages.block_degree import block_degree_words
from flows.stages.conditions import beyond_training
from flows.stages.content_keys import REPORTED, SCHEMAS, key_of
from flows.stages.splits import SPLITS, part_of
from flows.stages.verify.candidates import (
    MODEL,
    REPLICATES,
    Inputs,
    Known,
    Lineup,
    block_of_dates,
    spacing,
)
from pipeline.scores.analogues import with_wind_speed
from pipeline.scores.arena import Arena
from pipeline.scores.score_card import Each, score_card
from pipeline.sphere.named_grids import grid_of
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout

if TYPE_CHECKING:
    from distributed import Client

STAGE = "verify"
KIND = "report"


def run(config: RunConfig, layout: StoreLayout, client: "Client", progress: Progress) -> Receipt:
    """Draw the verification ensemble, score it and publish the report."""
    from flows.report import page as report
    from flows.stages.verify import pictures as pages
    from flows.stages.verify.certificate import certificate
    from flows.stages.verify.compared import compared
    from flows.stages.verify.forced import responses
    from flows.stages.verify.forecasts import forecasts
    from flows.stages.verify.in_time import in_time
    from flows.stages.verify.nearest import nearest_training_fields
    from flows.stages.verify.path_certificate import path_certificate

    began = clock.monotonic()
    content = key_of(STAGE, config, layout)
    inputs = drawn_inputs(config, layout, client, progress)
    certified = certificate(config, layout, client, progress)
    path = path_certificate(config, layout, client, progress)
    stores = compared(inputs, layout, client, progress)
    lineup = Lineup(inputs, stores, block_of_dates(inputs.known))
    arena, known = lineup.arena, inputs.known
    described = with_wind_speed(known.fields.isel(time=known.of_fields.truth[:1]).load())
    names = [str(name) for name in described.data_vars]
    found = score_card(arena, on_workers(lineup, client, progress), names, MODEL)
    card: dict[str, Any] = {
        "schema": SCHEMAS[STAGE],
        "key": content,
        **_about(config, layout, arena, known, described),
        "caveats": _caveats(config, layout, known.conditions),
        **found.table,
        "certificate": certified,
        "memorisation": nearest_training_fields(lineup, client, progress),
    }
    if (forced := responses(inputs, client, progress)) is not None:
        card["response"] = forced
    if (sequences := in_time(config, layout, known.normals, path)) is not None:
        ahead = forecasts(config, layout, client, progress)
        card["time"] = sequences | ({"forecasts": ahead} if ahead else {})
    progress(0, 2, "the pictures")
    pictures = pages.pictures(card, layout, arena, found.maps, known.normals)
    progress(1, 2, "the page")
    published = _publish(layout, content, card, report.render(card, pictures))
    progress(2, 2, "published")
    return Receipt.of(STAGE, published, seconds=clock.monotonic() - began)


def drawn_inputs(
    config: RunConfig, layout: StoreLayout, client: "Client", progress: Progress
) -> Inputs:
    """What is compared, with the ensemble of the model drawn at the held-out dates."""
    from flows.stages.generate import generate

    kinds = ("fields", "normals", "whitened")
    fields, normals, whitened = (published_input(layout, kind) for kind in kinds)
    # The ensemble itself is not known yet, and its times and conditions do not depend on it.
    inputs = Inputs(config, fields, normals, whitened, drawn=whitened)
    drawn = generate.generate_ensemble(
        config,
        layout,
        client,
        progress,
        "verification",
        Known(inputs).conditions,
        config.verify.realizations,
    )
    return replace(inputs, drawn=drawn)


def on_workers(lineup: Lineup, client: "Client", progress: Progress) -> Each:
    """Does units of the score card on the workers, each of which lines up the same arena."""

    def each(function: Callable[[Arena, Any], Any], units: Sequence[Any], label: str) -> list[Any]:
        return map_units(client, partial(scored, lineup, function), units, progress, label=label)

    return each


def scored(lineup: Lineup, function: Callable[[Arena, Any], Any], unit: Any) -> Any:
    """What a function of the arena makes of a unit. Runs on a worker."""
    return function(lineup.arena, unit)


def _caveats(config: RunConfig, layout: StoreLayout, held_out: xr.Dataset) -> list[str]:
    """What of the ensemble, or of the held-out dates, lies outside of what was learned."""
    normals, ensemble = (published_input(layout, kind).attrs for kind in ("normals", "ensemble"))
    said = [f"{name}: {text}" for name, text in normals["figures"].get("seasons", {}).items()]
    if few := block_degree_words(config):
        said.append(few)
    if config.split.by_members:
        said.append(
            "members were held out, not dates: scores and certificate are of other members at the "
            f"{held_out.sizes['time']} dates that were learned, and say nothing of other dates"
        )
    if drawn := ensemble["figures"].get("beyond training"):
        said.append(f"the ensemble is asked for what training has not seen: {drawn}")
    if scored := beyond_training(artifacts.open_published(layout, "normals"), held_out):
        said.append(f"scores are of what training has not seen: {scored}")
    return said


def _about(
    config: RunConfig,
    layout: StoreLayout,
    arena: Arena,
    known: Known,
    described: xr.Dataset,
) -> dict[str, Any]:
    """The parts of the card that say what was compared, and where it comes from.

    Args:
        described: a field of each variable, wind speeds among them.
    """
    from flows.report.figures import name_of, units_of

    fields = artifacts.open_published(layout, "fields")
    ensemble = artifacts.open_published(layout, "ensemble")
    learned = artifacts.open_published(layout, "whitened")["x"]
    variables = {}
    for name, field in described.data_vars.items():
        factor, unit = units_of(field)
        variables[str(name)] = {
            "long_name": name_of(field),
            "standard_name": field.attrs.get("standard_name"),
            "units": field.attrs.get("units", "1"),
            "derived": name not in fields,
            "factor": factor,
            "display_units": unit,
        }
    members = {n: list(config.split.members(n)) for n in SPLITS if config.split.by_members}
    inputs = [*(published_input(layout, kind) for kind in REPORTED), known.inputs.drawn]
    dates = known.dates
    title = fields.attrs.get("title")
    return {
        "title": "Generated global fields" + (f": {title}" if title else ""),
        "made": {
            "realizations": ensemble.sizes["realization"],
            "grid": grid_of(ensemble).describe(),
            "times": [str(t)[:10] for t in ensemble["time"].values],
            "training_fields": part_of(learned, config.split, "train").sizes["time"],
            "matched": matched(config),
        },
        "protocol": {
            "dates": [str(time)[:10] for time in dates.values],
            "block": arena.block,
            "block_days": arena.block * spacing(dates),
            "replicates": REPLICATES,
            "realizations": {
                name: sample.fields.realizations for name, sample in arena.candidates.items()
            },
            "lmax": config.spectral.lmax,
            "grid": grid_of(fields).describe(),
            "train": list(config.split.train),
            "test": list(config.split.test),
            "members": members,
        },
        "variables": variables,
        "provenance": {
            "config": config.to_dict(),
            "digests": {each.kind: each.digest for each in inputs},
            "seconds": {each.kind: each.attrs.get("seconds") for each in inputs},
            "software": {
                name: version(name) for name in ("spherescore", "torch", "numpy", "xarray")
            }
            | {"Python": platform.python_version()},
            "source": _source(fields),
        },
    }


def matched(config: RunConfig) -> bool:
    """Whether the power spectra of the draws are imposed (pipeline/diffusion/matching.py)."""
    from pipeline.diffusion.sampler import INTEGRATORS

    stochastic = INTEGRATORS[config.generate.integrator].stochastic
    return config.draws_by_network and not stochastic


def _source(fields: xr.Dataset) -> str:
    parts = (fields.attrs.get(name) for name in ("title", "source", "license"))
    return ". ".join(str(part) for part in parts if part)


def _publish(
    layout: StoreLayout, content: str, card: dict[str, Any], page: str
) -> artifacts.Published:
    checkpoint = published_input(layout, "checkpoints")
    finite = _finite(card)
    files = {
        "scores.json": json.dumps(finite, indent=1) + "\n",
        "report.html": page,
        "model-card.md": model_card(finite, checkpoint.attrs),
    }
    contents = {name: text.encode() for name, text in files.items()}
    return artifacts.publish_files(layout, KIND, content, contents, {"figures": _figures(card)})


def _figures(card: dict[str, Any]) -> dict[str, Any]:
    figures = {
        f"J_G over {name}": f"{part['nats']:.1f} [{part['low']:.1f}, {part['high']:.1f}]"
        for name, part in card["certificate"]["over"].items()
    }
    found = list(ratios(card, "model"))
    return figures | ({"median ratio to noise floor": round(median(found), 3)} if found else {})


def _finite(value: Any) -> Any:
    """JSON has no NaN: what could not be estimated is null."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
