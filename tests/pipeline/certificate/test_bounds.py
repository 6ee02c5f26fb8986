"""T-13: the bounds of Theorems A to D against divergences that are computed by quadrature."""

import itertools
import math

import numpy as np
import pytest
import torch

from pipeline.certificate.bounds import model_step_term, start_bound
from pipeline.diffusion.integrators import ei, gme, mei
from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.diffusion.sampler import residual_energy
from tests.pipeline.certificate.theorems import theorem_a, theorem_b, theorem_c, theorem_d
from tests.pipeline.closed_forms import Diagonal, TwoPoint

LAW = TwoPoint(2.0)
HORIZON = 2.0
KL = LAW.entropies(0.0).kl


def known(name: str):
    """A quantity of LAW.entropies as a function of an array of times."""
    return lambda times: np.array([getattr(LAW.entropies(t), name) for t in times])


def divergence_of_the_output(score, transition, start_variance: float, times) -> float:
    """KL(data noised to the last time | output) of the first coordinate [nats]."""
    y = torch.linspace(-10, 10, 601, dtype=torch.float64)
    fields = torch.zeros(len(y), 1, 4, dtype=torch.float64)
    fields[:, 0, 0] = y
    grid, s = torch.as_tensor(times), score.baseline.variance[0, 0]
    step = float(y[1] - y[0])
    density = torch.exp(-(y**2) / (2 * start_variance)) / math.sqrt(2 * math.pi * start_variance)
    for t, t_next in itertools.pairwise(grid):
        phi, weight, tau = transition(t, t_next, s)
        rho = score.residual(t.expand(len(y)), fields, torch.zeros(len(y), 1))[:, 0, 0]
        gap = (y[:, None] - phi * y - weight * rho) / tau
        density = (torch.exp(-(gap**2) / 2) / (tau * math.sqrt(2 * math.pi))) @ density * step
    truth = LAW.log_density(y.numpy(), float(grid[-1]))
    return float((np.exp(truth) * (truth - np.log(density.numpy()))).sum() * step)


class Whole:
    """The score of LAW times `scale`, none of it left to the baseline."""

    def __init__(self, scale: float) -> None:
        self.scale, self.baseline = scale, Diagonal(torch.ones(1, 4))

    def residual(self, t, y, condition):
        return self.scale * LAW.score(t, y)


@pytest.mark.parametrize("scale", [1.0, 0.8, 0.5])
@pytest.mark.parametrize("steps", [8, 32])
def test_theorem_a_bounds_the_exponential_integrator(scale, steps):
    times = OrnsteinUhlenbeck(horizon=HORIZON).power_grid(steps, exponent=1.0)
    fisher = known("fisher")
    error = (1 - scale) ** 2 * fisher(times[:-1])
    bound = theorem_a(KL, fisher, error, times)
    true = divergence_of_the_output(Whole(scale), ei, 1.0, times)
    assert 0 < true <= bound.total
    h, information = HORIZON / steps, float(fisher(np.zeros(1))[0])
    simple = math.exp(-2 * HORIZON) * KL + (1 + 0.36 * h) * h * error.sum() + h * information
    assert bound.total <= simple


@pytest.mark.parametrize(
    ("eta", "step", "bound"), [(0.5, 0.562, 0.684), (0.25, 0.306, 0.342), (0.1, 0.130, 0.137)]
)
def test_theorem_b_needs_no_fisher_information(eta, step, bound):
    times = 1e-3 * (1 + eta) ** np.arange(math.ceil(math.log(6e3) / math.log(1 + eta)), -1.0, -1.0)
    nothing = np.zeros(len(times) - 1)
    assert theorem_a(KL, known("fisher"), nothing, times).step == pytest.approx(step, abs=5e-4)
    found = theorem_b(KL, nothing, times)
    assert found.step == pytest.approx(bound, abs=5e-4)
    assert found.score == 0


@pytest.mark.parametrize("scale", [1.0, 0.8, 0.5])
def test_theorem_b_bounds_the_exponential_integrator_stopped_early(scale):
    times = 0.05 * 1.25 ** np.arange(18.0, -1.0, -1.0)
    error = (1 - scale) ** 2 * known("fisher")(times[:-1])
    true = divergence_of_the_output(Whole(scale), ei, 1.0, times)
    assert 0 < true <= theorem_b(KL, error, times).total


