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
to N_l, with sum_l N_l = int E|rho_t|^2 dt = KL(data | baseline), of which J_G is a lower bound: the
negentropy if the baseline has the covariance of the data, and else that and what the baseline
misses of the covariance. Notation: docs/mathematics.md, 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.arrays import FloatArray
from pipeline.diffusion.integrators import gme
from pipeline.diffusion.score import Given, Posterior, Score
from pipeline.sphere.coefficients import lmax_of, sum_by_degree

MOST, NUMBERS = 64, 1 << 25  # fields, and coefficients, that are noised and scored together


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Contributions to J_G [nats] of held-out fields; those of parts of the fields can be added.

    Attributes:
        by_field: (field, channel, degree), in the order of the fields: what each of them says at
            the steps that it was noised to, weighted so that every step counts alike.
        by_step: (step, channel, degree), for each step of the sampler, summed over the fields.
        visits: (field, draw), the steps that each field was noised to.
    """

    by_field: FloatArray
    by_step: FloatArray
    visits: NDArray[np.intp]

    def __add__(self, other: Certificate) -> Certificate:
        """The certificate of these fields followed by the other's."""
        return Certificate(
            by_field=np.concatenate([self.by_field, other.by_field]),
            by_step=self.by_step + other.by_step,
            visits=np.concatenate([self.visits, other.visits]),
        )

    @property
    def by_field_alone(self) -> FloatArray:
        """`by_field` without what a field owes to the steps that it happened to be noised to.

        The mean over fields is the same, J_G, and the scatter is that of the fields: steps differ
        far more than fields do, and are no chance, as all of them are visited.
        """
        steps, (fields, draws) = len(self.by_step), self.visits.shape
        if draws == steps:
            return self.by_field
        times = np.bincount(self.visits.ravel(), minlength=steps)
        usual = self.by_step / np.maximum(times, 1)[:, None, None]
        own = sum(usual[column] for column in self.visits.T)
        # Means of few fields follow each of them; that is made up for.
        free = max(1, fields * draws - steps)
        scatter = (self.by_field - own) * (fields * draws / free) ** 0.5
        alone: FloatArray = scatter + self.by_step.sum(axis=0) / fields
        return alone

    @property
    def per_field(self) -> FloatArray:
        """(field,); its mean is J_G, its scatter that of the fields."""
        total: FloatArray = self.by_field_alone.sum(axis=(1, 2))
        return total

    @property
    def nats(self) -> float:
        return float(self.by_field.sum() / len(self.by_field))

    @property
    def spectrum(self) -> FloatArray:
        """Non-Gaussianity spectrum (step, channel, degree); its sum is J_G.

        It holds what the baseline misses of the covariance, too.
        """
        return self.by_step / len(self.by_field)


@torch.no_grad()
def certify(
    score: Score,
    x_0: Tensor,
    condition: Given,
    times: FloatArray,
    generator: torch.Generator,
    draws: int | None = None,
    batch: int | None = None,
    first: int = 0,
    of: int | None = None,
) -> Certificate:
    """Estimate J_G of the GME chain over the baseline of `score`.

    Noise and steps of a field follow from the generator's first number and the field's, so parts
    certified with equal generators add up to the certificate of the whole. Fields and steps do not
    always come out even: each step is weighted by how often all fields together visit it.

    Args:
        x_0: held-out whitened fields, (field, channel, coefficient).
        condition: of each field, (field, feature), as a score takes it.
        times: decreasing grid t_0 > ... > t_N of the sampler.
        draws: steps k drawn for each field, spread evenly over the grid, and as many more as it
            takes to visit every step; all N if None.
        generator: source of the noise, on the CPU.
        batch: fields that the score is asked about at once; as many as `at_once` says if None.
        first, of: number of the first of these fields, and how many there are in all, where they
            are a part of more.
    """
    steps, fields = len(times) - 1, len(x_0)
    visits, weight = _visits(steps, first + fields if of is None else of, draws or steps)
    visits = visits[first : first + fields]
    shape = (x_0.shape[1], lmax_of(x_0.shape[2]) + 1)
    by_field, by_step = np.zeros((fields, *shape)), np.zeros((steps, *shape))
    grid = torch.as_tensor(times, dtype=torch.float64, device=x_0.device)
    seed = int(torch.randint(2**48, (), generator=generator))
    batch = batch or at_once(x_0)
    streams = [torch.Generator().manual_seed(seed + first + number) for number in range(fields)]
    for step in visits.T:
        for start in range(0, fields, batch):
            rows = slice(start, start + batch)
            k = torch.as_tensor(step[rows], device=x_0.device)
            noise = torch.stack([torch.randn(x_0.shape[1:], generator=g) for g in streams[rows]])
            nats = information(
                score, x_0[rows], grid[k], grid[k + 1], condition[rows], noise.to(x_0.device)
            ).cpu()
            split = sum_by_degree(nats.numpy()) * weight[step[rows], None, None]
            by_field[rows] += split
            np.add.at(by_step, step[rows], split)
    return Certificate(by_field=by_field, by_step=by_step, visits=visits)


def at_once(x_0: Tensor) -> int:
    """How many of these fields are noised and scored together: few of large ones."""
    return int(min(MOST, max(1, NUMBERS // x_0[0].numel())))


def _visits(steps: int, fields: int, draws: int) -> tuple[NDArray[np.intp], FloatArray]:
    """The steps that each field is noised to, (field, draw), and the weight of each step.

    The weights of the visits of a step add up to the number of fields.
    """
    draws = min(steps, max(draws, -(-steps // fields)))
    place = np.arange(fields)[:, None] + np.arange(draws) * (steps / draws)
    visits = (place % steps).astype(np.intp)
    return visits, fields / np.bincount(visits.ravel(), minlength=steps)


def information(
    score: Score, x_0: Tensor, t: Tensor, t_next: Tensor, condition: Given, noise: Tensor
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
