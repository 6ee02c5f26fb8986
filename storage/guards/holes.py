"""Chunks that a local Zarr store does not have: they read as the fill value, as if measured.

Writers leave out chunks that are all fill value, so a lack is no fault by itself. It is one where
nothing at all is stored of a stretch of the first dimension and the fill value is a number, and
where there is no fill value: such chunks read as anything.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

__all__ = ["unstored"]


def unstored(root: Path) -> dict[str, str]:
    """By array, in words: the stretches of which there is nothing in the store."""
    found = {}
    for folder, _, files in os.walk(root):
        for document in {".zarray", "zarr.json"} & set(files):
            array = json.loads(Path(folder, document).read_bytes())
            if "shape" in array and (said := _lacking(Path(folder), array)):
                found[Path(folder).name] = said
    return found


def _lacking(folder: Path, array: dict[str, Any]) -> str:
    three = array["zarr_format"] == 3
    chunk = array["chunk_grid"]["configuration"]["chunk_shape"] if three else array["chunks"]
    grid = [-(-size // max(1, part)) for size, part in zip(array["shape"], chunk, strict=True)]
    fill, key = array.get("fill_value"), array.get("chunk_key_encoding", {"name": "default"})
    if key["name"] != "default" or key.get("configuration", {}).get("separator", "/") != "/":
        return ""
    number = isinstance(fill, int | float) and math.isfinite(fill)
    if len(grid) < 2 or not (number or fill is None):
        return ""
    places = set(_stored(folder / "c" if three else folder, len(grid)))
    first = {place[0] for place in places}
    lacking = [index for index in range(min(grid[0], 1 << 20)) if index not in first]
    if len(places) >= prod(grid) or not (lacking or fill is None):
        return ""
    begin = (lacking or [0])[0] * chunk[0]
    return (
        f"{prod(grid) - len(places)} of {prod(grid)}, first from index {begin} on, would read as "
        f"{'anything' if fill is None else f'{fill:g}, their fill value'}"
    )


def _stored(folder: Path, ndim: int) -> Iterator[tuple[int, ...]]:
    for place, _, files in os.walk(folder, followlinks=True):
        inner = os.path.relpath(place, folder)
        prefix = () if inner == "." else tuple(inner.split(os.sep))
        for name in files:
            key = [part for one in (*prefix, name) for part in one.split(".")]
            if len(key) == ndim and all(re.fullmatch(r"\d+", part) for part in key):
                yield tuple(map(int, key))
