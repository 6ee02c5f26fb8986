"""T-18: guidance against kriging, and against a posterior mixture in closed form."""

import itertools
import math

import numpy as np
import pytest
import torch

from pipeline.diffusion.conditioning import GuidedScore, point_values
from pipeline.diffusion.integrators import OneStep, gme
from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.diffusion.score import GaussianScore, gaussian_score
from pipeline.gaussian.channel_covariance import mix_channels
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import plan
from tests.pipeline.closed_forms import Dense, TwoPoint

SIZE = 9
GENERATOR = np.random.default_rng(0)
ROOT = GENERATOR.standard_normal((SIZE, SIZE)) / 2
COVARIANCE = ROOT @ ROOT.T + 0.3 * np.eye(SIZE)
OPERATOR = GENERATOR.standard_normal((3, SIZE))
OBSERVED = np.array([1.0, -2.0, 0.5])
NOISE = np.array([0.1, 0.4, 0.0])


def kriging() -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of X given the observations, by dense algebra."""
    gain = COVARIANCE @ OPERATOR.T
    gain = gain @ np.linalg.inv(OPERATOR @ COVARIANCE @ OPERATOR.T + np.diag(NOISE))
    return gain @ OBSERVED, COVARIANCE - gain @ OPERATOR @ COVARIANCE


def guided() -> GuidedScore:
    score = GaussianScore(Dense(COVARIANCE))
    return GuidedScore(score, *(torch.from_numpy(a) for a in (OPERATOR[:, None], OBSERVED, NOISE)))


@pytest.mark.parametrize("t", [0.01, 0.3, 2.0])
def test_the_guided_score_of_a_gaussian_law_is_that_of_the_kriging_posterior(t):
    """T-18, to rounding; t = 0.01 has the largest numbers."""
    score, time = guided(), torch.full((5,), t, dtype=torch.float64)
    x = torch.from_numpy(GENERATOR.standard_normal((5, 1, SIZE)))
    y = score.baseline.rotate(x)
    b = score.baseline.unrotate(
        gaussian_score(score.baseline, time, y) + score.residual(time, y, torch.zeros(5, 1))
    )
    mean, covariance = kriging()
    decay = math.exp(-t)
    noised = decay**2 * covariance + (1 - decay**2) * np.eye(SIZE)
    gap = x[:, 0].numpy() - decay * mean
    expected = x[:, 0].numpy() - np.linalg.solve(noised, gap.T).T
    np.testing.assert_allclose(b[:, 0], expected, rtol=1e-12, atol=1e-12 * abs(expected).max())


def moments_of_the_output(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of what GME draws: the step is affine, so by its responses to noise."""
    score, count = guided(), (steps + 1) * SIZE
    s, condition = score.baseline.variance, torch.zeros(count + 1, 1)
    times = torch.as_tensor(OrnsteinUhlenbeck(horizon=7.0).power_grid(steps))

    def noise(step: int) -> torch.Tensor:
        white = torch.zeros(count + 1, 1, SIZE, dtype=torch.float64)
        white[1 + step * SIZE + torch.arange(SIZE), 0, torch.arange(SIZE)] = 1.0
        return white

    start = OrnsteinUhlenbeck.variance(times[0], s).sqrt() * noise(0)
    drawn = OneStep(gme).integrate(
        lambda t, y: score.residual(t.expand(len(y)), y, condition), start, times, s, noise
    )
    x = score.baseline.unrotate(drawn)[:, 0].numpy()
    response = x[1:] - x[0]
    return x[0], response.T @ response


def test_guided_draws_have_the_moments_of_kriging():
    """T-18: the error is that of the step alone and halves with it."""
    mean, covariance = kriging()
    gaps = []
    for steps in (100, 200, 400):
        found = moments_of_the_output(steps)
        gaps.append([abs(found[0] - mean).max(), abs(found[1] - covariance).max()])
    assert gaps[-1][0] < 0.02 and gaps[-1][1] < 0.02
    for coarse, fine in itertools.pairwise(gaps):
        assert 1.5 < coarse[1] / fine[1] < 2.5


