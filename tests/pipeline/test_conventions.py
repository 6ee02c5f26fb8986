"""T-1: real harmonics, their complex partners, and what isotropy is in either."""

import healpy
import numpy as np
import pytest
from scipy.special import sph_harm_y

from pipeline.gaussian.reference import WhittleMatern
from pipeline.gaussian.spectra import power_spectrum
from pipeline.sphere.coefficients import degrees, from_complex, orders, to_complex
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import plan

LMAX = 9
SIZE = (LMAX + 1) ** 2
MEASURE = WhittleMatern(kappa=5.0, beta=1.0, amplitude=1.0)


def real_basis(degree, order, colatitude, longitude):
    """R_l0 = Y_l0, R_lm = sqrt2 Re Y_lm, R_l-m = -sqrt2 Im Y_lm, of scipy's Y_lm."""
    y = sph_harm_y(degree, abs(order), colatitude, longitude)
    return y.real if order == 0 else np.sqrt(2.0) * (y.real if order > 0 else -y.imag)


@pytest.mark.parametrize("grid", [RingGrid.gaussian(12), RingGrid.latlon(24)])
def test_the_gram_matrix_of_the_real_harmonics_is_the_identity(grid):
    fields = plan(grid, LMAX, "float64").synthesis(np.eye(SIZE)).reshape(SIZE, -1)
    np.testing.assert_allclose((fields * grid.area.ravel()) @ fields.T, np.eye(SIZE), atol=1e-12)


def test_a_field_is_the_sum_of_its_real_harmonics_in_healpy_too():
    r = np.random.default_rng(0).standard_normal(SIZE)
    nside = 4
    colatitude, longitude = healpy.pix2ang(nside, np.arange(12 * nside**2))
    expected = sum(
        value * real_basis(degree, order, colatitude, longitude)
        for value, degree, order in zip(r, degrees(LMAX), orders(LMAX), strict=True)
    )
    there = healpy.alm2map(to_complex(r), nside, lmax=LMAX)
    np.testing.assert_allclose(there, expected, atol=1e-12)
    here = plan(RingGrid.healpix(nside), 8, "float64").synthesis(r[:81])
    low = healpy.alm2map(to_complex(r[:81]), nside, lmax=8)
    np.testing.assert_allclose(here, low, atol=1e-12)


def test_complex_coefficients_are_the_integrals_against_the_conjugate_harmonics():
    """a_lm = int f Y*_lm by quadrature; r_lm = sqrt2 Re a_lm and r_l-m = sqrt2 Im a_lm."""
    grid = RingGrid.gaussian(12)
    r = np.random.default_rng(1).standard_normal(SIZE)
    field = plan(grid, LMAX, "float64").synthesis(r) * grid.area
    colatitude = np.deg2rad(90.0 - np.asarray(grid.latitudes))[:, None]
    longitude = np.deg2rad(grid.first_longitudes[0]) + 2 * np.pi * np.arange(24) / 24
    degree, order = healpy.Alm.getlm(LMAX)
    y = sph_harm_y(degree[:, None, None], order[:, None, None], colatitude, longitude)
    alm = np.einsum("ij,aij->a", field, y.conj())
    np.testing.assert_allclose(to_complex(r), alm, atol=1e-12)
    np.testing.assert_allclose(from_complex(alm), r, atol=1e-12)
    assert np.all(to_complex(r)[order == 0].imag == 0.0)


def test_an_isotropic_field_has_half_its_power_in_each_part_of_a_complex_coefficient():
    """Var a_l0 = C_l, Var Re a_lm = Var Im a_lm = C_l / 2: exactly, by the response to each
    coefficient of white noise."""
    response = to_complex(MEASURE.color(np.eye(SIZE)))
    degree, order = healpy.Alm.getlm(LMAX)
    power = MEASURE.spectrum(LMAX)[degree]
    share = np.where(order == 0, 1.0, 0.5)
    np.testing.assert_allclose((response.real**2).sum(axis=0), share * power, rtol=1e-12)
    expected = np.where(order == 0, 0.0, 0.5) * power
    np.testing.assert_allclose((response.imag**2).sum(axis=0), expected, rtol=1e-12)
    np.testing.assert_allclose((response.real * response.imag).sum(axis=0), 0.0, atol=1e-18)


def test_power_is_that_of_healpy_and_parseval_holds():
    r = np.random.default_rng(2).standard_normal(SIZE)
    np.testing.assert_allclose(power_spectrum(r), healpy.alm2cl(to_complex(r)), rtol=1e-12)
    grid = RingGrid.gaussian(12)
    field = plan(grid, LMAX, "float64").synthesis(r)
    np.testing.assert_allclose((field**2 * grid.area).sum(), (r**2).sum(), rtol=1e-12)


def test_known_numbers_of_the_reference():
    """kappa^2 = 25, beta = 1, A = 1; A = 309.96 gives variance 1 at every point."""
    np.testing.assert_allclose(
        MEASURE.spectrum(64)[[0, 1, 10, 64]],
        [1.6e-3, 1.371742e-3, 5.486968e-5, 5.709645e-8],
        rtol=1e-6,
    )
    np.testing.assert_allclose(MEASURE.pointwise_variance(5000), 0.00322624, rtol=1e-5)
    np.testing.assert_allclose(4 * np.pi * MEASURE.pointwise_variance(5000), 0.0405421, rtol=1e-5)
    unit = WhittleMatern(kappa=5.0, beta=1.0, amplitude=309.96)
    np.testing.assert_allclose(unit.pointwise_variance(5000), 1.0, rtol=1e-4)
