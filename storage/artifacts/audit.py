"""Every published byte read again."""

from __future__ import annotations

from storage.artifacts.layout import KINDS, StoreLayout, manifest_of, records_of
from storage.artifacts.pointers import way_of
from storage.artifacts.published import digest_of, files_of, marker_of, verified_marker
from storage.artifacts.sealed import json_bytes, read_json, read_sealed
from storage.errors import ArtifactError, CorruptFile
from storage.places.files import sha256_of
from storage.places.places import Place, below, files_below, matching


def check(layout: StoreLayout) -> list[str]:
    """Read every published byte again; one sentence per problem, none if all is well."""
    problems = []
    for kind in KINDS:
        for path in matching(layout.artifacts, f"{kind}-*"):
            if path.suffix == layout.name(kind).suffix and marker_of(path).is_file():
                problems += problems_of(path)
        for name in layout.names(kind):
            problems += _astray(name)
    return problems


def problems_of(path: Place) -> list[str]:
    """What `check` says of one published artifact."""
    try:
        digest = verified_marker(path)["attributes"]["artifact_digest"]
        place = manifest_of(path, digest)
    except (ArtifactError, OSError) as error:
        return [str(error)]
    try:
        manifest = read_json(place)
        listed = {file["path"]: file["sha256"] for file in manifest["files"]}
        problems = []
        if not digest == manifest["digest"] == digest_of(manifest["files"]):
            problems.append(f"{place} has another digest than {marker_of(path)}")
        if json_bytes(manifest) != place.read_bytes():
            problems.append(f"{place} is not as it was written, though it says the same")
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{place} cannot be read: {error}"]
    for file in sorted(files_below(records_of(path)), key=str):
        try:
            if file.suffix == ".json" and not file.name.startswith("manifest-"):
                read_sealed(file)
        except (OSError, ValueError) as error:
            problems.append(str(error))
    present = {below(path, file) for file in files_of(path)}
    for name in sorted(listed.keys() | present):
        if name not in present:
            problems.append(f"{path / name} is missing")
        elif name not in listed:
            problems.append(f"{path / name} does not belong to the artifact")
        elif sha256_of(path / name) != listed[name]:
            problems.append(f"{path / name} is corrupt: its sha256 is not the manifest's")
    return problems


def _astray(name: Place) -> list[str]:
    """What is wrong with a name."""
    try:
        target = way_of(name)
    except CorruptFile as error:
        return [str(error)]
    if target is None or marker_of(name.parent / target).is_file():
        return []
    return [f"{name} leads to {target}, which is not published"]
