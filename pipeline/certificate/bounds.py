"""Two terms of the divergence of a drawn law from the data that can be spoken of [nats].

KL(data | output) of a sampler on a grid T = t_0 > ... > t_N is bounded by what the start misses,
what the score misses and what the step misses. Of data the score's part is not known: `start_bound`
is rigorous and `model_step_term` indicative; these two are what a report can show. Notation, and
the theorems that they are terms of: docs/mathematics.md, 5.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.arrays import FloatArray
from pipeline.diffusion.integrators import gme
from pipeline.diffusion.process import OrnsteinUhlenbeck


def start_bound(second_moment: Tensor, s: Tensor, horizon: float) -> float:
    """Rigorous upper bound of KL(data noised to the horizon T | N(0, V(T))) [nats].

    By convexity it is at most the mean divergence of the transition N(e^-T x_0, sigma^2) from
    N(0, V): rigorous for every data law with these second moments, loose, and proportional to the
    number of coefficients. With s = 1 the start is the reference.

    Args:
        second_moment: E Y_0^2 in the coordinates of the baseline, (channel, coefficient).
        s: variances of the baseline, same shape.
    """
    t = torch.tensor(horizon, dtype=torch.float64)
    v, noised = (OrnsteinUhlenbeck.variance(t, each.double()) for each in (s, second_moment))
    sigma = OrnsteinUhlenbeck.sigma(t)
    return float((noised / v - 1 + torch.log(v) - 2 * torch.log(sigma)).sum()) / 2


def model_step_term(energy: FloatArray, s: Tensor, times: FloatArray) -> FloatArray:
    """Model-based step term of Theorem D [nats], for each step of the grid but the last.

    The residual of the model stands for that of the data, so this is indicative and no bound. In
    each step q = (e^t V)^2 r, which cannot grow with t, is taken as half-way between its ends:

        1/2 sum_i { r_i(t_k+1) tau_k,i^2 / 2 - r_i(t_k) w_k,i / 2 }.

    The last step is left out, as no network is asked at t = 0.

    Args:
        energy: E rho^2 at the times but the last, (step, channel, coefficient), as
            `pipeline.diffusion.sampler.residual_energy` measures it.
        s: variances of the baseline, (channel, coefficient).
    """
    r, grid = torch.as_tensor(energy), torch.as_tensor(times, dtype=torch.float64)[:, None, None]
    _, weight, tau = gme(grid[:-2], grid[1:-1], s.cpu())
    gap = r[1:] * tau.square() - r[:-1] * (weight / tau).square()
    terms: FloatArray = gap.sum(dim=(1, 2)).numpy() / 4
    return terms
