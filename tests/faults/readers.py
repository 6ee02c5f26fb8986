"""Who reads while others work: across a swap of the name, and while `clean` wants to remove."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from spherescore import SpherescoreBackend, open_ensemble
from storage.artifacts import publishing as artifacts
from storage.artifacts.garbage import garbage, remove
from storage.artifacts.layout import StoreLayout
from storage.errors import RootInUse
from tests.faults.operations import SHARDS, fields, key_of
from tests.faults.runs import Run, World, wait_until

Found = dict[str, Any]

WAYS: dict[str, Callable[[Path], xr.Dataset]] = {
    "open_ensemble": open_ensemble,
    "open_ensemble with Dask": lambda root: open_ensemble(root, chunks={"time": 1}),
    "engine": lambda root: xr.open_dataset(root, engine=SpherescoreBackend),
    "engine with Dask": lambda root: xr.open_dataset(
        root / "ensemble.zarr", engine=SpherescoreBackend, chunks={}
    ),
    "zarr at the resolved path": lambda root: xr.open_zarr(
        os.path.realpath(root / "ensemble.zarr"), decode_coords="all"
    ),
}


def publish(layout: StoreLayout, dataset: xr.Dataset, number: int) -> artifacts.Published:
    path = layout.artifact("ensemble", key_of(number))
    artifacts.create(path, dataset, chunks=SHARDS | {"time": 2}, shards=SHARDS)
    units = artifacts.plan_units({dim: dataset.sizes[dim] for dim in SHARDS}, SHARDS)
    for unit in units:
        artifacts.write_unit(path, unit, dataset.isel(unit.region))
    return artifacts.publish(layout, "ensemble", key_of(number), units, {})


def swapped_names(directory: Path, ways: tuple[str, ...] = tuple(WAYS)) -> Found:
    """Readers that stay open while the name is led elsewhere before each of their reads."""
    tried, bad = 0, list[str]()
    for way in ways:
        layout = StoreLayout(str(directory / way.replace(" ", "-")))
        one, other = publish(layout, fields(2), 1), publish(layout, -fields(2), 2)
        artifacts.point_name(layout, one)
        opened = WAYS[way](Path(layout.root))
        for turn, (realization, time) in enumerate(np.ndindex(2, 6)):
            artifacts.point_name(layout, other if turn % 2 else one)
            place, tried = {"realization": realization, "time": time}, tried + 1
            values, expected = (data["ta"].isel(place).values for data in (opened, fields(2)))
            if not np.array_equal(values, expected):
                bad.append(f"{way}: {place} is of the other ensemble, or of none")
        artifacts.point_name(layout, other)
        late = WAYS[way](Path(layout.root))
        artifacts.point_name(layout, one)
        for piece in garbage(layout, []):
            remove(piece)
        tried += 1
        bad += _read_after_removal(way, late)
    said = f"ways: {', '.join(ways)}; of an ensemble that `clean` took away no value is read"
    return {"tried": tried, "bad": bad, "said": said}


def _read_after_removal(way: str, opened: xr.Dataset) -> list[str]:
    """Of a removed store plain zarr reads fill values, which is why its own name is not given."""
    try:
        values = opened["ta"].isel(realization=0, time=0).values
    except Exception:
        return []
    return [] if way.startswith("zarr") and np.isnan(values).all() else [f"{way}: reads {values}"]


STOPS = {  # where a reader is stopped, in its own process
    "check": ("storage.artifacts.audit:problems_of", 2, ()),
    "export": ("flows.cli.export:planned_files", 1, ("--to", "out")),
}


def leases(directory: Path, commands: tuple[str, ...] = tuple(STOPS)) -> Found:
    """`clean --yes` while `check` or `export` stands still in the middle, and after its end."""
    run, bad = World(directory).run("read"), list[str]()
    more = World(directory).run("more", run={"root": str(run.root)}, generate={"realizations": 10})
    for each in (run, more):
        if code := each.finish():
            return {"tried": 0, "bad": [f"ends with {code}: {each.last_words()}"], "said": ""}
    for command in commands:
        place, call, options = STOPS[command]
        reader = Run(run.config, run.root, directory / f"{command}.aside")
        reader.faults = [{"place": place, "when": "before", "call": call, "action": "stop"}]
        process = reader.start(command, *options)
        if not wait_until(lambda reader=reader: bool(reader.happened()), 120):
            bad.append(f"{command} was not stopped: {reader.last_words()}")
        before = sorted(run.layout.artifacts.iterdir())
        if (code := more.finish("clean", "--yes")) != RootInUse.exit_code:
            bad.append(f"clean during {command} ends with {code}: {more.last_words()}")
        if sorted(run.layout.artifacts.iterdir()) != before:
            bad.append(f"clean during {command} removed something")
        os.kill(process.pid, signal.SIGCONT)
        if code := reader.wait():
            bad.append(f"{command} ends with {code}: {reader.last_words()}")
    there = len(list(run.layout.artifacts.iterdir()))
    if code := more.finish("clean", "--yes"):
        bad.append(f"clean after them ends with {code}: {more.last_words()}")
    if len(list(run.layout.artifacts.iterdir())) >= there:
        bad.append("clean after them removed nothing")
    said = f"{' and '.join(commands)}: `clean` waits for their end, then removes what is old"
    return {"tried": len(commands) + 1, "bad": bad, "said": said}
