"""Entropic convergence bounds with explicit constants, term by term [nats].

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

Of data, g, r and e_k are not known: `start_bound` is rigorous and `model_step_term` indicative;
these two are what a report can show. `theorem_*` are for laws whose information is known, and the
tests hold them against the exact divergence. Notation: docs/mathematics.md, 5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.arrays import FloatArray
from pipeline.certificate.path_bound import step_weight
from pipeline.diffusion.integrators import gme
from pipeline.diffusion.process import OrnsteinUhlenbeck

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


def start_bound(second_moment: Tensor, s: Tensor, horizon: float) -> float:
    """Rigorous upper bound of KL(data noised to the horizon T | N(0, V(T))) [nats].

    By convexity it is at most the mean divergence of the transition N(e^-T x_0, sigma^2) from
    N(0, V): rigorous for every data law with these second moments, loose, and proportional to the
    number of coefficients. With s = 1 the start is the reference.

    Args:
        second_moment: E Y_0^2 in the coordinates of the baseline, (channel, coefficient).
        s: variances of the baseline, same shape.
    """
    t = torch.tensor(horizon, dtype=torch.float64)
    v, noised = (OrnsteinUhlenbeck.variance(t, each.double()) for each in (s, second_moment))
    sigma = OrnsteinUhlenbeck.sigma(t)
    return float((noised / v - 1 + torch.log(v) - 2 * torch.log(sigma)).sum()) / 2


def model_step_term(energy: FloatArray, s: Tensor, times: FloatArray) -> FloatArray:
    """Model-based step term of Theorem D [nats], for each step of the grid but the last.

    The residual of the model stands for that of the data, so this is indicative and no bound. In
    each step q = (e^t V)^2 r, which cannot grow with t, is taken as half-way between its ends:

        1/2 sum_i { r_i(t_k+1) tau_k,i^2 / 2 - r_i(t_k) w_k,i / 2 }.

    The last step is left out, as no network is asked at t = 0.

    Args:
        energy: E rho^2 at the times but the last, (step, channel, coefficient), as
            `pipeline.diffusion.sampler.residual_energy` measures it.
        s: variances of the baseline, (channel, coefficient).
    """
    r, grid = torch.as_tensor(energy), torch.as_tensor(times, dtype=torch.float64)[:, None, None]
    _, weight, tau = gme(grid[:-2], grid[1:-1], s.cpu())
    gap = r[1:] * tau.square() - r[:-1] * (weight / tau).square()
    terms: FloatArray = gap.sum(dim=(1, 2)).numpy() / 4
    return terms


def _exponential_euler_error(h: FloatArray, error: FloatArray) -> float:
    return float((h + (np.expm1(h) - h) / 2) @ error)


def _integrals(information: Information, times: FloatArray) -> FloatArray:
    """Integral of a function of t over each step, by Gauss-Legendre quadrature."""
    node, weight = np.polynomial.legendre.leggauss(NODES)
    h = -np.diff(times)
    inside = times[1:, None] + h[:, None] * (node + 1) / 2
    integrals: FloatArray = h / 2 * (information(inside.ravel()).reshape(inside.shape) @ weight)
    return integrals
