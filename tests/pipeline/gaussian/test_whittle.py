"""The most likely Whittle-Matérn law of a spectrum: known numbers, recovery, and its limits."""

import numpy as np
import pytest

from pipeline.gaussian.reference import SemiParametric, WhittleMatern
from pipeline.gaussian.whittle_fit import fit_whittle_matern, reference_from_config

MEASURE = WhittleMatern(kappa=5.0, beta=1.0, amplitude=1.0)
ERRORS = {50: (0.9, 0.0032, 0.048), 1000: (0.18, 0.0006, 0.010)}


def estimated(measure, lmax, fields, generator):
    """A power spectrum averaged over so many independent fields."""
    freedom = fields * (2 * np.arange(lmax + 1) + 1)
    return measure.spectrum(lmax) * generator.chisquare(freedom) / freedom


def errors_of(fit):
    """Standard errors of kappa^2, beta and A."""
    stated = fit.standard_errors
    return np.array(
        [2.0 * fit.measure.kappa * stated["kappa"], stated["beta"], stated["amplitude"]]
    )


@pytest.mark.parametrize("fields", list(ERRORS))
def test_the_parameters_are_recovered_with_the_stated_standard_errors(fields):
    """kappa^2 = 25, beta = 1, A = 1, lmax = 64, from 60 estimated spectra: means and spreads
    within four standard errors; the known spreads are those of a few fits, good to a quarter."""
    generator, number = np.random.default_rng(5), 60
    fits = [
        fit_whittle_matern(estimated(MEASURE, 64, fields, generator), fields, 0)
        for _ in range(number)
    ]
    found = np.array([(f.measure.kappa**2, f.measure.beta, f.measure.amplitude) for f in fits])
    stated = errors_of(fit_whittle_matern(MEASURE.spectrum(64), fields, 0))
    mean = np.abs(found.mean(axis=0) - (25.0, 1.0, 1.0)) * np.sqrt(number) / stated
    assert np.all(mean < 4.0)
    np.testing.assert_allclose(found.std(axis=0), stated, rtol=4.0 / np.sqrt(2.0 * number))
    np.testing.assert_allclose(stated, ERRORS[fields], rtol=0.25)
    # Three of the 65 degrees of freedom went into the parameters.
    residual = np.mean([f.kl_per_coefficient for f in fits]) * 65**2
    expected = 62 / (2 * fields)
    np.testing.assert_allclose(residual, expected, rtol=4.0 * np.sqrt(2.0 / (62 * number)))


def test_a_spectrum_that_no_law_of_the_family_has_is_said_to_be_one():
    degree = np.arange(33)
    steep = np.exp(-0.8 * degree)
    fit = fit_whittle_matern(steep, 100)
    assert "beta = 4" in fit.bounds
    assert "bound for" in fit.words and "semi-parametric" in fit.words
    assert "±" not in fit.words
    flat = fit_whittle_matern((degree + 1.0) ** -0.5, 100)
    assert "beta = 0.51" in flat.bounds
    good = fit_whittle_matern(MEASURE.spectrum(64), 100)
    assert good.bounds == () and "kappa 5 ±" in good.words


def test_three_numbers_need_four_degrees():
    with pytest.raises(ValueError, match="four degrees"):
        fit_whittle_matern(np.ones(4), 10)


def test_configured_references():
    power = MEASURE.spectrum(30)
    fixed, none = reference_from_config({"kappa": 2.0, "beta": 0.8, "amplitude": 3.0}, power, 10)
    assert fixed == WhittleMatern(kappa=2.0, beta=0.8, amplitude=3.0)
    assert none is None
    fitted, fit = reference_from_config("fit", power, 10)
    assert fitted is fit.measure
    np.testing.assert_allclose(fitted.spectrum(30), power, rtol=1e-4)
    assert isinstance(reference_from_config("semi-parametric", power, 10)[0], SemiParametric)
    with pytest.raises(ValueError, match="nonsense"):
        reference_from_config("nonsense", power, 10)
