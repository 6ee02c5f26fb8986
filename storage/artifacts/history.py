"""What has been published over time, and what of an artifact belongs to some of its times."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import xarray as xr

from storage.artifacts.keys import canonical_json
from storage.artifacts.layout import StoreLayout, manifest_of
from storage.artifacts.overlaps import overlaps
from storage.artifacts.published import Published
from storage.artifacts.publishing import find, open_artifact, published
from storage.artifacts.sealed import read_json
from storage.artifacts.units import WaitingArray, waiting_arrays
from storage.errors import CorruptArtifact


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
    return _Held.of(artifact).digest(part, by_place=False)


def marks_of_times(artifact: Published, parts: Sequence[slice]) -> list[str]:
    """A digest of each part, the same only if the artifact holds the same there.

    Values are read of the last shard only, if the record ends inside it: a part of another one is
    known by the digest of its file and the place in it, and so has another mark in an artifact
    whose shards are others.
    """
    held = _Held.of(artifact)
    return [held.digest(part, by_place=True) for part in parts]


def times_of_shards(artifact: Published) -> int:
    """Times in a shard, or in the fewest shards that end together in all arrays."""
    arrays = waiting_arrays(artifact.path).values()
    return math.lcm(*(array.shards[array.dims.index("time")] for array in arrays))


@dataclass(frozen=True)
class _Held:
    """What an artifact of time series holds.

    Attributes:
        files: digests of the files of each shard along time, by array and number, in order.
    """

    dataset: xr.Dataset
    arrays: Mapping[str, WaitingArray]
    files: Mapping[tuple[str, int], Sequence[str]]

    @classmethod
    def of(cls, artifact: Published) -> _Held:
        manifest = read_json(manifest_of(artifact.path, artifact.digest))
        dataset, arrays = open_artifact(artifact), waiting_arrays(artifact.path)
        files: dict[tuple[str, int], list[str]] = {}
        for file in sorted(manifest["files"], key=itemgetter("path")):
            name, _, key = file["path"].partition("/c/")
            if name in arrays and key:
                number = int(key.split("/")[arrays[name].dims.index("time")])
                files.setdefault((name, number), []).append(file["sha256"])
        return cls(dataset, arrays, files)

    def digest(self, part: slice, *, by_place: bool) -> str:
        made = hashlib.sha256()
        for piece in self._pieces(part, by_place):
            made.update(canonical_json(piece).encode())
        return made.hexdigest()

    def _pieces(self, part: slice, by_place: bool) -> Iterator[Any]:
        yield [str(time) for time in self.dataset["time"].values[part]]
        for name, array in self.arrays.items():
            axis = array.dims.index("time")
            size, shard = array.shape[axis], array.shards[axis]
            for piece in overlaps([slice(part.start, min(part.stop, size))], [shard]):
                (number,), (target,) = piece.place, piece.target
                start, files = number * shard, self.files[name, number]
                first, last = part.start + target.start, part.start + target.stop
                if last - first == shard:
                    yield [name, first, last, files]
                elif by_place and start + shard <= size:
                    yield [name, first, last, start, files]
                else:
                    values = self.dataset[name].isel(time=slice(first, last)).values
                    content = np.ascontiguousarray(values).tobytes()
                    yield [name, first, last, hashlib.sha256(content).hexdigest()]
