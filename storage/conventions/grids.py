"""The horizontal grid of a variable: latitudes and longitudes, or HEALPix in ring or nested order.

Nothing is flipped or shifted: latitudes may descend, longitudes may start at -180, cells keep
their order. What is found or changed is said in notes, in words for the user.

A HEALPix grid is one dimension `cell` with coordinates cell (its index), lat, lon, and a scalar
`crs` that has the attributes of CF-1.13: grid_mapping_name, indexing_scheme, refinement_level.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from storage.conventions.axes import SourceError, positions_in_two_dimensions
from storage.conventions.healpix import Grid, healpix_grid
from storage.conventions.stored import Stored

__all__ = ["Grid", "aligned", "check_latitudes", "check_longitudes", "grid_of_variable"]

Array = np.ndarray[Any, Any]

REMEDY = "regrid to latitude-longitude first (e.g. cdo remapcon)"
_GRIB_GRIDS = {
    "sh": "they are spherical harmonics; transform them to a grid first, e.g. cdo sp2gp",
    "reduced_gg": "the grid is a reduced Gaussian one; make it a full one first, e.g. "
    "cdo setgridtype,regular",
}


def grid_of_variable(stored: Stored) -> Grid:
    """The grid of a variable.

    Raises:
        SourceError: If it is not a global grid of rings.
    """
    cells = healpix_grid(stored)
    if cells is not None:
        return cells
    where, notes = stored.where, stored.notes
    lat, lon = _one_dimensional(stored)
    values = {"lat": np.asarray(lat.values, float), "lon": np.asarray(lon.values, float)}
    take: dict[str, slice | Array] = {}
    if values["lon"].size > 1 and (np.diff(values["lon"]) < 0).sum() > values["lon"].size / 2:
        values["lon"] = values["lon"][::-1]
        take["lon"] = slice(None, None, -1)
        notes.append("longitudes ran westward, turned")
    kept, found = check_longitudes(values["lon"], where)
    notes += [*check_latitudes(values["lat"], where, band=stored.declared.band), *found]
    if kept < values["lon"].size:
        turned = "lon" in take
        take["lon"] = slice(None, -kept - 1, -1) if turned else slice(0, kept)
        values["lon"] = values["lon"][:kept]
    padding = _rows_beyond(values["lat"], where) if stored.declared.band else (0, 0)
    if any(padding):
        notes.append(
            f"{sum(padding)} rows of latitude lack beyond {values['lat'].min():g} and "
            f"{values['lat'].max():g}; they are missing values"
        )
        step = values["lat"][1] - values["lat"][0]
        before, after = (np.arange(1, count + 1) * step for count in padding)
        ends = values["lat"][[0, -1]]
        values["lat"] = np.concatenate([ends[0] - before[::-1], values["lat"], ends[1] + after])
        values["lat"] = np.clip(values["lat"], -90, 90)  # of a pole, but for rounding
    dims = {str(lat.dims[0]): "lat", str(lon.dims[0]): "lon"}
    coords = {role: xr.Variable((role,), value) for role, value in values.items()}
    return Grid(coords, dims, take, padding)


def _rows_beyond(lat: Array, where: str) -> tuple[int, int]:
    """How many rows lack before the first latitude and after the last one, up to the poles."""
    steps = np.diff(lat)
    step = float(np.median(steps))
    if np.abs(steps - step).max() > 0.01 * abs(step):
        raise SourceError(
            f"{where}: its latitudes are not equally spaced, so nothing says where the rows that "
            "source.band accepts would lie; regrid to a global grid first (e.g. cdo remapcon)"
        )
    tops = (90 + lat[0], 90 - lat[-1]) if step > 0 else (90 - lat[0], 90 + lat[-1])
    before, after = (max(0, int(np.floor(top / abs(step) + 1e-3))) for top in tops)
    if before + after > lat.size:
        raise SourceError(
            f"{where}: latitudes reach from {lat.min():g} to {lat.max():g}, the grid is regional, "
            "less than half of the globe, too little for source.band"
        )
    return before, after


def aligned(grid: Grid, first: Grid, where: str, whose: str) -> dict[str, Array]:
    """What to take along each dimension, so that a grid becomes the first one.

    Raises:
        SourceError: If they are not the same points.
    """
    take: dict[str, Array] = {}
    if grid.names != first.names:
        raise SourceError(f"{where}: its grid is {grid.names}, that of {whose} {first.names}")
    for name in grid.names:
        ours, theirs = grid.coords[name].values, first.coords[name].values
        if name == "cell":
            if ours.shape != theirs.shape or grid.coords["crs"].attrs != first.coords["crs"].attrs:
                raise SourceError(f"{where}: its HEALPix grid differs from that of {whose}")
            continue
        turn = 360.0 if name == "lon" else 1e9
        if ours.shape != theirs.shape:
            raise SourceError(
                f"{where}: it has {ours.size} {name}, {whose} has {theirs.size}; bring them to "
                "one grid, e.g. cdo remapcon"
            )
        if np.allclose(ours, theirs, atol=1e-4):
            continue
        apart = np.abs(ours[None, :] - theirs[:, None])
        apart = np.minimum(apart % turn, turn - apart % turn)
        nearest = apart.argmin(axis=1)
        if apart.min(axis=1).max() > 1e-3 or len(set(nearest)) < len(nearest):
            raise SourceError(f"{where}: {name} differs from that of {whose}; regrid one of them")
        take[name] = nearest
    return take


def check_latitudes(lat: Array, where: str, *, band: bool = False) -> list[str]:
    """Notes on the latitudes.

    Raises:
        SourceError: If they are not strictly monotonic, not degrees, or do not reach the poles.
    """
    _require_written(lat, "latitude", where)
    steps = np.diff(lat)
    if len(lat) < 2 or not np.isfinite(lat).all() or not ((steps > 0).all() or (steps < 0).all()):
        raise SourceError(
            f"{where}: latitudes are not strictly ascending or descending; repair or regrid the "
            "file (e.g. cdo remapcon)"
        )
    if np.abs(lat).max() > 90.01:
        raise SourceError(
            f"{where}: a latitude of {lat[np.abs(lat).argmax()]} is not in degrees; is it another "
            'coordinate? name the right one: [source] dims = { lat = "..." }'
        )
    gap = max(90 - lat.max(), 90 + lat.min())
    if gap > 1.6 * np.abs(steps).max() and not band:
        raise SourceError(
            f"{where}: latitudes reach from {lat.min():g} to {lat.max():g}, the grid is regional; "
            "only global grids can be analysed on the sphere. A band around the globe is accepted "
            'by [source] band = true: the rows beyond it are missing values, for fill = "harmonic"'
        )
    return ["latitudes descend, kept"] if steps[0] < 0 else []


def _require_written(values: Array, axis: str, where: str) -> None:
    wrong = np.flatnonzero(~np.isfinite(values) | (np.abs(np.nan_to_num(values)) > 1e6))
    if 0 < wrong.size < values.size:
        raise SourceError(
            f"{where}: {axis} {wrong[0] + 1} of {values.size} is {values[wrong[0]]:g}, which was "
            "never written; write it into the file"
        )


def check_longitudes(lon: Array, where: str) -> tuple[int, list[str]]:
    """How many longitudes to keep (repeated meridians at the end are dropped), and notes.

    Raises:
        SourceError: If they are not equally spaced around the whole globe.
    """
    _require_written(lon, "longitude", where)
    steps = np.mod(np.diff(lon), 360)
    if (
        len(lon) < 2
        or not np.isfinite(lon).all()
        or steps[0] == 0
        or np.abs(steps - np.median(steps)).max() > 0.01 * np.median(steps)
    ):
        raise SourceError(f"{where}: longitudes are not equally spaced eastward; {REMEDY}")
    kept, notes = len(lon), []
    step = float(steps.mean())
    around = round(360 / step)
    if kept > around and abs(around * step - 360) <= 0.1 * step:
        repeated = ", ".join(f"{value:g}" for value in lon[around:])
        notes.append(f"longitude {repeated} repeats {lon[0]:g}, dropped")
        kept = around
    if np.abs(steps[: kept - 1] - 360 / kept).max() > 0.01 * 360 / kept:
        raise SourceError(
            f"{where}: {kept} longitudes {step:g} apart reach from {lon[0]:g} to {lon[-1]:g}, the "
            "grid is regional; only global grids can be analysed on the sphere"
        )
    if lon[0] < -0.5 * step:
        notes.append(f"longitudes start at {lon[0]:g}, kept")
    return kept, notes


def _one_dimensional(stored: Stored) -> tuple[xr.Variable, xr.Variable]:
    name, where = stored.key, stored.where
    _require_both(stored)
    lat, lon = stored.coordinate("lat"), stored.coordinate("lon")
    assert lat is not None and lon is not None
    if lat.ndim == 2 and lon.ndim == 2:
        rows, columns = _rectilinear(lat, lon, stored)
        _require_axes_agree(rows, columns, stored)
        return rows, columns
    for role, variable in (("lat", lat), ("lon", lon)):
        if variable.ndim != 1:
            raise SourceError(
                f"{where}: {getattr(stored.axes, role)} has {variable.ndim} dimensions, the grid "
                f"of {name} is a single point, a cross-section or curvilinear; {REMEDY}"
            )
    if lat.dims == lon.dims:
        _refuse_other_grids(stored)
        raise SourceError(
            f"{where}: {stored.axes.lat} and {stored.axes.lon} both run along {lat.dims[0]}, the "
            f"grid is unstructured or a list of points; {REMEDY}"
        )
    _require_no_other_positions(lat, lon, stored)
    return lat, lon


def _require_both(stored: Stored) -> None:
    for role in ("lat", "lon"):
        if stored.coordinate(role) is None:
            _refuse_other_grids(stored)
            raise SourceError(
                f"{stored.where}: no {role} coordinate of {stored.key} found; set its "
                f'standard_name or units, or name it: [source] dims = {{ {role} = "..." }}. '
                f"{stored.key} has dims {', '.join(map(str, stored.array.dims))}; variables there: "
                f"{', '.join(map(str, stored.table.variables))}"
            )


def _require_no_other_positions(lat: xr.Variable, lon: xr.Variable, stored: Stored) -> None:
    """Raise SourceError if the file has positions of every cell that contradict the axes.

    Ocean models write nominal latitudes and longitudes as axes beside the true ones, which are
    bent towards the poles.
    """
    if {"lat", "lon"} & set(stored.declared.dims):
        return
    for role, axis in (("lat", lat), ("lon", lon)):
        for other in positions_in_two_dimensions(stored.table, stored.key, role):
            known = stored.table.variables[other]
            if set(known.dims) != {lat.dims[0], lon.dims[0]}:
                continue
            true = np.asarray(known.transpose(axis.dims[0], ...).values, float)
            off = _degrees_apart(true, np.asarray(axis.values, float)[:, None], role)
            if off > 0.1 * np.abs(np.diff(axis.values)).max(initial=0.0):
                raise SourceError(
                    f"{stored.where}: {other} says where the cells of {stored.key} lie, up to "
                    f"{off:.3g} degrees away from its axis {getattr(stored.axes, role)}; the grid "
                    f"is curvilinear. {REMEDY.capitalize()}. If the axis is right after all: "
                    f'[source] dims = {{ {role} = "{getattr(stored.axes, role)}" }}'
                )


def _require_axes_agree(rows: xr.Variable, columns: xr.Variable, stored: Stored) -> None:
    """Raise SourceError if two-dimensional positions are regular, but not those of the axes."""
    if {"lat", "lon"} & set(stored.declared.dims):
        return
    for role, found in (("lat", rows), ("lon", columns)):
        axis = stored.table.variables.get(found.dims[0])
        units = str(axis.attrs.get("units", "")).lower() if axis is not None else ""
        if axis is None or not units.startswith("degree") or axis.dims != found.dims:
            continue
        off = _degrees_apart(np.asarray(axis.values, float), np.asarray(found.values, float), role)
        if off > 0.1 * np.abs(np.diff(found.values)).max(initial=0.0):
            raise SourceError(
                f"{stored.where}: {getattr(stored.axes, role)} and the axis {found.dims[0]} of "
                f"{stored.key} are up to {off:.3g} degrees apart; say which is right: "
                f'[source] dims = {{ {role} = "{found.dims[0]}" }}'
            )


def _degrees_apart(ours: Array, theirs: Array, role: str) -> float:
    apart = np.abs(ours - theirs)
    apart = np.minimum(apart % 360, 360 - apart % 360) if role == "lon" else apart
    return float(np.nanmax(apart, initial=0.0))


def _refuse_other_grids(stored: Stored) -> None:
    """Raise SourceError if the lack of latitudes or longitudes is explained by the grid."""
    table, name, axes, where = stored.table, stored.key, stored.axes, stored.where
    if kind := _GRIB_GRIDS.get(str(table[name].attrs.get("GRIB_gridType"))):
        raise SourceError(f"{where}: {name} has one value after the other: {kind}")
    for other in table[name].dims:
        said = str(table[other].attrs.get("standard_name", "")) if other in table.coords else ""
        if said.startswith(("grid_", "projection_")):
            raise SourceError(
                f"{where}: {other} is a {said}, the grid is rotated or projected; {REMEDY}"
            )
    if "MAP_PROJ" in table.attrs or {"XLAT", "XLONG"} <= set(map(str, table.variables)):
        raise SourceError(
            f"{where}: it is output of WRF, on the projected grid of a region; only global grids "
            "can be analysed on the sphere"
        )
    others = [axis for axis in (axes.time, axes.level, axes.member) if axis]
    taken = {dim for axis in others for dim in table[axis].dims}
    free = [f"{d} of {n}" for d, n in table[name].sizes.items() if d not in taken and n > 1]
    if len(free) == 1 and not (axes.lat or axes.lon):
        raise SourceError(
            f"{where}: {name} has one horizontal dimension ({free[0]}) and nothing says where its "
            f"cells lie; the grid is unstructured, or the file is a section; {REMEDY}"
        )


def _rectilinear(
    lat: xr.Variable, lon: xr.Variable, stored: Stored
) -> tuple[xr.Variable, xr.Variable]:
    """Two-dimensional coordinates that only repeat one-dimensional ones."""
    lon = lon.transpose(*lat.dims) if set(lon.dims) == set(lat.dims) else lon
    for y, x in ((0, 1), (1, 0)):
        rows = np.moveaxis(np.asarray(lat.values, float), y, 0)
        columns = np.moveaxis(np.asarray(lon.values, float), x, 0)
        if (
            lat.dims == lon.dims
            and np.ptp(rows, axis=1).max() < 1e-4 > np.ptp(columns, axis=1).max()
        ):
            stored.notes.append(
                f"{stored.name}: two-dimensional coordinates repeat one-dimensional ones"
            )
            return (
                xr.Variable((lat.dims[y],), rows[:, 0], lat.attrs),
                xr.Variable((lat.dims[x],), columns[:, 0], lon.attrs),
            )
    raise SourceError(
        f"{stored.where}: the coordinates of {stored.key} have 2 dimensions, the grid is "
        f"curvilinear; {REMEDY}"
    )
