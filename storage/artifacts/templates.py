"""The layout of a Zarr artifact before its data: arrays' metadata, coordinates, and no root.

Arrays are Zarr v3, sharded, blosc-lz4 with shuffle, crc32c last: a flipped bit is an error, not a
number. The root zarr.json waits beside the store (`root.json`), and so does the list of what is to
be written (`template.json`: family, order of variables, waiting arrays).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask.array as da
import xarray as xr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from storage.artifacts.layout import StoreLayout, records_of
from storage.artifacts.sealed import read_json, read_sealed, write_sealed
from storage.artifacts.units import describe_waiting
from storage.places.files import (
    beside_of,
    make_directory,
    make_durable,
    make_tree_durable,
    write_file,
    write_new,
)
from storage.places.places import BucketPath, Place, matching

_TEMPLATE = "template.json"


def create(
    path: Place,
    template: xr.Dataset,
    *,
    chunks: Mapping[str, int] | None = None,
    shards: Mapping[str, int] | None = None,
    compress: bool = True,
    family: str | None = None,
) -> None:
    """Lay out an artifact from a template; nothing happens if it is laid out already.

    Data variables that have every dimension of `shards` wait for units, and their values are not
    read. Coordinates, bounds and all other variables are written now. Encodings that variables
    bring from their source are dropped.

    Args:
        chunks: Size by dimension of what is read at once; whole dimensions where not named.
        shards: Size by dimension of what is written at once, multiples of `chunks`. None or
            empty: everything is written now, and there are no units.
        compress: False for data that do not compress, e.g. whitened noise.
        family: Artifacts of one family share units that have the same region; see `donors`.
    """
    if _is_laid_out(path):
        return
    shards = dict(shards or {})
    waiting = _waiting(template, shards)
    prepared = _without_encodings(template, waiting)
    encodings = _encodings(prepared, waiting, dict(chunks or {}), shards, compress)
    about = {
        "family": family,
        "order": [str(name) for name in (*prepared.coords, *prepared.data_vars)],
    }
    records, files = records_of(path), _files(prepared, waiting, encodings)
    metadata = {name: json.loads(files[f"{name}/zarr.json"]) for name in waiting}
    root = json.loads(files.pop("zarr.json"))
    if isinstance(path, BucketPath):
        for name, content in files.items():
            write_file(path / name, content)
    make_directory(records)
    write_sealed(records / "root.json", root)
    write_sealed(records / _TEMPLATE, about | {"waiting": describe_waiting(metadata)})
    if isinstance(path, Path):
        _put(path, files)


def _put(path: Path, files: Mapping[str, bytes]) -> None:
    """Make a local store of these files appear at once, unless another was faster."""
    staging = beside_of(path)
    for name, content in files.items():
        make_directory((staging / name).parent)
        write_new(staging / name, content)
    make_tree_durable(staging)
    try:
        os.rename(staging, path)
    except OSError:
        shutil.rmtree(staging, ignore_errors=True)
        if not path.exists():
            raise
    make_durable(path.parent)


def _is_laid_out(path: Place) -> bool:
    """Local stores appear by one renaming; in a bucket the template's record is put last."""
    if isinstance(path, BucketPath):
        return (records_of(path) / _TEMPLATE).is_file()
    return path.exists()


def _files(
    prepared: xr.Dataset, waiting: Sequence[str], encodings: dict[str, dict[str, Any]]
) -> dict[str, bytes]:
    """All files of the store but those that wait, by path, in their order.

    zarr writes them into memory: on a disk it wants hard links, which some have not.
    """
    written: dict[str, Buffer] = {}
    prepared.to_zarr(
        MemoryStore(written),
        mode="w-",
        compute=False,
        zarr_format=3,
        consolidated=False,
        write_empty_chunks=True,
        encoding=encodings,
    )
    for name, variable in prepared.variables.items():
        there = any(key.startswith(f"{name}/c") for key in written)
        assert name in waiting or not variable.size or there
    return {name: written[name].to_bytes() for name in sorted(written)}


