import itertools
import math

import numpy as np
import pytest
import torch

from pipeline.process import OrnsteinUhlenbeck
from pipeline.sample import NoiseAddress, Sampler, gme_step
from pipeline.score import GaussianScore
from tests.pipeline.closed_forms import Diagonal, TwoPoint


def responses(sampler: Sampler, score: GaussianScore) -> torch.Tensor:
    """What a unit of noise at each step alone becomes at the end, (step, coefficient)."""
    fields = sampler.steps + 1

    def noise(step: int) -> torch.Tensor:
        white = torch.zeros(fields, *score.baseline.variance.shape)
        white[step] = 1.0
        return white

    return sampler(score, noise, torch.zeros(fields, 1))[:, 0]


@pytest.mark.parametrize("steps", [1, 2, 32])
def test_gaussian_data_come_out_with_their_variance_for_any_number_of_steps(steps):
    """T-7."""
    variance = torch.tensor([[0.01, 0.1, 1.0, 2.0, 50.0]])
    drawn = responses(Sampler(steps=steps), GaussianScore(Diagonal(variance)))
    np.testing.assert_allclose(drawn.square().sum(0), variance[0], rtol=1e-5)


def test_each_step_takes_the_marginal_variance_to_the_next_one():
    """T-7, to rounding."""
    s = torch.tensor([0.1, 1.0, 2.0, 40.0], dtype=torch.float64)
    t, t_next = torch.tensor([0.9, 0.35], dtype=torch.float64)
    phi, _, tau = gme_step(t, t_next, s)
    v, v_next = OrnsteinUhlenbeck.variance(t, s), OrnsteinUhlenbeck.variance(t_next, s)
    np.testing.assert_allclose(phi**2 * v + tau**2, v_next, rtol=1e-13)


def test_the_mean_of_a_step_is_that_of_the_bridge():
    """T-6: E[X' | X] = e^-h X + 2 sinh(h) b for the two-point law, a = 2, t = .9, t' = .35."""
    law, y = TwoPoint(2.0), torch.tensor([-1.3, 0.2, 2.0], dtype=torch.float64)
    t, t_next = torch.tensor([0.9, 0.35], dtype=torch.float64)
    fields = torch.zeros(3, 1, 4, dtype=torch.float64)
    fields[:, 0, 0] = y
    phi, weight, _ = gme_step(t, t_next, law.baseline.variance)
    moved = phi * fields + weight * law.residual(t.expand(3), fields, torch.zeros(3, 1))
    np.testing.assert_allclose(moved[:, 0, 0], [-1.48769109, 0.26696455, 2.02411568], atol=1e-8)


@pytest.mark.parametrize(("steps", "divergence"), [(8, 0.0296), (16, 0.0091), (32, 0.00256)])
def test_the_divergence_on_the_two_point_law_falls_as_known(steps, divergence):
    """T-12: KL(data | output) of GME, a = 2, T = 2, uniform grid, by quadrature."""
    law, process = TwoPoint(2.0), OrnsteinUhlenbeck(horizon=2.0)
    times = torch.as_tensor(process.power_grid(steps, exponent=1.0))
    y = torch.linspace(-11, 11, 2201, dtype=torch.float64)
    fields = torch.zeros(len(y), 1, 4, dtype=torch.float64)
    fields[:, 0, 0] = y
    s = law.baseline.variance[0, 0]
    start = process.variance(times[0], s)
    density = torch.exp(-(y**2) / (2 * start)) / torch.sqrt(2 * math.pi * start)
    for t, t_next in itertools.pairwise(times):
        phi, weight, tau = gme_step(t, t_next, s)
        rho = law.residual(t.expand(len(y)), fields, torch.zeros(len(y), 1))[:, 0, 0]
        gap = (y[:, None] - phi * y - weight * rho) / tau
        density = (torch.exp(-(gap**2) / 2) / (tau * math.sqrt(2 * math.pi))) @ density * 0.01
    truth = law.log_density(y.numpy(), 0.0)
    kl = float((np.exp(truth) * (truth - np.log(density.numpy()))).sum() * 0.01)
    assert kl == pytest.approx(divergence, rel=0.02)


def test_noise_depends_on_its_address_alone():
    address = NoiseAddress(seed=3, realization=5, time="2002-01-15T12:00:00")
    white = address.white(2, ["zg500", "pr"], lmax=6)
    again = address.white(2, ["pr"], lmax=6)
    np.testing.assert_array_equal(white[1], again[0])
    for other in (
        NoiseAddress(seed=4, realization=5, time="2002-01-15T12:00:00"),
        NoiseAddress(seed=3, realization=6, time="2002-01-15T12:00:00"),
        NoiseAddress(seed=3, realization=5, time="2002-01-16T12:00:00"),
    ):
        assert not np.array_equal(other.white(2, ["pr"], lmax=6), again)
    assert not np.array_equal(address.white(1, ["pr"], lmax=6), again)


def test_a_larger_lmax_extends_the_noise():
    """T-16: the low degrees see the same numbers."""
    address = NoiseAddress(seed=0, realization=0, time="2000-01-01")
    low, high = (address.white(0, ["t"], lmax) for lmax in (5, 11))
    np.testing.assert_array_equal(high[:, :36], low)


def test_noise_is_white():
    """Four standard errors of mean and variance over 40 realizations of 1024 numbers."""
    draws = np.stack(
        [NoiseAddress(seed=0, realization=r, time="").white(0, ["t"], 31) for r in range(40)]
    )
    assert abs(draws.mean()) < 4 / draws.size**0.5
    assert abs(draws.var() - 1) < 4 * (2 / draws.size) ** 0.5


def test_the_two_point_law_comes_out_in_two_halves():
    """T-20 without a network: the exact score, signs fair within four standard errors."""
    law, fields = TwoPoint(3.0), 4000
    generator = torch.Generator().manual_seed(1)
    shape = (fields, *law.baseline.variance.shape)
    drawn = Sampler(steps=16)(
        law, lambda step: torch.randn(shape, generator=generator), torch.zeros(fields, 1)
    )
    first = drawn[:, 0, 0]
    assert abs(float((first > 0).double().mean()) - 0.5) < 4 * 0.5 / fields**0.5
    assert float(first.abs().mean()) == pytest.approx(3.0, abs=0.1)
