import numpy as np
import pytest
import torch

from pipeline.coefficients import degrees
from pipeline.gaussian import (
    Baseline,
    Moments,
    baseline_from_arrays,
    choose_shrinkage,
    cross_fitted,
    fit_isotropic,
    fit_m_block,
)
from pipeline.harmonics import Harmonics
from pipeline.sphere import RingGrid

CHANNELS, LMAX, FIELDS = 2, 5, 400


def white(fields: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((fields, CHANNELS, (LMAX + 1) ** 2))


@pytest.fixture(scope="module")
def fields() -> np.ndarray:
    """Fields with statistics that depend on latitude and tie the channels, not on longitude."""
    grid = RingGrid.gaussian(12)
    plan = Harmonics(grid, LMAX, np.float64)
    maps = plan.synthesis(white(2 * FIELDS, 0)) * (1 + np.sin(np.deg2rad(grid.latitudes)))[:, None]
    x = plan.analysis(maps)
    x[:, 1] += 0.5 * x[:, 0]
    return x


@pytest.fixture(scope="module", params=["isotropic", "m-block"])
def baseline(request, fields) -> Baseline:
    train, validation = Moments.of(fields[:FIELDS]), Moments.of(fields[FIELDS:])
    if request.param == "isotropic":
        return fit_isotropic(train)
    return fit_m_block(train, choose_shrinkage(train, validation))


def test_rotations_are_orthogonal(baseline):
    x = torch.from_numpy(white(3, 1))
    y = baseline.rotate(x)
    np.testing.assert_allclose(y.square().sum((1, 2)), x.square().sum((1, 2)), rtol=1e-12)
    np.testing.assert_allclose(baseline.unrotate(y), x, atol=1e-12)


def test_a_baseline_is_rebuilt_from_its_arrays(baseline):
    x = torch.from_numpy(white(2, 1))
    again = baseline_from_arrays(baseline.name, baseline.to_arrays())
    np.testing.assert_array_equal(again.rotate(x), baseline.rotate(x))
    np.testing.assert_array_equal(again.variance, baseline.variance)


def test_the_log_density_is_that_of_the_dense_covariance(baseline):
    """T-7: against linear algebra on the whole vector."""
    size = CHANNELS * (LMAX + 1) ** 2
    basis = baseline.rotate(torch.eye(size, dtype=torch.float64).reshape(size, CHANNELS, -1))
    matrix = basis.reshape(size, size).numpy()
    covariance = matrix @ np.diag(baseline.variance.numpy().ravel()) @ matrix.T
    x = white(4, 2).reshape(4, size)
    quadratic = np.einsum("ni,ij,nj->n", x, np.linalg.inv(covariance), x)
    expected = -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * covariance)[1])
    actual = baseline.log_density(torch.from_numpy(x.reshape(4, CHANNELS, -1)))
    np.testing.assert_allclose(actual, expected, rtol=1e-10)


def test_draws_have_the_covariances_that_were_fitted(fields):
    """T-17: cross-spectra of coloured white noise, within five standard errors."""
    train = Moments.of(fields)
    draws = fit_isotropic(train).color(torch.from_numpy(white(4000, 3))).numpy()
    fitted, drawn = train.isotropic_covariance(), Moments.of(draws).isotropic_covariance()
    counts = 4000 * (2 * np.arange(LMAX + 1) + 1)
    spread = np.sqrt(2 / counts) * np.trace(fitted, axis1=1, axis2=2)
    assert (np.abs(drawn - fitted) < 5 * spread[:, None, None]).all()


def test_without_shrinkage_the_m_block_law_has_the_moments_of_its_fields(fields):
    moments = Moments.of(fields)
    shrinkage = choose_shrinkage(moments, moments)
    assert (shrinkage == 0).all()
    fitted = fit_m_block(moments, shrinkage)
    y = fitted.rotate(torch.from_numpy(fields))
    pairs = y.square().mean(0)
    # +m and -m hold the two parts of one complex coordinate: their mean square is its variance.
    np.testing.assert_allclose(pairs.sum(), fitted.variance.sum(), rtol=1e-10)


def test_the_m_block_law_is_more_likely_on_held_out_fields(fields):
    train, held_out = Moments.of(fields[:FIELDS]), torch.from_numpy(fields[FIELDS:])
    m_block = fit_m_block(train, choose_shrinkage(train, Moments.of(fields[FIELDS:])))
    gain = m_block.log_density(held_out) - fit_isotropic(train).log_density(held_out)
    assert gain.mean() > 10 * gain.std() / len(gain) ** 0.5


def test_isotropic_fields_are_shrunk_to_the_isotropic_law():
    x = white(120, 5)
    assert choose_shrinkage(Moments.of(x[:60]), Moments.of(x[60:])).mean() > 0.4


def test_an_m_block_law_does_not_change_when_the_globe_turns(fields):
    """Turning by an angle mixes +m and -m; the density stays."""
    law = fit_m_block(Moments.of(fields[:FIELDS]), np.full(LMAX + 1, 0.02))
    grid = RingGrid.gaussian(12)
    plan = Harmonics(grid, LMAX, np.float64)
    turned = plan.analysis(np.roll(plan.synthesis(fields[:5]), 7, axis=-1))
    np.testing.assert_allclose(
        law.log_density(torch.from_numpy(turned)),
        law.log_density(torch.from_numpy(fields[:5])),
        rtol=1e-9,
    )


def test_moments_of_parts_add_up(fields):
    whole, parts = Moments.of(fields), Moments.of(fields[:150]) + Moments.of(fields[150:])
    assert parts.samples == whole.samples
    for a, b in zip(parts.blocks, whole.blocks, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)


def test_isotropic_covariance_is_the_mean_over_orders(fields):
    degree = degrees(LMAX)
    expected = [
        np.einsum("nck,ndk->cd", fields[..., degree == n], fields[..., degree == n])
        / (len(fields) * (2 * n + 1))
        for n in range(LMAX + 1)
    ]
    np.testing.assert_allclose(Moments.of(fields).isotropic_covariance(), expected, rtol=1e-10)


def test_moments_of_different_fields_are_refused(fields):
    with pytest.raises(ValueError, match="lmax"):
        Moments.of(fields) + Moments.of(fields[..., :25])


def test_fields_vary_in_coordinates_fitted_to_them_less_than_in_those_of_the_others():
    """Why the network trains with cross-fitted baselines."""
    x, shrinkage = white(20, 6), np.full(LMAX + 1, 0.1)
    own = fit_m_block(Moments.of(x), shrinkage)
    inside = (own.rotate(torch.from_numpy(x)).square() / own.variance).mean()
    outside = [
        (law.rotate(torch.from_numpy(x[stretch])).square() / law.variance).mean()
        for stretch, law in cross_fitted(x, shrinkage, 4)
    ]
    assert inside < 1.0
    assert min(outside) > 1.2


def test_cross_fitting_covers_every_field_once_and_leaves_it_out():
    x, shrinkage = white(10, 7), np.full(LMAX + 1, 0.5)
    stretches = cross_fitted(x, shrinkage, 3)
    assert [(s.start, s.stop) for s, _ in stretches] == [(0, 3), (3, 6), (6, 10)]
    expected = fit_m_block(Moments.of(np.concatenate([x[:3], x[6:]])), shrinkage)
    np.testing.assert_allclose(stretches[1][1].variance, expected.variance, rtol=1e-10)
