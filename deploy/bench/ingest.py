"""NetCDF to checked, sharded Zarr: the stage `ingest` against open_mfdataset(...).to_zarr.

Both on two workers of one thread. Ours also hashes its input, checks every value and publishes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import xarray as xr

from deploy.bench import stores
from deploy.bench.rows import Row
from deploy.bench.timing import in_turns
from flows.cluster.local import local_client
from flows.config.schema import Cluster

WORKERS, FILES = 2, 4
RIVAL = "open_mfdataset.to_zarr"
SPEED = Row(row="ingest, NetCDF to Zarr, 181 x 360", rival=RIVAL, unit="fields/s", goal=1.0)
MEMORY = Row(row="ingest, memory of a worker", rival=RIVAL, unit="MB", goal=1.0)
ROWS = (SPEED, MEMORY)


def measure(quick: bool) -> Iterator[Row]:
    count = 200 if quick else 2000
    files = stores.netcdf_files(stores.GRID, stores.LMAX, count, FILES)
    with (
        stores.workshop() as shop,
        local_client(Cluster(workers=WORKERS), shop / "scratch") as client,
        stores.usual_client(WORKERS) as usual,
    ):
        ours = stores.stage_call("ingest", stores.configuration(shop / "ours", files), client)
        theirs = stores.with_client(usual, lambda: _to_zarr(files, shop / "theirs.zarr"))
        best = in_turns(ours, theirs, seconds=20, quick=quick)
        yield SPEED.measured(count / best[0], count / best[1])
        yield MEMORY.measured(stores.peak_memory(client), stores.peak_memory(usual))


def _to_zarr(files: list[str], target: Path) -> None:
    with xr.open_mfdataset(files) as fields:
        fields.to_zarr(target, mode="w")
