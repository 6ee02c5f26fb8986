"""Train states on disk: numbers as safetensors, all else as JSON, never a pickle.

    <directory>/step-000001200/
      tensors.safetensors     weights, moving averages, optimizer, random states
      meta.json               step and whatever describes the state
      manifest.json           sha256 of both

A state is written beside and renamed into place, so it is whole or absent; the newest that
verifies is the one to resume from. A finished training publishes its newest state as the
artifact `checkpoints`, whose digest covers that state alone.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as serialize

from storage.artifacts import IncompleteArtifact, Published, find, point_name, publish_directory
from storage.files import (
    CorruptFile,
    beside_of,
    make_durable,
    make_tree_durable,
    read_json,
    sha256_of,
    write_file,
    write_json,
)
from storage.layout import StoreLayout

_LOG = logging.getLogger(__name__)
_TENSORS, _META, _MANIFEST = "tensors.safetensors", "meta.json", "manifest.json"


class State(NamedTuple):
    """A train state as it was saved."""

    step: int
    tensors: dict[str, np.ndarray[Any, Any]]
    meta: dict[str, Any]


def save(
    directory: Path,
    step: int,
    tensors: Mapping[str, np.ndarray[Any, Any]],
    meta: Mapping[str, Any],
    *,
    keep: int = 3,
    also: int | None = None,
) -> Path:
    """Save a state durably and drop all but the newest `keep` and that of step `also`.

    A state of the same step is left as it is: equal steps of one training are equal states.
    Others may save into the same directory at the same time: what is there and verifies stays.

    Returns:
        Where the state is.
    """
    target = _place(directory, step)
    if not target.exists() or _fault(target) is not None:
        staging = beside_of(target)
        staging.mkdir(parents=True)
        numbers = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
        write_file(staging / _TENSORS, serialize(numbers))
        write_json(staging / _META, {"step": step, "meta": dict(meta)})
        seals = {name: sha256_of(staging / name) for name in (_TENSORS, _META)}
        write_json(staging / _MANIFEST, seals)
        make_tree_durable(staging)
        if target.exists() and _fault(target) is not None:
            shutil.rmtree(target, ignore_errors=True)
        try:
            os.rename(staging, target)
        except OSError:
            if _fault(target) is not None:
                raise
            shutil.rmtree(staging)
        make_durable(directory)
    for old in _newest_first(directory)[keep:]:
        if old != _place(directory, also):
            shutil.rmtree(old, ignore_errors=True)
    return target


def load_latest(directory: Path) -> State | None:
    """The newest state that verifies, or None; newer ones that do not are logged as warnings."""
    for path in _newest_first(directory):
        fault = _fault(path)
        if fault is None:
            try:
                return _load(path)
            except (SafetensorError, ValueError, KeyError, TypeError) as error:
                fault = f"its seals match, but it is no state ({error})"
        _LOG.warning("checkpoint %s is not used: %s", path, fault)
    return None


def load_step(directory: Path, step: int) -> State:
    """The state of this step.

    Raises:
        CorruptFile: If it does not verify, or is not there.
    """
    path = _place(directory, step)
    if fault := _fault(path):
        raise CorruptFile(f"checkpoint {path} cannot be gone back to: {fault}")
    return _load(path)


def drop_newer(directory: Path, step: int) -> None:
    """Remove the states after this step."""
    for path in _newest_first(directory):
        if path.name > _place(directory, step).name:
            shutil.rmtree(path, ignore_errors=True)


def rejected(directory: Path) -> list[str]:
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
    for path in directory.iterdir():
        if path != verified[0]:
            _remove(path)
    return publish_directory(layout, "checkpoints", key, sorted(verified[0].iterdir()), attrs)


def _place(directory: Path, step: int | None) -> Path:
    return directory / f"step-{step or 0:09d}"


def _newest_first(directory: Path) -> list[Path]:
    return sorted(directory.glob("step-*"), reverse=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _fault(path: Path) -> str | None:
    try:
        seals = read_json(path / _MANIFEST)
        broken = [name for name in (_TENSORS, _META) if sha256_of(path / name) != seals[name]]
    except (OSError, ValueError, KeyError) as error:
        return f"it cannot be read ({error})"
    return f"{broken[0]} has another sha256 than its manifest" if broken else None


def _load(path: Path) -> State:
    meta = read_json(path / _META)
    return State(int(meta["step"]), load_file(path / _TENSORS), dict(meta["meta"]))
