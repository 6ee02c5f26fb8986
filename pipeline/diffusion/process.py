"""Ornstein-Uhlenbeck forward process of the reference measure, in whitened coordinates.

    dX = -X dt + sqrt(2) dB        X_t = alpha(t) X_0 + sigma(t) Z,   Z ~ N(0, I)

with alpha(t) = e^-t and sigma(t)^2 = 1 - e^-2t. White noise in whitened coordinates is a
Whittle-Matern field on the sphere, which the process leaves invariant. A Gaussian direction of
the data with variance s has variance V(t) = 1 + e^-2t (s - 1) at diffusion time t.

Hands on: perturbed samples to training, V and time grids to score, sampler and certificate.
Notation: docs/mathematics.md, 2.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.arrays import FloatArray


def at_times(times: Tensor, nodes: Tensor, table: Tensor) -> Tensor:
    """A table (node, ...) at times (batch,), linear between its increasing nodes, constant beyond.

    Both are in any monotone function of the diffusion time, such as its logarithm.
    """
    above = torch.searchsorted(nodes, times).clamp(1, len(nodes) - 1)
    part = (times - nodes[above - 1]) / (nodes[above] - nodes[above - 1])
    part = part.clamp(0, 1).reshape(-1, *(1 for _ in table.shape[1:]))
    return torch.lerp(table[above - 1], table[above], part)


@dataclass(frozen=True, kw_only=True)
class OrnsteinUhlenbeck:
    """The process on [0, horizon].

    A horizon of 2 to 2.5 is enough because the sampler starts from the Gaussian law of the
    data at that time, not from the reference: what is forgotten decays like e^-6t.
    """

    horizon: float = 2.5

    def __post_init__(self) -> None:
        if not 0 < self.horizon <= 20:
            raise ValueError(f"horizon must lie in (0, 20]; got {self.horizon}")

    @staticmethod
    def alpha(t: Tensor) -> Tensor:
        """What is left of the data at time t: e^-t, any shape."""
        return torch.exp(-t)

    @staticmethod
    def sigma(t: Tensor) -> Tensor:
        """Standard deviation of the noise at time t, accurate for small t."""
        return torch.sqrt(-torch.expm1(-2 * t))

    @staticmethod
    def variance(t: Tensor, s: Tensor) -> Tensor:
        """V(t) of a direction whose data variance is s; shapes broadcast."""
        return torch.exp(-2 * t) * s - torch.expm1(-2 * t)

    def perturb(self, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """X_t from X_0 and white noise of the same shape; t broadcasts against them."""
        return self.alpha(t) * x_0 + self.sigma(t) * noise

    def power_grid(self, steps: int, exponent: float = 2.0) -> FloatArray:
        """Times horizon * (1 - k / steps)^exponent for k = 0 ... steps, decreasing to exactly 0.

        No early stopping is needed: scores are evaluated at the beginning of each step only.
        """
        if steps < 1 or exponent <= 0:
            raise ValueError(f"need steps >= 1 and exponent > 0; got {steps} and {exponent}")
        grid: FloatArray = self.horizon * (1 - np.arange(steps + 1) / steps) ** exponent
        return grid
