"""On request: fields given observations, fields with holes, coarse fields, an event, or the days
beside a gap of the record.

Reads `checkpoints`, `normals` and `fields`; publishes

    observed.zarr      what was given, by time (flows/stages/condition/observed)
    conditioned.zarr   as ensemble.zarr, on the source's grid, at the times of what was given, with
                       log_evidence, log_evidence_gaussian(realization, time)      [nats]
                       effective_sample_size(realization, time)                    a share
    findings/          conditioned.html, conditioned.json: what was given, coverage, evidence

Of a Gaussian model draws are exact. Those of a network are weighed and resampled in groups of
`condition.particles`, and the figures of a group stand with each of its realizations. Days of gaps
are drawn from the linear law of sequences, exactly, and have no such figures
(flows/stages/condition/filling).
"""

import itertools
import logging
import time as clock
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flows.cluster.map_units import map_units
from flows.config.schema import RunConfig
from flows.progress import Progress
from flows.stages.base import Receipt, published_input
from flows.stages.condition.draws import (
    AGAINST,
    EFFECTIVE,
    EVIDENCE,
    GAUSSIAN_EVIDENCE,
    draw_units,
    group_of,
)
from flows.stages.condition.events import other_world, require_event
from flows.stages.condition.filling import Record, fill_units
from flows.stages.condition.findings import publish_findings
from flows.stages.condition.gaps import DrawnDays, gaps_of, require_within
from flows.stages.condition.observed import conditions_of, publish_observed
from flows.stages.condition.seams import publish_seams
from flows.stages.condition.spells import spell_units, spells_of
from flows.stages.conditions import asked_times
from flows.stages.content_keys import conditioned_key
from flows.stages.generate.chunks import TIMES_PER_CHUNK, times_of_unit
from flows.stages.generate.draws import Draw, draws_of
from flows.stages.generate.templates import ensemble_template, provenance_of
from pipeline.fields.standardisation import Normals
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.named_grids import grid_of
from storage.artifacts import publishing as artifacts
from storage.artifacts.in_units import lay_out
from storage.artifacts.layout import StoreLayout
from storage.places.places import Place

if TYPE_CHECKING:
    from distributed import Client

STAGE = "condition"
KIND = "conditioned"
FEW = 0.05  # of the particles: draws that few carry are no sample
LOGGER = logging.getLogger("spherescore")
FIGURES = {
    EVIDENCE: "log of the density of what was observed, or of the probability of the event",
    GAUSSIAN_EVIDENCE: "the same under the model's Gaussian law",
    EFFECTIVE: "smallest effective sample size of all steps, as a share of the particles",
}


def run(config: RunConfig, layout: StoreLayout, client: "Client", progress: Progress) -> Receipt:
    """Publish what is given, draws given it, and how well they do."""
    began = clock.monotonic()
    normals = published_input(layout, "normals")
    constants = artifacts.open_artifact(normals).load()
    require_event(config, Normals.of(constants))
    observed = publish_observed(config, layout) if config.condition.observes else None
    if config.condition.gaps:
        gaps = gaps_of(config, layout)
        published = _publish_filled(config, layout, client, progress, gaps, observed)
        figures = publish_seams(config, layout, published, gaps, observed)
    elif config.conditions_sequences:
        published = _publish_spells(config, layout, client, progress)
        figures = publish_findings(config, layout, published, None)
    else:
        times = (
            asked_times(config, layout)
            if observed is None
            else conditions_of(config, artifacts.open_artifact(observed), constants)
        )
        published = _publish(config, layout, client, progress, constants, observed, times)
        figures = publish_findings(config, layout, published, observed)
    _tell(config, figures)
    return Receipt(
        stage=STAGE,
        kind=KIND,
        path=str(published.path),
        key=published.key,
        digest=published.digest,
        seconds=clock.monotonic() - began,
        figures=figures,
    )


def _publish(
    config: RunConfig,
    layout: StoreLayout,
    client: "Client",
    progress: Progress,
    constants: xr.Dataset,
    observed: artifacts.Published | None,
    times: xr.Dataset,
) -> artifacts.Published:
    """Draw and publish the ensemble."""
    began = clock.monotonic()
    checkpoint = published_input(layout, "checkpoints")
    normals = published_input(layout, "normals")
    content, family = (conditioned_key(config, layout, family=part) for part in (False, True))
    grid = grid_of(constants)
    template = _template(config, layout, constants, times["time"])
    shards = {"realization": 1, "time": min(TIMES_PER_CHUNK, times.sizes["time"])}
    store = lay_out(layout, KIND, content, family, template, shards=shards)
    against = other_world(config, times["time"], constants)
    draw = partial(draw_units, config, store.path, checkpoint, normals, observed, times, against)
    draws = draws_of(store.missing, group_of(config))
    written = [
        *itertools.chain(*map_units(client, draw, draws, progress, label=KIND, resource="GPU"))
    ]
    about = config.condition
    attrs = _attrs(config, layout, family, grid, times["time"], observed) | {
        "sampler": f"twisted gme, {about.evaluations} evaluations, {about.particles} particles"
        if config.draws_by_network
        else "exact draws of the Gaussian law given what was observed",
        "given": list(about.given) or ["an event"],
        "seconds": clock.monotonic() - began,
    }
    return store.publish(attrs, written)


