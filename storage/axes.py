"""Where a source's coordinates are, and whether they are what a global time series needs.

Nothing is flipped or shifted: latitudes may descend, longitudes may start at -180. What is found
or changed is said in notes, in words for the user.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr


class SourceError(ValueError):
    """The input cannot be used as it is; the message says what to do."""

    exit_code = 10


_NAMES = {
    "time": ("time", "t", "date", "valid_time"),
    "lat": ("lat", "latitude", "nav_lat", "y"),
    "lon": ("lon", "longitude", "nav_lon", "x"),
}
_STANDARD_NAMES = {"time": "time", "lat": "latitude", "lon": "longitude"}
_UNITS = {
    "lat": ("degrees_north", "degree_north", "degrees_n", "degree_n", "degreesn", "degreen"),
    "lon": ("degrees_east", "degree_east", "degrees_e", "degree_e", "degreese", "degreee"),
}
_AXES = {"time": "T", "lat": "Y", "lon": "X"}


def find_coordinate(dataset: xr.Dataset, role: str, where: str) -> str | None:
    """The variable that is `time`, `lat` or `lon`: by standard_name, units, name, then axis.

    Raises:
        SourceError: For curvilinear grids, and if two variables claim the role.
    """
    tests = (
        lambda name, a: a.get("standard_name") == _STANDARD_NAMES[role],
        lambda name, a: str(a.get("units", "")).lower() in _UNITS.get(role, ()),
        lambda name, a: name.lower() in _NAMES[role],
        lambda name, a: a.get("axis") == _AXES[role],
    )
    for test in tests:
        found = [str(n) for n, v in dataset.variables.items() if test(str(n), v.attrs)]
        found = [n for n in found if n in dataset.dims] or found
        if len(found) > 1:
            raise SourceError(f"{where}: {', '.join(found)} all claim to be {role}; keep one")
        if found:
            if dataset[found[0]].ndim > 1:
                raise SourceError(
                    f"{where}: {found[0]} has {dataset[found[0]].ndim} dimensions, the grid is "
                    "curvilinear; regrid to latitude-longitude first (e.g. cdo remapcon)"
                )
            return found[0]
    return None


def require_dimension(dataset: xr.Dataset, name: str | None, role: str, where: str) -> str:
    if name is None:
        raise SourceError(
            f"{where}: no {role} coordinate found; set standard_name or units on it. "
            f"Variables there: {', '.join(map(str, dataset.variables))}"
        )
    if name not in dataset.dims:
        (dim,) = dataset[name].dims or ("nothing",)
        raise SourceError(
            f"{where}: {name} runs along {dim}, the grid is unstructured or a list of points; "
            "regrid to latitude-longitude first (e.g. cdo remapcon)"
        )
    return name


def check_latitudes(lat: np.ndarray[Any, Any], where: str) -> list[str]:
    """Notes on the latitudes.

    Raises:
        SourceError: If they are not strictly monotonic, not degrees, or do not reach the poles.
    """
    steps = np.diff(lat)
    if len(lat) < 2 or not np.isfinite(lat).all() or not ((steps > 0).all() or (steps < 0).all()):
        raise SourceError(f"{where}: latitudes are not strictly ascending or descending")
    if np.abs(lat).max() > 90.0001:
        raise SourceError(f"{where}: a latitude of {lat[np.abs(lat).argmax()]} is not in degrees")
    gap = min(90 - lat.max(), 90 + lat.min()), max(90 - lat.max(), 90 + lat.min())
    if gap[1] > 1.6 * np.abs(steps).max():
        raise SourceError(
            f"{where}: latitudes reach from {lat.min():g} to {lat.max():g}, the grid is regional; "
            "only global grids can be analysed on the sphere"
        )
    return ["latitudes descend, kept"] if steps[0] < 0 else []


def check_longitudes(lon: np.ndarray[Any, Any], where: str) -> tuple[int, list[str]]:
    """How many longitudes to keep (a repeated meridian at the end is dropped), and notes.

    Raises:
        SourceError: If they are not equally spaced around the whole globe.
    """
    steps = np.mod(np.diff(lon), 360)
    if (
        len(lon) < 2
        or not np.isfinite(lon).all()
        or np.abs(steps - steps[0]).max() > 0.01 * steps[0]
    ):
        raise SourceError(f"{where}: longitudes are not equally spaced eastward")
    kept, notes = len(lon), []
    step = float(steps.mean())
    if abs((kept - 1) * step - 360) < 0.1 * step:
        kept -= 1
        notes.append(f"longitude {lon[-1]:g} repeats {lon[0]:g}, dropped")
    if abs(kept * step - 360) > 0.1 * step:
        raise SourceError(
            f"{where}: {kept} longitudes {step:g} apart reach from {lon[0]:g} to {lon[-1]:g}, the "
            "grid is regional; only global grids can be analysed on the sphere"
        )
    if lon[0] < -0.5 * step:
        notes.append(f"longitudes start at {lon[0]:g}, kept")
    return kept, notes


def find_gaps(time: xr.DataArray) -> list[str]:
    """The gaps of a sorted time axis, in words: steps of more than 1.5 times the usual one."""
    if time.size < 3:
        return []
    steps = np.diff(time.values).astype("timedelta64[s]").astype(float)
    usual = float(np.median(steps))
    return [
        f"{time.values[i]} to {time.values[i + 1]}".replace("T00:00:00.000000000", "")
        for i in np.flatnonzero(steps > 1.5 * usual)
    ]
