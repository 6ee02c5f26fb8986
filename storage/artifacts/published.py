"""What makes an artifact a published one: its root, sealed, and the manifest that it names.

Root metadata hold their own digest and that of the manifest, which lists every file with size and
sha256. Where the root is missing, nothing is published.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from storage.artifacts.keys import canonical_json
from storage.artifacts.layout import manifest_of
from storage.artifacts.sealed import read_json
from storage.artifacts.units import Record
from storage.errors import CorruptArtifact
from storage.places.places import Place, files_below, sizes_below

_REMEDY = "move it away and run the stage again"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A complete artifact; `attrs` are its root's attributes."""

    path: Place
    kind: str
    key: str
    digest: str
    attrs: Mapping[str, Any] = field(hash=False)


def read_artifact(path: Place, kind: str) -> Published | None:
    """What is published at this path, if anything.

    Raises:
        CorruptArtifact: If its root or manifest cannot be read, or files are missing.
    """
    try:
        if not marker_of(path).is_file():
            return None
        attributes = verified_marker(path)["attributes"]
        attrs = {name: _from_text(value) for name, value in attributes.items()}
        manifest = read_json(manifest_of(path, str(attrs["artifact_digest"])))
        sizes = sizes_below(path, [str(file["path"]) for file in manifest["files"]])
        absent = [f["path"] for f in manifest["files"] if sizes.get(f["path"]) != f["size"]]
        artifact = Published(
            path=path, kind=kind, key=attrs["artifact_key"], digest=manifest["digest"], attrs=attrs
        )
        if not attrs["artifact_digest"] == manifest["digest"] == digest_of(manifest["files"]):
            raise ValueError("root and manifest differ")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptArtifact(f"{path} cannot be read ({error}); {_REMEDY}") from error
    if absent:
        raise CorruptArtifact(
            f"{path} lacks {len(absent)} of its files or has them with another size, "
            f"first {absent[0]}; {_REMEDY}"
        )
    return artifact


def verified_marker(path: Place) -> dict[str, Any]:
    """The root metadata of a published artifact.

    Raises:
        CorruptArtifact: If they are not what was published.
    """
    content = marker_of(path).read_bytes()
    try:
        root: dict[str, Any] = json.loads(content)
        whole = _sealed(root) == content
        root["attributes"].pop("artifact_seal")
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise CorruptArtifact(
            f"{marker_of(path)} is not what was published, its seal does not match; {_REMEDY}"
        )
    return root


def sealed_root(root: Mapping[str, Any], attributes: Mapping[str, Any]) -> bytes:
    """Root metadata with these attributes, as `verified_marker` reads them."""
    plain = {name: _as_text(value) for name, value in attributes.items()}
    return _sealed({**root, "attributes": plain})


def digest_of(files: Iterable[Record]) -> str:
    return hashlib.sha256(canonical_json(list(files)).encode()).hexdigest()


def marker_of(path: Place) -> Place:
    """The file whose presence makes an artifact a published one."""
    return path / ("zarr.json" if path.suffix == ".zarr" else "published.json")


def files_of(path: Place) -> list[Place]:
    return [file for file in files_below(path) if file != marker_of(path)]


def _sealed(root: Mapping[str, Any]) -> bytes:
    """Root metadata with the digest of themselves as their last attribute."""
    attributes = {k: v for k, v in root["attributes"].items() if k != "artifact_seal"}

    def text(seal: str) -> bytes:
        sealed = {**root, "attributes": {**attributes, "artifact_seal": seal}}
        return json.dumps(sealed, indent=1, allow_nan=False).encode()

    return text(hashlib.sha256(text("0" * 64)).hexdigest())


def _as_text(value: Any) -> Any:
    """Tables as JSON: readers may write the data set as NetCDF, whose attributes are flat."""
    return canonical_json(value) if isinstance(value, dict) else value


def _from_text(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("{"):
        with suppress(ValueError):  # a title may begin like a table
            return json.loads(value)
    return value
