"""The certificate: by how many nats the generated law is closer to the data than its baseline.

With held-out fields noised to the times t_k of a one-step Gaussian sampler,

    J_G = E sum_k sum_i [ log(tau_G/tau) + (X' - phi_G X)^2 / (2 tau_G^2) - (X' - M)^2 / (2 tau^2) ]

satisfies KL(data | generated) <= KL(data | baseline) - J_G: X -> N(M, tau^2) is the sampler's step,
X -> N(phi_G X, tau_G^2) the exact reverse step of the baseline. Every error of the sampler, of the
score and of the start N(0, V(T)) is inside, and no constant is unknown. For the GME step, whose
noise is the baseline's, the mean over X' given X and X_0 is known, and

    J_G = sum_k sum_i w_k,i E[rho_theta,i rho_tgt,i - rho_theta,i^2 / 2],   w = 4 sinh(h)^2 / tau^2.

A zero residual gives exactly 0; training fields give a number without meaning. Split by degree
J_G is a spectrum of non-Gaussianity: for the exact score and fine steps its part in degree l tends
to N_l, with sum_l N_l = int E|rho_t|^2 dt = KL(data | Gaussian law of the same covariance), the
negentropy, of which J_G is a lower bound. Notation: docs/mathematics.md, 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.arrays import FloatArray
from pipeline.diffusion.integrators import Transition, gme
from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.diffusion.score import Posterior, Score
from pipeline.scores.bootstrap import date_weights, mean_over_dates
from pipeline.sphere.coefficients import degrees, lmax_of


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Contributions to J_G [nats] of held-out fields; those of parts of the fields can be added.

    Attributes:
        by_field: (field, channel, degree), in the order of the fields.
        by_step: (step, channel, degree), for each step of the sampler, summed over the fields.
    """

    by_field: FloatArray
    by_step: FloatArray

    def __add__(self, other: Certificate) -> Certificate:
        """The certificate of these fields followed by the other's."""
        return Certificate(
            by_field=np.concatenate([self.by_field, other.by_field]),
            by_step=self.by_step + other.by_step,
        )

    @property
    def per_field(self) -> FloatArray:
        """(field,); its mean is J_G."""
        total: FloatArray = self.by_field.sum(axis=(1, 2))
        return total

    @property
    def nats(self) -> float:
        return float(self.per_field.mean())

    @property
    def spectrum(self) -> FloatArray:
        """Non-Gaussianity spectrum (step, channel, degree); its sum is J_G."""
        return self.by_step / len(self.by_field)


@torch.no_grad()
def certify(
    score: Score,
    x_0: Tensor,
    condition: Tensor,
    times: FloatArray,
    generator: torch.Generator,
    draws: int | None = None,
    batch: int = 64,
    first: int = 0,
) -> Certificate:
    """Estimate J_G of the GME chain over the baseline of `score`.

    Noise and steps of a field follow from the generator's first number and the field's, so parts
    certified with equal generators add up to the certificate of the whole.

    Args:
        x_0: held-out whitened fields, (field, channel, coefficient).
        condition: of each field, (field, feature), as a score takes it.
        times: decreasing grid t_0 > ... > t_N of the sampler.
        draws: steps k drawn for each field, spread evenly over the grid; all N if None.
        generator: source of the noise, on the CPU.
        first: number of the first of these fields, where they are a part of more.
    """
    steps, fields = len(times) - 1, len(x_0)
    draws = min(draws or steps, steps)
    degree = torch.as_tensor(degrees(lmax_of(x_0.shape[2])))
    shape = (x_0.shape[1], int(degree[-1]) + 1)
    by_field, by_step = np.zeros((fields, *shape)), np.zeros((steps, *shape))
    grid = torch.as_tensor(times, dtype=torch.float64, device=x_0.device)
    seed = int(torch.randint(2**48, (), generator=generator))
    streams = [torch.Generator().manual_seed(seed + first + number) for number in range(fields)]
    stride = steps / draws
    for draw in range(draws):
        # Over all fields and draws every step of the grid is visited equally often.
        step = ((first + np.arange(fields) + draw * stride) % steps).astype(int)
        for start in range(0, fields, batch):
            rows = slice(start, start + batch)
            k = torch.as_tensor(step[rows], device=x_0.device)
            noise = torch.stack([torch.randn(x_0.shape[1:], generator=g) for g in streams[rows]])
            nats = information(
                score, x_0[rows], grid[k], grid[k + 1], condition[rows], noise.to(x_0.device)
            ).cpu()
            split = nats.new_zeros(len(nats), *shape).index_add_(2, degree, nats).numpy() * stride
            by_field[rows] += split
            np.add.at(by_step, step[rows], split)
    return Certificate(by_field=by_field, by_step=by_step)


