"""What generated fields look like before they are drawn, and where they come from."""

from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from typing import Any

import numpy as np
import xarray as xr

from flows.config.schema import RunConfig
from flows.stages.base import published_input
from flows.stages.content_keys import code_of
from pipeline.fields.standardisation import variables_of
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.named_grids import grid_coordinates, grid_of
from storage.artifacts import publishing as artifacts
from storage.artifacts.keys import canonical_json
from storage.artifacts.layout import StoreLayout
from storage.conventions.labels import label_ensemble


def provenance_of(config: RunConfig, layout: StoreLayout, family: str) -> dict[str, Any]:
    """Where an ensemble comes from, and what it takes to draw it again."""
    fields, sampler = published_input(layout, "fields"), config.generate
    code, table = version("spherescore"), config.to_dict()
    return {
        "id": sampler.attributes.get("id", f"spherescore-{family[:16]}"),
        "history": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} spherescore {code}: drawn with "
        f"{sampler.integrator}, {sampler.evaluations} evaluations",
        "spherescore_version": code,
        "code_digest": code_of("flows.stages.generate.generate"),
        "config": table,
        "config_digest": sha256(canonical_json(table).encode()).hexdigest(),
        "source_digest": fields.attrs.get("source_digest", ""),
        "fields_digest": fields.digest,
        "run_seed": config.run.seed,
        "noise": "Philox, its key the sha256 of seed/realization/time/variable/step",
        "sampler": f"{sampler.integrator}, {sampler.evaluations} evaluations, times "
        f"of exponent {sampler.grid_exponent:g}",
        "microbatch": sampler.microbatch,
    }


def ensemble_template(
    layout: StoreLayout,
    normals: xr.Dataset,
    grid: RingGrid,
    times: xr.DataArray,
    realizations: int,
) -> xr.Dataset:
    """What is drawn, without its values: (realization, time, *grid), labelled as the source is."""
    source = artifacts.open_published(layout, "fields")
    places = grid_coordinates(grid)
    if grid == grid_of(normals):
        places |= {name: source[name] for name in places if name in source.coords}
    shape = (realizations, len(times), *grid.shape)
    empty = np.broadcast_to(np.float32(0), shape)
    dims = ("realization", "time", *grid.dims)
    dataset = xr.Dataset(
        {str(name): (dims, empty) for name in variables_of(normals)},
        coords={"time": times} | places,
    )
    return label_ensemble(dataset, source, realizations=np.arange(realizations))
