"""What a root holds that nothing needs: old artifacts and what crashes left behind.

Needed is what a name leads to, and every artifact whose digest stands anywhere in the attributes
(or in the scores) of a needed one: what a published thing was made of stays. An unfinished artifact
is needed if its key is one that the configuration gives, or cannot be told.

While a run uses the root nothing may be removed, so runs hold a lock that the system frees when
they die; no clock is asked.
"""

from __future__ import annotations

import fcntl
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from storage.artifacts import ArtifactError, Published, marker_of, read_artifact
from storage.layout import DIRECTORY_KINDS, KINDS, StoreLayout

_BESIDE = re.compile(r"\..+\.\d+-[0-9a-f]{8}")  # as storage.files.beside_of names them
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ARTIFACT = re.compile(r"([a-z]+)-([0-9a-f]{16})(\.zarr|\.records)?")


class RootInUse(RuntimeError):
    """A run works in the root, or somebody cleans it."""

    exit_code = 31


@dataclass(frozen=True)
class Garbage:
    """Something that may go, with its size in bytes and the reason."""

    paths: tuple[Path, ...]
    size: int
    reason: str


@contextmanager
def in_use(layout: StoreLayout, *, alone: bool = False) -> Iterator[None]:
    """While the root is used: by any number of runs, or `alone` by who removes garbage.

    Raises:
        RootInUse: If others use it in the other way.
    """
    layout.path.mkdir(parents=True, exist_ok=True)
    with layout.lock.open("ab") as stream:
        try:
            fcntl.flock(stream, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError as error:
            who = "a run is at work" if alone else "`spherescore clean` is at work"
            raise RootInUse(f"{who} in {layout.root}; wait for its end, then try again") from error
        yield


def garbage(layout: StoreLayout, keys: Collection[str]) -> list[Garbage]:
    """All that may go, smallest paths first.

    Args:
        keys: Content keys that the configuration gives now; unfinished artifacts of them stay.
    Raises:
        ArtifactError: If what a name leads to cannot be read: then it is not known what it needs.
    """
    found = []
    needed = _needed(layout)
    known = {key[:16] for key in keys}
    told = {kind for kind in KINDS if kind not in ("verification", "series")}
    groups: dict[str, list[Path]] = {}
    for path in sorted(layout.artifacts.glob("*")):
        match = _ARTIFACT.fullmatch(path.name)
        if match and match[1] in KINDS:
            groups.setdefault(f"{match[1]}-{match[2]}", []).append(path)
    for name, paths in groups.items():
        kind, _, key = name.partition("-")
        artifact = layout.artifacts / (name if kind in DIRECTORY_KINDS else f"{name}.zarr")
        if marker_of(artifact).exists():
            if artifact not in needed:
                found.append(_garbage(paths, "no name leads to it and nothing was made of it"))
        elif kind in told and key not in known:
            found.append(_garbage(paths, "unfinished, and of another configuration"))
    going = {path for one in found for path in one.paths}
    for path in _leftovers(layout):
        if not going & {path, *path.parents}:
            found.append(_garbage([path], "left by a process that died"))
    return found


def remove(piece: Garbage) -> None:
    """Remove it; what is removed halfway is no artifact any more, and is garbage again."""
    for path in piece.paths:
        with suppress(FileNotFoundError, NotADirectoryError):
            marker_of(path).unlink()
    for path in piece.paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _needed(layout: StoreLayout) -> set[Path]:
    by_digest: dict[str, list[Published]] = {}
    for kind in KINDS:
        for path in layout.artifacts.glob(f"{kind}-*"):
            if path.suffix in ("", ".zarr") and marker_of(path).exists():
                with suppress(ArtifactError):  # what cannot be read is needed by its name alone
                    artifact = read_artifact(path, kind)
                    assert artifact is not None
                    by_digest.setdefault(artifact.digest, []).append(artifact)
    waiting, needed = [], set[Path]()
    for kind in KINDS:
        name = layout.name(kind)
        if name.exists():
            needed.add(name.resolve())
            named = read_artifact(name.resolve(), kind)
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
    text = marker_of(artifact.path).read_text(encoding="utf-8")
    scores = artifact.path / "scores.json"
    if scores.exists():
        text += scores.read_text(encoding="utf-8")
    return set(_DIGEST.findall(text))


def _leftovers(layout: StoreLayout) -> list[Path]:
    places = [layout.path, layout.artifacts, *layout.artifacts.glob("*")]
    states = [p for p in layout.artifacts.glob("checkpoints-*/*") if p.is_dir()]
    beside = [
        path
        for place in (*places, *states)
        if place.is_dir()
        for path in place.iterdir()
        if _BESIDE.fullmatch(path.name)
    ]
    return sorted({*beside, *layout.scratch.glob("dask-*")})


def _garbage(paths: list[Path], reason: str) -> Garbage:
    files = [file for path in paths for file in (path, *path.rglob("*")) if not file.is_symlink()]
    # Shared by hard links, bytes go only with the last of them.
    sizes = [f.stat().st_size for f in files if f.is_file() and f.stat().st_nlink == 1]
    return Garbage(tuple(paths), sum(sizes), reason)
