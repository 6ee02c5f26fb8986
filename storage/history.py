"""What has been published over time, and what of an artifact belongs to some of its times."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from storage.artifacts import CorruptArtifact, Published, find, open_artifact, published
from storage.files import read_json
from storage.keys import canonical_json
from storage.layout import StoreLayout, records_of
from storage.units import waiting_arrays


def history(layout: StoreLayout, kind: str) -> list[Published]:
    """All published artifacts of a kind, oldest first; unreadable ones are left out."""
    found = []
    for path in layout.artifacts.glob(f"{kind}-*"):
        marker = path / ("published.json" if path.suffix != ".zarr" else "zarr.json")
        if path.suffix != layout.name(kind).suffix or not marker.exists():
            continue
        try:
            artifact = find(layout, kind, str(read_json(marker)["attributes"]["artifact_key"]))
        except (OSError, ValueError, KeyError, CorruptArtifact):
            continue
        if artifact is not None:
            found.append(artifact)
    return sorted(found, key=lambda one: (str(one.attrs.get("date_created")), one.key))


def latest_of_family(layout: StoreLayout, kind: str, family: str) -> Published | None:
    """The artifact that the name leads to, or else the newest one, whose `family` is this."""
    named = published(layout, kind)
    if named is not None and named.attrs.get("family") == family:
        return named
    alike = [one for one in history(layout, kind) if one.attrs.get("family") == family]
    return alike[-1] if alike else None


def digest_of_times(artifact: Published, part: slice) -> str:
    """sha256 of what an artifact holds at some of its times, whatever else it holds.

    Whole shards are known by the digests of their files; of those that the part cuts, or the end
    of the record, the values are read.

    Args:
        part: Places along `time`.
    """
    made = hashlib.sha256()
    for piece in _pieces(artifact, part):
        made.update(canonical_json(piece).encode())
    return made.hexdigest()


def _pieces(artifact: Published, part: slice) -> Iterator[Any]:
    manifest = read_json(records_of(artifact.path) / "manifest.json")
    listed = {file["path"]: file["sha256"] for file in manifest["files"]}
    dataset = open_artifact(artifact)
    yield [str(time) for time in dataset["time"].values[part]]
    for name, array in waiting_arrays(artifact.path).items():
        axis = array.dims.index("time")
        size, shard = array.shape[axis], array.shards[axis]
        for start in range(part.start - part.start % shard, part.stop, shard):
            stop = min(start + shard, size)
            if part.start <= start and start + shard <= min(part.stop, size):
                prefix = f"{name}/c/"
                files = sorted(
                    path
                    for path in listed
                    if path.startswith(prefix)
                    and int(path.removeprefix(prefix).split("/")[axis]) == start // shard
                )
                yield [name, start, stop, [listed[path] for path in files]]
            else:
                first, last = max(start, part.start), min(stop, part.stop)
                values = dataset[name].isel(time=slice(first, last)).values
                content = np.ascontiguousarray(values).tobytes()
                yield [name, first, last, hashlib.sha256(content).hexdigest()]