def information(
    score: Score, x_0: Tensor, t: Tensor, t_next: Tensor, condition: Tensor, noise: Tensor
) -> Tensor:
    """The term of the GME step t to t_next, one draw, split by whitened coefficient.

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
    _, weight, tau = gme(t[:, None, None], t_next[:, None, None], s)
    return (weight / tau).square()


@torch.no_grad()
def certify_paths(
    score: Score,
    transition: Transition,
    x_0: Tensor,
    condition: Tensor,
    times: FloatArray,
    generator: torch.Generator,
    batch: int = 64,
) -> FloatArray:
    """J_G of any one-step Gaussian sampler, from noised paths: nats (field, step).

    The mean over fields, summed over steps, estimates J_G over the baseline of `score` for the
    sampler that starts at N(0, V(T)). With EI and the reference itself as baseline (s = 1, the
    residual is the whole score) it is the certificate over the reference, for the start N(0, I).
    It takes whole paths and knows no split by degree; the stages of a run use `certify`.

    Args:
        transition: of the sampler: pipeline.diffusion.integrators.ei, mei, gei, gme or another.
        times: decreasing grid t_0 > ... > t_N of the sampler.
    """
    grid = torch.as_tensor(times, dtype=torch.float64, device=x_0.device)
    nats = np.zeros((len(x_0), len(times) - 1))
    for start in range(0, len(x_0), batch):
        rows = slice(start, start + batch)
        x_next = x_0[rows].double()
        if times[-1] > 0:
            noise = torch.randn(x_next.shape, generator=generator, dtype=torch.float64)
            x_next = OrnsteinUhlenbeck().perturb(x_next, grid[-1], noise.to(x_0.device))
        for k in reversed(range(len(times) - 1)):
            h = grid[k] - grid[k + 1]
            noise = torch.randn(x_next.shape, generator=generator, dtype=torch.float64)
            x = OrnsteinUhlenbeck().perturb(x_next, h, noise.to(x_0.device))
            ratio = path_information(
                score, transition, x, x_next, grid[k : k + 1], grid[k + 1 : k + 2], condition[rows]
            )
            nats[rows, k] = ratio.sum(dim=(1, 2)).cpu()
            x_next = x
    return nats


def path_information(
    score: Score,
    transition: Transition,
    x: Tensor,
    x_next: Tensor,
    t: Tensor,
    t_next: Tensor,
    condition: Tensor,
) -> Tensor:
    """Log ratio of the sampler's and the baseline's transition density from x at t to x_next.

    Times (1,) or (batch,); the result is split by the coordinates of the baseline.
    """
    baseline = score.baseline
    y, y_next = baseline.rotate(x), baseline.rotate(x_next)
    times = t[:, None, None], t_next[:, None, None]
    phi, weight, tau = transition(*times, baseline.variance)
    phi_g, _, tau_g = gme(*times, baseline.variance)
    mean = phi * y + weight * score.residual(t.expand(len(y)), y.to(x.dtype), condition).double()
    gap, gap_g = (y_next - mean) / tau, (y_next - phi_g * y) / tau_g
    return torch.log(tau_g / tau) + gap_g.square() / 2 - gap.square() / 2


def block_interval(
    values: FloatArray, block: int, generator: np.random.Generator, resamples: int = 4000
) -> tuple[float, float]:
    """95 % interval of the mean of a time-ordered series, by a circular block bootstrap.

    Args:
        values: (field,), in order of time; neighbours may be correlated.
        block: length of the resampled runs, longer than the correlation; at most half the series.
    """
    low, high = np.quantile(_means(values, block, generator, resamples), [0.025, 0.975])
    return float(low), float(high)


def block_error(
    values: FloatArray, block: int, generator: np.random.Generator, resamples: int = 1000
) -> FloatArray:
    """Standard errors of the means over the first axis, (field, ...) to (...), as above."""
    error: FloatArray = _means(values, block, generator, resamples).std(axis=0, ddof=1)
    return error


def _means(
    values: FloatArray, block: int, generator: np.random.Generator, resamples: int
) -> FloatArray:
    fields = len(values)
    block = max(1, min(block, fields // 2))
    weights = date_weights(fields, block=block, replicates=resamples, generator=generator)
    return mean_over_dates(values, weights[1:]).astype(np.float64)
