"""Every error of files and stores that ends a run, each with its exit code.

docs/reliability.md says what to do about each. What the operating system raises keeps its own type,
and flows/errors gives it a code.
"""

from __future__ import annotations


class SourceError(ValueError):
    """The input cannot be used as it is; the message says what to do."""

    exit_code = 10


class UnsafeSource(SourceError):
    """The input asks for what is not done for a foreign file: code, other files, other hosts."""

    exit_code = 60


class LabelError(ValueError):
    """A dataset is not labelled as its kind must be."""

    exit_code = 10


class NoPyramid(ValueError):
    """Cells of the ensemble have no parents."""

    exit_code = 2


class CorruptFile(ValueError):
    """The bytes of a file are not those that were written."""

    exit_code = 20


class CorruptShard(ValueError):
    """The bytes of a shard are not those that were written."""

    exit_code = 20


class ArtifactError(RuntimeError):
    """An artifact is not what it should be."""

    exit_code = 20


class CorruptArtifact(ArtifactError):
    """Published bytes are not what the manifest says."""

    exit_code = 20


class IncompleteArtifact(ArtifactError):
    """Units are missing, or the artifact is not published."""

    exit_code = 21


class NameConflict(ArtifactError):
    """Another artifact, or a foreign file, has the name."""

    exit_code = 22


class RootInUse(RuntimeError):
    """A run works in the root, or somebody cleans it."""

    exit_code = 31


class StorageUnavailable(RuntimeError):
    """A bucket does not do what is asked of it."""

    exit_code = 31


class NoSpaceInBucket(StorageUnavailable):
    """The server of a bucket has no space left."""

    exit_code = 30


class OutcomeUnknown(StorageUnavailable):
    """An object was put, the answer was lost, and it cannot be read back."""

    exit_code = 32
