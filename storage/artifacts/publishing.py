"""Artifacts: Zarr stores (and directories) that are whole or not there.

    create(path, template)   arrays' metadata, coordinates; no root zarr.json
    (storage.artifacts.templates)
    write_unit(path, unit)   whole shards, then the unit's record
    (storage.artifacts.units)
    publish(layout, ...)     manifest, then the root zarr.json, then the name

Until the root zarr.json is in place neither xarray nor zarr opens the store; afterwards no byte
below it changes. The manifest, beside the store, lists every file with its size and sha256; the
digest of an artifact is the sha256 of that list, and so of all data and array metadata.

The root's attributes carry `artifact_kind`, `artifact_key`, `artifact_digest`, `date_created`,
and what the publisher gives; tables among them are stored as JSON text. `artifact_seal` is the
sha256 of the root's own bytes with zeros in its place. So nothing depends on who of several that
publish at once was first: manifests of the same files are the same, those of others lie beside.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import xarray as xr

from storage.artifacts.keys import canonical_json, code_digest, content_key
from storage.artifacts.layout import StoreLayout, manifest_of, records_of
from storage.artifacts.pointers import leads_to, point, show
from storage.artifacts.published import (
    Published,
    digest_of,
    files_of,
    marker_of,
    read_artifact,
    sealed_root,
    verified_marker,
)
from storage.artifacts.reading import with_stored_arrays
from storage.artifacts.sealed import write_json
from storage.artifacts.templates import create, donors, root_metadata, variable_order
from storage.artifacts.units import (
    Record,
    Unit,
    adopt_units,
    missing_units,
    plan_units,
    unit_files,
    unit_records,
    waiting_arrays,
    write_unit,
)
from storage.errors import ArtifactError, CorruptArtifact, IncompleteArtifact, NameConflict
from storage.places.files import (
    inventory,
    make_directory,
    make_entries_durable,
    make_files_durable,
    write_directory_once,
    write_file_once,
)
from storage.places.places import BucketPath, Place, below
from storage.places.zarr_stores import zarr_store

__all__ = [
    "ArtifactError",
    "CorruptArtifact",
    "IncompleteArtifact",
    "NameConflict",
    "Published",
    "Record",
    "Unit",
    "address",
    "adopt_units",
    "canonical_json",
    "code_digest",
    "content_key",
    "create",
    "donors",
    "find",
    "missing_units",
    "open_artifact",
    "open_published",
    "plan_units",
    "point_name",
    "publish",
    "publish_directory",
    "publish_files",
    "published",
    "unit_records",
    "write_unit",
]


def publish(
    layout: StoreLayout,
    kind: str,
    key: str,
    units: Sequence[Unit],
    attrs: Mapping[str, Any],
    written: Iterable[Record] = (),
    label: str = "",
) -> Published:
    """Complete an artifact: manifest, root zarr.json with consolidated metadata, then the name.

    Args:
        attrs: Root attributes beside the template's; they do not enter the digest.
        written: Records of the units that this run wrote, as `write_unit` returned them; the files
            of all others are read once more.
        label: of the name, for kinds that a run may have several of.
    Raises:
        IncompleteArtifact: If a unit lacks a valid record or the units leave shards out.
        CorruptArtifact: If the store holds files that no unit and no template made.
        NameConflict: If other content is published there.
    """
    path = layout.artifact(kind, key)
    done = find(layout, kind, key)
    if done is not None:
        return point_name(layout, done, label)
    missing = missing_units(path, units, written)
    if missing:
        raise IncompleteArtifact(
            f"{path.name} lacks {len(missing)} of {len(units)} units, first {missing[0].name}; "
            "what is written is safe: run the stage again to make the rest"
        )
    shards = unit_files(path, units)
    arrays = waiting_arrays(path)
    expected = {f"{name}/{key}" for name, array in arrays.items() for key in array.chunk_keys({})}
    left_out = expected - {file["path"] for file in shards}
    if left_out:
        raise IncompleteArtifact(
            f"the {len(units)} units of {path.name} leave {len(left_out)} shards out, "
            f"first {min(left_out)}; publish with all units of the plan"
        )
    structure = [f for f in files_of(path) if below(path, f) not in expected]
    for file in structure:
        array, *inside = below(path, file).split("/")
        if array not in variable_order(path) or (array in arrays and inside != ["zarr.json"]):
            raise CorruptArtifact(f"{file} does not belong to the artifact; move it away")
    files = [*inventory(path, structure), *shards]
    return _seal(layout, kind, key, files, attrs, root_metadata(path), label=label)


def publish_directory(
    layout: StoreLayout, kind: str, key: str, files: Iterable[Place], attrs: Mapping[str, Any]
) -> Published:
    """Complete an artifact that is a directory of files; `published.json` is its last one."""
    done = find(layout, kind, key)
    if done is not None:
        return point_name(layout, done)
    listed = list(inventory(layout.artifact(kind, key), files))
    return _seal(layout, kind, key, listed, attrs, {"attributes": {}})


def publish_files(
    layout: StoreLayout, kind: str, key: str, files: Mapping[str, bytes], attrs: Mapping[str, Any]
) -> Published:
    """Publish a directory of these files, by name; on a disk all of it appears at once.

    If another publishes under this key meanwhile, theirs stays and is what is returned.
    """
    done = find(layout, kind, key)
    if done is not None:
        return point_name(layout, done)
    path = layout.artifact(kind, key)
    listed: list[Record] = [
        {"path": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in files.items()
    ]

    def put(marker: bytes) -> None:
        write_directory_once(path, {**files, marker_of(path).name: marker})

    try:
        return _seal(layout, kind, key, listed, attrs, {"attributes": {}}, put)
    except NameConflict:
        other = find(layout, kind, key)
        if other is None:
            raise
        return point_name(layout, other)


def point_name(layout: StoreLayout, artifact: Published, label: str = "") -> Published:
    """Make the name of the kind lead to this artifact, in one step; then show what is in it.

    Who published it may have died before that was on disk, so it is waited for.
    """
    name = layout.name(artifact.kind, label)
    make_entries_durable(artifact.path, [marker_of(artifact.path).name])
    try:
        point(name, artifact.path)
        for place in layout.shown(artifact.kind):
            show(place, artifact.path / place.name, name)
    except FileExistsError as error:
        raise NameConflict(str(error)) from None
    return artifact


def address(layout: StoreLayout, artifact: Published, label: str = "") -> str:
    """What other programs open: the name, or where are no links, as in a bucket, the artifact."""
    name = layout.name(artifact.kind, label)
    return str(name if isinstance(name, Path) and name.is_symlink() else artifact.path)


def published(layout: StoreLayout, kind: str, label: str = "") -> Published | None:
    """What the name of a kind leads to; None if it leads nowhere."""
    target = leads_to(layout.name(kind, label))
    return None if target is None else read_artifact(target, kind)


def find(layout: StoreLayout, kind: str, key: str) -> Published | None:
    """The artifact published under this content key, if any.

    Raises:
        CorruptArtifact: If it is published and files are missing or have another size.
    """
    artifact = read_artifact(layout.artifact(kind, key), kind)
    if artifact is not None and artifact.key != key:
        raise NameConflict(f"{artifact.path} has key {artifact.key}, not {key}; move it away")
    return artifact


def open_published(
    layout: StoreLayout,
    kind: str,
    *,
    chunks: Mapping[str, int] | None = None,
    label: str = "",
) -> xr.Dataset:
    """Open the current artifact of a kind; see `open_artifact`."""
    artifact = published(layout, kind, label)
    if artifact is None:
        raise IncompleteArtifact(
            f"{layout.name(kind, label)} is not published; run `spherescore run` for it first"
        )
    return open_artifact(artifact, chunks=chunks)


def open_artifact(artifact: Published, *, chunks: Mapping[str, int] | None = None) -> xr.Dataset:
    """Open lazily, bounds as coordinates; as Dask arrays if `chunks` (sizes by dim) is given.

    Raises:
        CorruptArtifact: If metadata are not what was published; reading values then raises
            `CorruptShard` or ValueError where theirs are not.
    """
    marker = verified_marker(artifact.path)
    store: Any = zarr_store(artifact.path)
    dataset: xr.Dataset = xr.open_zarr(store, consolidated=True, chunks=None, decode_coords="all")
    metadata = marker["consolidated_metadata"]["metadata"]
    dataset = with_stored_arrays(dataset, artifact.path, metadata)
    if chunks is None:
        return dataset
    arrays = dataset.data_vars.items()
    return dataset.assign(
        {name: a.chunk({d: n for d, n in chunks.items() if d in a.dims}) for name, a in arrays}
    )


def _seal(
    layout: StoreLayout,
    kind: str,
    key: str,
    files: list[Record],
    attrs: Mapping[str, Any],
    root: dict[str, Any],
    put: Callable[[bytes], None] | None = None,
    label: str = "",
) -> Published:
    """Write the manifest, then put the root in its place, then let the name lead there."""
    path = layout.artifact(kind, key)
    files = sorted(files, key=lambda file: str(file["path"]))
    digest = digest_of(files)
    attributes = {
        "date_created": datetime.now(UTC).isoformat(timespec="seconds"),
        **root["attributes"],
        **json.loads(canonical_json(attrs)),
        "artifact_kind": kind,
        "artifact_key": key,
        "artifact_digest": digest,
    }
    marker = sealed_root(root, attributes)
    records = records_of(path)
    make_directory(records)
    if put is None:
        make_entries_durable(path, [str(file["path"]) for file in files])
    if not isinstance(records, BucketPath):  # those of units were not waited for
        make_files_durable([*records.rglob("*.json"), *records.glob("*/")])
    write_json(manifest_of(path, digest), {"files": files, "digest": digest})
    try:
        if put is None:
            write_file_once(marker_of(path), marker, records / marker_of(path).name)
        else:
            put(marker)
    except FileExistsError:
        other = read_artifact(path, kind)
        if other is None or other.digest != digest:
            raise NameConflict(f"{path} was published meanwhile with other content") from None
        return point_name(layout, other, label)
    made = Published(path=path, kind=kind, key=key, digest=digest, attrs=attributes)
    return point_name(layout, made, label)
