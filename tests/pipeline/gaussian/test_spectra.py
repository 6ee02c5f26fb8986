"""Power and cross spectra, and the verdict on a reference."""

import numpy as np
import pytest

from pipeline.gaussian.reference import WhittleMatern
from pipeline.gaussian.spectra import (
    compatibility,
    cross_spectrum,
    divergences,
    joint_words,
    power_spectrum,
)

NOISE = WhittleMatern(kappa=5.0, beta=1.0, amplitude=1.0)


def ratio(lmax, **changes):
    data = WhittleMatern(**{"kappa": 5.0, "beta": 1.0, "amplitude": 1.0, **changes})
    return data.spectrum(lmax) / NOISE.spectrum(lmax)


def test_power_is_the_mean_square_of_each_degree():
    coefficients = np.concatenate([np.full(2 * degree + 1, degree + 1.0) for degree in range(5)])
    np.testing.assert_allclose(
        power_spectrum(np.stack([coefficients, 2 * coefficients]))[1], 4.0 * np.arange(1, 6) ** 2
    )


def test_cross_spectrum_is_bilinear_and_has_the_power_on_its_diagonal():
    x = np.random.default_rng(0).standard_normal((20, 3, 36)).astype(np.float32)
    mixing = np.array([[1.0, 0.5, 0.0], [0.0, 2.0, 0.0], [-1.0, 0.0, 1.0]])
    spectrum = cross_spectrum(x)
    assert spectrum.shape == (6, 3, 3)
    np.testing.assert_allclose(
        np.diagonal(spectrum, axis1=1, axis2=2), power_spectrum(x).mean(0).T, rtol=1e-6
    )
    mixed = cross_spectrum(np.einsum("ij,njk->nik", mixing, x))
    np.testing.assert_allclose(mixed, mixing @ spectrum @ mixing.T, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "regime"),
    [
        ({}, 1),
        ({"kappa": 50**0.5}, 1),
        ({"amplitude": 1.1}, 2),
        ({"beta": 1.25}, 3),
        ({"beta": 2.2}, 4),
        ({"beta": 0.9}, 5),
    ],
)
def test_regimes_of_matern_data_in_matern_noise(changes, regime):
    verdict = compatibility(ratio(64, **changes), first_degree=0)
    assert verdict.regime == regime
    assert "nats" in verdict.words


def test_known_divergences_of_matern_data_in_matern_noise():
    verdict = compatibility(ratio(64, kappa=50**0.5), first_degree=0)
    np.testing.assert_allclose((verdict.kl, verdict.fisher), (13.8820, 72.331), rtol=1e-5)
    finer = compatibility(ratio(1024, kappa=50**0.5), first_degree=0)
    np.testing.assert_allclose((finer.kl, finer.fisher), (14.0278, 72.915), rtol=1e-5)
    louder = compatibility(ratio(64, amplitude=1.1), first_degree=0)
    np.testing.assert_allclose(louder.kl, 9.907, rtol=1e-4)
    np.testing.assert_allclose(louder.kl_per_coefficient, 2.345e-3, rtol=1e-3)


def test_equivalence_needs_a_difference_that_fades_faster_than_1_over_l():
    """sum (2l + 1)(S_l - 1)^2 diverges like log L for S_l - 1 ~ 1/l; the level is seen in both."""
    degree = np.maximum(np.arange(65), 1.0)
    for exponent, size, regime in ((1.0, 1.0, 2), (1.3, 4.0, 1), (2.0, 50.0, 1), (0.5, 0.3, 2)):
        verdict = compatibility(1.0 + size * degree**-exponent, first_degree=8)
        assert abs(verdict.level - 1.0) > 0.01
        np.testing.assert_allclose(verdict.decay, exponent, atol=0.1)
        assert verdict.regime == regime
        assert f"fades with wavenumber as l^-{verdict.decay:.2f}: faster" in verdict.words or (
            regime == 2 and "would have to fade faster than 1/l" in verdict.words
        )


def test_a_small_difference_that_stays_is_not_equivalence():
    verdict = compatibility(np.full(65, 1.05))
    assert verdict.regime == 2
    np.testing.assert_allclose(verdict.decay, 0.0, atol=1e-9)
    assert "constant factor" in verdict.words


