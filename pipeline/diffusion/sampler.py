"""Samplers: from the Gaussian law of the data at the horizon back along the reverse process.

A sampler starts from N(0, V(T)), not from N(0, 1), in the coordinates of the score's baseline and
hands grid, residual and noise to an integrator. Notation: docs/mathematics.md, 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.arrays import FloatArray
from pipeline.diffusion.integrators import GeiHeun, Integrator, OneStep, ei, gei, gme, mei
from pipeline.diffusion.probability_flow import (
    CLASSICAL,
    EULER,
    HEUN,
    RALSTON,
    AdamsBashforth,
    RungeKutta,
)
from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.diffusion.score import Given, Score

INTEGRATORS: Mapping[str, Integrator] = {
    "ei": OneStep(ei),
    "mei": OneStep(mei),
    "gei": OneStep(gei),
    "gme": OneStep(gme),
    "gei-heun": GeiHeun(),
    "z-heun": RungeKutta(tableau=HEUN, last=EULER),
    "z-ab2": AdamsBashforth(),
    "z-rk4": RungeKutta(tableau=CLASSICAL, last=RALSTON),
}


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Integrates the reverse process.

    Attributes:
        evaluations: of the score, for each field; a multiple of those of a step.
        grid: the times t_0 = horizon > ... > t_N = 0 of so many steps, (step + 1,).
    """

    integrator: Integrator = INTEGRATORS["gme"]
    evaluations: int = 32
    grid: Callable[[int], FloatArray] = OrnsteinUhlenbeck().power_grid

    def __post_init__(self) -> None:
        each = self.integrator.evaluations_per_step
        if self.evaluations < each or self.evaluations % each:
            raise ValueError(
                f"evaluations must be a positive multiple of {each}, what a step of the "
                f"integrator takes; got {self.evaluations}"
            )

    @property
    def times(self) -> FloatArray:
        return self.grid(self.evaluations // self.integrator.evaluations_per_step)

    @torch.no_grad()
    def __call__(self, score: Score, noise: Callable[[int], Tensor], condition: Given) -> Tensor:
        """Whitened fields (batch, channel, coefficient), in the precision of the noise.

        Args:
            noise: white noise of that shape in whitened coordinates, for the start (0) and, if
                the integrator is stochastic, for the steps 1 ... N.
            condition: (batch, feature), as a score takes it.
        """
        baseline, s = score.baseline, score.baseline.variance
        times = torch.as_tensor(self.times, device=condition.device)

        def residual(t: Tensor, y: Tensor) -> Tensor:
            return score.residual(t.expand(len(y)), y, condition)

        def turned(step: int) -> Tensor:
            return baseline.rotate(noise(step))

        white = turned(0)
        y = torch.sqrt(OrnsteinUhlenbeck.variance(times[0], s)).to(white.dtype) * white
        return baseline.unrotate(self.integrator.integrate(residual, y, times, s, turned))


@torch.no_grad()
def residual_energy(
    score: Score,
    x_0: Tensor,
    condition: Given,
    times: FloatArray,
    generator: torch.Generator,
    batch: int = 64,
) -> FloatArray:
    """E rho^2 over noised held-out fields, in baseline coordinates: (time, channel, coefficient).

    Args:
        x_0: held-out whitened fields, (field, channel, coefficient).
        condition: of each field, (field, feature), as a score takes it.
        times: diffusion times, (time,), positive.
        generator: source of the noise, on the CPU.
    """
    baseline, process = score.baseline, OrnsteinUhlenbeck()
    energy = torch.zeros(len(times), *x_0.shape[1:], dtype=torch.float64, device=x_0.device)
    for k, t in enumerate(torch.as_tensor(times, device=x_0.device)):
        for start in range(0, len(x_0), batch):
            rows = slice(start, start + batch)
            noise = torch.randn(x_0[rows].shape, generator=generator).to(x_0)
            y_t = baseline.rotate(process.perturb(x_0[rows], t, noise))
            rho = score.residual(t.expand(len(y_t)), y_t, condition[rows])
            energy[k] += rho.double().square().sum(dim=0) / len(x_0)
    return energy.cpu().numpy()
