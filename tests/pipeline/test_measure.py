"""The Whittle-Matérn measure: known numbers, laws of its samples, recovery of its parameters."""

import healpy
import numpy as np
import pytest

from pipeline.harmonics import degrees, plan, to_complex
from pipeline.measure import (
    SemiParametric,
    WhittleMatern,
    fit_whittle_matern,
    reference_from_config,
)
from pipeline.sphere import RingGrid

MEASURE = WhittleMatern(kappa=5.0, beta=1.0, amplitude=1.0)


def estimated(measure, lmax, fields, generator):
    """A power spectrum averaged over so many independent fields."""
    freedom = fields * (2 * np.arange(lmax + 1) + 1)
    return measure.spectrum(lmax) * generator.chisquare(freedom) / freedom


def test_known_spectrum_trace_and_truncation():
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
    lmax = 7
    coefficients = np.random.default_rng(1).standard_normal((2, (lmax + 1) ** 2))
    eigenvalue = degrees(lmax) * (degrees(lmax) + 1.0)
    operated = (25.0 + eigenvalue) ** MEASURE.beta * coefficients
    np.testing.assert_allclose(MEASURE.norm(coefficients), np.linalg.norm(operated, axis=-1))


def test_samples_have_the_same_variance_at_every_point_poles_included():
    grid, lmax, samples = RingGrid.latlon(25), 16, 6000
    draws = MEASURE.sample(np.random.default_rng(2), lmax, (samples,))
    fields = plan(grid, lmax, "float64").synthesis(draws)
    variance = (fields**2).mean(axis=0) / MEASURE.pointwise_variance(lmax)
    assert np.abs(variance - 1.0).max() < 5.0 * np.sqrt(2.0 / samples)
    poles = variance[[0, -1]]
    np.testing.assert_allclose(poles, np.broadcast_to(poles[:, :1], poles.shape), rtol=1e-10)


def test_sample_covariance_is_the_legendre_series_of_the_spectrum():
    grid, lmax, samples = RingGrid.latlon(25), 16, 6000
    draws = MEASURE.sample(np.random.default_rng(3), lmax, (samples,))
    fields = plan(grid, lmax, "float64").synthesis(draws)
    meridian = fields[:, :, 0]
    colatitude = np.pi * np.arange(25) / 24
    expected = MEASURE.covariance(colatitude, lmax)
    measured = (meridian[:, :1] * meridian).mean(axis=0)
    error = np.sqrt((expected[0] ** 2 + expected**2) / samples)
    assert np.all(np.abs(measured - expected) < 5.0 * error)
    np.testing.assert_allclose(expected[0], MEASURE.pointwise_variance(lmax))


def test_rotation_leaves_the_power_of_every_degree():
    lmax = 12
    alm = to_complex(MEASURE.sample(np.random.default_rng(4), lmax))
    turned = healpy.Rotator(rot=(30.0, 50.0, 70.0)).rotate_alm(alm.copy())
    np.testing.assert_allclose(healpy.alm2cl(turned), healpy.alm2cl(alm), rtol=1e-10)


@pytest.mark.parametrize(
    ("fields", "errors"), [(50, (0.9, 0.0032, 0.048)), (1000, (0.18, 0.0006, 0.010))]
)
def test_maximum_likelihood_recovers_the_parameters(fields, errors):
    generator = np.random.default_rng(5)
    fits = [
        fit_whittle_matern(estimated(MEASURE, 64, fields, generator), fields, 0) for _ in range(12)
    ]
    found = np.array([(f.measure.kappa**2, f.measure.beta, f.measure.amplitude) for f in fits])
    truth = np.array([25.0, 1.0, 1.0])
    assert np.all(np.abs(found.mean(axis=0) - truth) < 4.0 * np.array(errors) / np.sqrt(12))
    stated = fits[0].standard_errors
    stated = np.array([2.0 * 5.0 * stated["kappa"], stated["beta"], stated["amplitude"]])
    np.testing.assert_allclose(stated, errors, rtol=0.35)
    # Three of the 65 degrees of freedom went into the parameters.
    residual = np.mean([f.kl_per_coefficient for f in fits]) * 65**2
    np.testing.assert_allclose(residual, 62 / (2 * fields), rtol=0.25)


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


def test_configured_references():
    power = MEASURE.spectrum(30)
    fixed = reference_from_config({"kappa": 2.0, "beta": 0.8, "amplitude": 3.0}, power, 10)
    assert fixed == WhittleMatern(kappa=2.0, beta=0.8, amplitude=3.0)
    np.testing.assert_allclose(
        reference_from_config("fit", power, 10).spectrum(30), power, rtol=1e-4
    )
    assert isinstance(reference_from_config("semi-parametric", power, 10), SemiParametric)
    with pytest.raises(ValueError, match="nonsense"):
        reference_from_config("nonsense", power, 10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"kappa": 0.0}, "positive"), ({"beta": 0.5}, "1/2"), ({"amplitude": -1.0}, "positive")],
)
def test_measures_without_a_field_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        WhittleMatern(**{"kappa": 5.0, "beta": 1.0, "amplitude": 1.0, **changes})
    with pytest.raises(ValueError, match="four degrees"):
        fit_whittle_matern(np.ones(4), 10)
