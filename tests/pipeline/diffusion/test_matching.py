import numpy as np
import pytest
import torch

from pipeline.diffusion.matching import MatchedScore, match
from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.diffusion.sampler import INTEGRATORS, Sampler
from pipeline.sphere.coefficients import degrees
from tests.pipeline.closed_forms import Diagonal, RadialMixture

GRID = OrnsteinUhlenbeck().power_grid(24)


class Contracting:
    """A wrong score: each degree of a Gaussian law contracted at its own rate."""

    def __init__(self, lmax: int = 6) -> None:
        self.degree = torch.as_tensor(degrees(lmax))
        self.baseline = Diagonal((2.0 / (1 + self.degree))[None].expand(2, -1).clone())
        self.rates = 0.3 / (1.0 + torch.arange(lmax + 1))

    def residual(self, t, y, condition):
        return -self.rates[self.degree] * y


def drawn(score, integrator: str, evaluations: int, fields: int = 400) -> torch.Tensor:
    sampler = Sampler(integrator=INTEGRATORS[integrator], evaluations=evaluations)
    generator = torch.Generator().manual_seed(5)
    white = torch.randn((fields, *score.baseline.variance.shape), generator=generator)
    return sampler(score, lambda step: white, torch.zeros(fields, 1))


def test_a_contraction_is_measured_and_undone():
    score = Contracting()
    matched = match(score, torch.zeros(40, 1), GRID, torch.Generator().manual_seed(0))
    # Heun's step of rate c leaves c + O(c^3 h^2).
    expected = score.rates.expand(24, 2, -1)
    np.testing.assert_allclose(matched.rates, expected, atol=2e-4)
    truth = Diagonal(score.baseline.variance).color
    white = torch.randn(
        (400, *score.baseline.variance.shape), generator=torch.Generator().manual_seed(5)
    )
    for integrator, evaluations in (("z-heun", 24), ("z-ab2", 24), ("z-rk4", 24)):
        torch.testing.assert_close(
            drawn(matched, integrator, evaluations), truth(white), rtol=2e-3, atol=2e-4
        )


def test_without_it_the_flow_loses_that_much():
    score = Contracting()
    lost = drawn(score, "z-heun", 48).square().mean(dim=0) / drawn(
        match(score, torch.zeros(40, 1), GRID, torch.Generator().manual_seed(0)), "z-heun", 48
    ).square().mean(dim=0)
    expected = torch.exp(-2 * score.rates * OrnsteinUhlenbeck().horizon)[score.degree]
    np.testing.assert_allclose(lost, expected.expand(2, -1), rtol=5e-3)


def test_an_exact_score_needs_no_matching():
    """Its flow has the spectra of the law: the rates are noise, smaller with more fields."""
    law, condition = RadialMixture(4, (0.3, 2.0), (0.5, 0.5)), torch.zeros(3000, 1)
    matched = match(law, condition, GRID, torch.Generator().manual_seed(1))
    # Log power of degree 4 along the whole flow; its sd over seeds is 0.003 (12 seeds).
    total = (matched.rates[:, 0] * torch.as_tensor(-np.diff(GRID))[:, None]).sum(dim=0)
    assert (total[:4].abs() < 1e-6).all()
    assert abs(float(total[4])) < 4 * 0.003


def test_rates_do_not_depend_on_how_fields_are_batched():
    law = RadialMixture(3, (0.5, 1.5), (0.5, 0.5))
    one, other = (
        match(law, torch.zeros(50, 1), GRID, torch.Generator().manual_seed(2), batch=batch)
        for batch in (50, 7)
    )
    torch.testing.assert_close(one.rates, other.rates)


def test_rates_are_linear_in_the_root_of_time_and_constant_beyond():
    rates = torch.tensor([1.0, 3.0, 2.0])[:, None, None].expand(-1, 2, 4).double()
    matched = MatchedScore(Contracting(3), torch.tensor([1.0, 0.25, 0.01]).double(), rates)
    asked = torch.tensor([2.0, 1.0, 0.75**2, 0.25, 0.3**2, 0.01, 0.0]).double()
    np.testing.assert_allclose(matched.rate(asked)[:, 1, 2], [1, 1, 2, 3, 2.5, 2, 2])


def test_each_field_of_a_batch_has_the_rate_of_its_own_time():
    score = Contracting()
    matched = match(score, torch.zeros(8, 1), GRID, torch.Generator().manual_seed(0))
    y, t = (
        torch.randn(3, 2, 49, generator=torch.Generator().manual_seed(3)),
        torch.tensor([2.0, 0.3, 0.01]),
    )
    together = matched.residual(t, y, torch.zeros(3, 1))
    for k in range(3):
        alone = matched.residual(t[k : k + 1], y[k : k + 1], torch.zeros(1, 1))
        torch.testing.assert_close(together[k : k + 1], alone)


@pytest.mark.parametrize("t", [0.02, 1.0])
def test_the_matched_score_can_be_differentiated(t):
    """Its likelihood needs the derivative of the residual."""
    score = Contracting()
    matched = match(score, torch.zeros(8, 1), GRID, torch.Generator().manual_seed(0))
    y = torch.randn(1, 2, 49, generator=torch.Generator().manual_seed(3)).requires_grad_()
    matched.residual(torch.tensor([t]), y, torch.zeros(1, 1)).sum().backward()
    assert y.grad is not None
    assert float(y.grad.abs().max()) < 1e-3  # what was lost is returned
