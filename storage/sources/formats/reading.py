"""What the openers of all formats share: how xarray is asked, and what an absent package says."""

from __future__ import annotations

import importlib.util
from typing import Any

from storage.conventions.axes import SourceError

__all__ = ["DOCUMENTS", "LAZILY", "first_line", "require_package"]

LAZILY: dict[str, Any] = {"decode_times": False, "chunks": None, "cache": False}
DOCUMENTS = {"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"}


def require_package(package: str, path: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise SourceError(f"{path} needs the package {package}: pip install 'spherescore[{extra}]'")


def first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
