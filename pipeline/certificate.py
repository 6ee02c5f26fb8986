"""The certificate: by how many nats the generated law is closer to the data than its baseline.

With held-out fields noised to the times t_k of a one-step Gaussian sampler,

    J_G = sum_k sum_i w_k,i E[rho_theta,i rho_tgt,i - rho_theta,i^2 / 2],   w = 4 sinh(h)^2 / tau^2

satisfies KL(data | generated) <= KL(data | baseline) - J_G: every error of the sampler, of the
score and of the start is inside, and no constant is unknown. It holds for the GME step of
sample.py, whose noise tau^2 is that of the baseline's exact reverse transition. A zero residual
gives exactly 0; training fields give a number without meaning. Notation: docs/mathematics.md, 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.sample import gme_step
from pipeline.score import Posterior, Score

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Contributions to J_G [nats], estimated from held-out fields.

    Attributes:
        per_field: (field,), in the order of the fields; their mean is J_G.
        per_time: (step,), for each step of the sampler.
        per_coefficient: (channel, coefficient).
    """

    per_field: FloatArray
    per_time: FloatArray
    per_coefficient: FloatArray

    @property
    def nats(self) -> float:
        return float(self.per_field.mean())


@torch.no_grad()
def certify(
    score: Score,
    x_0: Tensor,
    condition: Tensor,
    times: FloatArray,
    generator: torch.Generator,
    draws: int | None = None,
    batch: int = 64,
) -> Certificate:
    """Estimate J_G over the baseline of `score`.

    Args:
        x_0: held-out whitened fields, (field, channel, coefficient).
        condition: of each field, (field, feature), as a score takes it.
        times: decreasing grid t_0 > ... > t_N of the sampler.
        draws: steps k drawn for each field, spread evenly over the grid; all N if None.
        generator: source of the noise, on the CPU.
    """
    steps, fields = len(times) - 1, len(x_0)
    draws = min(draws or steps, steps)
    per_field, per_time = np.zeros(fields), np.zeros(steps)
    per_coefficient = torch.zeros(x_0.shape[1:], dtype=torch.float64)
    grid = torch.as_tensor(times, dtype=torch.float64, device=x_0.device)
    stride = steps / draws
    for draw in range(draws):
        # Over all fields and draws every step of the grid is visited equally often.
        step = ((np.arange(fields) + draw * stride) % steps).astype(int)
        for start in range(0, fields, batch):
            rows = slice(start, start + batch)
            k = torch.as_tensor(step[rows], device=x_0.device)
            noise = torch.randn(x_0[rows].shape, generator=generator).to(x_0.device)
            nats = (
                information(score, x_0[rows], grid[k], grid[k + 1], condition[rows], noise) * stride
            )
            total = nats.sum(dim=(1, 2)).cpu().numpy()
            per_field[rows] += total
            np.add.at(per_time, step[rows], total / fields)
            per_coefficient += nats.sum(dim=0).cpu() / fields
    return Certificate(
        per_field=per_field, per_time=per_time, per_coefficient=per_coefficient.numpy()
    )


def information(
    score: Score, x_0: Tensor, t: Tensor, t_next: Tensor, condition: Tensor, noise: Tensor
) -> Tensor:
    """The term of the step t to t_next, one draw, split by whitened coefficient.

    The square root of the weight is applied in the coordinates of the baseline and both factors
    are turned back, so that the parts of any baseline add up to its total. Shape of x_0, float64.
    """
    baseline = score.baseline
    posterior = Posterior(t, baseline.variance)
    y_0 = baseline.rotate(x_0)
    y_t = (posterior.alpha * y_0 + posterior.sigma * baseline.rotate(noise)).to(x_0.dtype)
    root = torch.sqrt(step_weight(t, t_next, baseline.variance))
    learned = score.residual(t, y_t, condition).double()
    target = posterior.residual_scale * posterior.target(y_0.double(), y_t.double())
    learned, target = baseline.unrotate(root * learned), baseline.unrotate(root * target)
    return learned * target - learned.square() / 2


def step_weight(t: Tensor, t_next: Tensor, s: Tensor) -> Tensor:
    """4 sinh(h)^2 / tau^2 of a GME step; times (batch,), variances (channel, coefficient)."""
    _, weight, tau = gme_step(t[:, None, None], t_next[:, None, None], s)
    return (weight / tau).square()


def block_interval(
    values: FloatArray, block: int, generator: np.random.Generator, resamples: int = 4000
) -> tuple[float, float]:
    """95 % interval of the mean of a time-ordered series, by a circular block bootstrap.

    Args:
        values: (field,), in order of time; neighbours may be correlated.
        block: length of the resampled runs, longer than the correlation.
    """
    n = len(values)
    block = min(block, n)
    starts = generator.integers(0, n, size=(resamples, -(-n // block)))
    rows = (starts[:, :, None] + np.arange(block)).reshape(resamples, -1)[:, :n] % n
    low, high = np.quantile(values[rows].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)
