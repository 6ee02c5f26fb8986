"""What dimensions, coordinates and attributes are called (CF-1.13, ACDD-1.3), and a check of them.

Dimensions, in this order where they occur:

    fields        time, lat, lon | cell     a time for each member, if members are samples
    normals       channel, season, grid, degree
    whitened      time, channel, coefficient
    ensemble      realization, time, lat, lon | cell; sequences the same, times one after the other
    states        realization, time, channel, coefficient
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from storage.conventions.attributes import ensemble_attrs
from storage.conventions.stamps import bounds_like
from storage.errors import LabelError

GRIDS = (("lat", "lon"), ("cell",))

COORDINATES: dict[str, dict[str, str]] = {
    "realization": {"standard_name": "realization", "long_name": "realization", "units": "1"},
    "time": {"standard_name": "time", "long_name": "time", "axis": "T"},
    "member": {"long_name": "member of the source, in the order of its label", "units": "1"},
    "lat": {
        "standard_name": "latitude",
        "long_name": "latitude",
        "units": "degrees_north",
        "axis": "Y",
    },
    "lon": {
        "standard_name": "longitude",
        "long_name": "longitude",
        "units": "degrees_east",
        "axis": "X",
    },
    "cell": {
        "standard_name": "healpix_index",
        "long_name": "number of the HEALPix cell",
        "units": "1",
    },
}
GRID_MAPPING = "crs"  # of HEALPix; with CF's attributes only, as xdggs refuses all others

_LEADING = {
    "fields": ("time",),
    "whitened": ("time", "channel", "coefficient"),
    "ensemble": ("realization", "time"),
    "sequences": ("realization", "time"),
    "verification": ("realization", "time"),
}


def label(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with the CF attributes of the coordinates it has; other attributes are kept.

    On HEALPix, lat and lon are auxiliary coordinates of the cells, and so no axes, and fields name
    their grid mapping, if there is one.
    """
    coordinates = {}
    for name, attrs in COORDINATES.items():
        if name in dataset.coords:
            own = name in dataset.dims or name in ("realization", "member")
            kept = {key: value for key, value in attrs.items() if own or key != "axis"}
            coordinates[name] = dataset[name].assign_attrs(kept)
    labelled = dataset.assign_coords(coordinates)
    if GRID_MAPPING not in dataset.coords:
        return labelled
    mapped = {n: a.variable.copy(deep=False) for n, a in dataset.items() if "cell" in a.dims}
    for variable in mapped.values():
        variable.encoding = {**variable.encoding, "grid_mapping": GRID_MAPPING}
    return labelled.assign(mapped)


def grid_coordinates(dataset: xr.Dataset) -> dict[str, xr.Variable]:
    """The coordinates of the horizontal grid, those of HEALPix cells and their `crs` included."""
    known = ("lat", "lon", "cell", "crs")
    return {name: dataset[name].variable for name in known if name in dataset.coords}


