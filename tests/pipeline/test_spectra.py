"""Power and cross spectra, and the verdict on a reference."""

import numpy as np
import pytest

from pipeline.measure import WhittleMatern
from pipeline.spectra import compatibility, cross_spectrum, power_spectrum

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
    assert verdict.words.endswith("per coefficient.")


def test_known_divergences_of_matern_data_in_matern_noise():
    verdict = compatibility(ratio(64, kappa=50**0.5), first_degree=0)
    np.testing.assert_allclose((verdict.kl, verdict.fisher), (13.8820, 72.331), rtol=1e-5)
    finer = compatibility(ratio(1024, kappa=50**0.5), first_degree=0)
    np.testing.assert_allclose((finer.kl, finer.fisher), (14.0278, 72.915), rtol=1e-5)
    louder = compatibility(ratio(64, amplitude=1.1), first_degree=0)
    np.testing.assert_allclose(louder.kl, 9.907, rtol=1e-4)
    np.testing.assert_allclose(louder.kl_per_coefficient, 2.345e-3, rtol=1e-3)


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
