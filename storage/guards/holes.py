"""Chunks that a Zarr store does not have: they read as the fill value, as if measured.

Writers leave out chunks that are all fill value, so a lack is no fault by itself. It is one where
nothing at all is stored of a stretch of the first dimension and the fill value is a number, and
where there is no fill value: such chunks read as anything. Stores whose names can be listed are
looked through before they are read; others when a chunk is asked for that is not there.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

__all__ = ["ChunkGrid", "chunk_grids", "lost_chunks", "unstored"]

MOST_KEYS = 1 << 20  # looked at
MOST_FILES = 1 << 16  # looked for, one by one
_REMEDY = (
    "Complete the store; if they truly have that value everywhere, write them: "
    "zarr.config.set({'array.write_empty_chunks': True})"
)


@dataclass(frozen=True)
class ChunkGrid:
    """The chunks of an array, and which of them must not lack.

    Attributes:
        path: The array in its store.
        counts: Chunks along each dimension.
        rows: Length of a chunk along the first dimension.
        fill: What an absent chunk reads as, NaN if as missing; None if that is anything.
    """

    path: str
    counts: tuple[int, ...]
    rows: int
    fill: float | None
    prefix: str
    separator: str

    @property
    def misleads(self) -> bool:
        """Whether values that are not there may be taken for measured ones."""
        return len(self.counts) > 1 and (self.fill is None or math.isfinite(self.fill))

    def all_keys(self) -> Iterator[str]:
        """Keys of all chunks."""
        return map(self.key, itertools.product(*map(range, self.counts)))

    def key(self, place: tuple[int, ...]) -> str:
        return f"{self.path}/{self.prefix}{self.separator.join(map(str, place))}".lstrip("/")

    def place(self, key: str) -> tuple[int, ...] | None:
        """The chunk that a key of the store stands for; None if it is none of this array."""
        before = f"{self.path}/{self.prefix}".lstrip("/")
        parts = key.removeprefix(before).split(self.separator) if key.startswith(before) else []
        if len(parts) != len(self.counts) or not all(re.fullmatch(r"\d{1,15}", p) for p in parts):
            return None
        return tuple(map(int, parts))

    def stretch(self, first: int) -> Iterator[str]:
        """Keys of all chunks that have a place along the first dimension."""
        others = itertools.product(*map(range, self.counts[1:]))
        return (self.key((first, *rest)) for rest in itertools.islice(others, MOST_KEYS))

    def lacking(self, places: set[tuple[int, ...]]) -> str:
        """What lacks if only these chunks are there, in words; nothing if that is no fault."""
        first = {place[0] for place in places}
        absent = [one for one in range(min(self.counts[0], MOST_KEYS)) if one not in first]
        if len(places) >= prod(self.counts) or not (absent or self.fill is None):
            return ""
        count = prod(self.counts) - len(places)
        return self.said(f"{count} of {prod(self.counts)}", (absent or [0])[0])

    def said(self, which: str, first: int) -> str:
        reads = "anything" if self.fill is None else f"{self.fill:g}, their fill value"
        name = self.path.rpartition("/")[2]
        return (
            f"chunks of {name} are not in the store: {which}, first from index {first * self.rows} "
            f"on, would read as {reads}. {_REMEDY}"
        )


def chunk_grids(name: str, document: Any) -> Iterator[ChunkGrid]:
    """The arrays that a document of metadata describes, or that are consolidated in it."""
    folder = name.rpartition("/")[0]
    if name.endswith(".zmetadata"):
        parts = {k: v for k, v in document["metadata"].items() if k.endswith(".zarray")}
    elif name.endswith("zarr.json"):
        inner = (document.get("consolidated_metadata") or {}).get("metadata", {})
        parts = {"zarr.json": document, **{f"{k}/zarr.json": v for k, v in inner.items()}}
    else:
        parts = {".zarray": document} if name.endswith(".zarray") else {}
    for key, array in parts.items():
        path = "/".join(filter(None, (folder, key.rpartition("/")[0])))
        if "shape" in array and (grid := _grid(path, array)).misleads:
            yield grid


def lost_chunks(root: Path, name: str) -> list[str]:
    """Keys of the chunks of an array that a local store lacks; nothing where it is none."""
    documents = (root / name / document for document in ("zarr.json", ".zarray"))
    document = next((file for file in documents if file.is_file()), None)
    if document is None:
        return []
    grid = _grid(name, json.loads(document.read_bytes()))
    if prod(grid.counts) > MOST_FILES:
        return []
    return [key for key in grid.all_keys() if not (root / key).exists()]


def unstored(documents: Mapping[str, bytes], names: Iterable[str]) -> dict[str, str]:
    """The stretches of each array of which the store has nothing, in words, by its path.

    Args:
        documents: The metadata of all arrays, by their names in the store.
        names: Names of all that is in the store.
    """
    grids: dict[str, ChunkGrid] = {}
    for name, text in documents.items():
        grids |= {grid.path: grid for grid in chunk_grids(name, json.loads(text))}
    places: dict[str, set[tuple[int, ...]]] = {path: set() for path in grids}
    for name in names:
        for path in _parents(name):
            if path in grids and (place := grids[path].place(name)) is not None:
                places[path].add(place)
    found = {path: grid.lacking(places[path]) for path, grid in grids.items()}
    return {path: said for path, said in found.items() if said}


def _parents(name: str) -> Iterator[str]:
    parts = name.split("/")[:-1]
    for count in range(len(parts), -1, -1):
        yield "/".join(parts[:count])


def _grid(path: str, array: Mapping[str, Any]) -> ChunkGrid:
    three = array["zarr_format"] == 3
    chunk = array["chunk_grid"]["configuration"]["chunk_shape"] if three else array["chunks"]
    counts = tuple(-(-n // max(1, part)) for n, part in zip(array["shape"], chunk, strict=True))
    fill = array.get("fill_value")
    if fill is not None and not isinstance(fill, int | float):
        fill = math.nan  # said in words
    prefix, separator = "", str(array.get("dimension_separator") or ".")
    if three:
        encoding = array.get("chunk_key_encoding") or {"name": "default"}
        plain = encoding["name"] == "default"
        separator = (encoding.get("configuration") or {}).get("separator", "/" if plain else ".")
        prefix = f"c{separator}" if plain else ""
    return ChunkGrid(path, counts, int(next(iter(chunk), 1)), fill, prefix, str(separator))
