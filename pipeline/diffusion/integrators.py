"""Integrators of the reverse process, in coordinates y of a Gaussian baseline.

A step goes from t to t' = t - h < t. Every integrator treats the Gaussian part of the score in
closed form, with V = V(t), V' = V(t') of the data variances s, and sees only the residual rho:

    one evaluation    Y' = phi Y + w rho(t, Y) + tau xi

                  phi                     w                 tau^2
        EI        e^-h + 2(1 - e^-h) G    2 (1 - e^-h)      1 - e^-2h                G = 1 - 1/V
        MEI       e^-h V'/V               2 sinh h          1 - e^-2h
        GEI       e^-h V'/V               frozen_weight     V' (1 - e^-2h) / V
        GME       e^-h V'/V               2 sinh h          V' (1 - e^-2h) / V

    GEI-Heun          Y' = phi Y + w (rho(t, Y) + rho(t', Y_1)) / 2 + tau xi,   Y_1 and xi of GEI

For Gaussian data rho = 0, and all but EI and MEI return N(0, s) in any number of steps. The score
is never evaluated at t = 0: GEI-Heun, which would do so, ends with a step of GEI, which keeps its
order and saves one evaluation. Notation: docs/mathematics.md, 4.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.diffusion.process import OrnsteinUhlenbeck

Residual = Callable[[Tensor, Tensor], Tensor]  # rho of one diffusion time () and fields y
Noise = Callable[[int], Tensor]  # white noise of a step, in the coordinates and the shape of y
Transition = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]

variance = OrnsteinUhlenbeck.variance


class Integrator(ABC):
    """Carries fields from the first to the last time of a grid."""

    stochastic: ClassVar[bool]  # whether the steps, and not only the start, take noise

    @property
    def evaluations_per_step(self) -> int:
        """How often a step evaluates the score, the last one excepted."""
        return 1

    @abstractmethod
    def integrate(
        self, residual: Residual, y: Tensor, times: Tensor, s: Tensor, noise: Noise
    ) -> Tensor:
        """Y at the last time from Y at the first.

        Args:
            y: (batch, channel, coefficient); the result has its precision.
            times: decreasing, (step + 1,), float64.
            s: data variances, (channel, coefficient), float64.
            noise: of the steps 1 ... N; not called by integrators that are not stochastic.
        """


@dataclass(frozen=True)
class OneStep(Integrator):
    """One evaluation per step; given Y_k the next is Gaussian, so a path has a density.

    `transition(t, t_next, s)` gives phi, w and tau in float64; the times broadcast against s.
    """

    transition: Transition
    stochastic = True

    def integrate(
        self, residual: Residual, y: Tensor, times: Tensor, s: Tensor, noise: Noise
    ) -> Tensor:
        for k, (t, t_next) in enumerate(itertools.pairwise(times)):
            phi, w, tau = self.transition(t, t_next, s)
            y = (phi * y + w * residual(t, y) + tau * noise(k + 1)).to(y.dtype)
        return y


class GeiHeun(Integrator):
    """Weak order 2 with the same noise in both stages; the last step is that of GEI."""

    stochastic = True

    @property
    def evaluations_per_step(self) -> int:
        return 2

    def integrate(
        self, residual: Residual, y: Tensor, times: Tensor, s: Tensor, noise: Noise
    ) -> Tensor:
        for k, (t, t_next) in enumerate(itertools.pairwise(times)):
            phi, w, tau = gei(t, t_next, s)
            rho = residual(t, y)
            moved = phi * y + tau * noise(k + 1)
            if t_next > 0:
                rho = (rho + residual(t_next, (moved + w * rho).to(y.dtype))) / 2
            y = (moved + w * rho).to(y.dtype)
        return y


def ei(t: Tensor, t_next: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The score, Gaussian part included, frozen over the step: biased where s is not 1."""
    h, v = t - t_next, variance(t, s)
    w = -2 * torch.expm1(-h)
    return torch.exp(-h) + w * (v - 1) / v, w, OrnsteinUhlenbeck.sigma(h)


def mei(t: Tensor, t_next: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The exact mean E[X' | X] and the noise of the reference."""
    phi, w, _ = gme(t, t_next, s)
    return phi, w, OrnsteinUhlenbeck.sigma(t - t_next)


def gei(t: Tensor, t_next: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The residual frozen over the step, the Gaussian part exact."""
    phi, _, tau = gme(t, t_next, s)
    return phi, frozen_weight(t, t_next, s), tau


def gme(t: Tensor, t_next: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The exact mean E[X' | X] and the noise that is exact for Gaussian data."""
    h, v, v_next = t - t_next, variance(t, s), variance(t_next, s)
    phi = torch.exp(-h) * v_next / v
    return phi, 2 * torch.sinh(h), torch.sqrt(v_next * -torch.expm1(-2 * h) / v)


def frozen_weight(t: Tensor, t_next: Tensor, s: Tensor) -> Tensor:
    """What a residual of 1, constant over the step, adds to the reverse SDE.

    2 V' e^t' (Psi(e^-t') - Psi(e^-t)) with a = s - 1 and Psi(u) = atan(sqrt(a) u) / sqrt(a),
    atanh for a < 0; the difference by the addition theorem, which loses no digits at small h.
    """
    a, h = s - 1, t - t_next
    u = -torch.exp(-t_next) * torch.expm1(-h) / (1 + a * torch.exp(-t - t_next))
    root = a.abs().clamp(min=1e-6).sqrt()
    psi = torch.where(
        a.abs() < 1e-6,
        u - a * u**3 / 3,
        torch.where(a > 0, torch.atan(root * u), torch.atanh(root * u)) / root,
    )
    return 2 * variance(t_next, s) * torch.exp(t_next) * psi
