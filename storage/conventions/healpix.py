"""HEALPix cells: their order as the file says it (healpix_dialects), or by where the cells lie.

The order of cells is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ducc0
import numpy as np
import xarray as xr

from storage.conventions.axes import SourceError
from storage.conventions.healpix_dialects import Statement, agreed, statements
from storage.conventions.stored import Stored

__all__ = ["Grid", "healpix_grid"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Grid:
    """Coordinates by our names, the dims of the file that they run along, and what to take."""

    coords: Mapping[str, xr.Variable]
    dims: Mapping[str, str]  # dimension in the file: "lat", "lon" or "cell"
    take: Mapping[str, slice | Array]  # by our dimension, where not everything in order
    padding: tuple[int, int] = (0, 0)  # latitudes that lack before the first and after the last

    @property
    def names(self) -> tuple[str, ...]:
        return ("cell",) if "cell" in self.coords else ("lat", "lon")


def healpix_grid(stored: Stored) -> Grid | None:
    """The grid of a variable if it is on HEALPix; None if it is on another grid.

    Raises:
        SourceError: If it is partial, in another indexing, nothing says the order of its cells, or
            what is said does not agree.
    """
    declared, where = stored.declared.healpix, stored.where
    said = agreed(statements(stored.table, stored.key), declared, where)
    dims = [d for d in stored.array.dims if d in _horizontal(stored)]
    if said is None and declared is None:
        return _by_position(stored, dims)
    lat, lon = stored.coordinate("lat"), stored.coordinate("lon")
    if said is None and lat is not None and lon is not None and lat.dims != lon.dims:
        return None
    dim, nside = _cells_of(stored, dims)
    if said is not None and said.level is not None and 2**said.level != nside:
        raise SourceError(
            f"{where}: refinement level {said.level} has {12 * 4**said.level} cells, {dim} has "
            f"{12 * nside**2}; the metadata belong to another level, or the map is partial"
        )
    scheme = _scheme(said, declared, where)
    grid = _cells(nside, scheme, dim, _sorted_cells(stored, dim, nside), where)
    _require_positions(stored, grid, dim, scheme)
    return grid


def _cells_of(stored: Stored, dims: list[Any]) -> tuple[str, int]:
    """The dimension that has all cells of a sphere, and their nside."""
    sizes = stored.array.sizes
    full = [str(d) for d in dims if _nside(sizes[d])]
    if len(full) != 1:
        listed = ", ".join(f"{d} of {sizes[d]}" for d in dims)
        raise SourceError(
            f"{stored.where}: {stored.key} is said to be on HEALPix, but none of its dimensions "
            f"({listed}) has 12 nside^2 cells; partial maps are regional, only global grids can be "
            'analysed. If another dimension has the cells: [source] dims = { cell = "..." }'
        )
    return full[0], _nside(sizes[full[0]])


def _scheme(said: Statement | None, declared: str | None, where: str) -> str:
    told = None if said is None else said.scheme
    known = told in ("ring", "nested")
    if declared is not None and known and told != declared:
        raise SourceError(
            f'{where}: source.healpix is "{declared}", but the file says {told}; remove it'
        )
    scheme = (told if known else declared or told) or "unstated"
    if scheme not in ("ring", "nested"):
        raise SourceError(
            f"{where}: HEALPix in {scheme} indexing; only ring and nested are read. If you know "
            'the order of the cells: [source] healpix = "nested"'
        )
    return scheme


def _horizontal(stored: Stored) -> list[str]:
    """Dimensions that may hold the cells."""
    table, axes = stored.table, stored.axes
    if cell := stored.declared.dims.get("cell"):
        return [str(d) for d in (table[cell].dims if cell in table.variables else (cell,))]
    others = {axes.time, axes.level, axes.member} - {None}
    taken = {d for other in others for d in table[other].dims}
    taken -= {d for c in (axes.lat, axes.lon) if c for d in table[c].dims}
    return [str(d) for d in stored.array.dims if d not in taken]


def _by_position(stored: Stored, dims: list[Any]) -> Grid | None:
    """HEALPix that nobody declares, known by where its cells lie."""
    lat, lon = stored.coordinate("lat"), stored.coordinate("lon")
    if lat is None or lon is None:
        sizes = stored.array.sizes
        full = [d for d in dims if sizes[d] >= 48 and _nside(sizes[d])]
        if lat is None and lon is None and len(full) == 1:
            raise SourceError(
                f"{stored.where}: {full[0]} has 12 nside^2 cells with nside "
                f"{_nside(sizes[full[0]])}, HEALPix perhaps, but nothing says the order of its "
                'cells; declare it: [source] healpix = "nested" (or "ring")'
            )
        return None
    if lat.ndim != 1 or lat.dims != lon.dims or not _nside(lat.size):
        return None
    nside = _nside(lat.size)
    for scheme in ("nested", "ring"):
        if scheme == "nested" and nside & (nside - 1):
            continue
        grid = _cells(nside, scheme, str(lat.dims[0]), None, stored.where)
        if _misplaced(lat, lon, grid) < 0.1 * 58.6 / nside:
            stored.notes.append(f"HEALPix in {scheme} order, known by the positions of its cells")
            return grid
    return None


def _nside(cells: int) -> int:
    nside = round((cells / 12) ** 0.5)
    return nside if 12 * nside**2 == cells else 0


def _sorted_cells(stored: Stored, dim: str, nside: int) -> Array | None:
    """What brings cells with a stated index into the order of their index."""
    for other, variable in stored.table.variables.items():
        index = variable.attrs.get("standard_name") == "healpix_index"
        named = str(other) in ("cell_ids", "cell", "healpix_index") and variable.dtype.kind in "iu"
        if variable.dims == (dim,) and (index or named):
            ids = np.asarray(variable.values).astype(np.int64)
            if not np.array_equal(np.sort(ids), np.arange(12 * nside**2)):
                raise SourceError(
                    f"{stored.where}: {other} does not hold each of the {12 * nside**2} cells once"
                )
            if np.array_equal(ids, np.arange(ids.size)):
                return None
            stored.notes.append(f"cells put in the order of {other}")
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


def _misplaced(lat: xr.Variable, lon: xr.Variable, grid: Grid) -> float:
    """The largest distance [degrees] between stated and true positions of cells."""
    stated = []
    for coordinate in (lat, lon):
        values = np.asarray(coordinate.values, float)
        radians = str(coordinate.attrs.get("units", "")).startswith("rad")
        stated.append(values if radians else np.deg2rad(values))
    order = grid.take.get("cell", slice(None))
    true = [np.deg2rad(grid.coords[name].values) for name in ("lat", "lon")]
    one, other = (_unit(*place) for place in ([s[order] for s in stated], true))
    return float(np.rad2deg(np.linalg.norm(one - other, axis=-1).max()))


def _require_positions(stored: Stored, grid: Grid, dim: str, scheme: str) -> None:
    lat, lon = stored.coordinate("lat"), stored.coordinate("lon")
    if lat is None or lon is None or not (lat.dims == lon.dims == (dim,)):
        return
    off = _misplaced(lat, lon, grid)
    if off > 30 / int(grid.coords["crs"].attrs["healpix_nside"]):
        raise SourceError(
            f"{stored.where}: cells are said to be in {scheme} order, but their lat and lon are up "
            f"to {off:.3g} degrees elsewhere; is the order the other one? repair the metadata"
        )


def _unit(lat: Array, lon: Array) -> Array:
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
