import numpy as np
import pytest
import torch

from pipeline.diffusion.process import OrnsteinUhlenbeck
from tests.pipeline.closed_forms import TwoPoint
from tests.pipeline.diffusion.measured import energy_grid

T = torch.tensor([1e-9, 1e-3, 0.3, 2.5], dtype=torch.float64)


def test_alpha_and_sigma_lie_on_the_unit_circle():
    process = OrnsteinUhlenbeck()
    np.testing.assert_allclose(process.alpha(T) ** 2 + process.sigma(T) ** 2, 1.0, rtol=1e-15)


def test_sigma_keeps_its_digits_at_small_times():
    np.testing.assert_allclose(OrnsteinUhlenbeck.sigma(T)[0] ** 2, 2e-9, rtol=1e-8)


def test_two_short_transitions_are_one_long_one():
    """T-4: chained transitions have the mean and the variance of the joint one."""
    process, s, t = OrnsteinUhlenbeck(), torch.tensor(0.7, dtype=torch.float64), T[2]
    decay = process.alpha(t)
    chained = decay**2 * (decay**2 * s + process.sigma(t) ** 2) + process.sigma(t) ** 2
    np.testing.assert_allclose(chained, process.variance(2 * t, s), rtol=1e-14)


def test_perturbing_has_the_variance_of_the_marginal():
    """T-4, with a tolerance of four standard errors."""
    process, generator = OrnsteinUhlenbeck(), torch.Generator().manual_seed(0)
    n, s, t = 200_000, torch.tensor(3.0), torch.tensor(0.4)
    x_0 = s.sqrt() * torch.randn(n, generator=generator)
    x_t = process.perturb(x_0, t, torch.randn(n, generator=generator))
    expected = float(process.variance(t, s))
    assert abs(float(x_t.var()) - expected) < 4 * expected * (2 / n) ** 0.5


def test_the_reference_measure_is_invariant():
    np.testing.assert_allclose(OrnsteinUhlenbeck.variance(T, torch.ones(())), 1.0, rtol=1e-15)


def test_the_power_grid_falls_from_the_horizon_to_exactly_zero():
    grid = OrnsteinUhlenbeck(horizon=2.0).power_grid(4, exponent=2.0)
    np.testing.assert_allclose(grid, [2.0, 1.125, 0.5, 0.125, 0.0])
    assert grid[-1] == 0.0


@pytest.mark.parametrize("horizon", [0.0, -1.0, float("nan")])
def test_a_horizon_must_be_positive(horizon):
    with pytest.raises(ValueError, match="horizon"):
        OrnsteinUhlenbeck(horizon=horizon)


def test_the_energy_grid_costs_less_than_the_power_grid_with_as_many_steps():
    """sum h^2 |dr/dt| / 2, r of the two-point law; at best (int |dr/dt|^(1/2) dt)^2 / 2N."""
    process, law = OrnsteinUhlenbeck(horizon=2.0), TwoPoint(2.0)
    t = np.linspace(0, 2, 401)
    r = np.array([law.entropies(time).residual for time in t])

    def cost(grid: np.ndarray) -> float:
        return float(-np.diff(grid) @ np.diff(np.interp(grid, t, r))) / 2

    grid = energy_grid(process, 32, t[1:], r[1:])
    best = np.sqrt(-np.diff(r) * np.diff(t)).sum() ** 2 / 64
    assert grid[0] == 2.0
    assert grid[-1] == 0.0
    assert (np.diff(grid) < 0).all()
    assert cost(grid) == pytest.approx(best, rel=0.05)
    assert cost(grid) < 0.9 * min(cost(process.power_grid(32, p)) for p in (1.0, 1.5, 2.0, 3.0))


def test_noise_in_the_energy_does_not_tear_the_energy_grid():
    generator, times = np.random.default_rng(0), np.geomspace(1e-3, 2.5, 20)
    energy = np.exp(-4 * times) + 0.05 * generator.standard_normal(20)
    grid = energy_grid(OrnsteinUhlenbeck(), 32, times[::-1], energy[::-1])
    assert (np.diff(grid) < 0).all()
    assert -np.diff(grid).min() <= 1.0001 * 10 * 2.5 / 32
    even = energy_grid(OrnsteinUhlenbeck(), 5, times, np.ones(20))
    np.testing.assert_allclose(even, np.linspace(2.5, 0, 6), atol=1e-15)


def test_an_energy_grid_needs_times_within_the_horizon():
    with pytest.raises(ValueError, match=r"horizon 2\.5"):
        energy_grid(OrnsteinUhlenbeck(), 4, np.array([0.1, 3.0]), np.ones(2))
