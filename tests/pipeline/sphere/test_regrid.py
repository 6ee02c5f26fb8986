"""Maps and laws of one grid at the points of another."""

import healpy
import numpy as np
import pytest
import xarray as xr

from pipeline.fields.climatology import season_phase
from pipeline.fields.other_grid import moved, placed_normals
from pipeline.fields.pointwise.labels import pointwise_variables
from pipeline.fields.pointwise.normal_scores import Extent, Histogram
from pipeline.fields.remainder import band_noise
from pipeline.fields.standardisation import Normals
from pipeline.fields.whitening import to_fields
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import plan
from pipeline.sphere.interpolation import bilinear, interpolation, synthesis
from pipeline.sphere.named_grids import grid_coordinates, grid_named, grid_of

SOURCE, LMAX = RingGrid.gaussian(16), 9
SOURCES = [
    SOURCE,
    RingGrid.from_coordinates(np.linspace(90, -90, 13), np.arange(24) * 15.0 - 180),
    RingGrid.healpix(8),
    RingGrid.healpix(8, "nested"),
]
TARGETS = ["healpix:16", "healpix:8:nested", "latlon:37x72", "latlon:36x72", "gaussian:T21"]


def coefficients(lmax=LMAX, number=3):
    return np.random.default_rng(4).standard_normal((number, (lmax + 1) ** 2))


@pytest.mark.parametrize(("nside", "level"), [(1, 0), (2, 1), (64, 6), (12, None), (48, None)])
def test_rings_have_a_refinement_level_only_where_nside_is_a_power_of_two(nside, level):
    _, _, mapping = grid_coordinates(RingGrid.healpix(nside))["crs"]
    assert mapping.get("refinement_level") == level


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("healpix:64", RingGrid.healpix(64)),
        ("healpix:4:nested", RingGrid.healpix(4, "nested")),
        ("latlon:181x360", RingGrid.latlon(181, 360)),
        ("latlon:180x360", RingGrid.latlon(180, 360, poles=False)),
        ("latlon:96x190", RingGrid.latlon(96, 190)),
        ("gaussian:T85", RingGrid.gaussian(128, 256)),
        ("gaussian:T106", RingGrid.gaussian(160, 320)),
        ("gaussian:32x64", RingGrid.gaussian(32, 64)),
    ],
)
def test_grids_have_names(name, expected):
    assert grid_named(name) == expected


@pytest.mark.parametrize(
    "name", ["healpix:48", "healpix:64:zuniq", "latlon:181", "gaussian:T0", "latlon:1x2", "T85", ""]
)
def test_what_is_no_grid_is_refused_with_what_there_is(name):
    with pytest.raises(ValueError, match=r"power of two|two latitudes|they are like"):
        grid_named(name)


@pytest.mark.parametrize("name", TARGETS)
def test_a_grid_is_found_again_in_its_coordinates(name):
    grid = grid_named(name)
    field = xr.Dataset({"z": (grid.dims, np.zeros(grid.shape))}, coords=grid_coordinates(grid))
    assert grid_of(field) == grid


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("source", SOURCES, ids=RingGrid.describe)
def test_a_field_of_low_degrees_comes_out_exactly_on_the_other_grid(source, name):
    target = grid_named(name)
    fields = plan(source, LMAX, "float64").synthesis(coefficients())
    expected = plan(target, LMAX, "float64").synthesis(coefficients())
    np.testing.assert_allclose(moved(fields, source, target, LMAX), expected, atol=1e-8)


@pytest.mark.parametrize("source", SOURCES, ids=RingGrid.describe)
def test_any_map_is_unchanged_where_it_is_known(source):
    rough = np.random.default_rng(0).standard_normal((2, *source.shape))
    np.testing.assert_allclose(bilinear(rough, source, source), rough, atol=1e-9)
    np.testing.assert_allclose(moved(rough, source, source, LMAX), rough, atol=1e-9)


@pytest.mark.parametrize("source", SOURCES, ids=RingGrid.describe)
def test_interpolation_gives_no_new_extremes_and_keeps_constants(source):
    target = grid_named("latlon:91x180")
    rough = np.random.default_rng(0).uniform(1.0, 2.0, source.shape)
    values = bilinear(rough, source, target)
    assert rough.min() <= values.min() and values.max() <= rough.max()
    np.testing.assert_allclose(bilinear(np.ones(source.shape), source, target), 1.0, atol=1e-12)


