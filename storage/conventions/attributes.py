"""Root attributes of an ensemble: ACDD-1.3, and CMIP's name of the sampling interval.

What follows from coordinates and source is said here; provenance is added by who publishes; who
made it and for whom, only the user knows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

__all__ = ["CONVENTIONS", "ensemble_attrs", "frequency_of"]

CONVENTIONS = "CF-1.13, ACDD-1.3"
METHOD = "Greco (2025), arXiv:2505.13189"

_INTERVALS = (  # days at least and at most, name
    (360.0, 366.0, "yr"),
    (28.0, 31.0, "mon"),
    (1.0, 1.0, "day"),
    *((hours / 24, hours / 24, f"{hours}hr") for hours in (6, 3, 1)),
)


def ensemble_attrs(dataset: xr.Dataset, source: xr.Dataset) -> dict[str, Any]:
    """Attributes that follow from an ensemble's coordinates and the fields it was learned from."""
    given = source.attrs
    names = ", ".join(str(v.attrs.get("long_name", k)) for k, v in dataset.data_vars.items())
    learned_from = given.get("title", given.get("source", "an untitled data set"))
    standard = {str(v.attrs.get("standard_name", k)) for k, v in dataset.data_vars.items()}
    time, lat, lon = dataset["time"], dataset["lat"].values, dataset["lon"].values
    references = [str(given["references"])] if "references" in given else []
    attrs = {
        "Conventions": CONVENTIONS,
        "standard_name_vocabulary": "CF Standard Name Table",
        "title": f"Generated ensemble of {dataset.sizes['realization']} realizations",
        "summary": f"Draws from a score-based model of global fields: {names}. "
        f"Learned from: {learned_from}. Realizations and times are independent draws of the "
        "climate of their calendar day, not forecasts.",
        "keywords": ", ".join(sorted(standard)),
        "keywords_vocabulary": "CF Standard Name Table",
        "source": f"spherescore, learned from: {learned_from}",
        "references": "; ".join([METHOD, *references]),
        "license": str(given.get("license", "as the source's")),
        "processing_level": "generated",
        "cdm_data_type": "Grid",
        "frequency": frequency_of(source["time"]),
        "time_coverage_start": _iso(time.values.min()),
        "time_coverage_end": _iso(time.values.max()),
        "time_coverage_duration": f"P{_days(time.values.min(), time.values.max()):.0f}D",
        "geospatial_lat_min": float(lat.min()),
        "geospatial_lat_max": float(lat.max()),
        "geospatial_lat_units": "degrees_north",
        "geospatial_lon_min": float(lon.min()),
        "geospatial_lon_max": float(lon.max()),
        "geospatial_lon_units": "degrees_east",
        "geospatial_bounds": "POLYGON ((-90 0, -90 360, 90 360, 90 0, -90 0))",
        "geospatial_bounds_crs": "EPSG:4326",
    }
    if source.sizes["time"] > 1:
        attrs["time_coverage_resolution"] = f"P{_days(*source['time'].values[:2]):g}D"
    kept = ("institution", "acknowledgement", "project")
    return attrs | {name: str(given[name]) for name in kept if name in given}


def frequency_of(time: xr.DataArray) -> str:
    """The usual interval of times as CMIP says it: "day", "mon", "6hr"; "fx" for a single time."""
    if time.size < 2:
        return "fx"
    steps = [_days(*pair) for pair in zip(time.values[:-1], time.values[1:], strict=True)]
    usual = float(np.median(steps))
    for least, most, name in _INTERVALS:
        if 0.99 * least <= usual <= 1.01 * most:
            return name
    return _of_another_length(usual)


def _of_another_length(days: float) -> str:
    """An interval that CMIP has no word for, in its manner: "12hr", "5day", "3mon", "10yr"."""
    for unit, least, most in (("yr", 360.0, 366.0), ("mon", 28.0, 31.0)):
        count = round(days / ((least + most) / 2))
        if count > 1 and count * least <= days <= count * most and (unit == "yr" or count == 3):
            return f"{count}{unit}"
    for unit, length in (("day", 1.0), ("hr", 1 / 24), ("min", 1 / 1440)):
        count = round(days / length)
        if count >= 1 and abs(days - count * length) <= 0.01 * length:
            return f"{count}{unit}"
    return "subhr"


def _days(first: Any, last: Any) -> float:
    span = last - first
    one = np.timedelta64(1, "D")
    return float(span / one) if isinstance(span, np.timedelta64) else span.total_seconds() / 86400.0


def _iso(time: Any) -> str:
    return (
        str(np.datetime_as_string(time, unit="s"))
        if isinstance(time, np.datetime64)
        else (str(time.isoformat()))
    )
