"""A STAC item (1.1.0, datacube and file extensions) for an exported ensemble, as plain JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import numpy as np
import xarray as xr

__all__ = ["stac_item"]

EXTENSIONS = [
    "https://stac-extensions.github.io/datacube/v2.2.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
]
MEDIA = {".nc": "application/netcdf", ".zarr": "application/vnd.zarr; version=3"}


def stac_item(ensemble: xr.Dataset, files: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The item of an ensemble, as `artifacts.open_artifact` gives it.

    Args:
        files: `path` below the item, and where it is one file `size` [bytes] and `sha256`.
    """
    attrs, time = ensemble.attrs, ensemble["time"].values
    corners = [[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": EXTENSIONS,
        "id": f"{attrs['id']}-{attrs['artifact_digest'][:16]}",
        "geometry": {"type": "Polygon", "coordinates": [corners]},
        "bbox": [-180, -90, 180, 90],
        "properties": {
            "datetime": None,
            "start_datetime": _instant(time[0]),
            "end_datetime": _instant(time[-1]),
            "created": _instant(attrs["date_created"]),
            "title": attrs["title"],
            "description": attrs["summary"],
            "keywords": [word.strip() for word in attrs["keywords"].split(",")],
            "license": "other",
            "cube:dimensions": {dim: _dimension(ensemble, dim) for dim in _dims(ensemble)},
            "cube:variables": {str(k): _variable(v) for k, v in ensemble.data_vars.items()},
            **{
                f"spherescore:{name}": attrs[name]
                for name in ("config_digest", "checkpoints_digest", "run_seed", "sampler")
                if name in attrs
            },
        },
        "links": [],
        "assets": {file["path"].rpartition(".")[0]: _asset(file) for file in files},
    }


def _dims(ensemble: xr.Dataset) -> list[str]:
    return list(dict.fromkeys(str(dim) for v in ensemble.data_vars.values() for dim in v.dims))


def _dimension(ensemble: xr.Dataset, dim: str) -> dict[str, Any]:
    if dim == "time":
        ends = [_instant(ensemble["time"].values[at]) for at in (0, -1)]
        return {"type": "temporal", "extent": ends}
    if dim in ("lat", "lon"):
        values = ensemble[dim].values
        extent = [float(values.min()), float(values.max())]
        axis = "y" if dim == "lat" else "x"
        return {"type": "spatial", "axis": axis, "extent": extent, "reference_system": 4326}
    return {"type": dim, "extent": [0, ensemble.sizes[dim] - 1]}


def _variable(array: xr.DataArray) -> dict[str, Any]:
    return {
        "dimensions": [str(dim) for dim in array.dims],
        "type": "data",
        "description": str(array.attrs.get("long_name", array.name)),
        "unit": str(array.attrs.get("units", "1")),
    }


def _asset(file: Mapping[str, Any]) -> dict[str, Any]:
    ending = file["path"][file["path"].rindex(".") :]
    asset = {"href": f"./{file['path']}", "type": MEDIA[ending], "roles": ["data"]}
    if "sha256" in file:
        asset |= {"file:size": file["size"], "file:checksum": f"1220{file['sha256']}"}
    return asset


def _instant(time: Any) -> str:
    """RFC 3339; days that other calendars have and ours has not become the 28th of their month."""
    text = str(np.datetime_as_string(time, "s") if isinstance(time, np.datetime64) else time)
    text = text.replace(" ", "T")[:19]
    try:
        return f"{datetime.fromisoformat(text).isoformat(timespec='seconds')}Z"
    except ValueError:
        return _instant(f"{text[:8]}28{text[10:]}")
