"""The Whittle-Matérn measure: known numbers, and the laws of its fields, exactly."""

import healpy
import numpy as np
import pytest

from pipeline.gaussian.reference import SemiParametric, WhittleMatern
from pipeline.sphere.coefficients import degrees, from_complex, orders, to_complex
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import plan

MEASURE = WhittleMatern(kappa=5.0, beta=1.0, amplitude=1.0)


def test_known_spectrum_trace_and_truncation():
    """T-1: q_l, tr Q, point variance, truncation."""
    spectrum = MEASURE.spectrum(128)
    np.testing.assert_allclose(
        spectrum[[0, 1, 10, 64]], [1.6e-3, 1.371742e-3, 5.486968e-5, 5.709645e-8], rtol=1e-6
    )
    np.testing.assert_allclose(MEASURE.pointwise_variance(5000), 0.00322624, rtol=1e-5)
    trace = 4.0 * np.pi * MEASURE.pointwise_variance(5000)
    np.testing.assert_allclose(trace, 0.0405421, rtol=1e-5)
    lost = [
        1.0 - MEASURE.pointwise_variance(lmax) / MEASURE.pointwise_variance(20000)
        for lmax in (16, 32, 64, 128)
    ]
    np.testing.assert_allclose(np.sqrt(lost), [0.2803, 0.1488, 0.0762, 0.0385], atol=6e-5)


def test_the_spectrum_does_not_depend_on_lmax():
    np.testing.assert_array_equal(MEASURE.spectrum(40)[:11], MEASURE.spectrum(10))


def test_coloring_undoes_whitening_and_keeps_precision():
    for dtype, tolerance in ((np.float32, 1e-6), (np.float64, 1e-14)):
        coefficients = np.random.default_rng(0).standard_normal((3, 64)).astype(dtype)
        white = MEASURE.whiten(coefficients)
        assert white.dtype == dtype
        np.testing.assert_allclose(MEASURE.color(white), coefficients, rtol=tolerance)


def test_the_cameron_martin_norm_is_that_of_a_power_of_the_laplacian():
    """T-2: sum r^2 / q = ||(kappa^2 - Laplacian)^beta h||^2 / A."""
    lmax = 7
    coefficients = np.random.default_rng(1).standard_normal((2, (lmax + 1) ** 2))
    eigenvalue = degrees(lmax) * (degrees(lmax) + 1.0)
    operated = (25.0 + eigenvalue) ** MEASURE.beta * coefficients
    np.testing.assert_allclose(MEASURE.norm(coefficients), np.linalg.norm(operated, axis=-1))


def synthesis_matrix(grid, lmax):
    """R_lm at the points of the grid: (coefficient, lat, lon)."""
    return plan(grid, lmax, "float64").synthesis(np.eye((lmax + 1) ** 2))


def test_the_pointwise_variance_is_the_same_at_every_latitude_and_at_the_poles():
    """T-2, exactly: the covariance of the coefficients pushed through the synthesis."""
    grid, lmax = RingGrid.latlon(25), 16
    variance = np.einsum(
        "kij,k->ij", synthesis_matrix(grid, lmax) ** 2, MEASURE.spectrum(lmax)[degrees(lmax)]
    )
    assert grid.latitudes[0] == 90.0 or grid.latitudes[-1] == 90.0
    np.testing.assert_allclose(variance, MEASURE.pointwise_variance(lmax), rtol=1e-10)


def test_the_covariance_of_any_two_points_is_the_legendre_series_of_the_spectrum():
    """T-2, exactly, and it depends on their distance alone."""
    grid, lmax = RingGrid.latlon(13), 10
    basis = synthesis_matrix(grid, lmax).reshape((lmax + 1) ** 2, -1)
    covariance = basis.T @ (MEASURE.spectrum(lmax)[degrees(lmax)][:, None] * basis)
    latitude = np.deg2rad(np.asarray(grid.latitudes))[:, None]
    longitude = (
        np.deg2rad(grid.first_longitudes[0]) + 2 * np.pi * np.arange(grid.shape[1]) / grid.shape[1]
    )
    points = np.stack(
        np.broadcast_arrays(
            np.cos(latitude) * np.cos(longitude),
            np.cos(latitude) * np.sin(longitude),
            np.sin(latitude),
        ),
        axis=-1,
    ).reshape(-1, 3)
    angle = np.arccos(np.clip(points @ points.T, -1.0, 1.0))
    expected = MEASURE.covariance(angle, lmax)
    np.testing.assert_allclose(covariance, expected, atol=1e-10 * expected.max())