@pytest.mark.parametrize("scale", [1.0, 0.8, 0.5])
@pytest.mark.parametrize("steps", [8, 32])
def test_theorem_c_bounds_the_mean_exact_step_from_the_reference(scale, steps):
    times = OrnsteinUhlenbeck(horizon=HORIZON).power_grid(steps, exponent=1.0)
    fisher = known("fisher")
    error = (1 - scale) ** 2 * fisher(times[:-1])
    bound = theorem_c(LAW.entropies(HORIZON).kl, fisher, error, times)
    true = divergence_of_the_output(Whole(scale), mei, 1.0, times)
    assert 0 < true <= bound.total
    # On paths it is an identity: KL(data | gamma) less the certificate over gamma.
    grown = (np.exp(2 * HORIZON / steps) - 1) / 2
    certified = grown * (fisher(times[:-1]) - error).sum()
    assert bound.total == pytest.approx(KL - certified, abs=1e-9)


@pytest.mark.parametrize(
    ("steps", "bound", "true"),
    [(8, 0.0696, 0.0296), (16, 0.0379, 0.0091), (32, 0.0198, 0.0026), (64, 0.0101, 0.0007)],
)
def test_theorem_d_is_made_of_what_is_not_gaussian(steps, bound, true):
    times = OrnsteinUhlenbeck(horizon=HORIZON).power_grid(steps, exponent=1.0)
    start = LAW.entropies(HORIZON).negentropy
    found = theorem_d(start, known("residual"), np.zeros(steps), times, 1 + LAW.a**2)
    assert found.total == pytest.approx(bound, abs=6e-5)
    if steps == 32:  # the negentropy less J_G, see test_certificate
        assert found.total == pytest.approx(0.171998762 - 0.152222903, abs=1e-8)
    v = 1 + math.exp(-2 * HORIZON) * LAW.a**2
    assert divergence_of_the_output(LAW, gme, v, times) == pytest.approx(true, abs=6e-5)


@pytest.mark.parametrize("scale", [0.8, 0.5])
def test_theorem_d_counts_the_error_of_the_score(scale):
    times = OrnsteinUhlenbeck(horizon=HORIZON).power_grid(16, exponent=1.0)
    start, residual = LAW.entropies(HORIZON).negentropy, known("residual")
    error = (1 - scale) ** 2 * residual(times[:-1])
    found = theorem_d(start, residual, error, times, 1 + LAW.a**2)
    v = 1 + math.exp(-2 * HORIZON) * LAW.a**2
    true = divergence_of_the_output(TwoPoint(2.0, scale=scale), gme, v, times)
    assert 0 < true <= found.total


@pytest.mark.parametrize(("horizon", "nats"), [(3.0, 5.24), (4.0, 0.709), (6.0, 0.013)])
def test_known_bounds_of_the_start(horizon, nats):
    """lmax 64, data with the spectrum of the reference."""
    ones = torch.ones(1, 65**2)
    assert start_bound(ones, ones, horizon) == pytest.approx(nats, rel=2e-3)


def test_the_bound_of_the_start_holds_for_both_starts():
    moments = 1 + torch.tensor([[LAW.a**2]], dtype=torch.float64)
    for horizon in (0.5, 1.0, 2.0):
        known_here = LAW.entropies(horizon)
        from_reference = start_bound(moments, torch.ones(1, 1), horizon)
        matched = start_bound(moments, moments, horizon)
        assert known_here.kl <= from_reference
        assert known_here.negentropy <= matched
        # Pythagoras: the starts differ by the divergence of the Gaussian laws.
        assert from_reference - matched == pytest.approx(known_here.kl - known_here.negentropy)


def test_the_model_based_step_term_of_an_exact_score_is_near_the_true_one():
    times = OrnsteinUhlenbeck(horizon=HORIZON).power_grid(64, exponent=2.0)
    x_0 = LAW.sample(20_000, torch.Generator().manual_seed(0))
    condition, noise = torch.zeros(len(x_0), 1), torch.Generator().manual_seed(1)
    energy = residual_energy(LAW, x_0, condition, times[:-1], noise, batch=20_000)
    found = model_step_term(energy, LAW.baseline.variance, times)
    assert len(found) == 63
    without_last = theorem_d(0.0, known("residual"), np.zeros(63), times[:-1], 1 + LAW.a**2)
    assert found.sum() == pytest.approx(without_last.step, rel=0.1)
