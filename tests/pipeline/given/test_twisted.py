"""Matheron's rule and the twisted chain, against dense kriging and a posterior in closed form."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.stats import chi2, multivariate_normal

from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.diffusion.sampler import Sampler
from pipeline.diffusion.score import GaussianScore
from pipeline.gaussian.posterior import GaussianPosterior
from pipeline.given.twisted import TwistedChain, TwistedDraws
from tests.pipeline.closed_forms import Dense, TwoPoint

SIZE, SEEN = 9, 3
GENERATOR = np.random.default_rng(0)
ROOT = GENERATOR.standard_normal((SIZE, SIZE)) / 2
COVARIANCE = ROOT @ ROOT.T + 0.3 * np.eye(SIZE)
OPERATOR = GENERATOR.standard_normal((SEEN, SIZE))
VALUES = np.array([1.0, -2.0, 0.5])
NOISES = {
    "independent errors, one of them 0": np.diag([0.1, 0.4, 0.0]),
    "errors that covary": np.array([[0.3, 0.1, 0.0], [0.1, 0.4, -0.2], [0.0, -0.2, 0.5]]),
}


def kriging(noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of X given the observations, by dense algebra."""
    gain = COVARIANCE @ OPERATOR.T @ np.linalg.inv(OPERATOR @ COVARIANCE @ OPERATOR.T + noise)
    return gain @ VALUES, COVARIANCE - gain @ OPERATOR @ COVARIANCE


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(array, dtype=torch.float64)


def posterior(noise: np.ndarray) -> GaussianPosterior:
    return GaussianPosterior(Dense(COVARIANCE), tensor(OPERATOR[:, None]), tensor(noise))


