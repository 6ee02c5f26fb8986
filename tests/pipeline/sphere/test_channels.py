"""Scalars and winds side by side: exact both ways, one vector field at the poles too."""

import numpy as np
import pytest

from pipeline.fields.remainder import band_noise, remainder, remainder_noise
from pipeline.gaussian.reference import WhittleMatern
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import plan
from pipeline.sphere.pairs import channel_names, in_pairs
from pipeline.sphere.stacked import analysis, synthesis

LMAX = 7
GRIDS = {
    "gaussian": RingGrid.gaussian(12),
    "poles": RingGrid.from_coordinates(np.linspace(90, -90, 17), np.arange(32) * 11.25),
    "healpix": RingGrid.healpix(4),
}
PAIRS = ((2, 1),)  # v stands before u


def draws(count, lmax=LMAX, channels=4):
    x = np.random.default_rng(0).standard_normal((count, channels, (lmax + 1) ** 2))
    x[:, 1:3, 0] = 0.0
    return x


@pytest.fixture(params=list(GRIDS))
def grid(request):
    return GRIDS[request.param]


def test_band_limited_channels_come_back(grid):
    x = draws(3)
    np.testing.assert_allclose(analysis(grid, LMAX, PAIRS, synthesis(grid, PAIRS, x)), x, atol=1e-9)


def test_scalars_are_left_to_the_scalar_transform(grid):
    x, scalar = draws(2), plan(grid, LMAX, "float64")
    fields = synthesis(grid, PAIRS, x)
    np.testing.assert_allclose(fields[:, [0, 3]], scalar.synthesis(x[:, [0, 3]]), atol=1e-12)
    np.testing.assert_array_equal(
        analysis(grid, LMAX, (), fields), scalar.analysis(fields.astype(np.float64))
    )


def test_what_draws_have_in_degree_0_of_a_wind_is_not_looked_at(grid):
    x = draws(2)
    other = x.copy()
    other[:, 1:3, 0] = 5.0
    np.testing.assert_array_equal(synthesis(grid, PAIRS, x), synthesis(grid, PAIRS, other))
    assert other[0, 1, 0] == 5.0


def test_a_grid_too_coarse_for_the_degrees_gets_the_same_winds_at_its_points():
    fine, coarse = (
        RingGrid.gaussian(24),
        RingGrid.from_coordinates([60.0, 0.0, -60.0], [0.0, 180.0]),
    )
    x = draws(2, lmax=15)
    at = np.isclose(fine.latitudes, fine.latitudes[3])
    same = RingGrid.from_coordinates(
        np.array([fine.latitudes[3], 0.0, -fine.latitudes[3]]), [0.0, 180.0]
    )
    assert same.max_lmax < 15 and coarse.shape == same.shape
    found = synthesis(same, PAIRS, x)[..., 0, :]
    expected = synthesis(fine, PAIRS, x)[..., at, :][..., 0, ::24]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_isotropic_noise_is_one_vector_field_at_the_poles_and_everywhere():
    """Covariance of (u, v), in standard errors; as two scalars u and v would differ at a pole."""
    grid, count = GRIDS["poles"], 4000
    law = WhittleMatern(kappa=3.0, beta=1.2, amplitude=50.0)
    generator = np.random.default_rng(4)
    x = law.sample(generator, LMAX, (count, 2))
    winds = synthesis(grid, ((0, 1),), x)
    degree = np.arange(1, LMAX + 1)
    variance = ((2 * degree + 1) * law.spectrum(LMAX)[1:]).sum() / (4.0 * np.pi)
    covariance = np.einsum("nixy,njxy->xyij", winds, winds) / count
    error = variance * np.sqrt(2.0 / count)
    assert np.abs(covariance - variance * np.eye(2)).max() < 5.0 * error
    # At a pole the components at longitudes a quarter of a turn apart are the same numbers.
    np.testing.assert_allclose(winds[:, 0, 0, 8], winds[:, 1, 0, 0], atol=1e-9)
    np.testing.assert_allclose(winds[:, 1, 0, 8], -winds[:, 0, 0, 0], atol=1e-9)


def test_the_remainder_of_a_wind_has_none_of_its_coefficients(grid):
    white = np.random.default_rng(5).standard_normal((200, 4, *grid.shape))
    left = remainder(white, grid, LMAX, PAIRS)
    assert np.abs(analysis(grid, LMAX, PAIRS, left)).max() < 1e-8
    noise = remainder_noise(white, np.full((4, *grid.shape), 0.3), grid, LMAX, PAIRS)
    deviation = noise[:, 1:3].std(axis=(0, 1))
    assert np.abs(deviation - 0.3).mean() < 0.02


def test_noise_beyond_the_band_has_variance_one_in_both_components():
    grid = RingGrid.gaussian(24)
    white = np.random.default_rng(6).standard_normal((400, 4, 16**2))
    noise = band_noise(white, grid, LMAX, PAIRS)
    np.testing.assert_allclose(noise.var(axis=(0, 2, 3)), 1.0, atol=0.03)
    assert np.abs(analysis(grid, LMAX, PAIRS, noise)).max() < 1e-9


def test_names_say_which_part_is_which_and_variances_of_a_pair_are_shared():
    names = channel_names(("ta", "va", "ua", "pr"), PAIRS)
    assert names == ("ta", "ua,va:rotational", "ua,va:divergent", "pr")
    np.testing.assert_array_equal(in_pairs(np.array([1.0, 2.0, 4.0, 8.0]), PAIRS), [1, 3, 3, 8])
