"""Grids by name, as configurations spell them, and the coordinates that say which grid it is.

healpix:64  healpix:64:nested     cells in ring or nested order, nside a power of two
latlon:181x360                    with the poles where nlon is 2 (nlat - 1), or nlat is odd
gaussian:T85  gaussian:128x256    T of a triangular truncation: 3 T + 1 longitudes or more
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.sphere.grid import RingGrid

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["grid_coordinates", "grid_named", "grid_of"]

LARGEST = 60_000
SPELLINGS = 'like "healpix:64", "healpix:64:nested", "latlon:181x360" or "gaussian:T85"'


def grid_named(name: str) -> RingGrid:
    """The grid of a name; latitudes from south to north, longitudes from 0.

    Raises:
        ValueError: If it is none.
    """
    kind, _, rest = name.partition(":")
    if any(len(number) > 9 or int(number) > LARGEST for number in re.findall(r"\d+", rest)):
        raise ValueError(f"a grid has at most {LARGEST} latitudes, longitudes, degrees or nside")
    size = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", rest)
    if kind == "healpix" and (found := re.fullmatch(r"([1-9]\d*)(:ring|:nested)?", rest)):
        nside = int(found[1])
        if nside & (nside - 1):
            raise ValueError(f"a HEALPix nside is a power of two; got {name!r}")
        return RingGrid.healpix(nside, "nested" if found[2] == ":nested" else "ring")
    if kind == "gaussian" and (found := re.fullmatch(r"T([1-9]\d*)", rest)):
        nlon = _fast(3 * int(found[1]) + 1)
        return RingGrid.gaussian(nlon // 2, nlon)
    if kind in ("latlon", "gaussian") and size:
        nlat, nlon = int(size[1]), int(size[2])
        if min(nlat, nlon) < 2:
            raise ValueError(f"a grid has two latitudes and longitudes or more; got {name!r}")
        if kind == "gaussian":
            return RingGrid.gaussian(nlat, nlon)
        poles = nlon == 2 * (nlat - 1) or (nlat % 2 == 1 and nlon != 2 * nlat)
        return RingGrid.latlon(nlat, nlon, poles=poles)
    raise ValueError(f"no grid is called {name!r}; they are {SPELLINGS}")


def grid_of(dataset: xr.Dataset) -> RingGrid:
    """The grid of a dataset with dimensions (lat, lon), or (cell) on HEALPix.

    Cells are in ring order, unless a grid mapping with that `indexing_scheme` says nested.
    """
    if "cell" in dataset.dims:
        cells = dataset.sizes["cell"]
        nside = round((cells / 12) ** 0.5)
        if 12 * nside**2 != cells:
            raise ValueError(f"a HEALPix map has 12 nside^2 cells; dimension cell has {cells}")
        mappings = [v.attrs for v in dataset.variables.values() if "grid_mapping_name" in v.attrs]
        schemes = {a.get("indexing_scheme") for a in mappings}
        return RingGrid.healpix(nside, "nested" if "nested" in schemes else "ring")
    if not {"lat", "lon"} <= set(dataset.dims):
        raise ValueError(f"fields need dimensions (lat, lon) or (cell); got {tuple(dataset.dims)}")
    return RingGrid.from_coordinates(dataset["lat"].to_numpy(), dataset["lon"].to_numpy())


def grid_coordinates(grid: RingGrid) -> dict[str, Any]:
    """Coordinates of fields on a grid, from which `grid_of` finds it again."""
    if grid.kind == "healpix":
        nside = max(grid.points) // 4
        latitude, longitude = grid.coordinates
        mapping: dict[str, Any] = {"grid_mapping_name": "healpix", "indexing_scheme": grid.ordering}
        if nside & (nside - 1) == 0:  # other rings have cells, and no level of refinement
            mapping["refinement_level"] = nside.bit_length() - 1
        return {
            "cell": np.arange(grid.size),
            "lat": ("cell", latitude),
            "lon": ("cell", longitude),
            "crs": ((), np.int32(0), mapping),
        }
    longitudes = grid.first_longitudes[0] + 360.0 * np.arange(grid.points[0]) / grid.points[0]
    return {"lat": np.asarray(grid.latitudes), "lon": longitudes}


def _fast(least: int) -> int:
    """The next multiple of 4 without prime factors beyond 5, for the FFT and two hemispheres."""
    number = -(-least // 4) * 4
    while 60**16 % number:
        number += 4
    return number