def moments(draw: object, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of draws that are affine in their noise, from its unit vectors.

    Row 0 has no noise, the others one of all numbers of fields and errors of all steps each.
    """
    each = SIZE + SEEN
    count = 1 + steps * each

    def unit(step: int, first: int, size: int) -> torch.Tensor:
        white = torch.zeros(count, size, dtype=torch.float64)
        places = torch.arange(size)
        white[1 + step * each + first + places, places] = 1.0
        return white

    x = draw(lambda k: unit(k, 0, SIZE)[:, None], lambda k: unit(k, SIZE, SEEN))[:, 0].numpy()
    response = x[1:] - x[0]
    return x[0], response.T @ response


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_matheron_draws_have_mean_and_covariance_of_kriging(noise):
    law, values = posterior(noise), tensor(VALUES)
    mean, covariance = moments(lambda white, error: law.draw(white(0), error(0), values), 1)
    expected = kriging(noise)
    np.testing.assert_allclose(mean, expected[0], atol=1e-12)
    np.testing.assert_allclose(covariance, expected[1], atol=1e-12)
    np.testing.assert_allclose(law.mean(values)[0], expected[0], atol=1e-12)
    every = tensor(np.eye(SIZE)[:, None])
    np.testing.assert_allclose(law.covariance(every), expected[1], atol=1e-12)


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_the_evidence_is_the_density_of_the_observations(noise):
    law = multivariate_normal(cov=OPERATOR @ COVARIANCE @ OPERATOR.T + noise)
    found = posterior(noise).log_evidence(tensor(np.stack([VALUES, 0 * VALUES])))
    np.testing.assert_allclose(found, law.logpdf([VALUES, 0 * VALUES]), rtol=1e-12)


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
@pytest.mark.parametrize("steps", [1, 2, 32])
def test_the_twisted_chain_of_a_gaussian_law_is_kriging_in_any_number_of_steps(steps, noise):
    chain = TwistedChain(
        score=GaussianScore(Dense(COVARIANCE)),
        operator=tensor(OPERATOR[:, None]),
        noise=tensor(noise),
        times=torch.as_tensor(OrnsteinUhlenbeck().power_grid(steps)),
    )
    found: list[TwistedDraws] = []

    def draw(white, error):
        found.append(
            chain(
                tensor(VALUES[None]),
                torch.zeros(1, 1),
                lambda k: white(k)[None],
                lambda k: error(k)[None],
                lambda k: torch.full((1,), 0.5),
            )
        )
        return found[0].x[0]

    mean, covariance = moments(draw, steps + 1)
    expected = kriging(noise)
    np.testing.assert_allclose(mean, expected[0], atol=1e-12)
    np.testing.assert_allclose(covariance, expected[1], atol=1e-12)
    assert found[0].effective.item() == pytest.approx(1.0, abs=1e-12)
    evidence = posterior(noise).log_evidence(tensor(VALUES))
    assert found[0].log_evidence.item() == pytest.approx(evidence.item(), rel=1e-12)


A, R, OBSERVED = 2.0, 0.5, 0.8


def two_point(
    steps: int,
    particles: int,
    seed: int,
    values: Sequence[float] = (OBSERVED,),
    weighted: bool = True,
) -> TwistedDraws:
    """Particles of +-a + Z whose first coefficient is observed with an error of variance R."""
    generator = torch.Generator().manual_seed(seed)
    operator = torch.zeros(1, 1, 4, dtype=torch.float64)
    operator[0, 0, 0] = 1.0
    chain = TwistedChain(
        score=TwoPoint(A),
        operator=operator,
        noise=tensor(np.array([[R]])),
        times=torch.as_tensor(OrnsteinUhlenbeck().power_grid(steps)),
        weighted=weighted,
    )
    dates = len(values)

    def normal(*shape: int) -> torch.Tensor:
        shape = (dates, particles, *shape)
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return chain(
        tensor(np.array(values)[:, None]),
        torch.zeros(dates, 1),
        lambda k: normal(1, 4),
        lambda k: normal(1),
        lambda k: torch.rand(dates, generator=generator, dtype=torch.float64),
    )


def exact_mean_and_evidence() -> tuple[float, float]:
    """Of the first coefficient: a mixture whose weights tilt with the observation."""
    tilt = np.exp(-((OBSERVED - np.array([A, -A])) ** 2) / (2 * (1 + R)))
    means = (R * np.array([A, -A]) + OBSERVED) / (1 + R)
    density = tilt.mean() / math.sqrt(2 * math.pi * (1 + R))
    return float(tilt @ means / tilt.sum()), math.log(density)


@pytest.mark.parametrize(
    ("steps", "mean", "slack"), [(16, 0.99, 0.08), (32, 1.02, 0.05), (64, 1.045, 0.03)]
)
def test_the_posterior_of_the_two_point_law_is_met_as_steps_grow(steps, mean, slack):
    """The chain's own law tends to the posterior (mean 1.0588, kriging says 0.727) like the step.

    20,000 particles: the standard error of a mean is 0.009; that of the evidence is smaller, and
    its error is the chain's own, like the step.
    """
    exact, evidence = exact_mean_and_evidence()
    assert exact == pytest.approx(1.0588, abs=1e-4)
    found = two_point(steps, 20_000, seed=3)
    assert found.x[0, :, 0, 0].mean().item() == pytest.approx(mean, abs=0.03)
    assert found.effective.item() > 0.88
    assert found.log_evidence.item() == pytest.approx(evidence, abs=slack)


def test_weights_matter_where_a_law_is_not_gaussian():
    """The proposals alone miss the posterior by more than the weighted particles do."""
    exact, _ = exact_mean_and_evidence()
    weighted, alone = (two_point(64, 20_000, seed=4, weighted=w) for w in (True, False))
    miss = [abs(found.x[0, :, 0, 0].mean().item() - exact) for found in (weighted, alone)]
    assert miss[0] < 0.03 < miss[1]


def test_ranks_of_the_truth_among_posterior_draws_are_uniform():
    """Simulation-based calibration: 200 draws of the chain itself, observed, then drawn again."""
    dates, steps, others = 200, 16, 31
    generator = torch.Generator().manual_seed(7)

    def noise(step: int) -> torch.Tensor:
        return torch.randn((dates, 1, 4), generator=generator, dtype=torch.float64)

    drawn = Sampler(evaluations=steps)(TwoPoint(A), noise, torch.zeros(dates, 1))
    truth = drawn[:, 0, 0].numpy()
    values = truth + math.sqrt(R) * torch.randn(dates, generator=generator).numpy()
    found = two_point(steps, 256, seed=8, values=values).x[:, :, 0, 0].numpy()
    some = np.random.default_rng(9).permuted(found, axis=1)[:, :others]
    ranks = (some < truth[:, None]).sum(axis=1)
    counts = np.histogram(ranks, bins=np.linspace(-0.5, others + 0.5, 9))[0]
    statistic = ((counts - dates / 8) ** 2 / (dates / 8)).sum()
    assert statistic < chi2(7).ppf(0.999)


def test_observations_of_other_fields_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        GaussianPosterior(Dense(COVARIANCE), torch.zeros(2, 1, 5), torch.eye(2))


def test_the_same_thing_observed_twice_without_error_is_refused():
    twice = tensor(np.stack([OPERATOR[:1], OPERATOR[:1]]))
    with pytest.raises(ValueError, match="leave it out, or give it an error"):
        GaussianPosterior(Dense(COVARIANCE), twice, torch.zeros(2, 2, dtype=torch.float64))
