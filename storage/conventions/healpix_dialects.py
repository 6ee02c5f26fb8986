"""What files say of the order of their HEALPix cells, in each of four dialects.

    CF-1.13     a grid mapping with grid_mapping_name, indexing_scheme, refinement_level
    easygems    a scalar, or the file, with healpix_nside and healpix_order
    xdggs       cell_ids with grid_name, level, and indexing_scheme or nest
    dggs        an attribute of the file, a table of JSON

A file may speak several; what they say has to agree.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from storage.conventions.axes import SourceError

__all__ = ["Statement", "agreed", "statements"]

_SCHEMES = {"nest": "nested", "nested": "nested", "ring": "ring"}


@dataclass(frozen=True)
class Statement:
    """Whose words they are, and what they say; None where they say nothing."""

    speaker: str
    scheme: str | None
    level: int | None


def statements(table: xr.Dataset, name: str) -> list[Statement]:
    """All that is said of the cells of a variable."""
    found = [
        made
        for speaker, attrs in _speakers(table, name)
        for dialect in (_cf_or_xdggs, _easygems)
        if (made := dialect(speaker, attrs)) is not None
    ]
    return found + [one for one in (_dggs(table), _easygems("the file", table.attrs)) if one]


def agreed(said: list[Statement], declared: str | None, where: str) -> Statement | None:
    """What the statements say together; None if there are none.

    Args:
        declared: The order by the configuration, which decides between statements that differ.
    Raises:
        SourceError: If they differ.
    """
    if not said:
        return None
    schemes = {one.scheme: one.speaker for one in said if one.scheme is not None}
    if len(schemes) > 1 and declared not in schemes:
        told = " and ".join(f"{scheme} ({speaker})" for scheme, speaker in schemes.items())
        raise SourceError(
            f"{where}: the order of its HEALPix cells is said to be {told}; repair the file, or "
            f'say which is right: [source] healpix = "{next(iter(schemes))}"'
        )
    levels = {one.level: one.speaker for one in said if one.level is not None}
    if len(levels) > 1:
        told = " and ".join(f"{level} ({speaker})" for level, speaker in levels.items())
        raise SourceError(
            f"{where}: the refinement level of its HEALPix cells is said to be {told}; repair the "
            "attributes of the file"
        )
    scheme = declared if len(schemes) > 1 else next(iter(schemes), None)
    return Statement("the file", scheme, next(iter(levels), None))


def _speakers(table: xr.Dataset, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Variables that may speak for this one, its grid mapping first; not the mappings of others."""
    variable = table.variables[name]
    mapping = variable.attrs.get("grid_mapping", variable.encoding.get("grid_mapping"))
    if mapping in table.variables:
        yield str(mapping), table.variables[mapping].attrs
    for other, one in table.variables.items():
        along = one.ndim == 1 and one.dims[0] in variable.dims
        if other != mapping and other != name and (along or (one.size == 1 and mapping is None)):
            yield str(other), one.attrs


def _cf_or_xdggs(speaker: str, attrs: Mapping[str, Any]) -> Statement | None:
    if "healpix" not in (attrs.get("grid_mapping_name"), attrs.get("grid_name")):
        return None
    level = attrs.get("refinement_level", attrs.get("level", attrs.get("resolution")))
    scheme = attrs.get("indexing_scheme", attrs.get("healpix_order"))
    if scheme is None and "nest" in attrs:
        scheme = "nested" if str(attrs["nest"]).lower() in ("true", "1") else "ring"
    return _made(speaker, scheme, level, attrs.get("healpix_nside", attrs.get("nside")))


def _easygems(speaker: str, attrs: Mapping[str, Any]) -> Statement | None:
    if not {"healpix_nside", "healpix_order"} & set(attrs):
        return None
    return _made(speaker, attrs.get("healpix_order"), None, attrs.get("healpix_nside"))


def _dggs(table: xr.Dataset) -> Statement | None:
    said = table.attrs.get("dggs")
    if isinstance(said, str) and said.startswith("{"):
        said = json.loads(said)
    if not isinstance(said, Mapping) or said.get("name") != "healpix":
        return None
    scheme, level = said.get("indexing_scheme"), said.get("refinement_level")
    return _made("the attribute dggs", scheme, level, None)


def _made(speaker: str, scheme: Any, level: Any, nside: Any) -> Statement:
    text = None if scheme is None else str(scheme).strip().lower()
    if level is None and nside is not None:
        level = np.log2(float(nside))
    whole = level is not None and float(level).is_integer()
    return Statement(speaker, _SCHEMES.get(str(text), text), int(level) if whole else None)