def test_the_divergence_converges_or_grows_with_the_number_of_coefficients():
    """Known numbers at L = 64 and 256: 13.8820 and 14.0189 nats; A = 1.1: 9.907 and 154.9."""
    finite = [compatibility(ratio(lmax, kappa=50**0.5), first_degree=0) for lmax in (64, 256)]
    np.testing.assert_allclose([v.kl for v in finite], [13.8820, 14.0189], rtol=1e-5)
    np.testing.assert_allclose([v.fisher for v in finite], [72.331, 72.880], rtol=1e-5)
    assert abs(finite[1].growth) < 0.02
    assert "converged" in finite[1].words
    louder = [compatibility(ratio(lmax, amplitude=1.1), first_degree=0) for lmax in (64, 256)]
    np.testing.assert_allclose([v.kl for v in louder], [9.907, 154.9], rtol=1e-3)
    np.testing.assert_allclose(louder[1].growth, 2.0, atol=0.05)
    assert "number of coefficients" in louder[1].words


def test_the_divergence_of_an_estimated_spectrum_is_its_noise_floor():
    """(lmax + 1) / (2 samples) nats, within five standard errors over 200 estimates."""
    generator, fields, lmax = np.random.default_rng(2), 50, 64
    freedom = fields * (2 * np.arange(lmax + 1) + 1)
    estimates = generator.chisquare(freedom, (200, lmax + 1)) / freedom
    verdicts = [compatibility(each, fields, first_degree=0) for each in estimates]
    found, floor = np.array([v.kl for v in verdicts]), verdicts[0].floor
    np.testing.assert_allclose(floor, 65 / 100)
    # One estimate is floor / 65 times a chi-square of 65; corrections are of order 1 / samples.
    assert abs(found.mean() - floor) < 5 * floor * np.sqrt(2 / 65 / 200) + floor / fields
    assert sum("sampling noise" in v.words for v in verdicts) > 190


def test_matrix_divergences_are_those_of_the_dense_laws():
    """T-7: KL(N(0, C) || N(0, 1)) and E |(1 - C^-1) x|^2 of each degree, against log det."""
    mixing = np.random.default_rng(3).standard_normal((4, 3, 6))
    s = mixing @ mixing.swapaxes(1, 2) / 6
    kl, fisher = divergences(s)
    for degree in range(4):
        trace, (_, logdet) = np.trace(s[degree]), np.linalg.slogdet(s[degree])
        score = np.eye(3) - np.linalg.inv(s[degree])
        orders = 2 * degree + 1
        np.testing.assert_allclose(kl[degree], orders / 2 * (trace - 3 - logdet))
        np.testing.assert_allclose(fisher[degree], orders * np.trace(score @ s[degree] @ score))
    scalar = divergences(s[:, 0, 0])
    np.testing.assert_allclose(scalar, divergences(s[:, :1, :1]))


def test_correlations_that_the_reference_lacks_are_told_apart():
    s = np.tile([[1.0, 0.6], [0.6, 1.0]], (5, 1, 1))
    lacking = -0.5 * np.log(1 - 0.36) * (25 - 1)
    assert f"of which {lacking:.3g} nats are correlations" in joint_words(s)
    assert "0.4 to 1.6 times" in joint_words(s)


def test_sampling_noise_alone_is_no_verdict():
    generator, fields, lmax = np.random.default_rng(1), 20, 32
    freedom = fields * (2 * np.arange(lmax + 1) + 1)
    verdicts = [
        compatibility(generator.chisquare(freedom) / freedom, fields).regime for _ in range(50)
    ]
    assert verdicts.count(1) >= 49


def test_ratios_must_be_positive():
    with pytest.raises(ValueError, match="positive"):
        compatibility(np.array([1.0, 1.0, 0.0, 1.0, 1.0, 1.0]))


def test_channels_that_depend_on_each_other_have_no_verdict():
    ratio = np.tile(np.array([[1.0, 2.0], [2.0, 4.0]]), (9, 1, 1))
    with pytest.raises(ValueError, match="in degree 1 a combination of channels has no variance"):
        joint_words(ratio)


def test_degrees_that_are_left_out_may_lack_variance():
    ratio = np.tile(np.eye(2), (9, 1, 1))
    ratio[0] = 0.0
    assert "0 nats" in joint_words(ratio)
