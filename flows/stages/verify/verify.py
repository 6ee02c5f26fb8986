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
    scores, joint, spectra, ranks      see pipeline/scores/score_card
    certificate  J_G, likelihood and bounds: see flows/stages/verify/certificate
    memorisation levels, generated, held_out: quantiles of distances to the nearest training field
    caveats      sentences: what was asked for or scored outside of the training data
    time         how days follow each other, for runs of sequences: see flows/stages/verify/in_time
    provenance   config, digests and seconds by artifact, software, source

The candidates are described in flows/stages/verify/candidates.
"""

import json
import math
import platform
import time as clock
from importlib.metadata import version
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flows.config.schema import RunConfig
from flows.progress import Progress
from flows.report.model_card import model_card
from flows.stages.base import Receipt, published_input
from flows.stages.block_degree import block_degree_words
from flows.stages.conditions import beyond_training, conditioned_as_observed
from flows.stages.content_keys import REPORTED, SCHEMAS, key_of
from flows.stages.splits import SPLITS, part_of
from flows.stages.verify.candidates import REPLICATES, held_out_times, line_up, spacing
from pipeline.fields.whitening import whiten
from pipeline.scores.proper_scores import memorisation
from pipeline.scores.score_card import Arena, Sample, score_card
from pipeline.sphere.named_grids import grid_of
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from storage.conventions.labels import once

if TYPE_CHECKING:
    from distributed import Client

STAGE = "verify"
KIND = "report"

GAUSSIAN = ("m-block", "channels")  # baselines whose draws are scored beside the model's
NEAREST = 512  # generated fields whose nearest training field is looked for


def run(config: RunConfig, layout: StoreLayout, client: "Client", progress: Progress) -> Receipt:
    """Draw the verification ensemble, score it and publish the report."""
    from flows.report import page as report
    from flows.stages.generate import draws, generate
    from flows.stages.verify import pictures as pages
    from flows.stages.verify.certificate import certificate
    from flows.stages.verify.forecasts import forecasts
    from flows.stages.verify.in_time import in_time
    from flows.stages.verify.path_certificate import path_certificate

    began = clock.monotonic()
    content = key_of(STAGE, config, layout)
    fields = artifacts.open_published(layout, "fields")
    dates = held_out_times(fields, config)
    conditions = conditioned_as_observed(dates, fields, artifacts.open_published(layout, "normals"))
    drawn = generate.generate_ensemble(
        config, layout, client, progress, "verification", conditions, config.verify.realizations
    )
    certified = certificate(config, layout, client, progress)
    path = path_certificate(config, layout, client, progress)
    progress(0, 4, "the Gaussian baselines")
    gaussian = {
        name: draws.gaussian_ensemble(config, layout, name, dates, config.verify.realizations)
        for name in GAUSSIAN
    }
    progress(1, 4, "the scores")
    normals = artifacts.open_published(layout, "normals").load()
    ensembles = {"model": artifacts.open_artifact(drawn).load(), **gaussian}
    arena, candidates, climatology = line_up(config, layout, normals, dates, ensembles)
    card: dict[str, Any] = {
        "schema": SCHEMAS[STAGE],
        "key": content,
        **_about(config, layout, arena, candidates, drawn),
        "caveats": _caveats(config, layout, conditions),
        **score_card(arena, candidates, climatology),
        "certificate": certified,
        "memorisation": _memory(config, layout, arena, candidates["model"], normals),
    }
    if (sequences := in_time(config, layout, normals, path)) is not None:
        ahead = forecasts(config, layout, client, progress)
        card["time"] = sequences | ({"forecasts": ahead} if ahead else {})
    progress(2, 4, "the pictures")
    pictures = pages.pictures(card, layout, arena, candidates["model"].fields, normals)
    progress(3, 4, "the page")
    published = _publish(layout, content, card, report.render(card, pictures))
    progress(4, 4, "published")
    return Receipt.of(STAGE, published, seconds=clock.monotonic() - began)


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


def _memory(
    config: RunConfig, layout: StoreLayout, arena: Arena, model: Sample, normals: xr.Dataset
) -> dict[str, list[float]]:
    whitened = artifacts.open_published(layout, "whitened")["x"]
    bank = part_of(whitened, config.split, "train")  # read a few fields at a time
    held_out = (
        once(part_of(whitened, config.split, "test")).sel(time=arena.truth.fields["time"]).values
    )
    drawn = whiten(model.coefficients, normals).values
    generated = drawn.reshape(-1, *drawn.shape[2:])
    chosen = np.linspace(0, len(generated) - 1, min(NEAREST, len(generated))).astype(int)
    generated = generated[chosen].reshape(len(chosen), -1)
    return memorisation(generated, held_out.reshape(len(held_out), -1), bank)


def _about(
    config: RunConfig,
    layout: StoreLayout,
    arena: Arena,
    candidates: dict[str, Sample],
    drawn: artifacts.Published,
) -> dict[str, Any]:
    """The parts of the card that say what was compared, and where it comes from."""
    from flows.report.figures import name_of, units_of

    fields = artifacts.open_published(layout, "fields")
    ensemble = artifacts.open_published(layout, "ensemble")
    learned = artifacts.open_published(layout, "whitened")["x"]
    variables = {}
    for name, field in arena.truth.fields.data_vars.items():
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
    inputs = [*(published_input(layout, kind) for kind in REPORTED), drawn]
    dates = arena.truth.fields["time"]
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
            "realizations": {n: s.fields.sizes["realization"] for n, s in candidates.items()},
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
    ratios = [
        entries["model"]["ratio"]["value"]
        for scores in card["scores"].values()
        for entries in scores.values()
        if entries["model"]["ratio"]
    ]
    return figures | ({"median ratio to noise floor": round(median(ratios), 3)} if ratios else {})


def _finite(value: Any) -> Any:
    """JSON has no NaN: what could not be estimated is null."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
