"""Files that survive a crash: written beside, made durable, then put in place in one step."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_BLOCK = 1 << 20
_SEAL = "sha256 of the rest"
DISK_THREADS = 8


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


class CorruptFile(ValueError):
    """The bytes of a file are not those that were written."""

    exit_code = 20


def write_file(path: Path, content: bytes) -> None:
    """Replace a file: after a crash it has its old content, or the new one, never a part."""
    beside = beside_of(path)
    _write_durably(beside, content)
    os.replace(beside, path)
    make_durable(path.parent)


def write_file_once(path: Path, content: bytes, beside: Path) -> None:
    """Put a file where there is none.

    Args:
        beside: Where it is written first, on the same disk; a crash may leave it there.
    Raises:
        FileExistsError: If there is one, whatever its content; it is left untouched.
    """
    _write_durably(beside, content)
    try:
        os.link(beside, path)
    finally:
        beside.unlink()
    make_durable(path.parent)


def write_json(path: Path, value: object) -> None:
    write_file(path, json_bytes(value))


def write_sealed(path: Path, value: Mapping[str, Any], *, durably: bool = True) -> None:
    """Replace a JSON file with a table and the digest of it; `read_sealed` knows its own bytes.

    Args:
        durably: False does not wait for the disk: after a crash the file may not be readable.
    """
    content = _sealed_bytes(value)
    if durably:
        write_file(path, content)
    else:
        beside = beside_of(path)
        beside.write_bytes(content)
        os.replace(beside, path)


def read_sealed(path: Path) -> dict[str, Any]:
    """The table that `write_sealed` wrote.

    Raises:
        CorruptFile: If a single byte of the file is another.
    """
    content = path.read_bytes()
    try:
        value: dict[str, Any] = json.loads(content)
        value.pop(_SEAL)
        whole = _sealed_bytes(value) == content
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise CorruptFile(f"{path} is not what was written: its seal does not match")
    return value


def write_hashed(path: Path, parts: Iterable[Any]) -> tuple[int, str]:
    """Write a file in one go, not yet durably; its size and sha256.

    Args:
        parts: Its content, bytes or arrays of bytes.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as stream:
        for part in parts:
            stream.write(part)
            digest.update(part)
            size += len(part)
    return size, digest.hexdigest()


def _sealed_bytes(value: Mapping[str, Any]) -> bytes:
    return json_bytes({**value, _SEAL: hashlib.sha256(json_bytes(value)).hexdigest()})


def json_bytes(value: object) -> bytes:
    """The bytes that `write_json` writes."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode()


def read_json(path: Path) -> dict[str, Any]:
    """Raises ValueError if the file does not hold one JSON object."""
    value = json.loads(path.read_bytes())
    if not isinstance(value, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    return value


def move_into_place(source: Path, target: Path) -> None:
    """Make a file durable, then move it to its place, making directories on the way."""
    move_all_into_place({source: target})


def move_all_into_place(moves: Mapping[Path, Path]) -> None:
    """Make files durable, then move all of them to their places, making directories on the way.

    Waits for the disk side by side: it makes one write of what it is asked for at the same time.
    """
    changed = set()
    with ThreadPoolExecutor(DISK_THREADS) as pool:
        list(pool.map(make_durable, moves))
    for source, target in moves.items():
        made = [parent for parent in target.parents if not parent.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)
        changed |= {target.parent, *(parent.parent for parent in made)}
    with ThreadPoolExecutor(DISK_THREADS) as pool:
        list(pool.map(make_durable, changed))


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


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