@pytest.mark.parametrize("order", ["ring", "nested"])
def test_interpolation_on_healpix_is_that_of_healpy(order):
    grid = RingGrid.healpix(8, order)
    values = np.random.default_rng(0).standard_normal(grid.size)
    generator = np.random.default_rng(1)
    latitude, longitude = generator.uniform(-85, 85, 500), generator.uniform(-360, 720, 500)
    expected = healpy.get_interp_val(values, longitude, latitude, order == "nested", lonlat=True)
    found = interpolation(grid, latitude, longitude) @ values
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_synthesis_does_not_care_whether_a_grid_resolves_the_degrees():
    fine, coarse = (
        synthesis(grid_named(name), coefficients(lmax=12))
        for name in ("latlon:25x48", "latlon:7x12")
    )
    np.testing.assert_allclose(coarse, fine[:, ::4, ::4], atol=1e-10)
    padded = np.pad(coefficients(lmax=3), ((0, 0), (0, 17**2 - 4**2)))
    expected = plan(RingGrid.healpix(2, "nested"), 3, "float64").synthesis(coefficients(lmax=3))
    np.testing.assert_allclose(
        synthesis(RingGrid.healpix(2, "nested"), padded), expected, atol=1e-9
    )


def test_noise_of_a_band_has_variance_one_everywhere_and_no_low_degrees():
    """Five standard errors over 3000 draws of each cell."""
    white = np.random.default_rng(0).standard_normal((3000, 15**2), dtype=np.float32)
    for grid in (grid_named("healpix:4"), grid_named("latlon:7x12")):
        noise = band_noise(white, grid, LMAX)
        assert np.abs(np.square(noise).mean(axis=0) - 1).max() < 5 * np.sqrt(2 / 3000)
    wide = RingGrid.gaussian(32)
    kept = plan(wide, LMAX, "float64").analysis(band_noise(white[:3], wide, LMAX))
    assert np.abs(kept).max() < 1e-10


def world(mask=None):
    """Normals of one channel whose climatology has degrees up to lmax, and constant scale."""
    generator = np.random.default_rng(7)
    climatology = generator.standard_normal((1, 5, (LMAX + 1) ** 2))
    grid, deviation = SOURCE, np.ones((LMAX + 1, 1, 1))
    shape = (1, *grid.shape)
    missing = np.zeros(shape, np.int8) if mask is None else mask[None].astype(np.int8)
    seasonal = plan(grid, LMAX, "float64").synthesis(climatology) * (1 - missing[:, None])
    normals = xr.Dataset(
        {
            "climatology": (("channel", "season", *grid.dims), seasonal),
            "scale": (("channel", *grid.dims), np.where(missing, 1.0, 2.0)),
            "mask": (("channel", *grid.dims), missing),
            "remainder": (("channel", *grid.dims), np.full(shape, 0.5)),
            "reference_factor": (("degree", "channel", "other_channel"), deviation),
        },
        coords={"channel": ["z"], "transform": ("channel", ["identity"]), **grid_coordinates(grid)},
        attrs={"lmax": LMAX, "variables": "{}"},
    )
    return normals, climatology[0]


def draws(number=3):
    time = xr.date_range("2001-01-10", periods=number, freq="30D")
    phase = season_phase(xr.DataArray(time, dims="time"))
    x = xr.DataArray(
        coefficients(number=number)[:, None],
        dims=("time", "channel", "coefficient"),
        coords={"time": time, "phase": ("time", phase), "channel": ["z"]},
    )
    return x, phase


@pytest.mark.parametrize("name", [*TARGETS, "healpix:2"])
def test_a_law_without_scales_beyond_lmax_is_the_same_function_on_every_grid(name):
    grid = grid_named(name)
    normals, climatology = world()
    x, phase = draws()
    waves = [np.ones(3), np.cos(phase), np.sin(phase), np.cos(2 * phase), np.sin(2 * phase)]
    expected = synthesis(grid, 2 * x.values[:, 0] + np.stack(waves, axis=1) @ climatology)
    fields = to_fields(x, placed_normals(normals, grid))
    assert fields.z.dims == ("time", *grid.dims)
    np.testing.assert_allclose(fields.z, expected, atol=2e-5)
    assert grid_of(fields) == grid


def test_a_scale_that_follows_the_season_goes_along_to_another_grid():
    normals, _ = world()
    x, phase = draws()
    change = np.zeros((1, 4, *SOURCE.shape))
    change[0, 1] = 0.4
    seasonal = normals.assign(log_scale=(("channel", "change", *SOURCE.dims), change))
    grid = grid_named("latlon:19x36")
    plain, changed = (to_fields(x, placed_normals(n, grid)).z for n in (normals, seasonal))
    usual = to_fields(0.0 * x, placed_normals(normals, grid)).z
    factor = np.exp(0.4 * np.sin(phase))[:, None, None]
    np.testing.assert_allclose(changed, usual + factor * (plain - usual), atol=1e-4)


