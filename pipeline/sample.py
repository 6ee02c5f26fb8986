"""Samplers: from the Gaussian law of the data at the horizon back along the reverse process.

The Gaussian-matched Euler step (GME) from t to t' = t - h, in coordinates y of the baseline,

    Y' = e^-h Y + 2 sinh(h) b(t, Y) + tau xi,     tau^2 = V(t') (1 - e^-2h) / V(t)
       = phi Y + 2 sinh(h) rho(t, Y) + tau xi,    phi   = e^-h V(t') / V(t)

is exact for the Gaussian part at any number of steps; the start is N(0, V(T)), not N(0, 1).

Noise has an address: realization r, calendar time, variable and step of a seed always give the
same numbers, so an ensemble does not depend on batches, workers or order, and grows without
changing. It is drawn degree by degree: a larger lmax extends it. Notation: docs/mathematics.md, 4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.process import OrnsteinUhlenbeck
from pipeline.score import Score


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Integrates the reverse process with `steps` evaluations of the score."""

    process: OrnsteinUhlenbeck = field(default_factory=OrnsteinUhlenbeck)
    steps: int = 32
    exponent: float = 2.0

    @property
    def times(self) -> NDArray[np.float64]:
        """The grid t_0 = horizon > ... > t_N = 0."""
        return self.process.power_grid(self.steps, self.exponent)

    @torch.no_grad()
    def __call__(self, score: Score, noise: Callable[[int], Tensor], condition: Tensor) -> Tensor:
        """Whitened fields (batch, channel, coefficient).

        Args:
            noise: white noise of that shape in whitened coordinates, for the start (0) and
                for the steps 1 ... N.
            condition: (batch, feature), as a score takes it.
        """
        baseline, s = score.baseline, score.baseline.variance
        times = torch.as_tensor(self.times, device=condition.device)
        y = torch.sqrt(self.process.variance(times[0], s)).float() * baseline.rotate(noise(0))
        for k in range(self.steps):
            phi, weight, tau = gme_step(times[k], times[k + 1], s)
            rho = score.residual(times[k].expand(len(y)), y, condition)
            y = (phi * y + weight * rho + tau * baseline.rotate(noise(k + 1))).float()
        return baseline.unrotate(y)


def gme_step(t: Tensor, t_next: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """phi, 2 sinh(h) and tau of the step from t to t_next for data variances s, float64."""
    h, variance = t - t_next, OrnsteinUhlenbeck.variance
    v, v_next = variance(t, s), variance(t_next, s)
    phi = torch.exp(-h) * v_next / v
    return phi, 2 * torch.sinh(h), torch.sqrt(v_next * -torch.expm1(-2 * h) / v)


@dataclass(frozen=True, kw_only=True)
class NoiseAddress:
    """Where the noise of one field comes from: seed, realization and calendar time."""

    seed: int
    realization: int
    time: str

    def white(self, step: int, channels: Sequence[str], lmax: int) -> NDArray[np.float32]:
        """White noise (channel, coefficient) of this field at this step."""
        return np.stack([self._stream(step, name, (lmax + 1) ** 2) for name in channels])

    def on_grid(self, channels: Sequence[str], shape: tuple[int, ...]) -> NDArray[np.float32]:
        """White noise (channel, *grid) of this field, for its remainder beyond lmax."""
        size = int(np.prod(shape))
        return np.stack([self._stream("grid", name, size).reshape(shape) for name in channels])

    def _stream(self, step: int | str, channel: str, size: int) -> NDArray[np.float32]:
        address = f"{self.seed}/{self.realization}/{self.time}/{channel}/{step}"
        key = int.from_bytes(hashlib.sha256(address.encode()).digest()[:16], "little")
        generator = np.random.Generator(np.random.Philox(key=key))
        return generator.standard_normal(size, dtype=np.float32)
