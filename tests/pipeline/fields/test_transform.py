"""Physical fields to whitened coefficients and exactly back."""

import json

import dask
import numpy as np
import pytest
import xarray as xr

from pipeline.errors import UnusableData
from pipeline.fields.climatology import design, season_phase
from pipeline.fields.standardisation import FIELDS_AT_ONCE
from pipeline.fields.whitening import color, to_fields, to_whitened, whiten
from pipeline.gaussian.reference import WhittleMatern
from pipeline.sphere.coefficients import degrees
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import plan

GRIDS = {
    "gaussian": RingGrid.gaussian(12),
    "descending": RingGrid.from_coordinates(np.linspace(90, -90, 13), np.arange(24) * 15.0 - 180),
    "healpix": RingGrid.healpix(4),
}
LMAX = 8
NAMES = ("ta", "pr")
ATTRIBUTES = {
    "ta": {"units": "K", "standard_name": "air_temperature"},
    "pr": {"units": "kg m-2 s-1"},
}


def coordinates(grid):
    if grid.kind == "healpix":
        return {}
    step = 360.0 / grid.points[0]
    longitudes = grid.first_longitudes[0] + step * np.arange(grid.points[0])
    return {"lat": np.asarray(grid.latitudes), "lon": longitudes}


def make_normals(grid, mask=None, correlation=0.0):
    generator = np.random.default_rng(1)
    shape = (2, *grid.shape)
    climatology = generator.standard_normal((2, 5, *grid.shape))
    climatology[:, 0] += 300.0
    spectrum = WhittleMatern(kappa=3.0, beta=1.0, amplitude=100.0).spectrum(LMAX)
    deviation = np.sqrt(np.stack([spectrum, 2.0 * spectrum], axis=1))
    root = np.linalg.cholesky(np.array([[1.0, correlation], [correlation, 1.0]]))
    factor = deviation[:, :, None] * root
    return xr.Dataset(
        {
            "climatology": (("channel", "season", *grid.dims), climatology),
            "scale": (("channel", *grid.dims), generator.uniform(0.5, 2.0, shape)),
            "mask": (("channel", *grid.dims), np.zeros(shape, np.int8) if mask is None else mask),
            "remainder": (("channel", *grid.dims), np.full(shape, 0.3)),
            "reference_factor": (("degree", "channel", "other_channel"), factor),
        },
        coords={
            "channel": list(NAMES),
            "transform": ("channel", ["identity", "cbrt"]),
            **coordinates(grid),
        },
        attrs={"lmax": LMAX, "variables": json.dumps(ATTRIBUTES)},
    )


def make_fields(grid, normals, times=10):
    """Physical fields whose scaled anomalies are band-limited, and their whitened coefficients."""
    generator = np.random.default_rng(2)
    time = xr.date_range("2001-01-10", periods=times, freq="30D")
    x = generator.standard_normal((times, 2, (LMAX + 1) ** 2)).astype(np.float32)
    factor = normals.reference_factor.values[degrees(LMAX)]
    anomalies = plan(grid, LMAX, "float64").synthesis(np.einsum("kcd,tdk->tck", factor, x))
    phase = season_phase(xr.DataArray(time, dims="time"))
    seasonal = np.tensordot(design(phase), normals.climatology.values, axes=(1, 1))
    values = anomalies * normals.scale.values + seasonal
    fields = xr.Dataset(
        {
            "ta": (("time", *grid.dims), values[:, 0]),
            "pr": (("time", *grid.dims), values[:, 1] ** 3),
            "unused": (("time",), np.zeros(times)),
        },
        coords={"time": time, **coordinates(grid)},
    )
    return fields, x


@pytest.fixture(params=list(GRIDS))
def grid(request):
    return GRIDS[request.param]


def test_band_limited_fields_are_whitened_exactly_and_restored_with_their_labels(grid):
    normals = make_normals(grid)
    fields, x = make_fields(grid, normals)
    whitened = to_whitened(fields, normals)
    assert whitened.x.dims == ("time", "channel", "coefficient")
    assert whitened.x.dtype == np.float32
    np.testing.assert_allclose(whitened.x, x, atol=2e-5)
    np.testing.assert_array_equal(whitened.degree, degrees(LMAX))
    np.testing.assert_allclose(whitened.phase, season_phase(fields.time))
    back = to_fields(whitened.x, normals)
    assert list(back.data_vars) == list(NAMES)
    assert back.ta.dims == ("time", *grid.dims)
    assert back.ta.dtype == np.float32
    assert {name: back[name].attrs for name in NAMES} == ATTRIBUTES
    for name in NAMES:
        xr.testing.assert_allclose(back[name], fields[name].astype("f4"), rtol=1e-5)


def test_a_reference_whose_channels_covary_is_taken_away_and_given_back(grid):
    normals = make_normals(grid, correlation=0.8)
    fields, x = make_fields(grid, normals)
    whitened = to_whitened(fields, normals).x
    np.testing.assert_allclose(whitened, x, atol=1e-4)
    back = to_fields(whitened, normals)
    for name in NAMES:
        xr.testing.assert_allclose(
            back[name].drop_attrs(), fields[name].astype("f4").drop_attrs(), rtol=1e-5
        )
    np.testing.assert_allclose(whiten(color(whitened, normals), normals), whitened, atol=1e-10)
    alone = make_normals(grid)
    ratio = color(whitened, normals).isel(channel=0) / color(whitened, alone).isel(channel=0)
    np.testing.assert_allclose(ratio, 1.0)  # the first channel has none before it