def test_the_remainder_has_its_deviation_and_is_one_function_on_all_grids():
    """Variance within five standard errors; grids share the points at the equator."""
    normals, _ = world()
    x, _ = draws(number=2000)
    placed = [placed_normals(normals, grid_named(n)) for n in ("latlon:5x24", "latlon:9x24")]
    size = (placed[0].attrs["noise_lmax"] + 1) ** 2
    assert size <= SOURCE.size < (np.sqrt(size) + 1) ** 2
    white = xr.DataArray(
        np.random.default_rng(3).standard_normal((2000, 1, size)),
        dims=("time", "channel", "noise_coefficient"),
        coords={"time": x.time},
    )
    rough = [(to_fields(x, each, white) - to_fields(x, each)).z for each in placed]
    assert np.abs(rough[1].var("time") - (2 * 0.5) ** 2).max() < 5 * np.sqrt(2 / 2000)
    np.testing.assert_allclose(rough[0].sel(lat=0), rough[1].sel(lat=0), atol=1e-5)


def test_cells_are_masked_where_more_than_half_of_their_surroundings_are():
    mask = np.zeros(SOURCE.shape, bool)
    mask[4:8, 3:9] = True
    normals, _ = world(mask)
    target = grid_named("latlon:181x360")
    placed = Normals.of(placed_normals(normals, target))
    assert placed.mask.sum() / placed.mask.size == pytest.approx(
        np.average(mask, weights=np.ones(SOURCE.shape)), rel=0.15
    )
    latitude, longitude = target.coordinates
    south, north = SOURCE.latitudes[4], SOURCE.latitudes[7]
    inside = (latitude > south) & (latitude < north) & (longitude > 34) & (longitude < 90)
    outside = (latitude < SOURCE.latitudes[3]) | (latitude > SOURCE.latitudes[8])
    assert placed.mask[0, inside].all() and not placed.mask[0, outside].any()
    same = Normals.of(placed_normals(normals, SOURCE))
    np.testing.assert_array_equal(same.mask[0], mask)


def test_masked_cells_do_not_reach_into_the_maps_around_them():
    mask = np.zeros(SOURCE.shape, bool)
    mask[:8] = True
    normals, _ = world(mask)
    placed = Normals.of(placed_normals(normals, grid_named("healpix:8")))
    np.testing.assert_allclose(placed.scale, 2.0, atol=1e-9)


def ranked_world(mask):
    """Normals of one channel with fitted ranks: dry half of the days, amounts growing northward."""
    normals, _ = world(mask)
    generator = np.random.default_rng(11)
    amount = generator.gamma(0.7, 1.0 + np.arange(SOURCE.shape[0])[:, None], (400, *SOURCE.shape))
    amount *= generator.random(amount.shape) < 0.5
    amount[:, mask] = np.nan
    extent = Extent.of(amount)
    ranks = Histogram.of(amount, 0.0, extent).fit(np.inf)
    maps = pointwise_variables({"z": ranks}, SOURCE.dims)
    return normals.drop_vars("transform").assign(maps.data_vars).assign_coords(maps.coords), ranks


def test_ranks_stay_in_order_on_other_grids_and_as_they_are_on_their_own():
    mask = np.zeros(SOURCE.shape, bool)
    mask[4:6, 3:9] = True
    normals, ranks = ranked_world(mask)
    (same,) = Normals.of(placed_normals(normals, SOURCE)).transforms
    for part in ("share", "atom", "quantiles"):
        there, here = getattr(same, part)[..., ~mask], getattr(ranks, part)[..., ~mask]
        np.testing.assert_allclose(there, here, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(same.tail.scale[~mask], ranks.tail.scale[~mask], rtol=1e-9)
    (placed,) = Normals.of(placed_normals(normals, grid_named("healpix:8"))).transforms
    assert (np.diff(placed.quantiles, axis=0) >= 0).all() and (placed.tail.scale > 0).all()
    assert placed.tail.shape == ranks.tail.shape
    assert (placed.atom < placed.scores[0]).all() and np.isfinite(placed.atom).all()
    dry = ranks.share[~mask]
    assert placed.share.min() >= dry.min() - 1e-9 and placed.share.max() <= dry.max() + 1e-9
