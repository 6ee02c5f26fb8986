"""Entropic convergence bounds with explicit constants, for laws whose information is known.

For a sampler on the grid T = t_0 > ... > t_N with an exact score b, a model s and
e_k = E|s(t_k, X) - b(t_k, X)|^2, each theorem bounds KL(data | output) by three terms: what the
start misses, what the score misses, what the step misses.

    A  EI, start N(0, I)       e^-2T KL + sum (h + (e^h - 1 - h)/2) e_k + sum h_k (g_k+1 - g_k)
    B  the same, stopped at t_N > 0 on a geometric grid, h_k <= eta t_k+1:  step term <= eta KL
    C  MEI, start N(0, I)      KL_T + sum { (e^2h - 1)/2 e_k + int [g(t_k - u) - e^2u g(t_k)] du }
    D  GME, start N(0, V(T))   KL_T + sum { w/2 e_k + int r(t_k - u) du - w/2 r(t_k) }

with KL = KL(data | gamma), g = E|b_t|^2 the Fisher information and, for D, coordinate by
coordinate, r = E rho^2 and w = 4 sinh(h)^2 / tau^2, as w/2 is the integral of the squared
martingale factor (e^u V(t_k) / V(t_k - u))^2. With the exact score D, its start included, is the
negentropy less J_G.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.certificate.path_bound import step_weight

FloatArray = NDArray[np.float64]
Information = Callable[[FloatArray], FloatArray]

NODES = 12  # of Gauss-Legendre quadrature, in each step


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The terms of a bound on KL(data | output) [nats]."""

    start: float
    score: float
    step: float

    @property
    def total(self) -> float:
        return self.start + self.score + self.step


def theorem_a(kl: float, g: Information, error: FloatArray, times: FloatArray) -> Bound:
    """EI from the reference. `kl` = KL(data | gamma); error e_k, (step,); times (step + 1,)."""
    h, information = -np.diff(times), g(times)
    return Bound(
        start=float(np.exp(-2 * times[0]) * kl),
        score=_exponential_euler_error(h, error),
        step=float(h @ np.diff(information)),
    )


def theorem_b(kl: float, error: FloatArray, times: FloatArray) -> Bound:
    """EI from the reference, stopped at times[-1] > 0; bounds KL(data noised to there | output)."""
    h = -np.diff(times)
    eta = float((h / times[1:]).max())
    return Bound(
        start=float(np.exp(-2 * times[0]) * kl),
        score=_exponential_euler_error(h, error),
        step=eta * kl,
    )


def theorem_c(kl_start: float, g: Information, error: FloatArray, times: FloatArray) -> Bound:
    """MEI from the reference. `kl_start` = KL(data noised to T | gamma); for it, exact on paths."""
    h = -np.diff(times)
    grown = np.expm1(2 * h) / 2
    return Bound(
        start=kl_start,
        score=float(grown @ error),
        step=float((_integrals(g, times) - grown * g(times[:-1])).sum()),
    )


def theorem_d(
    kl_start: float, r: Information, error: FloatArray, times: FloatArray, s: float
) -> Bound:
    """GME from N(0, V(T)), for one coordinate with data variance s; coordinates add up.

    `kl_start` = KL(data noised to T | N(0, V(T))); `error` is that of the residual.
    """
    grid = torch.as_tensor(times)
    weight = step_weight(grid[:-1], grid[1:], torch.tensor([[s]])).numpy()[:, 0, 0]
    return Bound(
        start=kl_start,
        score=float(weight @ error) / 2,
        step=float((_integrals(r, times) - weight / 2 * r(times[:-1])).sum()),
    )


def _exponential_euler_error(h: FloatArray, error: FloatArray) -> float:
    return float((h + (np.expm1(h) - h) / 2) @ error)


def _integrals(information: Information, times: FloatArray) -> FloatArray:
    """Integral of a function of t over each step, by Gauss-Legendre quadrature."""
    node, weight = np.polynomial.legendre.leggauss(NODES)
    h = -np.diff(times)
    inside = times[1:, None] + h[:, None] * (node + 1) / 2
    integrals: FloatArray = h / 2 * (information(inside.ravel()).reshape(inside.shape) @ weight)
    return integrals
