"""Names: where an artifact of a kind is found, whatever its content.

On a disk a name is a relative symbolic link. Buckets have no links, and some disks (exFAT, SMB)
have none either: there it is a small object, or file, whose text is the same relative path.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from pathlib import Path

from storage.errors import CorruptFile
from storage.places import buckets
from storage.places.files import LACKING, beside_of, make_durable, write_file
from storage.places.places import BucketPath, Place, below

LOGGER = logging.getLogger("spherescore")
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
    link.parent.mkdir(parents=True, exist_ok=True)
    way = os.path.relpath(target, link.parent)
    if link.is_symlink() and os.readlink(link) == way:
        make_durable(link.parent)  # who made it may not have waited
        return
    _refuse_foreign(link)
    try:
        _link(link, way)
    except OSError as error:
        if error.errno not in LACKING:
            raise
        LOGGER.debug("%s is a file with the path of what it names: no links (%s)", link, error)
        write_file(link, way.encode())


def _link(link: Path, way: str) -> None:
    beside = beside_of(link)
    beside.symlink_to(way)
    os.replace(beside, link)
    make_durable(link.parent)


def _refuse_foreign(link: Path) -> None:
    """Raises FileExistsError if something else than a name stands in its place."""
    try:
        foreign = os.path.lexists(link) and way_of(link) is None
    except CorruptFile:
        foreign = True
    if foreign:
        raise FileExistsError(f"{link} exists and is not a link; move it away")


def leads_to(name: Place) -> Place | None:
    """Where a name leads; None if there is none, or it leads nowhere.

    Raises:
        CorruptFile: If it is an object, or a file, that no name is.
    """
    way = way_of(name)
    if way is None or isinstance(name, BucketPath):
        return None if way is None else name.parent / way
    target = Path(os.path.realpath(name.parent / way))
    return target if target.exists() else None


def way_of(name: Place) -> str | None:
    """The relative way that a name holds, wherever it leads; None if there is no name.

    Raises:
        CorruptFile: If it is an object, or a file, that no name is.
    """
    if isinstance(name, Path) and (name.is_symlink() or not name.is_file()):
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
        name: The name of the artifact: a link leads through it; where are none the file is copied.
    Raises:
        FileExistsError: If something else than a link stands in its place.
    """
    if isinstance(place, BucketPath) and isinstance(file, BucketPath):
        buckets.copy(file.bucket, file.key, place.key)
        return
    assert isinstance(place, Path) and isinstance(file, Path)
    if name.is_symlink():  # type: ignore[union-attr]
        point(place, name / file.name)
        return
    kind, _, _ = file.parent.name.partition("-")
    if os.path.lexists(place) and not any(
        _same(place, other) for other in file.parent.parent.glob(f"{kind}-*/{file.name}")
    ):
        raise FileExistsError(f"{place} exists and is no copy of a published one; move it away")
    beside = beside_of(place)
    shutil.copyfile(file, beside)
    make_durable(beside)
    os.replace(beside, place)
    make_durable(place.parent)


def _same(one: Path, other: Path) -> bool:
    return one.is_file() and one.read_bytes() == other.read_bytes()


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
