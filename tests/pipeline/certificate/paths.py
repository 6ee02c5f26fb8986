"""J_G of any one-step Gaussian sampler, from noised paths: what the estimator is held against."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.diffusion.integrators import Transition, gme
from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.diffusion.score import Score

FloatArray = NDArray[np.float64]


@torch.no_grad()
def certify_paths(
    score: Score,
    transition: Transition,
    x_0: Tensor,
    condition: Tensor,
    times: FloatArray,
    generator: torch.Generator,
    batch: int = 64,
) -> FloatArray:
    """J_G of any one-step Gaussian sampler, from noised paths: nats (field, step).

    The mean over fields, summed over steps, estimates J_G over the baseline of `score` for the
    sampler that starts at N(0, V(T)). With EI and the reference itself as baseline (s = 1, the
    residual is the whole score) it is the certificate over the reference, for the start N(0, I).
    It takes whole paths and knows no split by degree.

    Args:
        transition: of the sampler: pipeline.diffusion.integrators.ei, mei, gei, gme or another.
        times: decreasing grid t_0 > ... > t_N of the sampler.
    """
    grid = torch.as_tensor(times, dtype=torch.float64, device=x_0.device)
    nats = np.zeros((len(x_0), len(times) - 1))
    for start in range(0, len(x_0), batch):
        rows = slice(start, start + batch)
        x_next = x_0[rows].double()
        if times[-1] > 0:
            noise = torch.randn(x_next.shape, generator=generator, dtype=torch.float64)
            x_next = OrnsteinUhlenbeck().perturb(x_next, grid[-1], noise.to(x_0.device))
        for k in reversed(range(len(times) - 1)):
            h = grid[k] - grid[k + 1]
            noise = torch.randn(x_next.shape, generator=generator, dtype=torch.float64)
            x = OrnsteinUhlenbeck().perturb(x_next, h, noise.to(x_0.device))
            ratio = path_information(
                score, transition, x, x_next, grid[k : k + 1], grid[k + 1 : k + 2], condition[rows]
            )
            nats[rows, k] = ratio.sum(dim=(1, 2)).cpu()
            x_next = x
    return nats


def path_information(
    score: Score,
    transition: Transition,
    x: Tensor,
    x_next: Tensor,
    t: Tensor,
    t_next: Tensor,
    condition: Tensor,
) -> Tensor:
    """Log ratio of the sampler's and the baseline's transition density from x at t to x_next.

    Times (1,) or (batch,); the result is split by the coordinates of the baseline.
    """
    baseline = score.baseline
    y, y_next = baseline.rotate(x), baseline.rotate(x_next)
    times = t[:, None, None], t_next[:, None, None]
    phi, weight, tau = transition(*times, baseline.variance)
    phi_g, _, tau_g = gme(*times, baseline.variance)
    mean = phi * y + weight * score.residual(t.expand(len(y)), y.to(x.dtype), condition).double()
    gap, gap_g = (y_next - mean) / tau, (y_next - phi_g * y) / tau_g
    return torch.log(tau_g / tau) + gap_g.square() / 2 - gap.square() / 2
