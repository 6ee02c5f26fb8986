"""kerchunk references: a .json file that leads to chunks in local files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from storage.conventions.axes import SourceError, UnsafeSource
from storage.guards.codecs import examine_documents
from storage.sources.formats.reading import DOCUMENTS, Reading
from storage.sources.formats.zarr import SourceStore, opened_table

__all__ = ["files_led_to", "open_reference"]


def open_reference(path: str, reading: Reading) -> list[xr.Dataset]:
    import fsspec
    from zarr.storage import FsspecStore

    references = json.loads(Path(path).read_text())
    if {"templates", "gen"} & set(references):
        raise SourceError(
            f"{path} has reference templates, which are not read; write plain references (refs)"
        )
    references = references.get("refs", references)
    if not isinstance(references, dict) or not {".zgroup", "zarr.json"} & set(references):
        raise SourceError(f"{path} is JSON, but no kerchunk reference: it has no .zgroup")
    _require_inside(references, Path(path))
    examine_documents(
        (
            (key, text.encode())
            for key, text in references.items()
            if isinstance(text, str) and key.rpartition("/")[2] in DOCUMENTS
        ),
        path,
    )
    local = fsspec.filesystem("reference", fo=references, remote_protocol="file", asynchronous=True)
    store = SourceStore(FsspecStore(local, read_only=True, path=""), path)
    return [opened_table(store, reading, consolidated=False)]


def files_led_to(path: Path) -> dict[str, Path]:
    """The local files that a reference leads to, by the names that it has for them."""
    try:
        references = json.loads(path.read_text())
        references = references.get("refs", references)
        targets = [one[0] for one in references.values() if isinstance(one, list) and one]
    except (ValueError, AttributeError):
        return {}  # it is refused when it is opened
    found = {str(one): Path(str(one).removeprefix("file://")) for one in targets}
    return {name: file for name, file in found.items() if file.is_file()}


def _require_inside(references: Mapping[str, Any], file: Path) -> None:
    """References may lead to files beside or below the one that they stand in.

    Raises:
        UnsafeSource: If one leads elsewhere.
        SourceError: If one leads to bytes that are not there.
    """
    folder, sizes = file.resolve().parent, dict[str, int]()
    for key, target in references.items():
        if isinstance(target, str | Mapping):
            if key.rpartition("/")[2] in DOCUMENTS and not isinstance(target, str):
                raise SourceError(f"{file}: {key} is no text")
            continue
        place = str(target[0])
        if re.match(r"(?!file://)\w+:", place) or "::" in place:
            raise UnsafeSource(
                f"{file} leads to {place}; references are followed to local files only, "
                "download it first"
            )
        if place not in sizes:
            found = Path(place.removeprefix("file://")).resolve()
            if not found.is_relative_to(folder):
                raise UnsafeSource(
                    f"{file} leads to {place}; references are followed to files beside it or "
                    f"below {folder} only, put it there"
                )
            if not found.is_file():
                raise SourceError(f"{file} leads to {place}, which is no file")
            sizes[place] = found.stat().st_size
        start, count = target[1:] if len(target) == 3 else (0, sizes[place])
        if not (type(start) is type(count) is int and 0 <= start <= start + count <= sizes[place]):
            raise SourceError(
                f"{file}: {key} is said to be bytes {start} and {count} more of {place}, which has "
                f"{sizes[place]}; truncated or corrupt?"
            )
