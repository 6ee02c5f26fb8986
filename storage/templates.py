"""The layout of a Zarr artifact before its data: arrays' metadata, coordinates, and no root.

Arrays are Zarr v3, sharded, blosc-lz4 with shuffle, crc32c last: a flipped bit is an error, not a
number. The root zarr.json waits beside the store (`root.json`), and so does the list of what is to
be written (`template.json`: family, order of variables, waiting arrays).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask.array as da
import xarray as xr
from zarr.codecs import BloscCodec, Crc32cCodec

from storage.files import (
    beside_of,
    make_durable,
    make_tree_durable,
    read_json,
    read_sealed,
    write_sealed,
)
from storage.layout import StoreLayout, records_of
from storage.units import describe_waiting


def create(
    path: Path,
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
    if path.exists():
        return
    shards = dict(shards or {})
    waiting = _waiting(template, shards)
    prepared = _without_encodings(template, waiting)
    staging = beside_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    prepared.to_zarr(
        staging,
        mode="w-",
        compute=False,
        zarr_format=3,
        consolidated=False,
        write_empty_chunks=True,
        encoding=_encodings(prepared, waiting, dict(chunks or {}), shards, compress),
    )
    for name, variable in prepared.variables.items():
        assert name in waiting or not variable.size or (staging / str(name) / "c").exists()
    records = records_of(path)
    records.mkdir(parents=True, exist_ok=True)
    write_sealed(records / "root.json", read_json(staging / "zarr.json"))
    (staging / "zarr.json").unlink()
    write_sealed(
        records / "template.json",
        {
            "family": family,
            "order": [str(name) for name in (*prepared.coords, *prepared.data_vars)],
            "waiting": describe_waiting(staging, waiting),
        },
    )
    make_tree_durable(staging)
    try:
        os.rename(staging, path)
    except OSError:
        shutil.rmtree(staging, ignore_errors=True)
        if not path.exists():
            raise
    make_durable(path.parent)


def donors(layout: StoreLayout, kind: str, family: str) -> list[Path]:
    """Artifacts, published or not, that were created with this family."""
    found = []
    for template in sorted(layout.artifacts.glob(f"{kind}-*.records/template.json")):
        artifact = template.parent.with_suffix(layout.name(kind).suffix)
        with suppress(OSError, ValueError):  # what cannot be read gives nothing
            if artifact.exists() and read_sealed(template)["family"] == family:
                found.append(artifact)
    return found


def root_metadata(path: Path) -> dict[str, Any]:
    """The held-back root with the metadata of all arrays, in the template's order."""
    metadata = {name: read_json(path / name / "zarr.json") for name in variable_order(path)}
    consolidated = {"kind": "inline", "must_understand": False, "metadata": metadata}
    return {**read_sealed(records_of(path) / "root.json"), "consolidated_metadata": consolidated}


def variable_order(path: Path) -> list[str]:
    """The artifact's arrays: coordinates first, in the template's order."""
    return [str(name) for name in read_sealed(records_of(path) / "template.json")["order"]]


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
