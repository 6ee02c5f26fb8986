"""A copy of the ensemble for those who read all times of few cells.

    series.zarr     as ensemble.zarr, but a chunk is one realization at all times in a few cells

It is made from the units of the ensemble before that is published: an ensemble whose configuration
asks for the copy is not there without it. Units are bands of cells of one realization.
"""

import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import xarray as xr
import zarr

from flows.cluster.map_units import map_units
from flows.progress import Progress
from flows.stages.content_keys import code_of
from storage.artifacts import publishing as artifacts
from storage.artifacts.in_units import lay_out
from storage.artifacts.keys import content_key
from storage.artifacts.layout import StoreLayout
from storage.artifacts.units import waiting_arrays
from storage.places.places import Place
from storage.places.zarr_stores import zarr_store

if TYPE_CHECKING:
    from distributed import Client

KIND = "series"
SCHEMA = 1
CHUNK_BYTES = 1 << 20
SHARD_BYTES = 1 << 27  # of one variable; what a worker holds for each


def publish_series(
    layout: StoreLayout,
    client: "Client",
    progress: Progress,
    ensemble: Place,
    keys: tuple[str, str],
    template: xr.Dataset,
    attrs: Mapping[str, object],
    label: str = "",
) -> artifacts.Published:
    """Copy an ensemble whose units are all written.

    Args:
        ensemble: The artifact's path; it need not be published.
        keys: Content key of the ensemble, and of its family.
        template: Of the ensemble.
        label: Of the name of the copy, if it is not one of the ensemble.
    """
    content, family = (_key(key) for key in keys)
    sizes = {str(dim): size for dim, size in template.sizes.items()}
    chunks, shards = chunks_of(sizes, tuple(map(str, next(iter(template.data_vars.values())).dims)))
    store = lay_out(
        layout, KIND, content, family, template, chunks=chunks, shards=shards, label=label
    )
    copy = partial(copy_unit, ensemble, store.path, tuple(map(str, template.data_vars)))
    done = len(store.there)
    written = map_units(client, copy, store.missing, progress, label=KIND, done=done)
    return store.publish(attrs, written)


def chunks_of(
    sizes: Mapping[str, int], dims: tuple[str, ...]
) -> tuple[dict[str, int], dict[str, int]]:
    """Chunks of about a MB with all times, and shards of many chunks, by dimension."""
    grid, times = dims[2:], sizes["time"]
    side = (CHUNK_BYTES / (4 * times)) ** (1 / len(grid))
    chunks = {"realization": 1, "time": times}
    chunks |= {dim: max(1, min(sizes[dim], int(side))) for dim in grid}
    band = chunks[grid[0]]
    row = 4 * times * band * math.prod(sizes[dim] for dim in grid[1:])
    most = math.ceil(sizes[grid[0]] / band)
    return chunks, {"realization": 1, grid[0]: band * max(1, min(most, SHARD_BYTES // row))}


def copy_unit(
    ensemble: Place, path: Place, names: Iterable[str], unit: artifacts.Unit
) -> artifacts.Record:
    """Write one unit. Runs on a worker."""
    arrays = {name: zarr.open_array(zarr_store(ensemble / name), mode="r") for name in names}
    block = {}
    for name, array in arrays.items():
        dims = waiting_arrays(path)[name].dims
        block[name] = (dims, array[tuple(unit.region.get(d, slice(None)) for d in dims)])
    return artifacts.write_unit(path, unit, xr.Dataset(block))


def _key(ensemble: str) -> str:
    return content_key(
        stage=KIND,
        schema=SCHEMA,
        config={},
        inputs={"ensemble": ensemble},
        code=code_of(__name__),
    )