def _publish_filled(
    config: RunConfig,
    layout: StoreLayout,
    client: "Client",
    progress: Progress,
    gaps: DrawnDays,
    observed: artifacts.Published | None,
) -> artifacts.Published:
    """Draw and publish the days of gaps."""
    if observed is not None:
        require_within(gaps, artifacts.open_artifact(observed))
    normals = published_input(layout, "normals")
    record = Record(fields=published_input(layout, "fields"), normals=normals, observed=observed)
    told = {
        "sampler": "exact draws of the linear law of sequences given the days beside each gap",
        "given": [*config.condition.given, "the days beside the gaps"],
    }

    def fill(path: Place) -> Callable[[Draw], list[artifacts.Record]]:
        return partial(fill_units, config, path, record, gaps)

    return _publish_days(config, layout, client, progress, gaps.times["time"], fill, told, observed)


def _publish_spells(
    config: RunConfig, layout: StoreLayout, client: "Client", progress: Progress
) -> artifacts.Published:
    """Draw and publish the days of events that last."""
    days, normals = spells_of(config, layout), published_input(layout, "normals")
    times = days.times["time"]
    against = other_world(config, times, artifacts.open_artifact(normals).load())
    told = {
        "sampler": "exact draws of the linear law of sequences given the event",
        "given": ["an event"],
    }

    def spell(path: Place) -> Callable[[Draw], list[artifacts.Record]]:
        return partial(spell_units, config, path, normals, days, against)

    return _publish_days(config, layout, client, progress, times, spell, told, None)


def _publish_days(
    config: RunConfig,
    layout: StoreLayout,
    client: "Client",
    progress: Progress,
    times: xr.DataArray,
    draw: Callable[[Place], Callable[[Draw], list[artifacts.Record]]],
    told: Mapping[str, Any],
    observed: artifacts.Published | None,
) -> artifacts.Published:
    """Publish days that are drawn together.

    Args:
        draw: what writes the units of a place.
        told: attributes that say what they were drawn given.
    """
    began, normals = clock.monotonic(), published_input(layout, "normals")
    content, family = (conditioned_key(config, layout, family=part) for part in (False, True))
    constants = artifacts.open_artifact(normals).load()
    grid = grid_of(constants)
    template = _template(config, layout, constants, times)
    together = times_of_unit(grid.size * len(Normals.of(constants).variables), len(times))
    shards = {"realization": 1, "time": together}
    chunks = {"realization": 1, "time": TIMES_PER_CHUNK}
    store = lay_out(layout, KIND, content, family, template, shards=shards, chunks=chunks)
    draws = draws_of(store.missing, config.generate.microbatch)
    write = draw(store.path)
    written = [*itertools.chain(*map_units(client, write, draws, progress, label=KIND))]
    attrs = _attrs(config, layout, family, grid, times, observed) | {
        **told,
        "past": config.sequence.past,
        "seconds": clock.monotonic() - began,
    }
    return store.publish(attrs, written)


def _attrs(
    config: RunConfig,
    layout: StoreLayout,
    family: str,
    grid: RingGrid,
    times: xr.DataArray,
    observed: artifacts.Published | None,
) -> dict[str, Any]:
    """What is said of all draws given something."""
    about = config.condition
    return {
        **config.generate.attributes,
        **provenance_of(config, layout, family),
        "grid": grid.describe(),
        "grid_origin": "source",
        "figures": {"realizations": about.realizations, "times": len(times)},
        "normals_digest": published_input(layout, "normals").digest,
        "checkpoints_digest": published_input(layout, "checkpoints").digest,
        **({} if observed is None else {"observed_digest": observed.digest}),
    }


def _template(
    config: RunConfig, layout: StoreLayout, constants: xr.Dataset, times: xr.DataArray
) -> xr.Dataset:
    realizations = config.condition.realizations
    template = ensemble_template(layout, constants, grid_of(constants), times, realizations)
    empty = np.broadcast_to(np.float32(0), (realizations, len(times)))
    event = config.condition.event
    figures = dict(FIGURES)
    if event is not None and event.against:
        world = ", ".join(f"{name} {value:g}" for name, value in event.against.items())
        figures |= {name + AGAINST: f"{words}; with {world}" for name, words in FIGURES.items()}
    return template.assign(
        {
            name: (("realization", "time"), empty, {"long_name": words, "units": "1"})
            for name, words in figures.items()
        }
    )


def _tell(config: RunConfig, figures: dict[str, Any]) -> None:
    """Say what draws with few effective particles are worth."""
    share = figures.get("effective sample size", 1.0)
    if config.conditions_sequences:
        return
    if config.draws_by_network and config.condition.particles == 1:
        LOGGER.warning(
            "condition: one particle is not weighed, so its draws are those of the Gaussian "
            "approximation; see their coverage at withheld places"
        )
    elif share < FEW:
        LOGGER.warning(
            "condition: at some date the effective sample size is %.1f %% of the particles, so a "
            "few of them stand for all: the spread of the draws is too small. Raise "
            "condition.particles or the errors of the observations, give fewer of them, or take "
            "condition.particles = 1 and look at the coverage at withheld places",
            100.0 * share,
        )
