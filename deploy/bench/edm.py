"""The rivals that are EDM's (Karras et al., 2022, arXiv 2206.00364): its sampler on our network."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from pipeline.diffusion.score import Posterior
from pipeline.network.score_network import ScoreNet


@torch.no_grad()
def edm_heun(score: ScoreNet, noise: Tensor, condition: Tensor, steps: int) -> Tensor:
    """Algorithm 1 without churn, rho = 7, on E[Y_0 | Y_t] of the score: 2 steps - 1 evaluations."""
    low, high = 0.002 ** (1 / 7), 80.0 ** (1 / 7)
    levels = [(high + k / (steps - 1) * (low - high)) ** 7 for k in range(steps)] + [0.0]

    def slope(x: Tensor, sigma: float) -> Tensor:
        t = torch.full((len(x),), 0.5, dtype=torch.float64) * torch.log1p(
            torch.tensor(sigma, dtype=torch.float64) ** 2
        )
        posterior = Posterior(t, score.baseline.variance)
        y = (x / (1 + sigma**2) ** 0.5).float()
        learned = score.standardised(posterior, t, y, condition)
        return (x - (posterior.c_skip * y + posterior.c_out * learned)) / sigma

    x = levels[0] * noise.double()
    for sigma, after in itertools.pairwise(levels):
        first = slope(x, sigma)
        moved = x + (after - sigma) * first
        if after:
            moved = x + (after - sigma) * (first + slope(moved, after)) / 2
        x = moved
    return score.baseline.unrotate(x.float())
