"""Methods that datasets get from pipeline.fields.accessor."""

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

import pipeline.fields.accessor  # noqa: F401
from pipeline.gaussian.spectra import power_spectrum
from pipeline.sphere.harmonics import plan
from pipeline.sphere.named_grids import grid_coordinates, grid_named

GRIDS = ["gaussian:16x32", "latlon:37x72", "healpix:8", "healpix:8:nested"]


def ensemble(name, masked=False):
    """Fields of degrees up to 5, and their coefficients."""
    grid = grid_named(name)
    coefficients = np.random.default_rng(0).standard_normal((4, 3, 36))
    values = plan(grid, 5, "float64").synthesis(coefficients).astype("f4")
    if masked:
        values = np.where(np.abs(grid.coordinates[0]) < 20, np.nan, values)
    attrs = {"units": "m", "long_name": "height"}
    return xr.Dataset(
        {"z": (("realization", "time", *grid.dims), values, attrs), "note": ((), 1)},
        coords={"realization": range(4), "time": range(3), **grid_coordinates(grid)},
    ), coefficients


@pytest.mark.parametrize("name", GRIDS)
def test_maps_are_plain_and_show_what_is_there(name):
    dataset, coefficients = ensemble(name)
    maps = dataset.spherescore.map("z", step=5)
    assert maps.dims == ("realization", "time", "lat", "lon") and maps.shape[2:] == (36, 72)
    assert (maps["lon"][0], maps["lat"][0]) == (-177.5, -87.5)
    assert maps.attrs["units"] == "m"
    points = grid_named("latlon:36x72")
    exact = plan(points, 5, "float64").synthesis(coefficients)
    middle = 0.5 * (exact + np.roll(exact, -1, axis=-1))  # half a step to the east
    difference = np.roll(middle, 36, axis=-1) - maps.values
    assert difference.std() < 0.06 * exact.std()  # bilinear; 1.4 if unrelated


@pytest.mark.parametrize("name", GRIDS)
def test_a_spectrum_is_that_of_the_coefficients(name):
    dataset, coefficients = ensemble(name)
    spectrum = dataset.spherescore.spectrum("z", lmax=7)
    assert spectrum.dims == ("realization", "time", "degree")
    np.testing.assert_allclose(spectrum[..., :6], power_spectrum(coefficients), rtol=1e-4)
    assert float(spectrum[..., 6:].max()) < 1e-9
    assert spectrum.attrs["units"] == "(m)^2"


@pytest.mark.parametrize("name", GRIDS)
def test_quantiles_are_taken_over_realizations_and_times(name):
    dataset, _ = ensemble(name)
    found = dataset.spherescore.quantile_map(0.75)
    expected = np.quantile(dataset["z"].values.reshape(12, -1), 0.75, axis=0)
    np.testing.assert_allclose(found["z"].values.ravel(), expected, rtol=1e-6)
    assert set(found.data_vars) == {"z"}
    one = dataset.spherescore.quantile_map([0.1, 0.9], "z")
    assert one.dims[0] == "quantile" and one.attrs["units"] == "m"


@pytest.mark.parametrize("name", ["gaussian:16x32", "healpix:8:nested"])
def test_everything_stays_lazy_and_is_the_same(name):
    eager, _ = ensemble(name, masked=True)
    lazy = eager.chunk({"realization": 1, "time": 2})
    for method, arguments in (("map", ("z",)), ("spectrum", ("z",)), ("quantile_map", (0.5, "z"))):
        found = getattr(lazy.spherescore, method)(*arguments)
        assert found.chunks is not None, method
        xr.testing.assert_allclose(found, getattr(eager.spherescore, method)(*arguments))


def test_masked_cells_stay_masked_on_maps():
    dataset, _ = ensemble("healpix:8", masked=True)
    maps = dataset.spherescore.map("z", step=2)
    missing = maps.isnull().all(("realization", "time", "lon"))
    assert missing.sel(lat=slice(-15, 15)).all() and not missing.sel(lat=slice(26, 90)).any()


def test_a_mask_that_moves_has_no_spectrum():
    dataset, _ = ensemble("gaussian:16x32")
    dataset["z"][0, 0, 3, 3] = np.nan
    with pytest.raises(ValueError, match="z is missing in different cells"):
        dataset.spherescore.spectrum("z")


def test_importing_takes_xarray_and_numpy_only():
    script = """
import sys, xarray
before = set(sys.modules)
import pipeline.fields.accessor
new = {name.split(".")[0] for name in set(sys.modules) - before}
heavy = {"torch", "dask", "distributed", "prefect", "zarr", "scipy", "ducc0", "matplotlib"}
print(sorted(new & (heavy | {"flows", "storage"})))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
