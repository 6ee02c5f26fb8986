"""Files that survive a crash: written beside, made durable, then put in place in one step."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_BLOCK = 1 << 20


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def make_durable(path: Path) -> None:
    """Wait until a file, or the entries of a directory, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_tree_durable(directory: Path) -> None:
    """Wait until everything below a directory, and the directory itself, is on disk."""
    for path in (directory, *directory.rglob("*")):
        make_durable(path)


def write_file(path: Path, content: bytes) -> None:
    """Replace a file: after a crash it has its old content, or the new one, never a part."""
    beside = _write_beside(path, content)
    os.replace(beside, path)
    make_durable(path.parent)


def write_file_once(path: Path, content: bytes) -> None:
    """Put a file where there is none.

    Raises:
        FileExistsError: If there is one, whatever its content; it is left untouched.
    """
    beside = _write_beside(path, content)
    try:
        os.link(beside, path)
    finally:
        beside.unlink()
    make_durable(path.parent)


def write_json(path: Path, value: object) -> None:
    write_file(path, _json_bytes(value))


def _json_bytes(value: object) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode()


def read_json(path: Path) -> dict[str, Any]:
    """Raises ValueError if the file does not hold one JSON object."""
    value = json.loads(path.read_bytes())
    if not isinstance(value, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    return value


def move_into_place(source: Path, target: Path) -> None:
    """Make a file durable, then move it to its place, making directories on the way."""
    make_durable(source)
    made = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, target)
    for directory in {target.parent, *(parent.parent for parent in made)}:
        make_durable(directory)


def point(link: Path, target: Path) -> None:
    """Make `link` a relative symbolic link to `target`, replacing an older link in one step.

    Raises:
        FileExistsError: If something else than a link stands in its place.
    """
    if link.exists() and not link.is_symlink():
        raise FileExistsError(f"{link} exists and is not a link; move it away")
    link.parent.mkdir(parents=True, exist_ok=True)
    beside = beside_of(link)
    beside.symlink_to(os.path.relpath(target, link.parent))
    os.replace(beside, link)
    make_durable(link.parent)


def inventory(directory: Path, paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Path below `directory`, size and sha256 of each file, by path."""
    for path in sorted(paths):
        yield {
            "path": path.relative_to(directory).as_posix(),
            "size": path.stat().st_size,
            "sha256": sha256_of(path),
        }


def beside_of(path: Path) -> Path:
    """A name in the same directory that nobody else uses."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")


def _write_beside(path: Path, content: bytes) -> Path:
    beside = beside_of(path)
    with beside.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    return beside
