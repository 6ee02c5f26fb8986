"""Day after day: the next one drawn given those before it, and what that does to the variance.

A learned residual is trained on pasts of the data. In a sequence it sees its own draws, and what a
day has too much or too little adds up over as many days as are remembered. So sequences are run
once beside those that the linear law draws from the same noise; the ratio of their power, by
channel and degree, is known far better than either, and every day is multiplied by a factor that
takes it back to one. It is close to one where the memory is long, so a forecast loses hardly
anything of its spread. Where that takes more than one round each is on noise of its own, and where
coefficients are few a ratio is taken back by so much as its scatter among sequences leaves sure.
The linear law is stationary with the covariance of the data, so the days keep it, too. Notation:
docs/mathematics.md, 10.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.arrays import FloatArray
from pipeline.diffusion.sampler import INTEGRATORS, Sampler
from pipeline.diffusion.score import Condition, Score
from pipeline.gaussian.dynamics import SequenceLaw
from pipeline.sphere.coefficients import degrees, lmax_of

USUAL = Sampler(integrator=INTEGRATORS["z-ab2"], evaluations=6)  # as sequences are drawn by default
FORGOTTEN = 10  # days of a run that are not counted, as they remember where it began
WELL_KNOWN = 0.05  # standard error of the logarithm of a variance
ROUNDS = 4  # runs: all but the last correct what they measure, the last says what is left


@dataclass(frozen=True, kw_only=True)
class NextDay:
    """The learned law of a day given the days before it.

    Attributes:
        law: whose innovations the score is a score of.
        factor: that every day is multiplied by (`hold`), (channel, degree); 1 if not given.
    """

    law: SequenceLaw
    score: Score
    sampler: Sampler = USUAL
    factor: FloatArray | None = None

    def __call__(
        self, past: FloatArray, noise: Callable[[int], Tensor], features: Tensor
    ) -> FloatArray:
        """The days after some pasts, whitened, (batch, channel, coefficient).

        Args:
            past: `law.past` days, the last one last, (batch, day, channel, coefficient).
            noise: white, as a sampler takes it.
            features: season and covariates of the days that are drawn, (batch, feature).
        """
        mean = self.law.mean(past)
        seen = np.concatenate([mean[:, None], past[:, ::-1]], axis=1).astype(np.float32)
        condition = Condition(features=features, past=torch.from_numpy(seen).to(features.device))
        new = self.sampler(self.score, noise, condition)
        drawn: FloatArray = mean + new.double().cpu().numpy()
        if self.factor is not None:
            drawn *= self.factor[:, degrees(lmax_of(drawn.shape[-1]))]
        return drawn


@dataclass(frozen=True, kw_only=True)
class ClosedLoop:
    """Power of sequences over that of the linear law's, before and after it was taken back to one.

    Attributes:
        before, after: (channel, degree); 1 where there is no power.
        error: standard error of the logarithm of `after`, by the scatter among sequences.
    """

    before: FloatArray
    after: FloatArray
    error: FloatArray

    def in_words(self) -> str:
        """Between what the variance is where it is known well, and of how many degrees it is surely
        another than the data's."""
        known = self.error <= max(WELL_KNOWN, float(np.median(self.error)))
        before, after = (
            f"{part[known].min():.3f} to {part[known].max():.3f}"
            for part in (self.before, self.after)
        )
        off = int((np.abs(np.log(self.after)) > 3 * self.error + WELL_KNOWN).sum())
        words = f"{after} of the data's by degree; {before} unmatched; "
        return f"{words}{off} of {self.error.size} are surely elsewhere"


def hold(
    law: SequenceLaw,
    flow: Score,
    begun: FloatArray,
    features: Tensor,
    generator: torch.Generator,
) -> tuple[FloatArray, ClosedLoop]:
    """The factor of days, (channel, degree), under which sequences keep the variance of the data.

    Variance V = f^2 (remembered V + new) answers to a factor f by d log V = 2 d log f / (part that
    is new): that part of half the logarithm is what each round takes back.

    Args:
        begun: days of the data that the sequences go on from, (sequence, past, channel,
            coefficient), spread over the year.
        features: of the days that follow, (day, sequence, feature), more than `FORGOTTEN`.
        generator: source of the noise, on the CPU.
    """
    seed, found = int(torch.randint(2**48, (), generator=generator)), []
    factor = np.ones((begun.shape[2], lmax_of(begun.shape[3]) + 1))
    for number in range(ROUNDS):
        own = torch.Generator().manual_seed(seed + number)
        following = NextDay(law=law, score=flow, factor=factor)
        ratio, error, new = _power_beside(following, begun, features, own)
        found.append(ratio)
        if number < ROUNDS - 1:
            factor = factor * np.exp(-new * _sure(ratio, error) / 2)
    before, after = np.exp(found[0]), np.exp(found[-1])
    return factor, ClosedLoop(before=before, after=after, error=error)


def _sure(ratio: FloatArray, error: FloatArray) -> FloatArray:
    """Logarithms of ratios without the part that chance alone would give them.

    The positive part of the estimate of James and Stein, each by itself: what is small beside its
    standard error becomes zero, what is many times it stays.
    """
    kept = 1 - np.square(np.divide(error, ratio, out=np.ones_like(ratio), where=ratio != 0))
    sure: FloatArray = ratio * np.maximum(kept, 0.0)
    return sure


@torch.no_grad()
def _power_beside(
    following: NextDay, begun: FloatArray, features: Tensor, generator: torch.Generator
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Logarithm of the power of sequences over that of the linear law's of the same noise, its
    standard error, and the part of the latter that the days before do not tell, each (channel,
    degree)."""
    law = following.law
    innovations = law.innovations[law.past]
    own, linear = begun.astype(np.float64), begun.astype(np.float64)
    power = np.zeros((3, len(begun), *begun.shape[2:]))  # learned, linear, new in the latter
    for day, row in enumerate(features):
        white = torch.randn(begun[:, 0].shape, generator=generator)
        learned = following(own, lambda step, white=white: white.to(features.device), row)  # type: ignore[misc]
        new = innovations.color(white.double().to(innovations.variance.device)).cpu().numpy()
        expected = law.mean(linear) + new
        own = np.concatenate([own[:, 1:], learned[:, None]], axis=1)
        linear = np.concatenate([linear[:, 1:], expected[:, None]], axis=1)
        if day >= FORGOTTEN:
            power += np.square(np.stack([learned, expected, new]))
    starts = np.arange(lmax_of(power.shape[-1]) + 1) ** 2
    by_degree = np.add.reduceat(power, starts, axis=-1)
    whole = by_degree.sum(axis=1)
    others = _log_ratio(whole[:2, None] - by_degree[:2])  # without each sequence in turn
    error = np.sqrt(len(begun) - 1) * others.std(axis=0)
    return _log_ratio(whole[:2]), error, np.exp(_log_ratio(whole[[2, 1]]))


def _log_ratio(power: FloatArray) -> FloatArray:
    """Of the first of two powers to the second; 0 where there is none."""
    there = power[1] > 1e-6
    ratio = np.divide(power[0], power[1], out=np.ones_like(power[0]), where=there)
    logarithm: FloatArray = np.log(ratio)
    return logarithm
