"""Stage 4: realizations of the learned law on the dates asked for.

Reads `checkpoints` and `normals`; publishes `ensemble` (and, for verify, `verification`):

    ensemble.zarr, and ensemble-NAME.zarr for each of `generate.scenarios`
      <variable>(realization, time, lat, lon | cell)   float32, names and units of the source
      realization, time, time_bnds, lat, lon           CF-1.13; provenance in the attributes
      cell, crs                                        on HEALPix, where lat and lon go with cell

A chunk is one realization at a few times on the whole sphere, and a unit is one such chunk. The
bytes depend neither on batches nor on workers nor on order (flows/stages/generate/draws), and an
ensemble that grows takes over the realizations it has. The grid is the source's or `generate.grid`;
the ensemble for verify is always on the source's. Noise is addressed by seed, realization, date,
variable and step, and by nothing else: scenarios are drawn from the same noise, so that a
realization of one differs from that of another by what their covariates do. With `generate.series`
a copy for series is made, too (flows/stages/generate/series).
"""

import itertools
import time as clock
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import xarray as xr

from flows.cluster.map_units import map_units
from flows.config.schema import RunConfig
from flows.progress import Progress
from flows.stages.base import Receipt, published_input
from flows.stages.conditions import asked_times, beyond_training
from flows.stages.content_keys import ensemble_key
from flows.stages.generate.chunks import TIMES_PER_CHUNK
from flows.stages.generate.draws import draw_units, draws_of
from flows.stages.generate.sequences import publish_sequences
from flows.stages.generate.series import publish_series
from flows.stages.generate.templates import ensemble_template, provenance_of
from pipeline.sphere.named_grids import grid_named, grid_of
from storage.artifacts import publishing as artifacts
from storage.artifacts.in_units import lay_out
from storage.artifacts.layout import StoreLayout, labelled

if TYPE_CHECKING:
    from distributed import Client

STAGE = "generate"
KIND = "ensemble"
BEYOND = "beyond training"  # what is asked for and was not seen


def run(config: RunConfig, layout: StoreLayout, client: "Client", progress: Progress) -> Receipt:
    """Draw and publish the ensemble that the configuration asks for."""
    began = clock.monotonic()
    beside = publish_sequences(config, layout, client, progress)
    under = _publish_scenarios(config, layout, client, progress)
    if under:
        beside |= {KIND: {name: one.key for name, one in under.items()}}
    times = asked_times(config, layout)
    beyond = {name: one.attrs["figures"].get(BEYOND) for name, one in under.items()}
    published = generate_ensemble(
        config,
        layout,
        client,
        progress,
        KIND,
        times,
        config.generate.realizations,
        beside,
        said=[f"{name}: {words}" for name, words in beyond.items() if words],
    )
    return Receipt.of(STAGE, published, seconds=clock.monotonic() - began)


def _publish_scenarios(
    config: RunConfig, layout: StoreLayout, client: "Client", progress: Progress
) -> dict[str, artifacts.Published]:
    """Draw and publish an ensemble under each scenario; by name."""
    draw = partial(generate_ensemble, config, layout, client, progress, KIND)
    return {
        one.name: draw(
            asked_times(config, layout, one.covariates),
            config.generate.realizations,
            label=one.name,
        )
        for one in config.generate.scenarios
    }


def generate_ensemble(
    config: RunConfig,
    layout: StoreLayout,
    client: "Client",
    progress: Progress,
    kind: str,
    times: xr.Dataset,
    realizations: int,
    beside: Mapping[str, Mapping[str, str]] | None = None,
    label: str = "",
    said: Sequence[str] = (),
) -> artifacts.Published:
    """Draw `realizations` fields at each of the conditioned `times` and publish them.

    Args:
        beside: keys by kind and label of what belongs to it: it is not up to date without them.
        label: name of the scenario that it is of, if it is of one.
        said: what lies beyond training in ensembles that belong to it.
    """
    began = clock.monotonic()
    checkpoint = published_input(layout, "checkpoints")
    normals = published_input(layout, "normals")
    content = ensemble_key(config, layout, kind, times, realizations, label)
    family = ensemble_key(config, layout, kind, times, None)
    name = config.generate.grid if kind == KIND else "source"
    grid = grid_of(artifacts.open_artifact(normals)) if name == "source" else grid_named(name)
    template = ensemble_template(
        layout, artifacts.open_artifact(normals), grid, times["time"], realizations
    )
    shards = {"realization": 1, "time": min(TIMES_PER_CHUNK, times.sizes["time"])}
    store = lay_out(layout, kind, content, family, template, shards=shards, label=label)
    draw = partial(draw_units, config, store.path, name, checkpoint, normals, times)
    draws = draws_of(store.missing, config.generate.batch)
    written = [
        *itertools.chain(*map_units(client, draw, draws, progress, label=kind, resource="GPU"))
    ]
    figures: dict[str, Any] = {
        "realizations": realizations,
        "times": times.sizes["time"],
        "grid": grid.describe(),
        "units drawn": len(store.missing),
    }
    own = beyond_training(artifacts.open_artifact(normals), times)
    if beyond := [*([own] if own else []), *said]:
        figures[BEYOND] = "; ".join(beyond)
    provenance = {
        **config.generate.attributes,
        **provenance_of(config, layout, family),
        "grid": grid.describe(),
        "grid_origin": "source" if name == "source" else "chosen",
        "figures": figures,
        "seconds": clock.monotonic() - began,
        "normals_digest": normals.digest,
        "checkpoints_digest": checkpoint.digest,
        **({"beside": beside} if beside else {}),
    }
    if kind == KIND and config.generate.series:
        keys = content, family
        name = labelled(KIND, label) if label else ""
        publish_series(layout, client, progress, store.path, keys, template, provenance, name)
    return store.publish(provenance, written)
