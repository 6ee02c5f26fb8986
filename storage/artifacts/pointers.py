"""Names: where an artifact of a kind is found, whatever its content.

On a disk a name is a relative symbolic link. Buckets have no links: there it is a small object
whose text is the same relative way.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from storage.places import buckets
from storage.places.files import CorruptFile, beside_of, make_durable
from storage.places.places import BucketPath, Place, below

_WAY = re.compile(rb"artifacts/[a-z]+-[0-9a-f]{16}(\.zarr)?")


def point(link: Place, target: Place) -> None:
    """Make a name lead to `target`, in the place of an older one, in one step.

    Raises:
        FileExistsError: If something else than a name stands in its place.
    """
    if isinstance(link, BucketPath):
        _point_object(link, target)
        return
    assert isinstance(target, Path)
    if link.exists() and not link.is_symlink():
        raise FileExistsError(f"{link} exists and is not a link; move it away")
    link.parent.mkdir(parents=True, exist_ok=True)
    beside = beside_of(link)
    beside.symlink_to(os.path.relpath(target, link.parent))
    os.replace(beside, link)
    make_durable(link.parent)


def leads_to(name: Place) -> Place | None:
    """Where a name leads; None if there is none, or it leads nowhere.

    Raises:
        CorruptFile: If it is an object that no name is.
    """
    if not isinstance(name, BucketPath):
        return Path(os.path.realpath(name)) if name.exists() else None
    way = way_of(name)
    return None if way is None else name.parent / way


def way_of(name: Place) -> str | None:
    """The relative way that a name holds, wherever it leads; None if there is no name.

    Raises:
        CorruptFile: If it is an object that no name is.
    """
    if not isinstance(name, BucketPath):
        return os.readlink(name) if name.is_symlink() else None
    try:
        text = name.read_bytes()
    except FileNotFoundError:
        return None
    if not _WAY.fullmatch(text):
        raise CorruptFile(f"{name} is no name: it does not hold the way to an artifact")
    return text.decode()


def show(place: Place, file: Place, name: Place) -> None:
    """Make a file of an artifact be seen at `place`, too.

    Args:
        name: The name of the artifact: a link leads through it; in a bucket the file is copied.
    Raises:
        FileExistsError: If something else than a link stands in its place.
    """
    if isinstance(place, BucketPath) and isinstance(file, BucketPath):
        buckets.copy(file.bucket, file.key, place.key)
    else:
        point(place, name / file.name)


def _point_object(name: BucketPath, target: Place) -> None:
    way = below(name.parent, target).encode()
    try:
        found = leads_to(name)
    except CorruptFile as error:
        raise FileExistsError(f"{error}; move it away") from None
    if found is None and name.is_dir():
        raise FileExistsError(f"objects lie below {name}, where a name belongs; move them away")
    if found != target:
        buckets.put(name.bucket, name.key, way)