@pytest.mark.parametrize(
    "fault", ["m = 0 drawn as half of a complex number", "white noise per grid cell"]
)
def test_noise_that_is_not_isotropic_does_not_pass_for_it(fault):
    """Contrast: faults of other libraries, seen by the same exact variance."""
    grid, lmax = RingGrid.latlon(25), 16
    basis, spectrum = synthesis_matrix(grid, lmax), MEASURE.spectrum(lmax)[degrees(lmax)]
    if fault.startswith("m = 0"):
        covariance = np.diag(np.where(orders(lmax) == 0, 0.5, 1.0) * spectrum)
    else:
        cells = np.eye(grid.size).reshape(-1, *grid.shape)
        response = plan(grid, lmax, "float64").analysis(cells) * np.sqrt(spectrum)
        covariance = response.T @ response
    flat = basis.reshape(len(basis), -1)
    variance = np.einsum("kp,kl,lp->p", flat, covariance, flat).reshape(grid.shape)
    variance /= variance[grid.shape[0] // 2].mean()
    if fault.startswith("m = 0"):
        np.testing.assert_allclose(variance[[0, -1]], 0.5, atol=0.04)
    assert np.abs(variance - 1.0).max() > 0.2


def test_samples_are_coloured_white_noise():
    draws = MEASURE.sample(np.random.default_rng(2), 16, (3, 2))
    white = np.random.default_rng(2).standard_normal((3, 2, 17**2))
    np.testing.assert_allclose(draws, MEASURE.color(white))
    assert draws.std() > 0


def test_the_spectrum_is_that_of_a_field_turned_by_any_rotation():
    """T-2: the covariance of all coefficients is left as it is by a rotation, exactly."""
    lmax = 6
    rotator = healpy.Rotator(rot=(30.0, 50.0, 70.0))
    root = MEASURE.color(np.eye((lmax + 1) ** 2))
    turned = np.stack(
        [from_complex(rotator.rotate_alm(to_complex(row).astype(complex))) for row in root]
    )
    np.testing.assert_allclose(
        turned.T @ turned, np.diag(MEASURE.spectrum(lmax)[degrees(lmax)]), atol=1e-12
    )


def test_rotation_leaves_the_power_of_every_degree():
    lmax = 12
    alm = to_complex(MEASURE.sample(np.random.default_rng(4), lmax))
    turned = healpy.Rotator(rot=(30.0, 50.0, 70.0)).rotate_alm(alm.copy())
    np.testing.assert_allclose(healpy.alm2cl(turned), healpy.alm2cl(alm), rtol=1e-10)


def test_a_semi_parametric_reference_follows_the_data_and_joins_its_tail():
    data = MEASURE.spectrum(20) * (1.0 + 0.3 * np.sin(np.arange(21)))
    reference = SemiParametric(power=tuple(data), tail=MEASURE)
    np.testing.assert_array_equal(reference.spectrum(20), data)
    np.testing.assert_array_equal(reference.spectrum(8), data[:9])
    beyond = reference.spectrum(60)
    np.testing.assert_allclose(
        beyond[21:] / MEASURE.spectrum(60)[21:], data[20] / MEASURE.spectrum(20)[20]
    )


def test_smoothing_lifts_powerless_degrees():
    data = MEASURE.spectrum(20)
    data[0] = 0.0
    smooth = SemiParametric.smoothed(data, MEASURE).spectrum(20)
    assert smooth[0] > 0.0
    np.testing.assert_allclose(smooth[1:], data[1:], rtol=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"kappa": 0.0}, "positive"), ({"beta": 0.5}, "1/2"), ({"amplitude": -1.0}, "positive")],
)
def test_measures_without_a_field_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        WhittleMatern(**{"kappa": 5.0, "beta": 1.0, "amplitude": 1.0, **changes})
