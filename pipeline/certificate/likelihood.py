"""Log-likelihood of fields under the law that the probability-flow ODE of a score draws.

In z = y / sqrt(V(t)), where y are the coordinates of the Gaussian baseline, only the residual
moves:

    dz/dt = -rho(t, y) / sqrt(V),      d/dt log g_t(z_t) = -(<y, rho> / V - tr D rho),

with g_t the density of the law at t against the baseline's. The sampler that starts at N(0, V(T))
has g_T = 1, so the integral from 0 to T is the gain in log-likelihood over the baseline. The
Gaussian part needs no integration, and the trace, of the residual alone, is taken with random
signs, <e, D rho e>: exactly where D rho is diagonal. Notation: docs/mathematics.md, 4.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from pipeline.arrays import FloatArray
from pipeline.diffusion.probability_flow import CLASSICAL
from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.diffusion.score import Given, Score
from pipeline.gaussian.fit import Baseline


def log_likelihood_gain(
    score: Score,
    x_0: Tensor,
    condition: Given,
    times: FloatArray,
    generator: torch.Generator,
    probes: int = 2,
) -> Tensor:
    """log of the density of the score's ODE law over that of its baseline [nats], (probe, batch).

    The mean over probes is the estimate, their scatter the error of the trace. What a learned
    score has to say below the last of `times` is left out, of its law as of its likelihood:
    networks are not asked at t = 0. Integrated with the classical Runge-Kutta method.

    Args:
        x_0: whitened fields, (batch, channel, coefficient).
        condition: (batch, feature), as a score takes it.
        times: decreasing grid t_0 = T > ... > t_N >= 0; four evaluations for each step.
        generator: source of the random signs, on the CPU.
    """
    baseline, s = score.baseline, score.baseline.variance
    grid = torch.as_tensor(times, dtype=torch.float64, device=x_0.device).flip(0)
    signs = torch.randint(0, 2, (probes, *x_0.shape), generator=generator).to(x_0.device) * 2 - 1

    def flow(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """dz/dt and the rate of the gain, (probe, batch)."""
        z, _ = state
        v = OrnsteinUhlenbeck.variance(t, s)
        y = (v.sqrt() * z).to(x_0.dtype).requires_grad_()
        with torch.enable_grad():
            rho = score.residual(t.expand(len(y)), y, condition)
        trace = torch.stack([(_pull_back(rho, y, e) * e).sum(dim=(1, 2)) for e in signs])
        y, rho = y.detach().double(), rho.detach().double()
        return -rho / v.sqrt(), (y * rho / v).sum(dim=(1, 2)) - trace

    # Without a residual below the first time z stays as it is: it is that of t = 0.
    z = baseline.rotate(x_0.double()) / s.sqrt()
    gain = z.new_zeros(probes, len(x_0))
    for t, t_next in itertools.pairwise(grid):
        z, gain = CLASSICAL.step(flow, t, t_next - t, (z, gain))
    return gain


def log_density_over_reference(baseline: Baseline, x: Tensor) -> Tensor:
    """log of the baseline's density against the reference N(0, I) [nats], shape (...).

    Added to the gain it is log f_0, the density against the reference of the score's own law.
    """
    y, s = baseline.rotate(x.double()), baseline.variance
    return ((1 - 1 / s) * y.square() - torch.log(s)).sum(dim=(-2, -1)) / 2


def _pull_back(rho: Tensor, y: Tensor, e: Tensor) -> Tensor:
    """(D rho)^T e, in float64; 0 where rho does not depend on y."""
    if not rho.requires_grad:
        return torch.zeros_like(y, dtype=torch.float64)
    (product,) = torch.autograd.grad(rho, y, e.to(rho.dtype), retain_graph=True)
    return product.double()
