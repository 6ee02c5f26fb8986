"""Where everything of a run lives. No path is spelled anywhere else.

    <root>/
      fields.zarr -> artifacts/fields-0123456789abcdef.zarr  a name: relative link, swapped at once
      sequences.zarr  sequences-heat.zarr  of kinds that a run may have several of: with a label
      artifacts/
        fields-0123456789abcdef.zarr       an artifact: immutable once published
        fields-0123456789abcdef.records/   its unit records, manifest, held-back root metadata
          time-0-64.json  realization-0-8/time-0-8.json   records of units of one dimension, of two
      scores.json  report.html  model-card.md  conditioned.html
    <scratch>/
      logs/  prefect/  scratch/            always on this machine

The sixteen digits are the head of the artifact's content key. The root is a directory of this
machine, or s3://bucket/prefix; names are objects there that hold the same relative ways as links,
and what lies below the root beside them are copies.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from storage.places.places import BucketPath, Place, is_address, matching, place_of

KINDS = (
    "fields",
    "normals",
    "whitened",
    "checkpoints",
    "ensemble",
    "series",
    "states",
    "sequences",
    "verification",
    "report",
    "observed",
    "conditioned",
    "findings",
)
DIRECTORY_KINDS = ("checkpoints", "report", "findings")
LABELLED = ("ensemble", "series", "states", "sequences", "verification")  # of which several may be

_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class StoreLayout:
    """The paths of one run below `root`.

    Attributes:
        root: A directory of this machine, or s3://bucket/prefix.
        local: A directory of this machine for logs, Prefect's state and what workers spill; by
            default the root, or for a bucket runs/<bucket>/<prefix>.
    """

    root: str
    local: str | None = None

    def __post_init__(self) -> None:
        for name, text in (("run.root", self.root), ("run.scratch", self.local or ".")):
            if any(ord(character) < 32 for character in text):
                raise ValueError(f"{name} must be a path without control characters: {text!r}")
        if "::" in self.root or not self.root:
            raise ValueError(
                f"run.root must be a directory or s3://bucket/prefix; got {self.root!r}"
            )
        try:
            place_of(self.root)
        except ValueError as error:
            raise ValueError(f"run.root: {error}") from None
        if self.local is not None and (is_address(self.local) or not self.local.strip()):
            raise ValueError(f"run.scratch must be a directory of this machine: {self.local!r}")

    @property
    def path(self) -> Place:
        return place_of(self.root)

    @property
    def on_this_machine(self) -> Path:
        """The directory of what needs a local disk."""
        if self.local:
            return Path(self.local)
        root = self.path
        return Path("runs", root.bucket, root.key) if isinstance(root, BucketPath) else root

    @property
    def artifacts(self) -> Place:
        """The directory of all artifacts, current and past."""
        return self.path / "artifacts"

    @property
    def scores(self) -> Place:
        return self.path / "scores.json"

    @property
    def report(self) -> Place:
        return self.path / "report.html"

    @property
    def card(self) -> Place:
        return self.path / "model-card.md"

    @property
    def conditioned(self) -> Place:
        return self.path / "conditioned.html"

    @property
    def logs(self) -> Path:
        return self.on_this_machine / "logs"

    @property
    def scratch(self) -> Path:
        """Where workers spill; on the disk of a local run, which is made for large things."""
        return self.on_this_machine / "scratch"

    @property
    def lock(self) -> Path:
        """Held by who works in a root on a disk, or reads all of it; see storage/artifacts/lock."""
        root = self.path
        return (self.on_this_machine if isinstance(root, BucketPath) else root) / ".lock"

    @property
    def prefect(self) -> Path:
        return self.on_this_machine / "prefect"

    def artifact(self, kind: str, key: str) -> Place:
        """The immutable artifact of this content key (64 hex digits)."""
        if not _KEY.fullmatch(key):
            raise ValueError(f"a content key is 64 lower-case hex digits; got {key!r}")
        return self.artifacts / f"{kind}-{key[:16]}{_suffix(kind)}"

    def name(self, kind: str, label: str = "") -> Place:
        """The link under which readers find the current artifact of a kind.

        Args:
            label: tells several of one kind apart; see `LABELLED`.
        """
        return self.path / f"{labelled(kind, label)}{_suffix(kind)}"

    def names(self, kind: str) -> list[Place]:
        """The link of a kind, and those of it with labels that are there."""
        if kind not in LABELLED:
            return [self.name(kind)]
        return [self.name(kind), *matching(self.path, f"{kind}-*{_suffix(kind)}")]

    def shown(self, kind: str) -> tuple[Place, ...]:
        """Files of the current artifact of a kind that are found below the root, too."""
        shown = {"report": (self.scores, self.report, self.card), "findings": (self.conditioned,)}
        return shown.get(kind, ())

    def records(self, kind: str, key: str) -> Place:
        return records_of(self.artifact(kind, key))


def labelled(kind: str, label: str = "") -> str:
    """What an artifact is called: its kind, with the label that tells several apart."""
    return f"{kind}-{label}" if label else kind


def records_of(artifact: Place) -> Place:
    """The directory beside an artifact for its unit records, manifest and held-back metadata."""
    return artifact.with_suffix(".records")


def record_of(artifact: Place, unit: str) -> Place:
    """The record of a unit of this name; see storage.artifacts.units.Unit.

    Units of several dimensions lie in a directory for each part of the first one, so that many
    realizations of many times make many directories, and none with too many entries.
    """
    first, _, rest = unit.partition(".")
    records = records_of(artifact)
    return records / first / f"{rest}.json" if rest else records / f"{first}.json"


def manifest_of(artifact: Place, digest: str) -> Place:
    """The list of the files of an artifact that has this digest."""
    return records_of(artifact) / f"manifest-{digest[:16]}.json"


def _suffix(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(f"no artifact kind {kind!r}; the kinds are {', '.join(KINDS)}")
    return "" if kind in DIRECTORY_KINDS else ".zarr"