def test_dask_backed_fields_stay_lazy_and_give_the_eager_result(grid):
    normals = make_normals(grid)
    fields, _ = make_fields(grid, normals)
    eager = to_whitened(fields, normals)
    lazy = to_whitened(fields.chunk(time=3), normals)
    assert dask.is_dask_collection(lazy.x)
    assert lazy.x.chunksizes["time"] == (3, 3, 3, 1)
    assert not dask.is_dask_collection(eager.x)
    xr.testing.assert_allclose(lazy.compute(), eager)
    fields_back = to_fields(lazy.x, normals)
    assert dask.is_dask_collection(fields_back.pr)
    xr.testing.assert_allclose(fields_back.compute(), to_fields(eager.x, normals), rtol=1e-5)


def test_realizations_at_given_dates_become_fields():
    grid = GRIDS["gaussian"]
    normals = make_normals(grid)
    fields, _ = make_fields(grid, normals, times=2)
    draws = to_whitened(fields, normals).x.expand_dims(realization=[4, 5, 6])
    back = to_fields(draws, normals)
    assert back.ta.dims == ("realization", "time", "lat", "lon")
    np.testing.assert_allclose(back.ta[2], fields.ta, rtol=1e-5)


@pytest.mark.parametrize("name", list(GRIDS))
def test_how_many_fields_are_whitened_at_once_does_not_matter(name):
    grid = GRIDS[name]
    normals = make_normals(grid, correlation=0.5)
    fields, _ = make_fields(grid, normals, times=FIELDS_AT_ONCE + 3)
    whole = to_whitened(fields, normals).x
    parts = [to_whitened(fields.isel(time=[k]), normals).x for k in range(fields.sizes["time"])]
    xr.testing.assert_allclose(whole, xr.concat(parts, "time"), rtol=1e-6, atol=1e-6)


def test_a_lower_lmax_gives_smoother_fields_from_a_prefix():
    grid = GRIDS["gaussian"]
    normals = make_normals(grid)
    fields, _ = make_fields(grid, normals)
    x = to_whitened(fields, normals).x
    low = to_fields(x.isel(coefficient=slice(0, 16)), normals)
    padded = x.where(x.degree <= 3, 0.0)
    xr.testing.assert_allclose(low.drop_attrs(), to_fields(padded, normals).drop_attrs(), rtol=1e-5)


@pytest.mark.parametrize("name", list(GRIDS))
def test_masked_cells_are_filled_on_the_way_and_empty_again_afterwards(name):
    grid = GRIDS[name]
    mask = np.zeros((2, *grid.shape), np.int8)
    mask[0, ..., :5] = 1
    normals = make_normals(grid, mask)
    fields, _ = make_fields(grid, normals)
    fields["ta"] = fields.ta.where(mask[0] == 0)
    whitened = to_whitened(fields, normals)
    assert np.isfinite(whitened.x).all()
    back = to_fields(whitened.x, normals)
    np.testing.assert_array_equal(np.isnan(back.ta[0]), mask[0] == 1)
    assert not np.isnan(back.pr).any()


def test_values_missing_outside_the_mask_and_strange_grids_are_refused():
    grid = GRIDS["gaussian"]
    normals = make_normals(grid)
    fields, _ = make_fields(grid, normals)
    with pytest.raises(ValueError, match="lack pr"):
        to_whitened(fields.drop_vars("pr"), normals)
    with pytest.raises(ValueError, match="gaussian 12 x 24"):
        to_whitened(fields.isel(lat=slice(1, None)), normals)
    fields.pr[3, 4, 5] = np.nan
    with pytest.raises(UnusableData, match="pr: values are missing"):
        to_whitened(fields, normals)
    with pytest.raises(ValueError, match=r"12 nside.* has 24"):
        to_whitened(fields.isel(lat=0).rename(lon="cell"), normals)


def test_white_noise_becomes_the_remainder_and_leaves_the_coefficients_alone():
    grid = RingGrid.gaussian(2 * LMAX)
    normals = make_normals(grid).assign(scale=lambda d: xr.ones_like(d["scale"]))
    generator = np.random.default_rng(5)
    x = xr.DataArray(
        generator.standard_normal((30, 2, (LMAX + 1) ** 2)),
        dims=("time", "channel", "coefficient"),
        coords={"phase": ("time", np.zeros(30))},
    )
    white = xr.DataArray(
        generator.standard_normal((30, 2, *grid.shape)), dims=("time", "channel", *grid.dims)
    )
    smooth, rough = to_fields(x, normals), to_fields(x, normals, white)
    added = (rough["ta"] - smooth["ta"]).values
    assert added.std() == pytest.approx(0.3, rel=0.03)
    deviation = normals["reference_factor"].values[degrees(LMAX), 0, 0]
    seen = plan(grid, LMAX, "float64").analysis(added.astype(np.float64)) / deviation
    assert np.abs(seen).max() < 0.05
