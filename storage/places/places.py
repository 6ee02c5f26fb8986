"""Where bytes lie: a path of this machine, or a key in a bucket, used alike.

`Place` is what the artifacts of a run are found by. A local one is a `pathlib.Path` as ever; a
`BucketPath` has the same words for what both can do. Writing is done by storage/places/files.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeAlias, cast

from storage.places import buckets

__all__ = [
    "BucketPath",
    "Place",
    "Readable",
    "below",
    "files_below",
    "is_address",
    "matching",
    "opened",
    "place_of",
    "same_place",
    "sizes_below",
]

_ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[A-Za-z0-9_.=+-]+)*)/?")


@dataclass(frozen=True, order=True)
class BucketPath:
    """A key in a bucket, or what lies below it; holds no address of a server and no secret."""

    bucket: str
    key: str = ""

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}".rstrip("/")

    def __truediv__(self, other: str | PurePosixPath) -> BucketPath:
        return BucketPath(self.bucket, "/".join(filter(None, (self.key, str(other)))))

    @property
    def name(self) -> str:
        return PurePosixPath(self.key).name

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.key).suffix

    @property
    def parent(self) -> BucketPath:
        return BucketPath(self.bucket, self.key.rpartition("/")[0])

    def joinpath(self, *parts: str) -> BucketPath:
        return self / "/".join(parts)

    def with_name(self, name: str) -> BucketPath:
        return self.parent / name

    def with_suffix(self, suffix: str) -> BucketPath:
        return self.with_name(PurePosixPath(self.key).with_suffix(suffix).name)

    def relative_to(self, other: BucketPath) -> PurePosixPath:
        if other.bucket != self.bucket:
            raise ValueError(f"{self} is not below {other}")
        return PurePosixPath(self.key).relative_to(other.key)

    def exists(self) -> bool:
        """Whether there is an object of this key, or any below it."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        try:
            buckets.size(self.bucket, self.key)
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        return any(buckets.level(self.bucket, self.key))

    def read_bytes(self) -> bytes:
        return buckets.get(self.bucket, self.key)

    def iterdir(self) -> Iterator[BucketPath]:
        for found in sorted({key for keys in buckets.level(self.bucket, self.key) for key in keys}):
            yield BucketPath(self.bucket, found)

    def glob(self, pattern: str) -> Iterator[BucketPath]:
        """Match names as `Path.glob` does, without `**`."""
        first, _, rest = pattern.partition("/")
        plain = not re.search(r"[*?\[]", first)
        found = [self / first] if plain else [
            one for one in self.iterdir() if fnmatch.fnmatchcase(one.name, first)
        ]  # fmt: skip
        for one in found:
            if rest:
                yield from one.glob(rest)
            elif not plain or one.exists():
                yield one


Place: TypeAlias = Path | BucketPath


def is_address(text: str) -> bool:
    """Whether a text means a bucket, and not a path."""
    return "://" in text


def place_of(root: str) -> Place:
    """The place that a path, or s3://bucket/prefix, means.

    Raises:
        ValueError: If it is another address.
    """
    if not is_address(root):
        return Path(root)
    found = _ADDRESS.fullmatch(root)
    if found is None or {".", ".."} & set(found[2].split("/")):
        raise ValueError(
            "expected a path or s3://bucket/prefix, of letters, digits and _.=+-, without user and "
            f"query; got {root.split('@')[-1].split('?')[0]!r}"
        )
    return BucketPath(found[1], found[2].strip("/"))


def same_place(one: Place, other: Place) -> bool:
    """Whether both mean one place, relative or not, through links or not."""
    if isinstance(one, BucketPath) or isinstance(other, BucketPath):
        return one == other
    return os.path.realpath(one) == os.path.realpath(other)


def below(directory: Place, file: Place) -> str:
    """The way from a directory to a file in it, with slashes."""
    if isinstance(directory, BucketPath) or isinstance(file, BucketPath):
        assert isinstance(directory, BucketPath) and isinstance(file, BucketPath)
        return str(file.relative_to(directory))
    return file.relative_to(directory).as_posix()


def matching(place: Place, pattern: str) -> list[Place]:
    """What `glob` finds, in order."""
    found: list[Place] = [*place.glob(pattern)]
    return sorted(found, key=str)


def files_below(place: Place) -> list[Place]:
    """All files below a directory."""
    if isinstance(place, BucketPath):
        return [place / name for name in sizes_below(place)]
    return [file for file in place.rglob("*") if file.is_file()]


def sizes_below(place: Place, names: Iterable[str] = ()) -> dict[str, int]:
    """Sizes by path below `place`: of all objects, or of the files named here if they are there."""
    if isinstance(place, BucketPath):
        skip = len(place.key) + 1 if place.key else 0
        found = buckets.sizes(place.bucket, place.key)
        return {key[skip:]: size for key, size in found.items()}
    found = {}
    for name in names:
        try:
            found[name] = (place / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            continue
    return found


class Readable:
    """A file of which parts are read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def end(self, length: int) -> tuple[bytes, int]:
        """The last bytes, and the size of the file."""
        size = self._stream.seek(0, 2)
        self._stream.seek(max(0, size - length))
        return self._stream.read(), size

    def parts(self, starts: list[int], lengths: list[int]) -> Iterator[bytes]:
        for start, length in zip(starts, lengths, strict=True):
            self._stream.seek(start)
            yield self._stream.read(length)


class _ReadableObject(Readable):
    def __init__(self, place: BucketPath) -> None:
        self._place = place

    def end(self, length: int) -> tuple[bytes, int]:
        return buckets.get_end(self._place.bucket, self._place.key, length)

    def parts(self, starts: list[int], lengths: list[int]) -> Iterator[bytes]:
        yield from buckets.get_ranges(self._place.bucket, self._place.key, starts, lengths)


@contextmanager
def opened(file: Place) -> Iterator[Readable]:
    """Open for reading parts.

    Raises:
        FileNotFoundError: If it is not there; of an object with the first part that is read.
    """
    if isinstance(file, BucketPath):
        yield _ReadableObject(file)
        return
    with file.open("rb", buffering=0) as stream:
        yield Readable(cast(BinaryIO, stream))
