from functools import partial

import numpy as np
import pytest
import torch

from pipeline.diffusion.integrators import OneStep
from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.diffusion.sampler import INTEGRATORS, Sampler, residual_energy
from pipeline.diffusion.score import GaussianScore
from tests.pipeline.closed_forms import Diagonal, TwoPoint
from tests.pipeline.diffusion.measured import opt

EXACT = {  # for Gaussian data
    **{name: INTEGRATORS[name] for name in INTEGRATORS if name not in ("ei", "mei")},
    "opt": OneStep(opt(np.array([1e-3, 2.5]), np.zeros((2, 1, 5)))),
}


class Counting(TwoPoint):
    """The two-point law, with the times at which it was asked for its residual."""

    def residual(self, t: torch.Tensor, y: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        self.asked = [*getattr(self, "asked", []), float(t[0])]
        return super().residual(t, y, condition)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("name", EXACT)
def test_gaussian_data_come_out_with_their_variance_for_any_number_of_steps(name, steps):
    """T-7: from the response of the end to a unit of noise at the start and at each step alone."""
    variance = torch.tensor([[0.01, 0.1, 1.0, 2.0, 50.0]], dtype=torch.float64)
    integrator = EXACT[name]

    def noise(step: int) -> torch.Tensor:
        white = torch.zeros(steps + 1, 1, 5, dtype=torch.float64)
        white[step] = 1.0
        return white

    sampler = Sampler(integrator=integrator, evaluations=steps * integrator.evaluations_per_step)
    drawn = sampler(GaussianScore(Diagonal(variance)), noise, torch.zeros(steps + 1, 1))[:, 0]
    np.testing.assert_allclose(drawn.square().sum(0), variance[0], rtol=1e-12)


@pytest.mark.parametrize("name", INTEGRATORS)
def test_evaluations_and_noise_are_counted_and_the_score_is_not_asked_at_zero(name):
    law, integrator, drawn = Counting(2.0), INTEGRATORS[name], []

    def noise(step: int) -> torch.Tensor:
        drawn.append(step)
        return torch.zeros(2, 1, 4)

    each = integrator.evaluations_per_step
    sampled = Sampler(integrator=integrator, evaluations=4 * each)(law, noise, torch.zeros(2, 1))
    assert sampled.dtype == torch.float32
    assert len(law.asked) == (4 * each if each == 1 else 4 * each - 1)
    assert min(law.asked) > 0
    assert drawn == ([0, 1, 2, 3, 4] if integrator.stochastic else [0])


@pytest.mark.parametrize("evaluations", [0, 33])
def test_evaluations_make_whole_steps(evaluations):
    with pytest.raises(ValueError, match=f"multiple of 2, .* got {evaluations}"):
        Sampler(integrator=INTEGRATORS["z-heun"], evaluations=evaluations)


@pytest.mark.parametrize("name", INTEGRATORS)
def test_the_two_point_law_comes_out_in_two_halves(name):
    """T-20 without a network: the exact score, signs fair within four standard errors."""
    law, fields = TwoPoint(3.0), 4000
    generator = torch.Generator().manual_seed(1)
    shape = (fields, *law.baseline.variance.shape)
    drawn = Sampler(integrator=INTEGRATORS[name], evaluations=32)(
        law, lambda step: torch.randn(shape, generator=generator), torch.zeros(fields, 1)
    )
    first = drawn[:, 0, 0]
    assert abs(float((first > 0).double().mean()) - 0.5) < 4 * 0.5 / fields**0.5
    assert float(first.abs().mean()) == pytest.approx(3.0, abs=0.1 if name != "ei" else 0.3)


def test_the_measured_energy_of_a_residual_is_the_known_one():
    """E rho^2 of the two-point law, within four standard errors; zero in white coefficients."""
    law, fields, times = TwoPoint(2.0), 4000, np.array([0.05, 0.5, 1.5])
    generator = torch.Generator().manual_seed(0)
    x_0 = law.sample(fields, generator)
    energy = residual_energy(law, x_0, torch.zeros(fields, 1), times, generator)
    again = torch.tensor(times)[:, None, None, None] * torch.ones(3, fields, 1, 4)
    assert energy.shape == (3, 1, 4)
    np.testing.assert_allclose(energy[..., 1:], 0, atol=1e-20)
    for measured, t in zip(energy[:, 0, 0], again[:, 0, 0, 0], strict=True):
        y = OrnsteinUhlenbeck().perturb(x_0, t, torch.randn(x_0.shape, generator=generator))
        spread = law.residual(t.expand(fields), y, x_0)[:, 0, 0].square().std()
        known = law.entropies(float(t)).residual
        assert abs(measured - known) < 4 * float(spread) / fields**0.5


def test_a_grid_is_any_function_of_the_number_of_steps():
    grid = partial(OrnsteinUhlenbeck(horizon=2.0).power_grid, exponent=1.0)
    sampler = Sampler(integrator=INTEGRATORS["z-rk4"], evaluations=8, grid=grid)
    np.testing.assert_allclose(sampler.times, [2.0, 1.0, 0.0])
