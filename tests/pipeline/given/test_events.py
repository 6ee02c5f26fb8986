"""Probabilities of rare events by draws that have them."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.diffusion.score import GaussianScore, Score
from pipeline.given.events import log_probability, proposed_cut, proposed_exponential
from pipeline.given.twisted import TwistedChain, TwistedDraws
from tests.pipeline.closed_forms import Diagonal, TwoPoint

A, REPEATS, PARTICLES = 2.0, 40, 64
DEVIATION = math.sqrt(1.0 + A**2)
UNIFORM = (np.arange(100_000) + 0.5) / 100_000


def test_values_of_the_cut_law_all_weigh_the_probability():
    values, logs = proposed_cut(6.0, 2.0, UNIFORM[::100])
    assert values.min() >= 6.0
    weights = norm.pdf(values, scale=2.0) * np.exp(logs)
    np.testing.assert_allclose(weights, norm.sf(3.0), rtol=1e-9)
    assert log_probability(6.0, 2.0) == pytest.approx(norm.logsf(3.0))


@pytest.mark.parametrize("threshold", [-3.0, 0.5, 3.0, 9.0])
def test_exponential_proposals_have_the_probability_as_their_mean_weight(threshold):
    values, logs = proposed_exponential(threshold, 1.5, UNIFORM)
    weights = norm.pdf(values, scale=1.5) * np.exp(logs)
    assert weights.mean() == pytest.approx(norm.sf(threshold / 1.5), rel=1e-3)
    assert weights.max() < 3.0 * weights.mean()


def given_event(score: Score, threshold: float, steps: int, seed: int) -> TwistedDraws:
    """Particles whose first coefficient is above a threshold, in several repetitions."""
    generator = torch.Generator().manual_seed(seed)
    coefficients = score.baseline.variance.shape[1]
    operator = torch.zeros(1, 1, coefficients, dtype=torch.float64)
    operator[0, 0, 0] = 1.0
    chain = TwistedChain(
        score=score,
        operator=operator,
        noise=torch.full((1, 1), 1e-10, dtype=torch.float64),
        times=torch.as_tensor(OrnsteinUhlenbeck().power_grid(steps)),
    )
    deviation = float(score.baseline.variance[0, 0]) ** 0.5
    uniform = np.random.default_rng(seed).random((REPEATS, PARTICLES))
    values, logs = proposed_exponential(threshold, deviation, uniform)

    def normal(*shape: int) -> torch.Tensor:
        shape = (REPEATS, PARTICLES, *shape)
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return chain(
        torch.from_numpy(values)[..., None],
        torch.zeros(REPEATS, 1),
        lambda k: normal(1, coefficients),
        lambda k: normal(1),
        lambda k: torch.rand(REPEATS, generator=generator, dtype=torch.float64),
        torch.from_numpy(logs),
    )


def estimates(found: TwistedDraws) -> np.ndarray:
    return np.exp(found.log_evidence.numpy())


def test_a_rare_event_of_a_gaussian_law_costs_a_hundredth_of_plain_draws():
    threshold, probability = norm.isf(1e-3, scale=DEVIATION), 1e-3
    score = GaussianScore(Diagonal(torch.tensor([[1.0 + A**2, 1.0, 1.0, 1.0]])))
    found = given_event(score, threshold, 4, seed=1)
    chances = estimates(found)
    plain = probability * (1 - probability) / PARTICLES
    assert chances.var(ddof=1) < plain / 100
    error = chances.std(ddof=1) / REPEATS**0.5
    assert abs(chances.mean() - probability) < 4 * error
    assert (found.x[:, :, 0, 0] > threshold - 1e-3).all()


def test_a_rare_event_of_the_two_point_law_costs_a_tenth_of_plain_draws():
    """Its Gaussian law says 0.014, the law itself 0.001; the chain errs by its steps."""
    threshold = 4.88
    probability = (norm.sf(threshold - A) + norm.sf(threshold + A)) / 2
    assert probability == pytest.approx(1e-3, rel=0.02)
    assert norm.sf(threshold / DEVIATION) > 0.01
    found = given_event(TwoPoint(A), threshold, 64, seed=2)
    chances = estimates(found)
    plain = probability * (1 - probability) / PARTICLES
    assert chances.var(ddof=1) < plain / 10
    assert chances.mean() == pytest.approx(probability, rel=0.25)
    assert (found.x[:, :, 0, 0] > threshold - 1e-3).all()


def test_the_printed_standard_error_is_that_of_the_estimates():
    found = given_event(TwoPoint(A), 4.88, 32, seed=3)
    chances = estimates(found)
    printed = chances.mean() * ((1 / found.effective.numpy() - 1).clip(0) / PARTICLES) ** 0.5
    assert 0.5 < np.median(printed) / chances.std(ddof=1) < 3.0
