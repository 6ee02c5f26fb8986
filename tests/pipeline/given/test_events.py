"""Probabilities of rare events by draws that have them."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.diffusion.score import GaussianScore, Score
from pipeline.given.events import (
    log_probability,
    proposed_cut,
    proposed_exponential,
    ratio,
)
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


def test_the_standard_error_of_a_ratio_of_pairs_covers_it():
    """Estimates that err alike: both logs by the same normal number, and a little of their own."""
    random, scores = np.random.default_rng(6), []
    for _ in range(400):
        both, own = random.standard_normal((24, 1)), random.standard_normal((24, 2))
        pairs = np.array([0.02, 0.005]) * np.exp(0.5 * both + 0.1 * own - 0.13)
        found = ratio(pairs[:, 0], pairs[:, 1], (np.nan, np.nan))
        assert found.paired
        scores.append(math.log(found.probability / 4.0) / found.log_error)
        odds = 0.02 / 0.98 / (0.005 / 0.995)
        assert found.odds == pytest.approx(found.probability * odds / 4.0, rel=0.03)
    assert abs(np.mean(scores)) < 4 / 400**0.5
    assert 0.9 < np.std(scores) < 1.15


def test_few_pairs_have_the_error_of_independent_estimates():
    found = ratio(np.array([0.02]), np.array([0.01]), (0.002, 0.0005))
    assert not found.paired
    assert found.log_error == pytest.approx(math.hypot(0.1, 0.05))
    assert found.log_odds_error == pytest.approx(math.hypot(0.1 / 0.98, 0.05 / 0.99))


def test_the_same_noise_in_two_worlds_makes_their_ratio_surer():
    """The two-point law, in a world and in one that is warmer by 0.4."""
    threshold = 3.2
    pairs = [
        estimates(given_event(TwoPoint(A), c, 64, seed=4)) for c in (threshold - 0.4, threshold)
    ]
    truth = [(norm.sf(c - A) + norm.sf(c + A)) / 2 for c in (threshold - 0.4, threshold)]
    found = ratio(*pairs, (0.0, 0.0))
    alone = math.hypot(*(one.std(ddof=1) / one.mean() / REPEATS**0.5 for one in pairs))
    assert found.log_error < 0.8 * alone
    assert math.log(found.probability) == pytest.approx(math.log(truth[0] / truth[1]), abs=0.1)
