"""The reference measure of several channels, against dense linear algebra."""

import numpy as np
import pytest

from pipeline.gaussian.channel_covariance import JointReference, correlations, mix_channels
from pipeline.gaussian.reference import WhittleMatern
from pipeline.gaussian.spectra import cross_spectrum
from pipeline.sphere.coefficients import degrees
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import plan

LMAX, CHANNELS = 6, 3
LAWS = tuple(
    WhittleMatern(kappa=kappa, beta=beta, amplitude=50.0)
    for kappa, beta in ((3.0, 1.0), (5.0, 1.3), (2.0, 0.8))
)


def random_correlation(seed, count=LMAX + 1):
    mixing = np.random.default_rng(seed).standard_normal((count, CHANNELS, 5))
    covariance = mixing @ mixing.swapaxes(1, 2)
    deviation = np.sqrt(np.einsum("lcc->lc", covariance))
    return covariance / (deviation[:, :, None] * deviation[:, None, :])


JOINT = JointReference(channels=LAWS, correlation=random_correlation(0))


def test_each_channel_keeps_its_spectrum_and_the_correlations_are_as_given():
    spectrum = JOINT.spectrum(LMAX)
    power = np.einsum("lcc->lc", spectrum)
    np.testing.assert_allclose(power, np.stack([w.spectrum(LMAX) for w in LAWS], axis=1))
    deviation = np.sqrt(power)
    np.testing.assert_allclose(
        spectrum / (deviation[:, :, None] * deviation[:, None, :]), JOINT.correlation, atol=1e-12
    )


def test_it_does_not_depend_on_lmax_and_ends_with_the_last_correlations():
    far = JOINT.spectrum(20)
    np.testing.assert_array_equal(far[: LMAX + 1], JOINT.spectrum(LMAX))
    deviation = np.sqrt(np.einsum("lcc->lc", far[-1:]))[0]
    np.testing.assert_allclose(
        far[-1] / np.outer(deviation, deviation), JOINT.correlation[-1], atol=1e-12
    )


def test_coloring_undoes_whitening_and_keeps_precision():
    for dtype, tolerance in ((np.float32, 1e-4), (np.float64, 1e-11)):
        x = np.random.default_rng(1).standard_normal((4, CHANNELS, 49)).astype(dtype)
        white = JOINT.whiten(x)
        assert white.dtype == dtype
        np.testing.assert_allclose(JOINT.color(white), x, atol=tolerance)


def test_coloured_white_noise_has_the_covariance_of_the_reference_exactly():
    unit = np.eye(CHANNELS * 49).reshape(-1, CHANNELS, 49)
    response = JOINT.color(unit)
    covariance = np.einsum("nck,ndj->ckdj", response, response)
    expected = np.zeros_like(covariance)
    expected[:, range(49), :, range(49)] = JOINT.spectrum(LMAX)[degrees(LMAX)]
    np.testing.assert_allclose(covariance, expected, atol=1e-12)


def test_the_cameron_martin_norm_is_the_quadratic_form_of_the_inverse_covariance():
    r = np.random.default_rng(2).standard_normal((CHANNELS, 49))
    inverse = np.linalg.inv(JOINT.spectrum(LMAX))[degrees(LMAX)]
    np.testing.assert_allclose(JOINT.norm(r) ** 2, np.einsum("ck,kcd,dk->", r, inverse, r))


def test_without_correlations_whitening_is_that_of_each_channel():
    x = np.random.default_rng(3).standard_normal((2, CHANNELS, 49))
    alone = JointReference.uncorrelated(LAWS)
    expected = np.stack([law.whiten(x[:, c]) for c, law in enumerate(LAWS)], axis=1)
    np.testing.assert_allclose(alone.whiten(x), expected, rtol=1e-12)


def test_the_covariance_of_two_channels_at_two_points_is_that_of_the_synthesis():
    """T-2 of several channels: exactly, at every latitude and both poles."""
    grid = RingGrid.latlon(13)
    fields = plan(grid, LMAX, "float64").synthesis(np.eye(49))[..., 0]  # one meridian
    spread = JOINT.spectrum(LMAX)[degrees(LMAX)]
    exact = np.einsum("kp,kcd,kq->pqcd", fields, spread, fields)
    angle = np.pi * np.arange(13) / 12
    np.testing.assert_allclose(exact[0], JOINT.covariance(angle, LMAX), atol=1e-10)
    pointwise = JOINT.pointwise_covariance(LMAX)
    np.testing.assert_allclose(np.einsum("ppcd->pcd", exact), [pointwise] * 13, atol=1e-10)


def test_samples_have_its_cross_spectra():
    """Within five standard errors."""
    draws = JOINT.sample(np.random.default_rng(4), LMAX, (3000,))
    expected = JOINT.spectrum(LMAX)
    power = np.einsum("lcc->lc", expected)
    counts = 3000 * (2 * np.arange(LMAX + 1) + 1)[:, None, None]
    error = np.sqrt((power[:, :, None] * power[:, None, :] + expected**2) / counts)
    assert np.all(np.abs(cross_spectrum(draws) - expected) < 5 * error)


def test_estimated_correlations_are_those_of_the_covariances():
    """With fewer degrees than an eighth of an octave spans there is nothing to smooth."""
    np.testing.assert_allclose(correlations(JOINT.spectrum(LMAX)), JOINT.correlation, atol=1e-12)


def test_estimated_correlations_are_positive_definite_and_of_unit_diagonal():
    covariance = JOINT.spectrum(LMAX).copy()
    covariance[2] = np.outer([1.0, 2.0, -3.0], [1.0, 2.0, -3.0])  # one channel tells the others
    covariance[3] = 0.0
    found = correlations(covariance)
    np.testing.assert_allclose(np.einsum("lcc->lc", found), 1.0, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.eigvalsh(found[2])[0], 1e-3, rtol=1e-6)
    np.testing.assert_array_equal(found[3], np.eye(CHANNELS))
    JointReference(channels=LAWS, correlation=found).factor(LMAX)


def test_what_is_no_correlation_is_refused():
    with pytest.raises(ValueError, match=r"\(degree, 3, 3\)"):
        JointReference(channels=LAWS, correlation=np.eye(3))
    with pytest.raises(ValueError, match="positive definite"):
        JointReference(channels=LAWS, correlation=np.ones((1, 3, 3)))
    with pytest.raises(ValueError, match="unit diagonal"):
        JointReference(channels=LAWS, correlation=2.0 * np.eye(3)[None])


def test_mixing_acts_on_each_degree_by_itself():
    matrices = np.random.default_rng(5).standard_normal((LMAX + 3, CHANNELS, CHANNELS))
    x = np.random.default_rng(6).standard_normal((2, 4, CHANNELS, 49))
    expected = np.einsum("kcd,...dk->...ck", matrices[degrees(LMAX)], x)
    np.testing.assert_allclose(mix_channels(matrices, x), expected, atol=1e-12)