def donors(layout: StoreLayout, kind: str, family: str) -> list[Place]:
    """Artifacts, published or not, that were created with this family."""
    found: list[Place] = []
    for template in matching(layout.artifacts, f"{kind}-*.records/{_TEMPLATE}"):
        artifact = template.parent.with_suffix(layout.name(kind).suffix)
        with suppress(OSError, ValueError):  # what cannot be read gives nothing
            if _is_laid_out(artifact) and read_sealed(template)["family"] == family:
                found.append(artifact)
    return found


def root_metadata(path: Place) -> dict[str, Any]:
    """The held-back root with the metadata of all arrays, in the template's order."""
    metadata = {name: read_json(path / name / "zarr.json") for name in variable_order(path)}
    consolidated = {"kind": "inline", "must_understand": False, "metadata": metadata}
    return {**read_sealed(records_of(path) / "root.json"), "consolidated_metadata": consolidated}


def variable_order(path: Place) -> list[str]:
    """The artifact's arrays: coordinates first, in the template's order."""
    return [str(name) for name in read_sealed(records_of(path) / _TEMPLATE)["order"]]


def _waiting(template: xr.Dataset, shards: Mapping[str, int]) -> list[str]:
    bounds = {v.attrs.get("bounds", v.encoding.get("bounds")) for v in template.variables.values()}
    return [
        str(name)
        for name, variable in template.data_vars.items()
        if shards and set(shards) <= set(variable.dims) and name not in bounds
    ]


def _without_encodings(template: xr.Dataset, waiting: Sequence[str]) -> xr.Dataset:
    prepared = template.copy()
    named = set()  # bounds and grid mappings: variables that others name, not coordinates of them
    for name, variable in template.variables.items():
        data: Any
        if name in waiting:
            if variable.dtype.kind not in "fiub":
                raise ValueError(f"units write numbers; {name!r} has type {variable.dtype}")
            data = da.zeros(variable.shape, dtype=variable.dtype, chunks=variable.shape)
        else:
            data = variable.values  # to_zarr(compute=False) would leave Dask arrays unwritten
            if variable.dtype.kind in "UT":
                data = data.astype(object)
        attrs = dict(variable.attrs)
        for role in ("bounds", "grid_mapping"):
            if role in variable.encoding:
                attrs[role] = variable.encoding[role]
            if attrs.get(role) in template.variables:
                named.add(attrs[role])
            else:
                attrs.pop(role, None)
        prepared[name] = xr.Variable(variable.dims, data, attrs)
    return prepared.reset_coords([name for name in named if name in prepared.coords])


def _encodings(
    dataset: xr.Dataset,
    waiting: Sequence[str],
    chunks: Mapping[str, int],
    shards: Mapping[str, int],
    compress: bool,
) -> dict[str, dict[str, Any]]:
    codecs: tuple[Any, ...] = (Crc32cCodec(),)
    if compress:
        codecs = (BloscCodec(cname="lz4", shuffle="shuffle"), *codecs)
    encodings: dict[str, dict[str, Any]] = {}
    for name, variable in dataset.variables.items():
        encoding = encodings[str(name)] = {"compressors": codecs}
        if name in waiting:
            sizes = {str(dim): size for dim, size in variable.sizes.items()}
            inner = {dim: chunks.get(dim, shards.get(dim, n)) for dim, n in sizes.items()}
            outer = {
                dim: shards.get(dim, -(-n // inner[dim]) * inner[dim]) for dim, n in sizes.items()
            }
            uneven = [dim for dim in outer if outer[dim] % inner[dim]]
            if uneven:
                raise ValueError(
                    f"shards hold whole chunks; {uneven[0]} has shards of {outer[uneven[0]]} "
                    f"and chunks of {inner[uneven[0]]}"
                )
            encoding["chunks"], encoding["shards"] = tuple(inner.values()), tuple(outer.values())
        else:
            encoding["chunks"] = tuple(max(1, size) for size in variable.shape)
            encoding["_FillValue"] = None
    return encodings
