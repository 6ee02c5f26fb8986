"""The twisted chain: the certified sampler given linear observations, with weights in closed form.

With the posterior mean m_t = c_skip y + (sigma^2 / alpha) rho of a score, the posterior variance
Sigma_t = sigma^2 s / V of its baseline and

    psi_t(y) = N(y_obs; A m_t(y), C_t),    C_t = R + A Sigma_t A^T,

a step of GME from t to t', which has mean M and variance tau^2, is twisted to

    q(y') ~ N(y'; M, tau^2) N(y_obs; A m^(y'), C_t'),    m^(y') = c'_skip y' + r,

with the residual frozen along its martingale, r = (sigma'^2 / alpha') e^h (V / V') rho. This is a
Gaussian in closed form whose integral is psi_t(y), because C_t' + A c'^2 tau^2 A^T = C_t and
c'_skip M + r = m_t(y). So a step weighs

    N(y_obs; A m_t'(y'), C_t') / N(y_obs; A m^(y'), C_t'),

which is 1 where rho is 0 (Gaussian laws: exact with any number of steps and one particle) and in
the last step, where m_0(y') = y'. For other laws particles are resampled by their weights, and the
law of the output tends to that of the chain given y_obs as their number grows. The network is asked
for its residual only; no gradient passes through it. Notation: docs/mathematics.md, 11.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.diffusion.integrators import gme
from pipeline.diffusion.score import Posterior, Score
from pipeline.gaussian.posterior import log_density, observed_rows, root_of

__all__ = ["FEWEST_EFFECTIVE", "TwistedChain", "TwistedDraws"]

FEWEST_EFFECTIVE = 0.5  # share of the particles below which they are resampled


@dataclass(frozen=True, kw_only=True, eq=False)
class TwistedDraws:
    """Draws of a law given observations, at several dates.

    Attributes:
        x: whitened fields of equal weight, (date, particle, channel, coefficient).
        values: what each particle is given, (date, particle or 1, observation).
        log_evidence: log of the density of the observed values [nats], (date,); that of the
            baseline where particles are not weighed.
        effective: the smallest effective sample size of all steps, as a share of the particles,
            (date,).
    """

    x: Tensor
    values: Tensor
    log_evidence: Tensor
    effective: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class TwistedChain:
    """The chain of a score given observations by one operator.

    Attributes:
        operator: A, (observation, channel, coefficient), acts on whitened fields.
        noise: R, (observation, observation).
        times: decreasing grid t_0 = horizon > ... > t_N = 0 of the GME sampler, (step + 1,).
        weighted: whether particles are weighed and resampled. Without it the draws are those of
            the proposal, an approximation that is exact for Gaussian laws.
    """

    score: Score
    operator: Tensor
    noise: Tensor
    times: Tensor
    weighted: bool = True

    @torch.no_grad()
    def __call__(
        self,
        values: Tensor,
        condition: Tensor,
        white: Callable[[int], Tensor],
        error: Callable[[int], Tensor],
        uniform: Callable[[int], Tensor],
        start: Tensor | None = None,
    ) -> TwistedDraws:
        """Draw particles at some dates; one Cholesky factor for each step serves all of them.

        Args:
            values: y_obs of each date, (date, observation), or of each particle,
                (date, particle, observation).
            condition: of each date, (date, feature), as a score takes it.
            white: white noise of the start (0) and of the steps 1 ... N in whitened coordinates,
                (date, particle, channel, coefficient).
            error: white noise of the same steps, (date, particle, observation).
            uniform: numbers in [0, 1) that resample before the steps 1 ... N, (date,).
            start: logs of the weights of particles with values of their own, (date, particle);
                then the evidence is the mean of these weights times the densities of the values.
        """
        values = values.double().clone() if values.ndim == 3 else values.double()[:, None]
        move, times = _Moves(self, values), self.times.double()
        y = move.start(white(0), error(0))
        expected = move.at[0].c_skip * y
        dates, particles = y.shape[:2]
        known = log_density(values, move.prior_factor)
        log_evidence, weight = known[:, 0].clone(), y.new_zeros(dates, particles)
        if start is not None:
            log_evidence, weight = torch.zeros_like(log_evidence), start + known
        effective = y.new_ones(dates)
        for k in range(len(times) - 1):
            rho = self._residual(times[k], y, condition)
            if self.weighted:
                weight = weight + move.log_weight(k, y, rho, expected)
                share = _effective(weight)
                effective = torch.minimum(effective, share)
                last = torch.full_like(share, k == len(times) - 2, dtype=torch.bool)
                for date in torch.nonzero(last | (share < FEWEST_EFFECTIVE)).flatten():
                    log_evidence[date] += torch.logsumexp(weight[date], 0) - math.log(particles)
                    chosen = _resampled(weight[date], uniform(k + 1)[date])
                    y[date], rho[date] = y[date, chosen], rho[date, chosen]
                    if start is not None:
                        move.values[date] = move.values[date, chosen]
                    weight[date] = 0.0
            y, expected = move.step(k, y, rho, white(k + 1), error(k + 1), times)
        shape = self.score.baseline.variance.shape
        x = self.score.baseline.unrotate(y.reshape(*y.shape[:-1], *shape))
        return TwistedDraws(x=x, values=move.values, log_evidence=log_evidence, effective=effective)

    def _residual(self, t: Tensor, y: Tensor, condition: Tensor) -> Tensor:
        """rho of all particles, date after date, flat as y is."""
        shape = self.score.baseline.variance.shape
        found = []
        for row, about in zip(y, condition, strict=True):
            given = about.expand(len(row), -1)
            at = row.reshape(-1, *shape).to(self.precision)
            found.append(self.score.residual(t.expand(len(row)), at, given).double().flatten(-2))
        return torch.stack(found)

    @property
    def precision(self) -> torch.dtype:
        """Of the fields that the score sees."""
        parts = getattr(self.score, "parameters", None)
        return torch.float32 if parts is not None and any(True for _ in parts()) else torch.float64


@dataclass(frozen=True, kw_only=True, eq=False)
class _At:
    """The Gaussian posterior of Y_0 at one time: c_skip, Sigma, sigma^2 / alpha, and V."""

    c_skip: Tensor
    sigma: Tensor
    scale: Tensor
    variance: Tensor

    @classmethod
    def of(cls, t: Tensor, s: Tensor) -> _At:
        if t == 0:
            return cls(
                c_skip=torch.ones_like(s), sigma=torch.zeros_like(s), scale=0.0 * t, variance=s
            )
        at = Posterior(t[None], s[None])
        return cls(
            c_skip=at.c_skip[0, 0],
            sigma=at.c_out[0, 0].square(),
            scale=(at.sigma**2 / at.alpha)[0, 0, 0],
            variance=at.variance[0, 0],
        )


class _Moves:
    """The Gaussian algebra of the chain, in the flat coordinates of the baseline."""

    def __init__(self, chain: TwistedChain, values: Tensor) -> None:
        self.baseline, self.values = chain.score.baseline, values
        self.rows = observed_rows(self.baseline, chain.operator, chain.noise)
        self.noise = chain.noise.to(self.rows)
        self.s = self.baseline.variance.flatten()
        self.at = [_At.of(t, self.s) for t in chain.times.to(self.rows)]
        self.prior_factor = self._factor(self.s)
        self._place, self._kept = -1, self.prior_factor

    def _factor(self, variance: Tensor) -> Tensor:
        factor: Tensor = torch.linalg.cholesky(self.noise + (self.rows * variance) @ self.rows.T)
        return factor

    def factor(self, k: int) -> Tensor:
        """A root of C_t at the grid's time k, triangular but for the last; one is kept."""
        if self._place != k:
            last = k == len(self.at) - 1
            self._kept = root_of(self.noise) if last else self._factor(self.at[k].sigma)
            self._place = k
        return self._kept

    def start(self, white: Tensor, error: Tensor) -> Tensor:
        """Y at the horizon given the observations, as if the law were Gaussian."""
        at = self.at[0]
        y = at.variance.sqrt() * self._turned(white)
        return self._pulled(y, at.c_skip * y, at.variance * at.c_skip, error, self.prior_factor, 0)

    def log_weight(self, k: int, y: Tensor, rho: Tensor, expected: Tensor) -> Tensor:
        """What the score says of the observations beyond what the step before expected."""
        found, guessed = (
            log_density(self.values - mean @ self.rows.T, self.factor(k))
            for mean in (self.at[k].c_skip * y + self.at[k].scale * rho, expected)
        )
        return found - guessed

    def step(
        self, k: int, y: Tensor, rho: Tensor, white: Tensor, error: Tensor, times: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Y' of the twisted step from time k, and the posterior mean expected of it."""
        now, after = self.at[k], self.at[k + 1]
        phi, w, tau = gme(times[k], times[k + 1], self.s)
        ratio = torch.exp(times[k] - times[k + 1]) * now.variance / after.variance
        frozen = after.scale * ratio * rho
        y = phi * y + w * rho + tau * self._turned(white)
        factor = self.factor(k)
        y = self._pulled(y, after.c_skip * y + frozen, tau**2 * after.c_skip, error, factor, k + 1)
        return y, after.c_skip * y + frozen

    def _pulled(
        self, y: Tensor, mean: Tensor, gain: Tensor, error: Tensor, factor: Tensor, k: int
    ) -> Tensor:
        """Matheron's rule: y with observations of `mean` and errors of covariance C at time k."""
        gap = self.values - mean @ self.rows.T - error.double() @ self.factor(k).T
        flat = gap.flatten(0, -2).T
        solved = torch.cholesky_solve(flat, factor).T.reshape(gap.shape)
        return y + solved @ (self.rows * gain)

    def _turned(self, white: Tensor) -> Tensor:
        return self.baseline.rotate(white.double()).flatten(-2)


def _effective(log_weight: Tensor) -> Tensor:
    """Effective sample size of particles (date, particle), as a share of them, (date,)."""
    share = torch.softmax(log_weight, dim=1)
    return 1.0 / share.square().sum(1) / log_weight.shape[1]


def _resampled(log_weight: Tensor, uniform: Tensor) -> Tensor:
    """Systematic resampling: the particles (particle,) that go on, each as often as it weighs."""
    number = len(log_weight)
    reached = torch.cumsum(torch.softmax(log_weight, dim=0), 0)
    places = (torch.arange(number) + uniform.cpu().double()) / number
    return torch.searchsorted(reached, places.to(reached)).clamp(max=number - 1)
