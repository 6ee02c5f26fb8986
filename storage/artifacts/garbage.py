"""What a root holds that nothing needs: old artifacts and what crashes left behind.

Needed is what a name leads to, and every artifact whose digest stands anywhere in the attributes
(or in the scores) of a needed one: what a published thing was made of stays. An unfinished artifact
is needed if its key is one that the configuration gives, or cannot be told.

While a run uses the root nothing may be removed: who does holds it alone (storage/artifacts/lock).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from storage.artifacts.layout import DIRECTORY_KINDS, KINDS, StoreLayout
from storage.artifacts.pointers import leads_to
from storage.artifacts.published import Published, marker_of, read_artifact
from storage.errors import ArtifactError
from storage.places.files import remove as remove_file
from storage.places.places import BucketPath, Place, matching, sizes_below

_BESIDE = re.compile(r"\..+\.\d+-[0-9a-f]{8}")  # as storage.places.files.beside_of names them
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ARTIFACT = re.compile(r"([a-z]+)-([0-9a-f]{16})(\.zarr|\.records)?")

# Kinds that no stage is asked for.
UNTOLD = ("verification", "series", "states", "sequences", "observed", "conditioned", "findings")


@dataclass(frozen=True)
class Garbage:
    """Something that may go, with its size in bytes and the reason."""

    paths: tuple[Place, ...]
    size: int
    reason: str


def garbage(layout: StoreLayout, keys: Collection[str]) -> list[Garbage]:
    """All that may go, smallest paths first.

    Args:
        keys: Content keys that the configuration gives now; unfinished artifacts of them stay.
    Raises:
        ArtifactError: If what a name leads to cannot be read: then it is not known what it needs.
    """
    found = []
    needed, artifacts = _needed(layout), layout.artifacts
    known = {key[:16] for key in keys}
    told = {kind for kind in KINDS if kind not in UNTOLD}
    groups: dict[str, list[Place]] = {}
    for path in matching(artifacts, "*"):
        match = _ARTIFACT.fullmatch(path.name)
        if match and match[1] in KINDS:
            groups.setdefault(f"{match[1]}-{match[2]}", []).append(path)
    for name, paths in groups.items():
        kind, _, key = name.partition("-")
        artifact = artifacts / (name if kind in DIRECTORY_KINDS else f"{name}.zarr")
        if marker_of(artifact).is_file():
            if artifact not in needed:
                found.append(_garbage(paths, "no name leads to it and nothing was made of it"))
        elif kind in told and key not in known:
            found.append(_garbage(paths, "unfinished, and of another configuration"))
    going = {path for one in found for path in one.paths}
    for left in _leftovers(layout):
        if not going & {left, *left.parents}:
            found.append(_garbage([left], "left by a process that died"))
    return found


def remove(piece: Garbage) -> None:
    """Remove it; what is removed halfway is no artifact any more, and is garbage again."""
    for path in piece.paths:
        with suppress(FileNotFoundError, NotADirectoryError):
            remove_file(marker_of(path))
    for path in piece.paths:
        with suppress(FileNotFoundError):
            remove_file(path)


def _needed(layout: StoreLayout) -> set[Place]:
    by_digest: dict[str, list[Published]] = {}
    for kind in KINDS:
        for path in layout.artifacts.glob(f"{kind}-*"):
            if path.suffix in ("", ".zarr") and marker_of(path).is_file():
                with suppress(ArtifactError):  # what cannot be read is needed by its name alone
                    artifact = read_artifact(path, kind)
                    assert artifact is not None
                    by_digest.setdefault(artifact.digest, []).append(artifact)
    waiting, needed = [], set[Place]()
    for kind in KINDS:
        for name in layout.names(kind):
            target = leads_to(name)
            if target is not None:
                needed.add(target)
                named = read_artifact(target, kind)
                waiting += [named] if named else []
    needed = {layout.artifacts / path.name for path in needed}
    while waiting:
        artifact = waiting.pop()
        for digest in _digests_in(artifact):
            for other in by_digest.get(digest, ()):
                if other.path not in needed:
                    needed.add(other.path)
                    waiting.append(other)
    return needed


def _digests_in(artifact: Published) -> set[str]:
    text = marker_of(artifact.path).read_bytes().decode()
    scores = artifact.path / "scores.json"
    if scores.exists():
        text += scores.read_bytes().decode()
    return set(_DIGEST.findall(text))


def _leftovers(layout: StoreLayout) -> list[Path]:
    """Files written beside their places, which no bucket has, and what workers spilled."""
    root, artifacts = layout.path, layout.artifacts
    beside = set[Path]()
    if isinstance(root, Path) and isinstance(artifacts, Path):
        states = [p for p in artifacts.glob("checkpoints-*/*") if p.is_dir()]
        records = artifacts.glob("*.records/*/")
        for place in (root, artifacts, *artifacts.glob("*"), *states, *records):
            if place.is_dir():
                beside |= {path for path in place.iterdir() if _BESIDE.fullmatch(path.name)}
    return sorted({*beside, *layout.scratch.glob("dask-*")})


def _garbage(paths: Sequence[Place], reason: str) -> Garbage:
    return Garbage(tuple(paths), sum(map(_size, paths)), reason)


def _size(path: Place) -> int:
    """Bytes that go with it: shared by hard links, they go only with the last of them."""
    if isinstance(path, BucketPath):
        return sum(sizes_below(path).values())
    files = [file for file in (path, *path.rglob("*")) if not file.is_symlink()]
    return sum(f.stat().st_size for f in files if f.is_file() and f.stat().st_nlink == 1)
