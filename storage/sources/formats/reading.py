"""What the openers of all formats share: how files are read, and what an absent package says."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from storage.conventions.axes import SourceError

__all__ = ["DOCUMENTS", "LAZILY", "PLAIN", "Reading", "first_line", "require_package"]

LAZILY: dict[str, Any] = {"decode_times": False, "chunks": None, "cache": False}
DOCUMENTS = {"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the configuration says of how files are read."""

    group: str = ""  # in NetCDF or Zarr
    grib: Mapping[str, int | str] = field(default_factory=dict)  # keys of the messages to take
    zarr_fill: str = ""  # what a fill value of 0 stands for in Zarr 2: "value" or "missing"


PLAIN = Reading()


def require_package(package: str, path: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise SourceError(f"{path} needs the package {package}: pip install 'spherescore[{extra}]'")


def first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
