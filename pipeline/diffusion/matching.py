"""Moment matching: a probability flow that keeps the power spectra of the data.

A learned score knows only a part of what is not Gaussian in the data. Its flow starts from a
Gaussian law, and as long as the fields have less of that part than noised data have, the residual
contracts them: <y, rho> has mean zero over noised data, where calibration has seen to it, but a
negative one over fields that are closer to Gaussian. Each step loses some variance for good. The
flow

    dX/dt = -(b(t, X) + r_l(t) X_l)

returns it where it is lost: r_l, a rate for each channel and degree, is measured once on a few
fields that go along, and is such that the power spectra of the flow are at every time those of
the baseline's own flow, which are those of noised data. It is for integrators without noise; the
others have a restoring force, and the certificate is about them, not about this flow. Notation:
docs/mathematics.md, 4.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from pipeline.arrays import FloatArray
from pipeline.diffusion.probability_flow import EULER, HEUN, RungeKutta
from pipeline.diffusion.process import OrnsteinUhlenbeck, at_times
from pipeline.diffusion.score import Given, Score
from pipeline.sphere.coefficients import degrees, lmax_of

STEP = RungeKutta(tableau=HEUN, last=EULER)


class MatchedScore:
    """A score with the rates that its flow lacks; takes its place in samplers without noise.

    Args:
        nodes: diffusion times of the rates, decreasing, (node,).
        rates: r, (node, channel, degree); linear in sqrt(t) in between, constant beyond.
    """

    def __init__(self, score: Score, nodes: Tensor, rates: Tensor) -> None:
        self.score, self.baseline = score, score.baseline
        device = score.baseline.variance.device
        self.nodes, self.rates = nodes.to(device), rates.to(device)
        self._degree = torch.as_tensor(degrees(rates.shape[2] - 1), device=device)

    def residual(self, t: Tensor, y: Tensor, condition: Given) -> Tensor:
        added = self.rate(t)[..., self._degree].to(y.dtype) * self.baseline.unrotate(y)
        return self.score.residual(t, y, condition) + self.baseline.rotate(added)

    def rate(self, t: Tensor) -> Tensor:
        """r at diffusion times (batch,): (batch, channel, degree)."""
        at = t.to(self.nodes).sqrt()
        return at_times(at, self.nodes.flip(0).sqrt(), self.rates.flip(0))


@torch.no_grad()
def match(
    score: Score,
    condition: Given,
    times: FloatArray,
    generator: torch.Generator,
    batch: int = 64,
) -> MatchedScore:
    """Measure the rates on fields that run along the flow and are matched after every step.

    Beside each field runs the one that the baseline's own flow makes of the same noise; the
    ratio of their power is known far better than either.

    Args:
        condition: of the fields that run along, (field, feature), spread over those of the data.
        times: decreasing grid t_0 = horizon > ... > t_N = 0, two evaluations for each step.
        generator: source of the noise, on the CPU.
    """
    baseline, s = score.baseline, score.baseline.variance
    grid = torch.as_tensor(times, dtype=torch.float64, device=s.device)
    degree = torch.as_tensor(degrees(lmax_of(s.shape[1])), device=s.device)
    white = torch.randn((len(condition), *s.shape), generator=generator).to(s.device)
    variance = OrnsteinUhlenbeck.variance
    y, rates = (variance(grid[0], s).sqrt() * white).to(white.dtype), []
    for t, t_next in itertools.pairwise(grid):
        y = torch.cat(
            [
                STEP.integrate(
                    lambda t, y, rows=rows: score.residual(t.expand(len(y)), y, condition[rows]),  # type: ignore[misc]
                    y[rows],
                    torch.stack([t, t_next]),
                    s,
                    _no_noise,
                )
                for rows in (slice(i, i + batch) for i in range(0, len(y), batch))
            ]
        )
        gaussian = (variance(t_next, s).sqrt() * white).to(white.dtype)
        x = baseline.unrotate(y)
        gain = torch.sqrt(_power(baseline.unrotate(gaussian), degree) / _power(x, degree))
        rates.append(torch.log(gain) / (t - t_next))
        y = baseline.rotate(gain[:, degree].to(x.dtype) * x)
    middle = ((grid[1:].sqrt() + grid[:-1].sqrt()) / 2).square()
    return MatchedScore(score, middle, torch.stack(rates))


def _power(x: Tensor, degree: Tensor) -> Tensor:
    """Sum of squares of each channel and degree: (channel, degree)."""
    squares = x.double().square().sum(dim=0)
    return squares.new_zeros(len(x[0]), int(degree[-1]) + 1).index_add_(1, degree, squares)


def _no_noise(step: int) -> Tensor:
    raise RuntimeError(f"the probability flow takes no noise, but step {step} asked for some")
