"""Digests of code, kept in the user's cache for the next process.

The digest of a stage's code needs the syntax trees of a hundred modules, which takes longer than
all else that a run with nothing to do has to find out. So it is kept beside a digest of every
source file of the house, and forgotten as soon as one of them has changed.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from flows.errors import HOUSE
from flows.processes.transform_cache import cache_directory

__all__ = ["kept"]


SOURCES = Path(__file__).resolve().parents[2]  # where the packages of the house lie


def kept(subject: str, make: Callable[[], str], *, house: Path = SOURCES) -> str:
    """The text that `make` gives, or gave to an earlier process with the same source files.

    Args:
        subject: What it is the digest of, in words that differ from those of all other digests.
    """
    name = hashlib.sha256(str(house).encode()).hexdigest()[:16]
    place, state = cache_directory() / "code" / f"{name}.json", _state(house)
    known = _read(place, state)
    if subject not in known:
        known[subject] = make()
        _write(place, {"state": state, "digests": known})
    return known[subject]


def _state(house: Path) -> str:
    """Digest of the names and contents of all files that code digests are made of."""
    digest = hashlib.sha256(sys.version.encode())  # syntax trees differ between versions
    for package in HOUSE:
        for file in sorted(_files(house / package)):
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            digest.update(f"{file.relative_to(house)} {content}\n".encode())
    return digest.hexdigest()


def _files(package: Path) -> Iterable[Path]:
    for directory, folders, names in os.walk(package):
        folders[:] = [name for name in folders if name != "__pycache__"]
        yield from (Path(directory, name) for name in names)


def _read(place: Path, state: str) -> dict[str, str]:
    """Digests of this state of the house; none if the file is of another state, or no such file."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(place.read_text(encoding="utf-8"))
        if found["state"] == state:
            return dict(found["digests"])
    return {}


def _write(place: Path, table: dict[str, object]) -> None:
    """Keep a table, whole; where the cache cannot be written the next process makes its own."""
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(table), encoding="utf-8")
        partial.replace(place)
