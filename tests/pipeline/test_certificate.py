import numpy as np
import pytest
import torch

from pipeline.certificate import block_interval, certify
from pipeline.process import OrnsteinUhlenbeck
from pipeline.score import GaussianScore
from tests.pipeline.closed_forms import TwoPoint

TIMES = OrnsteinUhlenbeck(horizon=2.0).power_grid(32, exponent=1.0)


def certified(scale: float, fields: int = 6000):
    law = TwoPoint(2.0, scale=scale)
    x_0 = law.sample(fields, torch.Generator().manual_seed(0))
    noise = torch.Generator().manual_seed(1)
    return certify(law, x_0, torch.zeros(fields, 1), TIMES, noise, batch=6000)


def test_the_exact_score_is_certified_with_the_known_number_of_nats():
    """T-14: a = 2, T = 2, 32 GME steps: J_G = 0.1517, below the negentropy 0.171999."""
    result = certified(scale=1.0)
    error = result.per_field.std() / len(result.per_field) ** 0.5
    assert error < 0.01
    assert abs(result.nats - 0.1517) < 4 * error


def test_a_score_that_is_too_small_is_certified_with_less():
    """T-14: scaled by 0.8 the bound on the divergence is 0.0266 instead of 0.0203."""
    exact, scaled = certified(1.0), certified(0.8)
    gap = exact.per_field - scaled.per_field
    assert abs(gap.mean() - (0.0266 - 0.0203)) < 4 * gap.std() / len(gap) ** 0.5


def test_no_residual_certifies_exactly_nothing():
    law = TwoPoint(2.0)
    x_0 = law.sample(64, torch.Generator().manual_seed(0))
    result = certify(
        GaussianScore(law.baseline), x_0, torch.zeros(64, 1), TIMES, torch.Generator(), draws=4
    )
    assert result.nats == 0.0


def test_the_wrong_sign_is_certified_as_harm():
    result = certified(scale=-1.0, fields=1000)
    assert result.nats < -0.2


def test_the_splits_add_up_to_the_whole():
    result = certified(scale=1.0, fields=200)
    assert result.per_time.sum() == pytest.approx(result.nats, rel=1e-12)
    assert result.per_coefficient.sum() == pytest.approx(result.nats, rel=1e-12)


def test_the_block_interval_widens_with_the_correlation():
    """An AR(1) series: blocks see the correlation that single draws miss."""
    generator = np.random.default_rng(0)
    series = np.zeros(3000)
    for i in range(1, len(series)):
        series[i] = 0.9 * series[i - 1] + generator.standard_normal()
    narrow = np.ptp(block_interval(series, 1, np.random.default_rng(1)))
    wide = np.ptp(block_interval(series, 100, np.random.default_rng(1)))
    exact = 2 * 1.96 * (1 / (1 - 0.9)) / len(series) ** 0.5
    assert narrow < 0.4 * exact
    assert wide == pytest.approx(exact, rel=0.25)