def test_an_exact_observation_is_met():
    """The third observation has no noise; what is left is the noise of the last step."""
    x, covariance = moments_of_the_output(400)
    assert OPERATOR[2] @ x == pytest.approx(OBSERVED[2], abs=1e-3)
    assert OPERATOR[2] @ covariance @ OPERATOR[2] < 1e-3 * (OPERATOR[2] @ OPERATOR[2])


A, R, SEEN = 2.0, 0.5, 0.8


def posterior_score(t: float, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score and density of the two-point law given its first coefficient, SEEN, noised to t.

    The posterior of +-a + Z given y_obs is a mixture of N((R (+-a) + y_obs) / (1 + R), R / (1 + R))
    with weights that tilt like exp(-(y_obs -+ a)^2 / (2 (1 + R))).
    """
    decay = math.exp(-t)
    signs = np.array([[A], [-A]])
    mean, variance = (R * signs + SEEN) / (1 + R), R / (1 + R)
    noised = decay**2 * variance + 1 - decay**2
    gap = x - decay * mean
    log_terms = -((SEEN - signs) ** 2) / (2 * (1 + R)) - gap**2 / (2 * noised)
    terms = np.exp(log_terms - log_terms.max())
    share = terms / terms.sum(0)
    density = terms.sum(0) / (terms.sum() * (x[1] - x[0]))
    return x - (share * gap).sum(0) / noised, density


@pytest.mark.parametrize(
    ("t", "error"), [(0.01, 8.1626e-7), (0.1, 0.0031514), (0.5, 0.073044), (1.5, 0.078755)]
)
def test_the_error_of_guidance_on_the_two_point_law(t, error):
    """T-8 with an observation: E|b_guided - b|^2 over E|b - b_prior|^2, by quadrature."""
    law = TwoPoint(A)
    operator = torch.zeros(1, 1, 4)
    operator[0, 0, 0] = 1.0
    score = GuidedScore(law, operator, torch.tensor([SEEN]), torch.tensor([R]))
    x = np.linspace(-10, 10, 4001)
    fields = torch.zeros(len(x), 1, 4, dtype=torch.float64)
    fields[:, 0, 0] = torch.from_numpy(x)
    time, condition = torch.full((len(x),), t, dtype=torch.float64), torch.zeros(len(x), 1)
    b = gaussian_score(law.baseline, time, fields) + score.residual(time, fields, condition)
    exact, density = posterior_score(t, x)
    step = x[1] - x[0]
    missed = (density * (b[:, 0, 0].numpy() - exact) ** 2).sum() * step
    pulled = (density * (law.score(time, fields)[:, 0, 0].numpy() - exact) ** 2).sum() * step
    assert missed / pulled == pytest.approx(error, rel=1e-3)


def test_point_values_are_those_of_the_synthesis():
    lmax, grid, generator = 6, RingGrid.gaussian(8), np.random.default_rng(1)
    factor = np.tril(generator.uniform(0.1, 1, (lmax + 1, 2, 2)))
    x = generator.standard_normal((2, (lmax + 1) ** 2))
    maps = plan(grid, lmax, "float64").synthesis(mix_channels(factor, x))
    latitudes = np.asarray(grid.latitudes)[[0, 3, 6]]
    longitudes = np.arange(16)[[1, 9, 14]] * 22.5
    operator = point_values(factor, 1, latitudes, longitudes)
    found = torch.einsum("nck,ck->n", operator, torch.from_numpy(x))
    np.testing.assert_allclose(found, maps[1][[0, 3, 6], [1, 9, 14]], rtol=1e-12)


def test_observations_of_other_fields_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        GuidedScore(TwoPoint(1.0), torch.zeros(2, 1, 5), torch.zeros(2), torch.ones(2))
