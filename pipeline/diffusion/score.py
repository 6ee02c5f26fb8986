"""Scores: the Malliavin derivative b_t = D log f_t of the noised law against the reference.

In the coordinates y of a Gaussian baseline (gaussian.py) with data variances s,

    b_t(y) = y + grad log p_t(y)  =  (e^-t / sigma^2) (E[Y_0 | Y_t = y] - e^-t y)

the score as a derivative and as a conditional expectation. Its Gaussian part is exact,
(1 - 1/V) y; what is left, the residual rho, is what a network learns in units of the posterior
standard deviation:

    rho = (e^-t / sigma^2) c_out F,     E F = 0,  Var F = 1 in every direction and at every time.

F = 0 is the exact score of the baseline. Notation: docs/mathematics.md, 3 and 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.gaussian.fit import Baseline


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What days are drawn given; rows of it are those of some of the days.

    Attributes:
        features: (batch, 1 + covariates): the season of each day [rad], then its covariates in
            standard units, NaN where none is given.
        past: whitened, (batch, 1 + past, channel, coefficient): the expected day K o, then the days
            of o with the latest first (pipeline/gaussian/given_past).
    """

    features: Tensor
    past: Tensor

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: Any) -> Condition:
        return Condition(features=self.features[rows], past=self.past[rows])

    def to(self, device: torch.device) -> Condition:
        return Condition(features=self.features.to(device), past=self.past.to(device))

    @property
    def device(self) -> torch.device:
        return self.features.device


# Single days are given their features alone.
Given = Tensor | Condition


def features_of(condition: Given) -> Tensor:
    """The season and the covariates of what is drawn, (batch, 1 + covariates)."""
    return condition.features if isinstance(condition, Condition) else condition


class Score(Protocol):
    """A score in the coordinates of `baseline`; exact and learned ones are interchangeable."""

    baseline: Baseline

    def residual(self, t: Tensor, y: Tensor, condition: Given) -> Tensor:
        """rho: the score less its Gaussian part.

        Args:
            t: diffusion time of each field, shape (batch,), positive.
            y: noised fields in baseline coordinates, (batch, channel, coefficient).
            condition: of each field: its features, (batch, 1 + covariates), or those and the past
                that a day of a sequence has.
        """
        ...


class Posterior:
    """The Gaussian posterior of Y_0 given Y_t = y: its mean c_skip y and standard deviation c_out.

    Tables are computed in float64, where 1 - e^-2t and V - 1 lose nothing.

    Args:
        t: diffusion times, shape (batch,).
        s: variances of the baseline's coordinates, shape (channel, coefficient).
    """

    def __init__(self, t: Tensor, s: Tensor) -> None:
        process = OrnsteinUhlenbeck
        time = t.double()[:, None, None]
        self.alpha, self.sigma = process.alpha(time), process.sigma(time)
        self.variance = process.variance(time, s)
        self.c_skip = self.alpha * s / self.variance
        self.c_out = self.sigma * torch.sqrt(s / self.variance)
        self.c_in = self.variance.rsqrt()
        self.residual_scale = self.alpha / self.sigma**2 * self.c_out

    def target(self, y_0: Tensor, y_t: Tensor) -> Tensor:
        """F of the pair (y_0, y_t), whose mean given y_t is what the network should return."""
        return (y_0 - self.c_skip * y_t) / self.c_out


def gaussian_score(baseline: Baseline, t: Tensor, y: Tensor) -> Tensor:
    """The exact score of the baseline, (1 - 1/V) y."""
    variance = OrnsteinUhlenbeck.variance(t.double()[:, None, None], baseline.variance)
    return ((variance - 1) / variance).to(y.dtype) * y


class GaussianScore:
    """The exact score of a Gaussian baseline: a finished generator by itself."""

    def __init__(self, baseline: Baseline) -> None:
        self.baseline = baseline

    def residual(self, t: Tensor, y: Tensor, condition: Given) -> Tensor:
        return torch.zeros_like(y)
