"""Methods of any dataset on a global grid, once this module is imported: `dataset.spherescore`.

    import pipeline.fields.accessor
    ensemble.spherescore.map("zg500")            as latitude-longitude maps, HEALPix too
    ensemble.spherescore.spectrum("zg500")       power per degree
    ensemble.spherescore.quantile_map(0.99)      over realizations and times

Importing it takes xarray and numpy; Dask-backed variables stay lazy. What transforms and resampling
need besides is imported by the methods that need it; there is no torch and no scheduler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    from pipeline.sphere.grid import FloatArray, RingGrid

__all__ = ["SphereScore"]

ENSEMBLE = ("realization", "time")
BLOCK_BYTES = 1 << 26


@xr.register_dataset_accessor("spherescore")  # type: ignore[no-untyped-call]
class SphereScore:
    """Maps, spectra and quantiles of a dataset (..., lat, lon) or, on HEALPix, (..., cell)."""

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def map(self, name: str, step: float | None = None) -> xr.DataArray:
        """A variable as latitude-longitude maps: south first, from 180 degrees west.

        Bilinear between cells; missing where more than half of what is around is.

        Args:
            step: Degrees between points; the size of a cell at the equator by default.
        """
        from pipeline.sphere.interpolation import at_points, interpolation

        grid = self._grid
        if step is None:
            step = 360.0 / max(grid.points)
        nlat = round(180.0 / step)
        lat = -90.0 + (np.arange(nlat) + 0.5) * 180.0 / nlat
        lon = -180.0 + (np.arange(2 * nlat) + 0.5) * 180.0 / nlat
        latitude, longitude = np.meshgrid(lat, lon, indexing="ij")
        weights = interpolation(grid, latitude.ravel(), longitude.ravel())

        def resampled(fields: FloatArray) -> FloatArray:
            batch = fields.shape[: fields.ndim - len(grid.dims)]
            values = at_points(fields.reshape(*batch, grid.size), weights)
            return values.reshape(*batch, *latitude.shape)

        maps = self._apply(resampled, name, {"map_lat": lat.size, "map_lon": lon.size})
        maps = maps.drop_vars(["lat", "lon", "cell", "crs"], errors="ignore")
        named = maps.rename(map_lat="lat", map_lon="lon")
        coordinates = {
            "lat": ("lat", lat, {"standard_name": "latitude", "units": "degrees_north"}),
            "lon": ("lon", lon, {"standard_name": "longitude", "units": "degrees_east"}),
        }
        return named.assign_coords(coordinates).assign_attrs(self._dataset[name].attrs)

    def spectrum(self, name: str, lmax: int | None = None) -> xr.DataArray:
        """Power of a variable per degree: the mean square of its coefficients, (..., degree).

        Masked cells are filled harmonically from around them.

        Args:
            lmax: Last degree, inclusive; all that the grid determines by default.
        Raises:
            ValueError: If values are missing in cells that have values elsewhere along time.
        """
        from pipeline.gaussian.spectra import power_spectrum
        from pipeline.sphere.fill import harmonic_fill
        from pipeline.sphere.harmonics import plan

        grid = self._grid
        last = grid.max_lmax if lmax is None else lmax
        transform = plan(grid, last, "float64")

        def powers(fields: FloatArray) -> FloatArray:
            rows = fields.reshape(-1, *grid.shape).astype(np.float64)
            missing = np.isnan(rows)
            if (missing != missing[:1]).any():
                raise ValueError(f"{name} is missing in different cells at different times")
            filled = harmonic_fill(grid, missing[0])(rows) if missing.any() else rows
            found = power_spectrum(transform.analysis(filled))
            return found.reshape(*fields.shape[: fields.ndim - len(grid.dims)], last + 1)

        spectrum = self._apply(powers, name, {"degree": last + 1}).rename(name)
        spectrum = spectrum.drop_vars(["lat", "lon", "cell", "crs"], errors="ignore")
        units = self._dataset[name].attrs.get("units", "1")
        attrs = {"long_name": f"power of {name} per degree", "units": f"({units})^2"}
        return spectrum.assign_coords(degree=np.arange(last + 1)).assign_attrs(attrs)

    def quantile_map(self, q: float | list[float], name: str | None = None) -> Any:
        """Quantiles over realizations and times in each cell, of one variable or of all."""
        chosen: Any = self._dataset if name is None else self._dataset[name]
        if name is None:
            chosen = chosen[[n for n, v in chosen.data_vars.items() if set(ENSEMBLE) & set(v.dims)]]
        over = [dim for dim in ENSEMBLE if dim in chosen.dims]
        if chosen.chunks:
            length = int(np.prod([chosen.sizes[dim] for dim in over]))
            first = self._grid.dims[0]
            rest = self._grid.size // chosen.sizes[first]
            band = max(1, BLOCK_BYTES // (8 * length * rest))
            chosen = chosen.chunk({**dict.fromkeys(over, -1), first: band})
        return chosen.quantile(q, over, keep_attrs=True)

    @property
    def _grid(self) -> RingGrid:
        from pipeline.sphere.named_grids import grid_of

        return grid_of(self._dataset)

    def _apply(self, function: Any, name: str, sizes: dict[str, int]) -> xr.DataArray:
        variable, dims = self._dataset[name], self._grid.dims
        lazy = variable.chunks is not None
        found: xr.DataArray = xr.apply_ufunc(
            function,
            variable.chunk(dict.fromkeys(dims, -1)) if lazy else variable,
            input_core_dims=[list(dims)],
            output_core_dims=[list(sizes)],
            dask="parallelized",
            output_dtypes=[np.float64],
            dask_gufunc_kwargs={"output_sizes": sizes},
        )
        return found
