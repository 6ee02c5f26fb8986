"""Train states on disk: numbers as safetensors, all else as JSON, never a pickle.

    <directory>/step-000001200/
      tensors.safetensors     weights, moving averages, optimizer, random states
      meta.json               step and whatever describes the state
      manifest.json           sha256 of both

A state is written beside and renamed into place, so it is whole or absent; in a bucket its manifest
is put last, and without one there is no state. The newest that verifies is the one to resume from.
A finished training publishes its newest state as the artifact `checkpoints`, whose digest covers
that state alone.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as deserialize
from safetensors.numpy import load_file
from safetensors.numpy import save as serialize

from storage.artifacts.layout import StoreLayout
from storage.artifacts.published import Published
from storage.artifacts.publishing import find, point_name, publish_directory
from storage.artifacts.sealed import json_bytes, read_json
from storage.errors import CorruptFile, IncompleteArtifact
from storage.places.files import make_durable, remove, sha256_of, write_directory
from storage.places.places import BucketPath, Place, matching

LOGGER = logging.getLogger("spherescore")
_TENSORS, _META, _MANIFEST = "tensors.safetensors", "meta.json", "manifest.json"


class State(NamedTuple):
    """A train state as it was saved."""

    step: int
    tensors: dict[str, np.ndarray[Any, Any]]
    meta: dict[str, Any]


def save(
    directory: Place,
    step: int,
    tensors: Mapping[str, np.ndarray[Any, Any]],
    meta: Mapping[str, Any],
    *,
    keep: int = 3,
    also: int | None = None,
) -> Place:
    """Save a state durably and drop all but the newest `keep` and that of step `also`.

    A state of the same step is left as it is: equal steps of one training are equal states.
    Others may save into the same directory at the same time: what is there and verifies stays.

    Returns:
        Where the state is.
    """
    target = _place(directory, step)
    if not target.exists() or _fault(target) is not None:
        numbers = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
        files = {
            _TENSORS: serialize(numbers),
            _META: json_bytes({"step": step, "meta": dict(meta)}),
        }
        seals = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        if target.exists() and _fault(target) is not None:
            _drop(target)
        try:
            write_directory(target, files | {_MANIFEST: json_bytes(seals)})
        except OSError:
            if _fault(target) is not None:
                raise
    make_durable(directory)  # before older ones go: another process may have saved this one
    kept = None if also is None else _place(directory, also)
    for old in _newest_first(directory)[keep:]:
        if old != kept:
            _drop(old)
    return target


def load_latest(directory: Place) -> State | None:
    """The newest state that verifies, or None; newer ones that do not are logged as warnings."""
    for path in _newest_first(directory):
        fault = _fault(path)
        if fault is None:
            try:
                return _load(path)
            except (SafetensorError, ValueError, KeyError, TypeError) as error:
                fault = f"its seals match, but it is no state ({error})"
        LOGGER.warning("checkpoint %s is not used: %s", path, fault)
    return None


def load_step(directory: Place, step: int) -> State:
    """The state of this step.

    Raises:
        CorruptFile: If it does not verify, or is not there.
    """
    path = _place(directory, step)
    if fault := _fault(path):
        raise CorruptFile(f"checkpoint {path} cannot be gone back to: {fault}")
    return _load(path)


def drop_newer(directory: Place, step: int) -> None:
    """Remove the states after this step."""
    for path in _newest_first(directory):
        if path.name > _place(directory, step).name:
            _drop(path)


def rejected(directory: Place) -> list[str]:
    """One sentence per state that does not verify."""
    faults = ((path, _fault(path)) for path in _newest_first(directory))
    return [f"checkpoint {path} is not used: {fault}" for path, fault in faults if fault]


def publish(layout: StoreLayout, key: str, attrs: Mapping[str, Any]) -> Published:
    """Publish the newest state of `layout.artifact("checkpoints", key)`; older ones are dropped.

    What differs between equal trainings (seconds, machine) belongs in `attrs`, not in the state's
    meta: the digest covers tensors and meta.
    """
    done = find(layout, "checkpoints", key)
    if done is not None:
        return point_name(layout, done)
    directory = layout.artifact("checkpoints", key)
    verified = [path for path in _newest_first(directory) if _fault(path) is None]
    if not verified:
        raise IncompleteArtifact(f"{directory} holds no state to publish; train first")
    make_durable(directory)
    for path in directory.iterdir():
        if path != verified[0]:
            remove(path)
    return publish_directory(layout, "checkpoints", key, matching(verified[0], "*"), attrs)


def _place(directory: Place, step: int) -> Place:
    return directory / f"step-{step:09d}"


def _drop(path: Place) -> None:
    """Remove a state, which others may remove at the same time."""
    if isinstance(path, BucketPath):
        remove(path)
    else:
        shutil.rmtree(path, ignore_errors=True)


def _newest_first(directory: Place) -> list[Place]:
    found = matching(directory, "step-*")[::-1]
    if isinstance(directory, BucketPath):
        return [path for path in found if (path / _MANIFEST).exists()]
    return found


def _fault(path: Place) -> str | None:
    try:
        seals = read_json(path / _MANIFEST)
        broken = [name for name in (_TENSORS, _META) if sha256_of(path / name) != seals[name]]
    except (OSError, ValueError, KeyError) as error:
        return f"it cannot be read ({error})"
    return f"{broken[0]} has another sha256 than its manifest" if broken else None


def _load(path: Place) -> State:
    meta = read_json(path / _META)
    tensors = path / _TENSORS
    if isinstance(tensors, BucketPath):
        numbers = deserialize(tensors.read_bytes())
    else:
        numbers = load_file(tensors)
    return State(int(meta["step"]), numbers, dict(meta["meta"]))
