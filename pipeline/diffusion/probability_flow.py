"""The probability flow: the reversal without noise, dY/dt = -b(t, Y), in coordinates of a baseline.

In z = Y / sqrt(V) the Gaussian part of the score has vanished and what is left to integrate is

    dz/dt = -rho(t, sqrt(V) z) / sqrt(V)

so Gaussian data are exact in any number of steps of any method. The score is never evaluated at
t = 0: Heun's and the classical Runge-Kutta method, which would do so, end with a method of one
order less that does not, which keeps their order and saves one evaluation.
Notation: docs/mathematics.md, 4.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.diffusion.integrators import Integrator, Noise, Residual
from pipeline.diffusion.process import OrnsteinUhlenbeck

variance = OrnsteinUhlenbeck.variance
State = tuple[Tensor, ...]
Slope = Callable[[Tensor, State], State]  # d/dt of a state at a time


@dataclass(frozen=True, kw_only=True)
class Tableau:
    """An explicit Runge-Kutta method: stage i is at `nodes[i]` of the step, on `rows[i]`."""

    nodes: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]

    def step(self, slope: Slope, t: Tensor, h: Tensor, state: State) -> State:
        """The state at t + h of that at t, by its slopes d/dt."""
        slopes: list[State] = []

        def along(factors: Sequence[float]) -> State:
            return tuple(
                part + h * sum(a * found for a, found in zip(factors, each, strict=True))
                for part, *each in zip(state, *slopes, strict=True)
            )

        for node, row in zip(self.nodes, self.rows, strict=True):
            slopes.append(slope(t + node * h, along(row)))
        return along(self.weights)


EULER = Tableau(nodes=(0,), rows=((),), weights=(1,))
HEUN = Tableau(nodes=(0, 1), rows=((), (1,)), weights=(1 / 2, 1 / 2))
RALSTON = Tableau(
    nodes=(0, 1 / 2, 3 / 4), rows=((), (1 / 2,), (0, 3 / 4)), weights=(2 / 9, 1 / 3, 4 / 9)
)
CLASSICAL = Tableau(
    nodes=(0, 1 / 2, 1 / 2, 1),
    rows=((), (1 / 2,), (0, 1 / 2), (0, 0, 1)),
    weights=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
)


@dataclass(frozen=True, kw_only=True)
class RungeKutta(Integrator):
    """Steps of `tableau`, the last one of `last`, which has no node at the end of the step."""

    tableau: Tableau
    last: Tableau
    stochastic = False

    @property
    def evaluations_per_step(self) -> int:
        return len(self.tableau.nodes)

    def integrate(
        self, residual: Residual, y: Tensor, times: Tensor, s: Tensor, noise: Noise
    ) -> Tensor:
        def slope(t: Tensor, state: State) -> State:
            return (-_slope(residual, t, state[0], s, y.dtype),)

        z = y / variance(times[0], s).sqrt()
        for t, t_next in itertools.pairwise(times):
            method = self.tableau if t_next > 0 else self.last
            (z,) = method.step(slope, t, t_next - t, (z,))
        return (variance(times[-1], s).sqrt() * z).to(y.dtype)


class AdamsBashforth(Integrator):
    """The two-step method of order 2 in u = sqrt(t), dz/du = -2 u rho / sqrt(V); Euler's first.

    A polynomial in u follows the residual better than one in t: near 0 it changes over times of
    the order of t, and far away like the signal-to-noise ratio. The first step is Euler's, where
    rho is smallest, so N steps take N evaluations.
    """

    stochastic = False

    def integrate(
        self, residual: Residual, y: Tensor, times: Tensor, s: Tensor, noise: Noise
    ) -> Tensor:
        z = y / variance(times[0], s).sqrt()
        before: tuple[Tensor, Tensor] | None = None
        for t, t_next in itertools.pairwise(times):
            u, h = t.sqrt(), t.sqrt() - t_next.sqrt()
            slope = 2 * u * _slope(residual, t, z, s, y.dtype)
            if before is None:
                z = z + h * slope
            else:
                half = h / before[0] / 2
                z = z + h * ((1 + half) * slope - half * before[1])
            before = h, slope
        return (variance(times[-1], s).sqrt() * z).to(y.dtype)


def _slope(residual: Residual, t: Tensor, z: Tensor, s: Tensor, dtype: torch.dtype) -> Tensor:
    """-dz/dt of the probability flow."""
    root = variance(t, s).sqrt()
    return residual(t, (root * z).to(dtype)) / root
