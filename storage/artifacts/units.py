"""Units of work: the part of an artifact that one task writes, and can write again.

A unit is a region that covers whole shards of every array it writes, so no two units share a file.
Its files are made beside the store and, once durable, moved into it, or put into a bucket; then its
record (files, sizes, sha256) is written. A unit counts as done only if its record and its files
agree, so a record that a crash tears costs no more than the unit.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import xarray as xr
import zarr

from storage.artifacts.layout import record_of, records_of
from storage.artifacts.sealed import read_json, read_sealed, write_sealed
from storage.artifacts.shards import ShardLayout
from storage.places.files import (
    DISK_THREADS,
    copy_into_place,
    make_directory,
    sha256_of,
    write_together,
)
from storage.places.places import BucketPath, Place, sizes_below
from storage.places.zarr_stores import zarr_store

Record = dict[str, Any]


@dataclass(frozen=True)
class Unit:
    """A region of an artifact, by dimension; dimensions not named are covered whole.

    Attributes:
        mark: digest of what its values follow from, which goes into its record; "" if none does.
    """

    index: int
    region: Mapping[str, slice]
    mark: str = ""

    @property
    def name(self) -> str:
        """The same for the same region, whatever the plan: `realization-0-1.time-0-24`."""
        return ".".join(f"{dim}-{part.start}-{part.stop}" for dim, part in self.region.items())


@dataclass(frozen=True)
class WaitingArray:
    """An array that units fill: its dimensions, shape and shard shape."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    shards: tuple[int, ...]

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> WaitingArray:
        """From the zarr.json of an array."""
        shards = metadata["chunk_grid"]["configuration"]["chunk_shape"]
        return cls(tuple(metadata["dimension_names"]), tuple(metadata["shape"]), tuple(shards))

    def selection(self, region: Mapping[str, slice]) -> tuple[slice, ...]:
        """The region as one slice per axis.

        Raises:
            ValueError: If it names a dimension that the array lacks, or cuts a shard.
        """
        strangers = set(region) - set(self.dims)
        if strangers:
            raise ValueError(f"the array has dims {self.dims}, the unit names {sorted(strangers)}")
        parts = [region.get(d, slice(0, n)) for d, n in zip(self.dims, self.shape, strict=True)]
        for dim, part, size, shard in zip(self.dims, parts, self.shape, self.shards, strict=True):
            whole = part.start % shard == 0 and (part.stop % shard == 0 or part.stop == size)
            if not (whole and 0 <= part.start < part.stop <= size):
                raise ValueError(
                    f"a unit covers whole shards: {dim} has size {size} in shards of {shard}, "
                    f"the unit takes [{part.start}, {part.stop}); plan units with plan_units"
                )
        return tuple(parts)

    def chunk_keys(self, region: Mapping[str, slice]) -> Iterator[str]:
        """The files of the region, below the array's directory."""
        return (key for _, key in self.shards_of(region))

    def shards_of(self, region: Mapping[str, slice]) -> Iterator[tuple[tuple[slice, ...], str]]:
        """Each shard of the region: where it lies in the region, and its file."""
        selection = self.selection(region)
        ranges = (
            range(part.start // shard, math.ceil(part.stop / shard))
            for part, shard in zip(selection, self.shards, strict=True)
        )
        first = [part.start for part in selection]
        for index in itertools.product(*ranges):
            starts = [i * n - k for i, n, k in zip(index, self.shards, first, strict=True)]
            part = tuple(slice(k, k + n) for k, n in zip(starts, self.shards, strict=True))
            yield part, "/".join(map(str, ("c", *index)))


def plan_units(sizes: Mapping[str, int], shards: Mapping[str, int]) -> list[Unit]:
    """All units of an artifact: one per shard of the named dimensions, the first one slowest."""
    steps = [
        [slice(start, min(start + shard, sizes[dim])) for start in range(0, sizes[dim], shard)]
        for dim, shard in shards.items()
    ]
    regions = (dict(zip(shards, parts, strict=True)) for parts in itertools.product(*steps))
    return [Unit(index, region) for index, region in enumerate(regions) if shards]


def write_unit(
    path: Place, unit: Unit, dataset: xr.Dataset, *, extra: Mapping[str, Any] | None = None
) -> Record:
    """Write one unit durably, then its record; repeating it with the same data changes no byte.

    Args:
        path: An artifact made by `artifacts.create`.
        unit: The region, covering whole shards.
        dataset: Every waiting variable, of the region's sizes; coordinates are not looked at.
        extra: Facts to keep in the record, e.g. the digest of the checkpoint that was used.
    Returns:
        The record: `region`, `files` (path, size, sha256), `extra`.
    Raises:
        ValueError: If variables, sizes or types differ from the template, or it cuts shards.
    """
    arrays = waiting_arrays(path)
    if set(dataset.data_vars) != set(arrays):
        raise ValueError(
            f"unit {unit.name} of {path.name} has variables {sorted(map(str, dataset.data_vars))}, "
            f"the template waits for {sorted(arrays)}"
        )
    described = {name: read_json(path / name / "zarr.json") for name in arrays}
    blocks = {n: _block(n, described[n], a, unit, dataset[n]) for n, a in arrays.items()}
    contents, places = {}, []
    for name, array in arrays.items():
        layout = ShardLayout.of(described[name])
        for part, key in array.shards_of(unit.region):
            contents[path / name / key] = layout.encode(blocks[name][part])
            places.append(f"{name}/{key}")
    written = write_together(contents, records_of(path) / unit.name)
    files: list[Record] = [
        {"path": place, "size": size, "sha256": digest}
        for place, (size, digest) in zip(places, written, strict=True)
    ]
    kept = {**({"mark": unit.mark} if unit.mark else {}), **(extra or {})}
    return _write_record(path, unit, sorted(files, key=itemgetter("path")), kept)


def missing_units(path: Place, units: Sequence[Unit], written: Iterable[Record] = ()) -> list[Unit]:
    """The units without a valid record: these are to be written (again), and only these.

    A record is valid if it parses, lists the unit's files, and each has its size and sha256.

    Args:
        written: Records that `write_unit` or `adopt_units` returned in this run: their files are
            not read again.
    """
    valid = _valid_records(path, units, written)
    return [unit for unit in units if unit.name not in valid]


def adopt_units(
    path: Place, units: Sequence[Unit], donors: Iterable[Place]
) -> tuple[list[Record], list[Unit]]:
    """Find the units that are written, and take others from older artifacts of the same family, by
    hard link where possible; in a bucket they are copied by the server.

    A donor must agree in all metadata but shape, and in all coordinate values as far as both go;
    that its data are those the unit would get is the promise of the caller's family, and of the
    mark: a unit that has one is taken only if it was written with the same.

    Returns:
        Records of the units that are there, their files read and compared, and the units missing.
    """
    arrays = waiting_arrays(path)
    there = _valid_records(path, units)
    for donor in donors:
        wanted = [unit for unit in units if unit.name not in there]
        if not wanted or donor == path or not _agree(path, donor, arrays):
            continue
        by_name = {unit.name: unit for unit in wanted}
        for name, record in _valid_records(donor, wanted).items():
            unit = by_name[name]
            if unit.mark and record["extra"].get("mark") != unit.mark:
                continue
            for file in record["files"]:
                place = file["path"]
                copy_into_place(donor / place, path / place, records_of(path) / unit.name)
            there[name] = _write_record(path, unit, record["files"], record["extra"])
    return [*there.values()], [unit for unit in units if unit.name not in there]


def describe_waiting(metadata: Mapping[str, Record]) -> dict[str, Record]:
    """What `waiting_arrays` will read from the template's record, from the arrays' zarr.json."""
    return {
        name: {
            "dims": array["dimension_names"],
            "shape": array["shape"],
            "shards": array["chunk_grid"]["configuration"]["chunk_shape"],
        }
        for name, array in metadata.items()
    }


def waiting_arrays(path: Place) -> dict[str, WaitingArray]:
    """The arrays that units fill, in the template's order.

    Raises:
        CorruptFile: If the template's record is not what was written.
    """
    waiting = read_sealed(records_of(path) / "template.json")["waiting"]
    return {
        name: WaitingArray(tuple(a["dims"]), tuple(a["shape"]), tuple(a["shards"]))
        for name, a in waiting.items()
    }


def unit_records(path: Place, units: Iterable[Unit]) -> list[Record]:
    """The records of units that are there."""
    return [read_sealed(record_of(path, unit.name)) for unit in units]


def unit_files(path: Place, units: Iterable[Unit]) -> list[Record]:
    """The files of units as their records list them."""
    records = (read_sealed(record_of(path, unit.name)) for unit in units)
    return [file for record in records for file in record["files"]]


def _block(
    name: str, described: Record, array: WaitingArray, unit: Unit, values: xr.DataArray
) -> np.ndarray[Any, Any]:
    """The values of one variable in its template's order and type."""
    block = values.transpose(*array.dims).values
    shape = tuple(part.stop - part.start for part in array.selection(unit.region))
    dtype = np.dtype(described["data_type"])
    if block.shape != shape or not np.can_cast(block.dtype, dtype, "same_kind"):
        raise ValueError(
            f"unit {unit.name} gives {name} as {block.dtype}{list(block.shape)}, "
            f"the template has {dtype}{list(shape)} there"
        )
    return block.astype(dtype, copy=False)


def _files(arrays: Mapping[str, WaitingArray], unit: Unit) -> list[str]:
    region = unit.region
    return [f"{name}/{key}" for name, array in arrays.items() for key in array.chunk_keys(region)]


def _valid_records(
    path: Place, units: Sequence[Unit], written: Iterable[Record] = ()
) -> dict[str, Record]:
    """The valid records of units, by name."""
    arrays, known = waiting_arrays(path), {str(record["region"]): record for record in written}
    listed = _listed(path)

    def read(unit: Unit) -> Record | None:
        return _valid_record(path, arrays, unit, listed, known.get(str(_region(unit))))

    recorded = _recorded(path, units)
    threads = DISK_THREADS if isinstance(path, BucketPath) else os.cpu_count()
    with ThreadPoolExecutor(threads) as pool:
        found = zip(recorded, pool.map(read, recorded), strict=True)
        return {unit.name: record for unit, record in found if record is not None}


def _recorded(path: Place, units: Sequence[Unit]) -> Sequence[Unit]:
    """The units that have a record, valid or not; in a bucket all, for there asking is reading."""
    if isinstance(path, BucketPath):
        return units
    return [unit for unit in units if os.path.exists(str(record_of(path, unit.name)))]


def _write_record(path: Place, unit: Unit, files: list[Record], extra: Mapping[str, Any]) -> Record:
    record = {"region": _region(unit), "files": files, "extra": dict(extra)}
    place = record_of(path, unit.name)
    make_directory(place.parent)
    write_sealed(place, record, durably=False)
    return record


def _region(unit: Unit) -> dict[str, list[int]]:
    return {dim: [part.start, part.stop] for dim, part in unit.region.items()}


def _listed(path: Place) -> dict[str, int] | None:
    """Sizes of all objects of an artifact in a bucket, by one request; files are asked singly."""
    return sizes_below(path) if isinstance(path, BucketPath) else None


def _valid_record(
    path: Place,
    arrays: Mapping[str, WaitingArray],
    unit: Unit,
    listed: Mapping[str, int] | None,
    written: Record | None = None,
) -> Record | None:
    try:
        record = read_sealed(record_of(path, unit.name))
        files = {file["path"]: file for file in record["files"]}
        if sorted(files) != sorted(_files(arrays, unit)):
            return None
        sizes = sizes_below(path, files) if listed is None else listed
        for name, file in files.items():
            if sizes.get(name) != file["size"]:
                return None
            if record != written and sha256_of(path / name) != file["sha256"]:
                return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record


def _agree(path: Place, donor: Place, arrays: Mapping[str, WaitingArray]) -> bool:
    try:
        for metadata in path.glob("*/zarr.json"):
            name = metadata.parent.name
            ours, theirs = read_json(metadata), read_json(donor / name / "zarr.json")
            apart = {"shape"} if name in arrays else {"shape", "chunk_grid"}
            if any(ours[k] != theirs.get(k) for k in ours.keys() - apart):
                return False
            if name not in arrays and not _same_values(path / name, donor / name):
                return False
    except (OSError, ValueError):
        return False
    return True


def _same_values(ours: Place, theirs: Place) -> bool:
    a, b = (
        np.asarray(zarr.open_array(zarr_store(array), mode="r")[...]) for array in (ours, theirs)
    )
    if a.ndim != b.ndim:
        return False
    common = tuple(slice(min(n, m)) for n, m in zip(a.shape, b.shape, strict=True))
    return bool(np.array_equal(a[common], b[common], equal_nan=a.dtype.kind == "f"))
