"""What is interrupted: operations on small artifacts, and what must hold after any fault.

An operation is prepared in an empty root, acts, and can act again to go on from wherever a fault
left it. `complaints` says in words what a reader finds wrong; nothing is the only good answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import xarray as xr
import zarr

from storage.artifacts import audit
from storage.artifacts import publishing as artifacts
from storage.artifacts.in_units import lay_out
from storage.artifacts.layout import StoreLayout
from storage.places.zarr_stores import zarr_store
from storage.training import checkpoints

KIND = "ensemble"
SHARDS = {"realization": 1, "time": 4}
FOREIGN_READERS: tuple[Callable[[Any], Any], ...] = (
    xr.open_zarr,
    partial(xr.open_zarr, consolidated=False),
    partial(zarr.open_group, mode="r"),
)


@dataclass(frozen=True)
class Operation:
    """Something that changes a store, and what readers may find meanwhile and afterwards."""

    prepare: Callable[[StoreLayout], Any]
    act: Callable[[StoreLayout], Any]
    complaints: Callable[[StoreLayout, bool], list[str]]


def key_of(number: int) -> str:
    return artifacts.content_key(stage="test", schema=number, config={}, inputs={}, code="")


def fields(realizations: int) -> xr.Dataset:
    """Values that tell their own place; 6 times make one whole and one half shard."""
    shape = (realizations, 6, 2, 4)
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 0.25
    dims = ("realization", "time", "lat", "lon")
    return xr.Dataset(
        {"ta": (dims, values, {"units": "K"}), "pr": (dims, -values, {"units": "kg m-2 s-1"})},
        coords={
            "realization": np.arange(realizations),
            "time": np.datetime64("2000-01-01", "ns") + np.arange(6) * np.timedelta64(1, "D"),
            "lat": [-45.0, 45.0],
            "lon": np.arange(4) * 90.0,
        },
        attrs={"title": "a test"},
    )


def build(layout: StoreLayout, realizations: int, number: int) -> artifacts.Published:
    """Everything a stage does: template, adopted units, missing units, publication, name."""
    dataset, chunks = fields(realizations), SHARDS | {"time": 2}
    store = lay_out(layout, KIND, key_of(number), "f", dataset, chunks=chunks, shards=SHARDS)
    written = [artifacts.write_unit(store.path, u, dataset.isel(u.region)) for u in store.missing]
    return store.publish({"seed": 7}, written)


def _look(layout: StoreLayout, realizations: int, number: int) -> tuple[bool, list[str]]:
    """Whether an artifact is published, and what is wrong with it."""
    path, wrong = layout.artifact(KIND, key_of(number)), []
    found = artifacts.find(layout, KIND, key_of(number))
    if found is not None:
        seen = artifacts.open_artifact(found).load()
        if not seen.identical(fields(realizations).assign_attrs(seen.attrs)):
            wrong.append(f"{path.name} is published with other values")
        return True, wrong
    for read in FOREIGN_READERS:
        with suppress(Exception):
            read(zarr_store(path))
            wrong.append(f"{path.name} is not published, and a foreign reader opens it")
    return False, wrong


def _store(layout: StoreLayout, ended: bool, before: int, after: int, number: int) -> list[str]:
    """`before` realizations (0: nothing) were published as number 1, `after` become `number`."""
    there, wrong = _look(layout, after, number)
    allowed = {key_of(number)} if there else set()
    if before:
        was, more = _look(layout, before, 1)
        wrong += more + ([] if was else ["the artifact that was there is gone"])
        allowed.add(key_of(1))
    named = artifacts.published(layout, KIND)
    if named is not None and named.key not in allowed:
        wrong.append(f"the name leads to {named.path.name}")
    if before and named is None:
        wrong.append("the name leads nowhere, and did before")
    if ended and (named is None or named.key != key_of(number)):
        wrong.append("the name does not lead to what was published")
    return wrong + audit.check(layout)


def tensors(step: int) -> dict[str, np.ndarray[Any, Any]]:
    return {"weights": np.arange(50.0) + step, "average": np.arange(7, dtype=np.float32) * step}


def _save(layout: StoreLayout, *steps: int) -> None:
    for step in steps:
        directory = layout.artifact("checkpoints", key_of(1))
        checkpoints.save(directory, step, tensors(step), {"loss": 1 / step}, keep=3)


def _end_training(layout: StoreLayout) -> artifacts.Published:
    if artifacts.find(layout, "checkpoints", key_of(1)) is None:
        _save(layout, 4)
    return checkpoints.publish(layout, key_of(1), {"seconds": 1})


def _training(layout: StoreLayout, ended: bool, last: bool) -> list[str]:
    directory, wrong = layout.artifact("checkpoints", key_of(1)), []
    state = checkpoints.load_latest(directory)
    if state is None or state.step not in ({4} if ended else {3, 4}):
        return [f"the newest state is {state and state.step}"]
    if state.meta != {"loss": 1 / state.step}:
        wrong.append("the state has another meta")
    for name, array in tensors(state.step).items():
        if not np.array_equal(state.tensors[name], array):
            wrong.append(f"{name} of step {state.step} has other values")
    newer = [
        path.name
        for path in directory.glob("step-*")
        if int(path.name[5:]) > state.step and (path / "manifest.json").exists()
    ]
    if newer:
        wrong.append(f"{newer[0]} is there and does not verify")
    found = artifacts.published(layout, "checkpoints")
    if last and ended and found is None:
        wrong.append("the training is not published")
    return wrong + audit.check(layout)


PAGES = {
    "scores.json": b'{"J_G": 1.0}',
    "report.html": b"<p>" + bytes(range(97, 123)) * 9,
    "model-card.md": b"# A model",
}


def _report(layout: StoreLayout) -> artifacts.Published:
    return artifacts.publish_files(layout, "report", key_of(1), PAGES, {"seed": 7})


def _pages(layout: StoreLayout, ended: bool) -> list[str]:
    named, wrong = artifacts.published(layout, "report"), []
    if named is not None:
        found = {name: (named.path / name).read_bytes() for name in PAGES}
        wrong += [] if found == PAGES else ["the report is published with other bytes"]
    if ended and named is None:
        wrong.append("the report is not published")
    return wrong + audit.check(layout)


OPERATIONS = {
    "publication": Operation(
        lambda layout: None,
        lambda layout: build(layout, 1, 1),
        partial(_store, before=0, after=1, number=1),
    ),
    "replacement": Operation(
        lambda layout: build(layout, 1, 1),
        lambda layout: build(layout, 1, 2),
        partial(_store, before=1, after=1, number=2),
    ),
    "growth": Operation(
        lambda layout: build(layout, 1, 1),
        lambda layout: build(layout, 2, 2),
        partial(_store, before=1, after=2, number=2),
    ),
    "checkpoint": Operation(
        lambda layout: _save(layout, 1, 2, 3),
        lambda layout: _save(layout, 4),
        partial(_training, last=False),
    ),
    "training's end": Operation(
        lambda layout: _save(layout, 1, 2, 3), _end_training, partial(_training, last=True)
    ),
    "report": Operation(lambda layout: None, _report, _pages),
}

# Mistakes that the lanes must find, or they would prove nothing.
MISTAKES = {
    "careless": replace(OPERATIONS["publication"], act=lambda layout: _careless(layout)),
}


def _careless(layout: StoreLayout) -> None:
    with patch("os.fsync", lambda descriptor: None):
        build(layout, 1, 1)


def digests(layout: StoreLayout) -> dict[str, str]:
    """What the names lead to, and the manifests' lists: the bytes of a store."""
    found = {kind: artifacts.published(layout, kind) for kind in (KIND, "checkpoints", "report")}
    named = {kind: one.digest for kind, one in found.items() if one is not None}
    states = {
        path.parent.name: json.loads(path.read_bytes())["tensors.safetensors"]
        for path in layout.artifacts.glob("checkpoints-*/step-*/manifest.json")
    }
    return named | states
