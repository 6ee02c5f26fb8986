"""Laws whose score is known in closed form, as baselines and scores of the package."""

import math

import numpy as np
import torch
from torch import Tensor

from pipeline.gaussian import Baseline
from pipeline.process import OrnsteinUhlenbeck


class Diagonal(Baseline):
    """A baseline in whitened coordinates themselves."""

    name = "diagonal"

    def __init__(self, variance: Tensor) -> None:
        super().__init__()
        self.register_buffer("variance", variance.double())

    def rotate(self, x: Tensor) -> Tensor:
        return x

    def unrotate(self, y: Tensor) -> Tensor:
        return y

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {"variance": self.variance.numpy()}


class TwoPoint:
    """X_0 = +-m + Z with a smooth field m of Cameron-Martin norm a, along the first coordinate.

    b_t(x) = e^-t m tanh(e^-t <m, x>); its Gaussian baseline has the variances 1 + a^2, 1, 1, ...
    `scale` multiplies the residual: 1 is the exact score.
    """

    def __init__(self, a: float, coefficients: int = 4, scale: float = 1.0) -> None:
        self.a, self.scale = a, scale
        variance = torch.ones(1, coefficients)
        variance[0, 0] += a**2
        self.baseline = Diagonal(variance)

    def score(self, t: Tensor, y: Tensor) -> Tensor:
        decay = torch.exp(-t.double())[:, None]
        b = torch.zeros_like(y, dtype=torch.float64)
        b[..., 0] = decay * self.a * torch.tanh(decay * self.a * y[..., 0].double())
        return b

    def residual(self, t: Tensor, y: Tensor, condition: Tensor) -> Tensor:
        v = OrnsteinUhlenbeck.variance(t.double()[:, None, None], self.baseline.variance)
        return self.scale * (self.score(t, y) - (1 - 1 / v) * y)

    def sample(self, fields: int, generator: torch.Generator) -> Tensor:
        x = torch.randn((fields, *self.baseline.variance.shape), generator=generator).double()
        sign = 2 * torch.randint(0, 2, (fields,), generator=generator) - 1
        x[:, 0, 0] += self.a * sign
        return x

    def log_density(self, y: np.ndarray, t: float) -> np.ndarray:
        """Log of the density of the first coordinate at diffusion time t."""
        mean = self.a * math.exp(-t)
        return np.logaddexp(-((y - mean) ** 2) / 2, -((y + mean) ** 2) / 2) - math.log(
            2 * math.sqrt(2 * math.pi)
        )
