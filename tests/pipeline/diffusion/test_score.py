import numpy as np
import pytest
import torch

from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.diffusion.score import GaussianScore, Posterior, gaussian_score
from tests.pipeline.closed_forms import Diagonal, TwoPoint

TIMES = torch.tensor([1e-3, 0.05, 0.5, 2.0], dtype=torch.float64)


def test_the_score_is_the_derivative_of_the_log_density_against_the_reference():
    """T-5: b = y + grad log p_t, by automatic differentiation of the two-point law."""
    law = TwoPoint(2.0)
    for t in TIMES:
        y = torch.linspace(-3, 3, 7, dtype=torch.float64).reshape(7, 1, 1).repeat(1, 1, 4)
        y.requires_grad_()
        mean = 2.0 * torch.exp(-t)
        first = y[:, 0, 0]
        log_p = torch.logaddexp(-((first - mean) ** 2) / 2, -((first + mean) ** 2) / 2)
        log_p = log_p - y[:, 0, 1:].square().sum(1) / 2
        (gradient,) = torch.autograd.grad(log_p.sum(), y)
        expected = (y + gradient).detach()
        actual = gaussian_score(law.baseline, t.expand(7), y) + law.residual(
            t.expand(7), y, torch.zeros(7, 1)
        )
        np.testing.assert_allclose(actual.detach(), expected, atol=1e-10)


def test_the_score_is_the_conditional_expectation_of_the_denoised_field():
    """T-5: b = (e^-t / sigma^2) (E[Y_0 | y] - e^-t y), the mean by quadrature over Y_0."""
    law, t = TwoPoint(2.0), torch.tensor(0.4, dtype=torch.float64)
    alpha, sigma = OrnsteinUhlenbeck.alpha(t), OrnsteinUhlenbeck.sigma(t)
    y_0 = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    prior = torch.from_numpy(np.exp(law.log_density(y_0.numpy(), 0.0)))
    for y in (-1.3, 0.2, 2.0):
        likelihood = torch.exp(-((y - alpha * y_0) ** 2) / (2 * sigma**2))
        mean = (y_0 * prior * likelihood).sum() / (prior * likelihood).sum()
        expected = float(alpha / sigma**2 * (mean - alpha * y))
        field = torch.zeros(1, 1, 4, dtype=torch.float64)
        field[0, 0, 0] = y
        assert float(law.score(t.expand(1), field)[0, 0, 0]) == pytest.approx(expected, rel=1e-9)


def test_the_gaussian_score_of_the_reference_itself_is_zero():
    y = torch.randn(3, 1, 4, generator=torch.Generator().manual_seed(0))
    baseline = Diagonal(torch.ones(1, 4))
    assert not gaussian_score(baseline, torch.tensor([0.1, 1.0, 2.0]), y).any()
    assert not GaussianScore(baseline).residual(torch.ones(3), y, torch.zeros(3, 1)).any()


def test_the_learned_target_has_unit_variance_and_is_uncorrelated_with_its_input():
    """Section 7: for every direction and time; four standard errors over 100,000 draws."""
    s = torch.tensor([[0.05, 1.0, 20.0]], dtype=torch.float64)
    generator, n = torch.Generator().manual_seed(0), 100_000
    for t in TIMES:
        posterior = Posterior(t.reshape(1), s)
        y_0 = s.sqrt() * torch.randn(n, 1, 3, generator=generator, dtype=torch.float64)
        noise = torch.randn(n, 1, 3, generator=generator, dtype=torch.float64)
        y_t = posterior.alpha * y_0 + posterior.sigma * noise
        target = posterior.target(y_0, y_t)
        assert (abs(target.var(0) - 1) < 4 * (2 / n) ** 0.5).all()
        correlation = (target * y_t * posterior.c_in).mean(0)
        assert (abs(correlation) < 4 / n**0.5).all()


def test_the_target_and_its_scale_give_the_tweedie_residual():
    """rho_tgt = b_tgt - (1 - 1/V) y with b_tgt = (e^-t / sigma^2)(y_0 - e^-t y)."""
    s = torch.tensor([[0.3, 4.0]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    y_0, y = torch.randn(2, 5, 1, 2, generator=generator, dtype=torch.float64)
    t = torch.full((5,), 0.3, dtype=torch.float64)
    posterior = Posterior(t, s)
    b_target = posterior.alpha / posterior.sigma**2 * (y_0 - posterior.alpha * y)
    expected = b_target - (1 - 1 / posterior.variance) * y
    np.testing.assert_allclose(
        posterior.residual_scale * posterior.target(y_0, y), expected, rtol=1e-12
    )
