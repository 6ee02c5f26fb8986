"""Chunks of one array that a local Zarr store does not have, by their keys."""

from __future__ import annotations

import json
from itertools import product
from math import prod
from pathlib import Path

__all__ = ["lost_chunks"]

MOST = 1 << 16  # chunks of an array that are looked for


def lost_chunks(root: Path, name: str) -> list[str]:
    """Keys of the chunks that are not in the store; nothing where it is no local store."""
    folder = root / name
    document = next((folder / d for d in ("zarr.json", ".zarray") if (folder / d).is_file()), None)
    if document is None:
        return []
    array = json.loads(document.read_bytes())
    three = array["zarr_format"] == 3
    chunk = array["chunk_grid"]["configuration"]["chunk_shape"] if three else array["chunks"]
    grid = [-(-size // max(1, part)) for size, part in zip(array["shape"], chunk, strict=True)]
    separator = "/" if three else array.get("dimension_separator", ".")
    lead = f"{name}/c/" if three else f"{name}/"
    if prod(grid) > MOST:
        return []
    keys = (lead + separator.join(map(str, place)) for place in product(*map(range, grid)))
    return [key for key in keys if not (root / key).exists()]
