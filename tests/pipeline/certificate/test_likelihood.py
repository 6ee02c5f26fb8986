import math

import numpy as np
import torch
from torch import Tensor

from pipeline.certificate.likelihood import log_density_over_reference, log_likelihood_gain
from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.diffusion.score import GaussianScore
from tests.pipeline.closed_forms import Dense, Diagonal, TwoPoint

TIMES = OrnsteinUhlenbeck(horizon=6.0).power_grid(64)


def fields(values: list[float]) -> torch.Tensor:
    x = torch.zeros(len(values), 1, 4, dtype=torch.float64)
    x[:, 0, 0] = torch.tensor(values)
    x[:, 0, 1:] = torch.tensor([0.3, -1.0, 2.0])
    return x


def gain(score, x: torch.Tensor, times=TIMES, probes: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return log_likelihood_gain(score, x, torch.zeros(len(x), 1), times, generator, probes)


def test_the_likelihood_along_the_flow_is_the_known_one():
    """T-15: log f_0 of the two-point law, a = 2; with one curved direction the trace is exact."""
    law, x = TwoPoint(2.0), fields([-0.5, 0.3, 2.2])
    log_f = gain(law, x)[0] + log_density_over_reference(law.baseline, x)
    np.testing.assert_allclose(log_f, [-1.566219, -1.829865, 1.707004], atol=1e-6)


def test_the_integration_has_order_four():
    law, x = TwoPoint(2.0), fields([-0.5, 0.3, 2.2])
    exact = torch.logaddexp(2 * x[:, 0, 0], -2 * x[:, 0, 0]) - math.log(2) - 2
    exact = exact - log_density_over_reference(law.baseline, x)
    errors = [
        abs(gain(law, x, OrnsteinUhlenbeck(horizon=6.0).power_grid(n))[0] - exact).max()
        for n in (12, 24)
    ]
    assert 10 < errors[0] / errors[1] < 30


def test_a_gaussian_score_gains_nothing_over_its_baseline():
    x = torch.randn(5, 1, 3, generator=torch.Generator().manual_seed(0))
    baseline = Diagonal(torch.tensor([[0.1, 1.0, 7.0]]))
    assert not gain(GaussianScore(baseline), x).any()
    white = Diagonal(torch.ones(1, 3))
    expected = baseline.log_density(x) - white.log_density(x)
    np.testing.assert_allclose(log_density_over_reference(baseline, x), expected, atol=1e-6)


def test_random_signs_estimate_the_trace_without_bias():
    """The two-point law in coordinates turned against those in which the signs are drawn."""

    class Turned:
        """The residual of a law, seen in other coordinates."""

        def __init__(self, law: TwoPoint) -> None:
            quarter = np.eye(4)
            quarter[:2, :2] = np.array([[3.0, -4.0], [4.0, 3.0]]) / 5
            self.law, self.turn = law, torch.from_numpy(quarter)
            # A white baseline is diagonal in every basis: the law's residual is its whole score.
            self.baseline = Diagonal(torch.ones(1, 4))

        def residual(self, t, y, condition):
            return self.law.score(t, y @ self.turn.T) @ self.turn

    law = TwoPoint(2.0)
    x, turned = fields([-0.5, 2.2]), Turned(law)
    x[:, 0, 1:] = 0.0
    found = gain(turned, x @ turned.turn, OrnsteinUhlenbeck(horizon=6.0).power_grid(20), probes=150)
    assert found.shape == (150, 2)
    error = found.std(dim=0) / 150**0.5
    assert (error > 0.01).all()
    assert (abs(found.mean(0) - torch.tensor([-1.566219, 1.707004])) < 4 * error).all()


def test_rotated_coordinates_make_no_difference():
    """A baseline that is diagonal in another basis, with the same law."""
    angle = 0.4
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    covariance = turn @ np.diag([5.0, 1.0, 1.0, 1.0]) @ turn.T
    law, dense = TwoPoint(2.0), Dense(covariance)

    class Rotated:
        baseline = dense

        def residual(self, t, y, condition):
            x = dense.unrotate(y) @ torch.from_numpy(turn)
            return dense.rotate(law.residual(t, x, condition) @ torch.from_numpy(turn).T)

    x = fields([-0.5, 0.3, 2.2])
    np.testing.assert_allclose(
        gain(Rotated(), x @ torch.from_numpy(turn).T), gain(law, x), atol=1e-9
    )


def test_stopping_short_of_zero_leaves_the_law_of_the_sampler():
    """A Gaussian law that the score knows down to t = 0.001: its draws keep z from there on.

    Where s is about 0.001 itself, what noise there is at that time is no small thing.
    """

    class Wider:
        """The exact residual of the law N(0, true) over a baseline N(0, s)."""

        def __init__(self, s: Tensor, true: Tensor) -> None:
            self.baseline, self.true = Diagonal(s), true

        def residual(self, t, y, condition):
            v, true = (
                OrnsteinUhlenbeck.variance(t[:, None, None], each)
                for each in (self.baseline.variance, self.true)
            )
            return (1 / v - 1 / true) * y

    s = torch.tensor([[0.003, 0.003, 0.5]], dtype=torch.float64)
    true = torch.tensor([[0.006, 0.001, 0.8]], dtype=torch.float64)
    # Where the flow takes N(0, 1) of z at T: to a multiple of it at the last time, and there it is.
    times = np.geomspace(6.0, 1e-3, 80)
    first, last = (
        OrnsteinUhlenbeck.variance(torch.tensor(t), true)
        / OrnsteinUhlenbeck.variance(torch.tensor(t), s)
        for t in (times[-1], times[0])
    )
    drawn = Diagonal(s * first / last)
    x = drawn.color(torch.randn(4, 1, 3, generator=torch.Generator().manual_seed(0)).double())
    expected = drawn.log_density(x) - Diagonal(s).log_density(x)
    np.testing.assert_allclose(gain(Wider(s, true), x, times)[0], expected, atol=1e-5)
