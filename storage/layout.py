"""Where everything of a run lives. No path is spelled anywhere else.

    <root>/
      fields.zarr -> artifacts/fields-0123456789abcdef.zarr  a name: relative link, swapped at once
      artifacts/
        fields-0123456789abcdef.zarr       an artifact: immutable once published
        fields-0123456789abcdef.records/   its unit records, manifest, held-back root metadata
      scores.json  report.html  model-card.md  logs/  prefect/  scratch/

The sixteen digits are the head of the artifact's content key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

KINDS = (
    "fields",
    "normals",
    "whitened",
    "checkpoints",
    "ensemble",
    "series",
    "verification",
    "report",
)
DIRECTORY_KINDS = ("checkpoints", "report")

_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class StoreLayout:
    """The paths of one run below `root`, a directory of this machine."""

    root: str

    def __post_init__(self) -> None:
        if "::" in self.root or "://" in self.root:
            raise ValueError(
                f"run.root must be a local directory; got {self.root!r}. Object storage is not "
                "supported yet: write to a local directory and copy the published store"
            )
        if not self.root or any(ord(character) < 32 for character in self.root):
            raise ValueError(f"run.root must be a path without control characters: {self.root!r}")

    @property
    def path(self) -> Path:
        return Path(self.root)

    @property
    def artifacts(self) -> Path:
        """The directory of all artifacts, current and past."""
        return self.path / "artifacts"

    @property
    def scores(self) -> Path:
        return self.path / "scores.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def card(self) -> Path:
        return self.path / "model-card.md"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def scratch(self) -> Path:
        """Where workers spill; on the disk of the run, which is the one made for large things."""
        return self.path / "scratch"

    @property
    def lock(self) -> Path:
        """Held by whoever works in the root; see storage.garbage."""
        return self.path / ".lock"

    @property
    def prefect(self) -> Path:
        return self.path / "prefect"

    def artifact(self, kind: str, key: str) -> Path:
        """The immutable artifact of this content key (64 hex digits)."""
        if not _KEY.fullmatch(key):
            raise ValueError(f"a content key is 64 lower-case hex digits; got {key!r}")
        return self.artifacts / f"{kind}-{key[:16]}{_suffix(kind)}"

    def name(self, kind: str) -> Path:
        """The link under which readers find the current artifact of a kind."""
        return self.path / f"{kind}{_suffix(kind)}"

    def records(self, kind: str, key: str) -> Path:
        return records_of(self.artifact(kind, key))


def records_of(artifact: Path) -> Path:
    """The directory beside an artifact for its unit records, manifest and held-back metadata."""
    return artifact.with_suffix(".records")


def _suffix(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(f"no artifact kind {kind!r}; the kinds are {', '.join(KINDS)}")
    return "" if kind in DIRECTORY_KINDS else ".zarr"
