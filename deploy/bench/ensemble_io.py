"""An ensemble written and read back: units of an artifact against `to_zarr` member by member."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import xarray as xr

from deploy.bench import inputs
from deploy.bench.ours import RingGrid
from deploy.bench.rows import Row
from deploy.bench.timing import Call, in_turns, timed
from flows.stages.generate.generate import TIMES_PER_CHUNK
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout

TIMES, VARIABLES = 16, 2
GRID = RingGrid.latlon(181, 360)

WRITE = Row(row="ensemble, write", rival="to_zarr by member", unit="fields/s", goal=2.0)
READ = Row(row="ensemble, read back", rival="to_zarr by member", unit="fields/s", goal=2.0)
ROWS = (WRITE, READ)


def measure(quick: bool) -> Iterator[Row]:
    members = 4 if quick else 16
    dataset = made(members)
    fields = members * TIMES * VARIABLES
    inputs.DATA.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=inputs.DATA) as directory:
        layout, theirs = StoreLayout(f"{directory}/ours"), Path(directory) / "theirs.zarr"
        best = in_turns(
            afresh(layout.path, lambda: write_units(layout, dataset)),
            afresh(theirs, lambda: write_members(theirs, dataset)),
            quick=quick,
        )
        yield WRITE.measured(fields / best[0], fields / best[1], note="ours is durable on disk")
        read = in_turns(
            timed(lambda: artifacts.open_published(layout, "ensemble").load()),
            timed(lambda: xr.open_zarr(theirs, chunks=None).load()),
            quick=quick,
        )
        yield READ.measured(fields / read[0], fields / read[1])


def afresh(directory: Path, write: Callable[[], None]) -> Call:
    """The seconds of writing a store; removing the one before is not counted."""

    def call() -> float:
        shutil.rmtree(directory, ignore_errors=True)
        return timed(write)()

    return call


def made(members: int) -> xr.Dataset:
    _, fields = inputs.loaded(inputs.made(GRID, 179, 32))
    days = np.datetime64("2001-01-01", "ns") + np.arange(TIMES) * np.timedelta64(1, "D")
    values = np.stack([np.roll(fields, k, axis=0)[:TIMES] for k in range(members)])
    dims = ("realization", "time", "lat", "lon")
    return xr.Dataset(
        {f"v{k}": (dims, values + np.float32(k)) for k in range(VARIABLES)},
        coords={
            "realization": np.arange(members),
            "time": days,
            "lat": np.asarray(GRID.latitudes),
            "lon": np.arange(360.0),
        },
    )


def write_units(layout: StoreLayout, dataset: xr.Dataset) -> None:
    """As `generate` does it: template, units of one realization, publish."""
    shards = {"realization": 1, "time": TIMES_PER_CHUNK}
    path = layout.artifact("ensemble", "0" * 64)
    artifacts.create(path, dataset, chunks=shards, shards=shards)
    units = artifacts.plan_units({str(d): n for d, n in dataset.sizes.items()}, shards)
    written = [artifacts.write_unit(path, unit, dataset.isel(unit.region)) for unit in units]
    artifacts.publish(layout, "ensemble", "0" * 64, units, {}, written)


def write_members(path: Path, dataset: xr.Dataset) -> None:
    for number in range(dataset.sizes["realization"]):
        member = dataset.isel(realization=[number])
        if number == 0:
            member.to_zarr(path)
        else:
            member.to_zarr(path, append_dim="realization")
