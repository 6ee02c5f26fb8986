"""Grids: recognition, quadrature, and what they refuse."""

import dataclasses

import healpy
import numpy as np
import pytest

from pipeline.sphere.grid import RingGrid

LONGITUDES = np.arange(64) * 360.0 / 64


@pytest.mark.parametrize(
    "grid",
    [
        RingGrid.gaussian(32),
        RingGrid.latlon(33),
        RingGrid.latlon(32, poles=False),
        RingGrid.healpix(4),
        RingGrid.from_coordinates(np.linspace(-80.0, 88.0, 30), LONGITUDES),
    ],
    ids=RingGrid.describe,
)
def test_areas_have_the_shape_of_a_field_and_sum_to_the_sphere(grid):
    assert grid.area.shape == grid.shape
    assert grid.area.size == grid.size
    np.testing.assert_allclose(grid.area.sum(), 4.0 * np.pi, rtol=1e-13)


@pytest.mark.parametrize(
    "grid", [RingGrid.gaussian(16), RingGrid.latlon(17), RingGrid.latlon(16, poles=False)]
)
def test_quadrature_is_exact_for_even_powers_of_height(grid):
    height = np.sin(np.deg2rad(grid.latitudes))
    for power in range(0, 15, 2):
        integral = grid.area.sum(axis=1) @ height**power
        np.testing.assert_allclose(integral, 4.0 * np.pi / (power + 1), rtol=1e-12)


@pytest.mark.parametrize("ordering", ["ring", "nested"])
@pytest.mark.parametrize("nside", [1, 2, 4, 8])
def test_healpix_cells_lie_where_those_of_healpy_do(nside, ordering):
    grid, nested = RingGrid.healpix(nside, ordering), ordering == "nested"
    longitude, latitude = healpy.pix2ang(nside, np.arange(grid.size), nest=nested, lonlat=True)
    np.testing.assert_allclose(grid.coordinates[0], latitude, atol=1e-11)
    np.testing.assert_allclose(grid.coordinates[1], longitude, atol=1e-11)


def test_the_orders_of_healpix_are_different_grids_with_names_of_their_own():
    ring, nested = RingGrid.healpix(4), RingGrid.healpix(4, "nested")
    assert ring == RingGrid.healpix(4, "ring")
    assert ring != nested
    assert (ring.describe(), nested.describe()) == (
        "healpix nside 4 (ring order)",
        "healpix nside 4 (nested order)",
    )
    with pytest.raises(ValueError, match="power of two"):
        RingGrid.healpix(6, "nested")
    with pytest.raises(ValueError, match="only HEALPix"):
        dataclasses.replace(RingGrid.gaussian(8), ordering="nested")
    with pytest.raises(ValueError, match="'nest'"):
        RingGrid.healpix(4, "nest")


def test_coordinates_of_a_ring_grid_are_its_latitudes_by_its_longitudes():
    grid = RingGrid.from_coordinates(np.linspace(-80.0, 88.0, 30), LONGITUDES + 2.0)
    latitude, longitude = grid.coordinates
    np.testing.assert_allclose(latitude, np.repeat(np.array(grid.latitudes)[:, None], 64, axis=1))
    np.testing.assert_allclose(longitude[3], LONGITUDES + 2.0)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("grid", [RingGrid.gaussian(32), RingGrid.latlon(33, 64)])
def test_rounded_coordinates_are_recognised_in_either_direction(grid, direction):
    latitudes = np.round(np.asarray(grid.latitudes), 2)[::direction].astype(np.float32)
    found = RingGrid.from_coordinates(latitudes, LONGITUDES.astype(np.float32))
    assert found.kind == grid.kind
    np.testing.assert_array_equal(found.latitudes, grid.latitudes[::direction])


def test_longitudes_may_start_anywhere_and_wrap():
    latitudes = np.asarray(RingGrid.gaussian(32).latitudes)
    for longitudes in (LONGITUDES - 180.0, LONGITUDES + 2.8125, np.roll(LONGITUDES, 5)):
        grid = RingGrid.from_coordinates(latitudes, longitudes)
        assert grid.first_longitudes[0] == pytest.approx(longitudes[0] % 360.0)


def test_the_largest_lmax_is_what_latitudes_and_longitudes_determine():
    assert RingGrid.gaussian(32).max_lmax == 31
    assert RingGrid.gaussian(32, 32).max_lmax == 15
    assert RingGrid.latlon(181, 360).max_lmax == 179
    assert RingGrid.latlon(180, 360, poles=False).max_lmax == 179
    assert RingGrid.healpix(8).max_lmax == 16


@pytest.mark.parametrize(
    ("latitudes", "longitudes", "message"),
    [
        (np.linspace(-60, 60, 20), np.linspace(-20, 40, 30), "Regional"),
        (np.linspace(-90, 90, 19), np.linspace(0, 360, 37), "repeated 0/360"),
        (np.linspace(-90, 90, 19), np.arange(36)[::-1] * 10.0, "advance"),
        (np.array([0.0, 30.0, 10.0]), np.arange(36) * 10.0, "strictly"),
        (np.linspace(-95, 90, 19), np.arange(36) * 10.0, r"\[-90, 90\]"),
        (np.zeros((4, 4)), np.zeros((4, 4)), "curvilinear"),
    ],
)
def test_grids_that_do_not_cover_the_globe_evenly_are_refused(latitudes, longitudes, message):
    with pytest.raises(ValueError, match=message):
        RingGrid.from_coordinates(latitudes, longitudes)
