"""Zarr to whitened Zarr on two workers: the second half of `preprocess`, on lmax 179.

Timed is the stage itself with its `normals` published, so it whitens and publishes. Rivals are what
one writes with xarray: `apply_ufunc` of one transform for each time, scaled by degree (no
climatology is taken away), to_zarr, on a cluster with Dask's defaults; healpy has HEALPix fields of
nside 64 and lmax 128. The limit is our own pipeline without the transform.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ducc0
import healpy
import numpy as np
import xarray as xr

from deploy.bench import inputs, stores
from deploy.bench.ours import RingGrid
from deploy.bench.rows import Row
from deploy.bench.timing import in_turns, timed
from flows.cluster.local import local_client
from flows.cluster.map_units import map_units
from flows.config.schema import Cluster, RunConfig
from flows.stages.preprocess.block_sums import opened
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout

if TYPE_CHECKING:
    from distributed import Client

WORKERS, LONG = 2, 20_000
HEALPIX, HEALPIX_LMAX = RingGrid.healpix(64), 128

WHAT = "Zarr to whitened Zarr, 2,000 fields 181 x 360"
HEALPY = Row(row=WHAT, rival="apply_ufunc(healpy.map2alm)", unit="fields/s", goal=10.0)
DUCC0 = Row(row=WHAT, rival="apply_ufunc(ducc0 analysis_2d)", unit="fields/s", goal=3.0)
COPY = Row(row=WHAT, rival="the same without the transform", unit="fields/s", goal=0.85)
SPEED = Row(row="the same, 20,000 fields", rival="itself at 2,000", unit="fields/s", goal=0.95)
MEMORY = Row(row="the same, memory of a worker", rival="itself at 2,000", unit="MB", goal=0.9)
ROWS = (HEALPY, DUCC0, COPY, SPEED, MEMORY)


def measure(quick: bool) -> Iterator[Row]:
    count = 200 if quick else 2000
    with stores.workshop() as shop, ExitStack() as stack:
        config = stores.configuration(shop / "ours")
        stores.publish_fields(config, count)
        cluster = Cluster(workers=WORKERS)
        client = stack.enter_context(local_client(cluster, shop / "scratch"))
        whitening = _whitening(config, client)
        copying = _copying(config, shop / "copy", client)
        usual = stack.enter_context(stores.usual_client(WORKERS))
        maps = _healpix_store(shop / "maps.zarr", count)
        grid_store = StoreLayout(config.run.root).name("fields")
        rivals = [
            stores.with_client(usual, partial(_apply, grid_store, shop / "a.zarr", ducc0_field)),
            stores.with_client(usual, partial(_apply, maps, shop / "b.zarr", healpy_map)),
        ]
        best = in_turns(whitening, copying, *rivals, seconds=60, quick=quick)
        ours, copied, by_ducc0, by_healpy = (count / seconds for seconds in best)
        note = f"{count} fields" if quick else ""
        yield COPY.measured(ours, copied, limit_share=ours / copied, note=note)
        yield DUCC0.measured(ours, by_ducc0, note=note)
        yield HEALPY.measured(ours, by_healpy, note=f"HEALPix nside 64, lmax 128 {note}".strip())
        if quick:
            return
        memory = stores.peak_memory(client)
        stack.close()
        long = stores.configuration(shop / "long")
        stores.publish_fields(long, LONG)
        with local_client(cluster, shop / "scratch") as client:
            calls = _whitening(long, client), _copying(long, shop / "long-copy", client)
            seconds, copying_took = in_turns(*calls, least=2, seconds=0)
            yield SPEED.measured(LONG / seconds, ours, limit_share=copying_took / seconds)
            yield MEMORY.measured(stores.peak_memory(client), memory)


def _whitening(config: RunConfig, client: Client) -> Any:
    """A call of the stage with `normals` published: what is left is the whitening."""
    stores.publish_normals(config)
    call = stores.stage_call("preprocess", config, client, ("whitened",))
    call()
    return call


def _copying(config: RunConfig, root: Path, client: Client) -> Any:
    """The same reading, unit writing and publishing, of field values in place of coefficients."""
    source = artifacts.published(StoreLayout(config.run.root), "fields")
    template = artifacts.open_published(StoreLayout(config.run.root), "whitened")
    shard = {"time": template["x"].encoding["shards"][0]}
    layout, key = StoreLayout(str(root)), "c" * 64

    def copy() -> None:
        path = layout.artifact("whitened", key)
        artifacts.create(path, template, chunks=shard, shards=shard, compress=False)
        units = artifacts.plan_units({"time": template.sizes["time"]}, shard)
        write = partial(copy_unit, path, source, template.sizes["coefficient"])
        written = map_units(client, write, units, stores.quiet)
        artifacts.publish(layout, "whitened", key, units, {}, written)

    run = timed(copy)

    def call() -> float:
        stores.forget(layout, ("whitened",))
        return run()

    return call


def copy_unit(
    path: Path, source: artifacts.Published, size: int, unit: artifacts.Unit
) -> artifacts.Record:
    values = opened(source)["v"].isel(time=unit.region["time"]).to_numpy()
    x = values.reshape(len(values), 1, -1)[..., :size]
    block = xr.Dataset({"x": (("time", "channel", "coefficient"), x)})
    return artifacts.write_unit(path, unit, block)


def _healpix_store(path: Path, count: int) -> Path:
    fields = np.load(inputs.made(HEALPIX, HEALPIX_LMAX, count)[1], mmap_mode="r")
    stores.dataset(HEALPIX, fields).chunk(time=100).to_zarr(path)
    return path


def _apply(source: Path, target: Path, function: Any) -> None:
    fields = xr.open_zarr(source, chunks={})["v"]
    fields = fields.chunk(time=100)
    on_sphere = [dim for dim in fields.dims if dim != "time"]
    lmax = stores.LMAX if len(on_sphere) == 2 else HEALPIX_LMAX
    scale = np.concatenate([_scale(lmax), _scale(lmax)[lmax + 1 :]])
    x = xr.apply_ufunc(
        function,
        fields,
        kwargs={"lmax": lmax},
        input_core_dims=[on_sphere],
        output_core_dims=[["coefficient"]],
        vectorize=True,
        dask="parallelized",
        output_dtypes=[np.float32],
        dask_gufunc_kwargs={"output_sizes": {"coefficient": (lmax + 1) ** 2}},
    )
    (x * xr.DataArray(scale, dims="coefficient")).to_dataset(name="x").to_zarr(target, mode="w")


def _scale(lmax: int) -> np.ndarray:
    """1 / sqrt(q_l) of complex coefficients, order by order."""
    degree = np.concatenate([np.arange(m, lmax + 1) for m in range(lmax + 1)])
    return ((1.0 + degree) ** 1.5).astype(np.float32)


def ducc0_field(field: np.ndarray, lmax: int) -> np.ndarray:
    alm = ducc0.sht.analysis_2d(map=field[None], spin=0, lmax=lmax, geometry="CC", nthreads=1)[0]
    return np.concatenate([alm.real, alm.imag[lmax + 1 :]]).astype(np.float32)


def healpy_map(field: np.ndarray, lmax: int) -> np.ndarray:
    alm = healpy.map2alm(field, lmax=lmax)
    return np.concatenate([alm.real, alm.imag[lmax + 1 :]]).astype(np.float32)
