"""Stage 4: realizations of the learned law on the dates asked for.

Reads `checkpoints` and `normals`; publishes `ensemble` (and, for verify, `verification`):

    ensemble.zarr
      <variable>(realization, time, lat, lon | cell)   float32, names and units of the source
      realization, time, time_bnds, lat, lon           CF-1.13; provenance in the attributes

A chunk is one realization at a few times on the whole sphere, and a unit is one such chunk. The
bytes depend neither on batches nor on workers nor on order (flows/draws), and an ensemble that
grows takes over the realizations it has.
"""

import itertools
import time as clock
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flows.cluster import map_units
from flows.conditions import asked_times, beyond_training
from flows.config import RunConfig
from flows.draws import Draw, draw_units
from flows.keys import ensemble_key
from flows.stage import Progress, Receipt, published_input
from pipeline.transform import grid_of, variables_of
from storage import artifacts
from storage.labels import grid_coordinates, label_ensemble
from storage.layout import StoreLayout

if TYPE_CHECKING:
    from distributed import Client

STAGE = "generate"
KIND = "ensemble"

TIMES_PER_CHUNK = 8


def run(config: RunConfig, layout: StoreLayout, client: "Client", progress: Progress) -> Receipt:
    """Draw and publish the ensemble that the configuration asks for."""
    began = clock.monotonic()
    times = asked_times(config, layout)
    realizations = config.generate.realizations
    published = generate_ensemble(config, layout, client, progress, KIND, times, realizations)
    return Receipt(
        stage=STAGE,
        kind=KIND,
        path=str(published.path),
        key=published.key,
        digest=published.digest,
        seconds=clock.monotonic() - began,
        figures=published.attrs["figures"],
    )


def generate_ensemble(
    config: RunConfig,
    layout: StoreLayout,
    client: "Client",
    progress: Progress,
    kind: str,
    times: xr.Dataset,
    realizations: int,
) -> artifacts.Published:
    """Draw `realizations` fields at each of the conditioned `times` and publish them."""
    began = clock.monotonic()
    checkpoint = published_input(layout, "checkpoints")
    normals = published_input(layout, "normals")
    content = ensemble_key(config, layout, kind, times, realizations)
    family = ensemble_key(config, layout, kind, times, None)
    path = layout.artifact(kind, content)
    template = _template(layout, artifacts.open_artifact(normals), times["time"], realizations)
    shards = {"realization": 1, "time": min(TIMES_PER_CHUNK, times.sizes["time"])}
    artifacts.create(path, template, chunks=shards, shards=shards, family=family)
    units = artifacts.plan_units({str(d): n for d, n in template.sizes.items()}, shards)
    artifacts.adopt_units(path, units, artifacts.donors(layout, kind, family))
    missing = artifacts.missing_units(path, units)
    draw = partial(draw_units, config, path, checkpoint, normals, times)
    draws = _draws(missing, config.generate.batch)
    written = itertools.chain(*map_units(client, draw, draws, progress, label=kind))
    figures: dict[str, Any] = {
        "realizations": realizations,
        "times": times.sizes["time"],
        "units drawn": len(missing),
    }
    if beyond := beyond_training(artifacts.open_artifact(normals), times):
        figures["beyond training"] = beyond
    provenance = {
        "figures": figures,
        "seconds": clock.monotonic() - began,
        "history": f"spherescore {version('spherescore')}: {config.generate.integrator}, "
        f"{config.generate.evaluations} evaluations",
        "run_seed": config.run.seed,
        "normals_digest": normals.digest,
        "checkpoints_digest": checkpoint.digest,
        "spherescore_version": version("spherescore"),
        "config": config.to_dict(),
    }
    return artifacts.publish(layout, kind, content, units, provenance, written)


def _template(
    layout: StoreLayout, normals: xr.Dataset, times: xr.DataArray, realizations: int
) -> xr.Dataset:
    source, grid = artifacts.open_published(layout, "fields"), grid_of(normals)
    shape = (realizations, len(times), *grid.shape)
    empty = np.broadcast_to(np.float32(0), shape)
    dims = ("realization", "time", *grid.dims)
    dataset = xr.Dataset(
        {str(name): (dims, empty) for name in variables_of(normals)},
        coords={"time": times} | grid_coordinates(source),
    )
    return label_ensemble(dataset, source, realizations=np.arange(realizations))


def _draws(units: Sequence[artifacts.Unit], batch: int) -> list[Draw]:
    """Missing units grouped by times and by aligned runs of `batch` realizations."""
    groups: dict[tuple[int, int], list[artifacts.Unit]] = {}
    for unit in units:
        place = (unit.region["realization"].start // batch, unit.region["time"].start)
        groups.setdefault(place, []).append(unit)
    return [Draw(tuple(group)) for _, group in sorted(groups.items())]