def label_ensemble(
    dataset: xr.Dataset,
    source: xr.Dataset,
    *,
    realizations: Any,
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Label generated fields as the fields that they were learned from.

    Variables take units, standard_name, long_name and cell_methods from `source`; `realization`
    becomes an integer coordinate and the first dimension; times get bounds if the source has them.

    Args:
        dataset: Dims (realization, time, grid) in any order; the same variable names as `source`.
        source: Fields as `artifacts.open_published` gives them.
        realizations: The number of each realization.
        attrs: Root attributes beside `ensemble_attrs`.
    """
    numbers = np.asarray(realizations, dtype=np.int32)
    grid = next(dims for dims in GRIDS if set(dims) <= set(dataset.dims))
    labelled = dataset.assign_coords(realization=("realization", numbers))
    bounds = bounds_like(source, labelled["time"])
    if bounds is not None:
        labelled = labelled.assign_coords(time_bnds=bounds)
    labelled = label(labelled.transpose("realization", "time", *grid, ...))
    labelled = labelled.assign_coords(cell_bounds(labelled))
    for axis in ("lat", "lon"):
        if f"{axis}_bnds" in labelled.coords:
            labelled[axis].attrs["bounds"] = f"{axis}_bnds"
    for name in labelled.data_vars:
        of_grid = ("grid_mapping", "coordinates")
        kept = {k: v for k, v in source[name].attrs.items() if k not in of_grid}
        labelled[name].attrs = kept | {"coverage_content_type": "modelResult"}
    if bounds is not None:
        labelled["time"].attrs["bounds"] = "time_bnds"
    labelled.attrs = {**ensemble_attrs(labelled, source), **dict(attrs or {})}
    return labelled


def cell_bounds(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    """Bounds of latitudes and longitudes that are dimensions; nothing for HEALPix cells.

    Cells end half way to their neighbours, the outermost ones at the poles.
    """
    if not {"lat", "lon"} <= set(dataset.dims):
        return {}
    lat, lon = (np.asarray(dataset[name].values, float) for name in ("lat", "lon"))
    pole = 90.0 if lat[0] > lat[-1] else -90.0
    edges = np.concatenate([[pole], (lat[1:] + lat[:-1]) / 2, [-pole]])
    half = 180.0 / lon.size
    return {
        "lat_bnds": xr.DataArray(np.stack([edges[:-1], edges[1:]], axis=1), dims=("lat", "bnds")),
        "lon_bnds": xr.DataArray(np.stack([lon - half, lon + half], axis=1), dims=("lon", "bnds")),
    }


def member_word(label: str | None) -> str:
    """The label of a member as CF's flag_meanings can hold it: without blanks."""
    return re.sub(r"[^A-Za-z0-9_.+@-]+", "_", str(label))


def member_numbers(member: xr.DataArray) -> dict[str, int]:
    """The number of each member of the coordinate `member` by its label, in their order."""
    numbers = np.unique(member.to_numpy()).tolist()
    if "flag_meanings" not in member.attrs:
        return {str(number): number for number in numbers}
    values = np.atleast_1d(member.attrs["flag_values"]).tolist()
    labels = dict(zip(str(member.attrs["flag_meanings"]).split(" "), values, strict=True))
    return {label: number for label, number in labels.items() if number in numbers}


def once(dataset: Any) -> Any:
    """A dataset or array with each time once: the first of the samples that share it."""
    _, first = np.unique(dataset["time"].values, return_index=True)
    return dataset if first.size == dataset.sizes["time"] else dataset.isel(time=first)


def at(dataset: Any, times: xr.DataArray) -> Any:
    """A dataset or array at times: of the samples that share one, the first, or that of the member
    that `times` has beside it.

    Raises:
        KeyError: If one of them is not there.
    """
    if "member" not in times.coords:
        return once(dataset).sel(time=times.values)
    there = zip(dataset["time"].values, dataset["member"].to_numpy().tolist(), strict=True)
    place = {row: number for number, row in enumerate(there)}
    wanted = zip(times.values, times["member"].to_numpy().tolist(), strict=True)
    return dataset.isel(time=[place[row] for row in wanted])


def validate(dataset: xr.Dataset, kind: str) -> xr.Dataset:
    """The dataset itself, if it is labelled as its kind must be.

    Raises:
        LabelError: If dimensions are missing or out of order, coordinates are missing, repeated
            or out of order, or variables lack units.
    """
    leading = _LEADING.get(kind, ())
    for name, variable in dataset.data_vars.items():
        if leading and leading[0] in variable.dims:
            grids = GRIDS if kind != "whitened" else ((),)
            allowed = [(*leading, *grid) for grid in grids]
            if variable.dims not in allowed:
                raise LabelError(
                    f"{kind}: {name} has dims {variable.dims}; expected "
                    + " or ".join(str(dims) for dims in allowed)
                )
            if kind != "whitened" and "units" not in variable.attrs:
                raise LabelError(f"{kind}: {name} has no units; declare them in source.units")
    for name in {*leading, *(d for d in ("lat", "lon") if d in dataset.dims)} - {"coefficient"}:
        _require_coordinate(dataset, kind, name)
    return dataset


def _require_coordinate(dataset: xr.Dataset, kind: str, name: str) -> None:
    if name not in dataset.coords:
        raise LabelError(f"{kind}: no coordinate {name}")
    index = dataset.indexes[name]
    if not index.is_unique and not (name == "time" and "member" in dataset.coords):
        raise LabelError(f"{kind}: {name} repeats {index[index.duplicated()][0]}")
    if name in ("time", "realization") and not index.is_monotonic_increasing:
        raise LabelError(f"{kind}: {name} is not in order")
