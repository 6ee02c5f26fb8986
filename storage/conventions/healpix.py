"""HEALPix cells: their order by any of the dialects, or by where the cells lie.

Read are CF-1.13 (`grid_mapping_name`), easygems (`healpix_nside`, `healpix_order`), xdggs
(`cell_ids` with `grid_name`) and the group attribute `dggs`; the order of cells is kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ducc0
import numpy as np
import xarray as xr

from storage.conventions.axes import Axes, SourceError

__all__ = ["Grid", "healpix_grid"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Grid:
    """Coordinates by our names, the dims of the file that they run along, and what to take."""

    coords: Mapping[str, xr.Variable]
    dims: Mapping[str, str]  # dimension in the file: "lat", "lon" or "cell"
    take: Mapping[str, slice | Array]  # by our dimension, where not everything in order

    @property
    def names(self) -> tuple[str, ...]:
        return ("cell",) if "cell" in self.coords else ("lat", "lon")


def healpix_grid(
    table: xr.Dataset,
    name: str,
    axes: Axes,
    declared: Mapping[str, str],
    order: str | None,
    where: str,
    notes: list[str],
) -> Grid | None:
    """The grid of variable `name` if it is on HEALPix; None if it is on another grid.

    Raises:
        SourceError: If it is partial, in another indexing, or nothing says the order of its cells.
    """
    said = _said_order(table, name)
    dims = [d for d in table[name].dims if d in _horizontal(table, name, axes, declared)]
    if said is None and order is None:
        return _by_position(table, axes, dims, where, notes)
    if said is None and axes.lat and axes.lon and table[axes.lat].dims != table[axes.lon].dims:
        return None
    full = [d for d in dims if _nside(table.sizes[d])]
    if len(full) != 1:
        sizes = ", ".join(f"{d} of {table.sizes[d]}" for d in dims)
        raise SourceError(
            f"{where}: {name} is said to be on HEALPix, but none of its dimensions ({sizes}) has "
            "12 nside^2 cells; partial maps are regional, only global grids can be analysed. If "
            'another dimension has the cells: [source] dims = { cell = "..." }'
        )
    (dim,) = full
    nside = _nside(table.sizes[dim])
    scheme, level = said if said is not None else (order, None)
    if level is not None and 2**level != nside:
        raise SourceError(
            f"{where}: refinement level {level} has {12 * 4**level} cells, {dim} has "
            f"{table.sizes[dim]}; the metadata belong to another level, or the map is partial"
        )
    if order is not None and said is not None and scheme != order:
        raise SourceError(
            f'{where}: source.healpix is "{order}", but the file says {scheme}; remove it'
        )
    if scheme not in ("ring", "nested"):
        raise SourceError(
            f"{where}: HEALPix in {scheme} indexing; only ring and nested are read. If you know "
            'the order of the cells: [source] healpix = "nested"'
        )
    take = _sorted_cells(table, dim, nside, where, notes)
    grid = _cells(nside, scheme, dim, take, where)
    _require_positions(table, axes, grid, dim, scheme, where)
    return grid


def _horizontal(table: xr.Dataset, name: str, axes: Axes, declared: Mapping[str, str]) -> list[str]:
    """Dimensions that may hold the cells."""
    if "cell" in declared:
        cell = declared["cell"]
        return [str(d) for d in (table[cell].dims if cell in table.variables else (cell,))]
    others = {axes.time, axes.level, axes.member} - {None}
    taken = {d for other in others for d in table[other].dims}
    taken -= {d for c in (axes.lat, axes.lon) if c for d in table[c].dims}
    return [str(d) for d in table[name].dims if d not in taken]


def _said_order(table: xr.Dataset, name: str) -> tuple[str, int | None] | None:
    """Order and refinement level by any of the dialects."""
    variable = table.variables[name]
    mapping = variable.attrs.get("grid_mapping", variable.encoding.get("grid_mapping"))
    listed = [mapping] if mapping in table.variables else []
    others = [n for n, v in table.variables.items() if v.size == 1 or n in ("cell_ids", "cell")]
    for other in [*listed, *others]:
        attrs = table.variables[other].attrs
        if attrs.get("grid_mapping_name") == "healpix" or attrs.get("grid_name") == "healpix":
            level = attrs.get("refinement_level", attrs.get("level", attrs.get("resolution")))
            nside = attrs.get("healpix_nside", attrs.get("nside"))
            scheme = attrs.get("indexing_scheme", attrs.get("healpix_order"))
            scheme = scheme if scheme is not None else ("nested" if attrs.get("nest") else None)
            return _spelled(scheme, level, nside)
        if "healpix_nside" in attrs or "healpix_order" in attrs:
            return _spelled(attrs.get("healpix_order"), None, attrs.get("healpix_nside"))
    described = table.attrs.get("dggs")
    if isinstance(described, str) and described.startswith("{"):
        described = json.loads(described)
    if isinstance(described, Mapping) and described.get("name") == "healpix":
        return _spelled(described.get("indexing_scheme"), described.get("refinement_level"), None)
    if "healpix_nside" in table.attrs:
        return _spelled(table.attrs.get("healpix_order"), None, table.attrs["healpix_nside"])
    return None


def _spelled(scheme: Any, level: Any, nside: Any) -> tuple[str, int | None]:
    text = str(scheme if scheme is not None else "unstated").strip().lower()
    text = {"nest": "nested", "nested": "nested", "ring": "ring"}.get(text, text)
    if level is None and nside is not None:
        level = np.log2(float(nside))
    whole = level is not None and float(level).is_integer()
    return text, int(level) if whole else None


def _by_position(
    table: xr.Dataset, axes: Axes, dims: list[str], where: str, notes: list[str]
) -> Grid | None:
    """HEALPix that nobody declares, known by where its cells lie."""
    if not (axes.lat and axes.lon):
        full = [d for d in dims if table.sizes[d] >= 48 and _nside(table.sizes[d])]
        if not axes.lat and not axes.lon and len(full) == 1:
            raise SourceError(
                f"{where}: {full[0]} has 12 nside^2 cells with nside {_nside(table.sizes[full[0]])}"
                ", HEALPix perhaps, but nothing says the order of its cells; declare it: "
                '[source] healpix = "nested" (or "ring")'
            )
        return None
    lat, lon = table.variables[axes.lat], table.variables[axes.lon]
    if lat.ndim != 1 or lat.dims != lon.dims or not _nside(lat.size):
        return None
    for scheme in ("nested", "ring"):
        nside = _nside(lat.size)
        if scheme == "nested" and nside & (nside - 1):
            continue
        grid = _cells(nside, scheme, str(lat.dims[0]), None, where)
        if _misplaced(table, axes, grid) < 0.1 * 58.6 / nside:
            notes.append(f"HEALPix in {scheme} order, known by the positions of its cells")
            return grid
    return None


def _nside(cells: int) -> int:
    nside = round((cells / 12) ** 0.5)
    return nside if 12 * nside**2 == cells else 0


def _sorted_cells(
    table: xr.Dataset, dim: str, nside: int, where: str, notes: list[str]
) -> Array | None:
    """What brings cells with a stated index into the order of their index."""
    for other, variable in table.variables.items():
        index = variable.attrs.get("standard_name") == "healpix_index"
        named = str(other) in ("cell_ids", "cell", "healpix_index") and variable.dtype.kind in "iu"
        if variable.dims == (dim,) and (index or named):
            ids = np.asarray(variable.values).astype(np.int64)
            if not np.array_equal(np.sort(ids), np.arange(12 * nside**2)):
                raise SourceError(
                    f"{where}: {other} does not hold each of the {12 * nside**2} cells once"
                )
            if np.array_equal(ids, np.arange(ids.size)):
                return None
            notes.append(f"cells put in the order of {other}")
            return np.argsort(ids)
    return None


def _cells(nside: int, scheme: str, dim: str, take: Array | None, where: str) -> Grid:
    if scheme == "nested" and nside & (nside - 1):
        raise SourceError(
            f"{where}: nside {nside} is no power of two and has no nested order; is it ring?"
        )
    base = ducc0.healpix.Healpix_Base(nside, "NEST" if scheme == "nested" else "RING")
    theta, phi = np.moveaxis(base.pix2ang(np.arange(12 * nside**2)), -1, 0)
    crs: dict[str, Any] = {"grid_mapping_name": "healpix", "indexing_scheme": scheme}
    if nside & (nside - 1) == 0:
        crs["refinement_level"] = nside.bit_length() - 1
    crs["healpix_nside"] = nside
    index = {"standard_name": "healpix_index", "long_name": "HEALPix index", "units": "1"}
    coords = {
        "cell": xr.Variable(("cell",), np.arange(12 * nside**2), index),
        "lat": xr.Variable(("cell",), 90 - np.rad2deg(theta)),
        "lon": xr.Variable(("cell",), np.rad2deg(phi)),
        "crs": xr.Variable((), np.int32(0), crs),
    }
    return Grid(coords, {dim: "cell"}, {} if take is None else {"cell": take})


def _misplaced(table: xr.Dataset, axes: Axes, grid: Grid) -> float:
    """The largest distance [degrees] between stated and true positions of cells."""
    assert axes.lat and axes.lon
    stated = []
    for name in (axes.lat, axes.lon):
        values = np.asarray(table.variables[name].values, float)
        radians = str(table.variables[name].attrs.get("units", "")).startswith("rad")
        stated.append(values if radians else np.deg2rad(values))
    order = grid.take.get("cell", slice(None))
    true = [np.deg2rad(grid.coords[name].values) for name in ("lat", "lon")]
    one, other = (_unit(lat, lon) for lat, lon in ((s[order] for s in stated), true))
    return float(np.rad2deg(np.linalg.norm(one - other, axis=-1).max()))


def _require_positions(
    table: xr.Dataset, axes: Axes, grid: Grid, dim: str, scheme: str, where: str
) -> None:
    if not (axes.lat and axes.lon):
        return
    if any(table.variables[c].dims != (dim,) for c in (axes.lat, axes.lon)):
        return
    off = _misplaced(table, axes, grid)
    if off > 30 / int(grid.coords["crs"].attrs["healpix_nside"]):
        raise SourceError(
            f"{where}: cells are said to be in {scheme} order, but their lat and lon are up to "
            f"{off:.3g} degrees elsewhere; is the order the other one? repair the metadata"
        )


def _unit(lat: Array, lon: Array) -> Array:
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
