"""Gaussian laws given linear observations: kriging, and exact draws by Matheron's rule.

    y_obs = A x + eta,    eta ~ N(0, R),    x ~ N(0, S)

    x + K (y_obs - A x - eta),    K = S A^T (R + A S A^T)^-1

is a draw of the law of x given y_obs when x and eta are draws of their own laws. The density of
y_obs, the evidence, is N(0, R + A S A^T). In the coordinates of a baseline S is diagonal, so one
Cholesky factor of the number of observations serves all draws. Notation: docs/mathematics.md, 11.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.gaussian.baselines import Baseline

__all__ = ["GaussianPosterior", "log_density", "observed_rows", "root_of"]


class GaussianPosterior:
    """The law of a baseline given observations of its whitened fields.

    Args:
        baseline: the law before them.
        operator: A, (observation, channel, coefficient), acts on whitened fields.
        noise: R, (observation, observation).
    Raises:
        ValueError: If the shapes do not fit, or two observations without error say the same thing.
    """

    def __init__(self, baseline: Baseline, operator: Tensor, noise: Tensor) -> None:
        self.baseline = baseline
        self.rows = observed_rows(baseline, operator, noise)
        self.noise = noise.to(self.rows)
        self.s = baseline.variance.flatten()
        self.factor = _factor(self.noise + (self.rows * self.s) @ self.rows.T)

    def draw(self, white: Tensor, error: Tensor, values: Tensor) -> Tensor:
        """Whitened draws (..., channel, coefficient) given the observed values.

        Args:
            white: white noise of that shape in whitened coordinates.
            error: white noise (..., observation), independent of it.
            values: y_obs, (..., observation).
        """
        y = self.s.sqrt() * self.baseline.rotate(white.double()).flatten(-2)
        gap = values - y @ self.rows.T - error.double() @ root_of(self.noise).T
        return self._fields(y + self._gain(gap))

    def mean(self, values: Tensor) -> Tensor:
        """The mean (..., channel, coefficient) given the observed values: kriging."""
        return self._fields(self._gain(values))

    def covariance(self, operator: Tensor) -> Tensor:
        """Covariance of B x given the observations, for B (row, channel, coefficient)."""
        rows = self.baseline.rotate(operator.to(self.s)).flatten(1)
        known: Tensor = torch.linalg.solve_triangular(
            self.factor, (self.rows * self.s) @ rows.T, upper=False
        )
        return (rows * self.s) @ rows.T - known.T @ known

    def log_evidence(self, values: Tensor) -> Tensor:
        """log of the density [nats] of the observed values (..., observation)."""
        return log_density(values, self.factor)

    def _gain(self, gap: Tensor) -> Tensor:
        """K gap, (..., direction)."""
        solved = torch.cholesky_solve(gap.reshape(-1, gap.shape[-1]).T, self.factor).T
        return (solved @ (self.rows * self.s)).reshape(*gap.shape[:-1], -1)

    def _fields(self, y: Tensor) -> Tensor:
        shape = self.baseline.variance.shape
        return self.baseline.unrotate(y.reshape(*y.shape[:-1], *shape))


def observed_rows(baseline: Baseline, operator: Tensor, noise: Tensor) -> Tensor:
    """A in the coordinates of a baseline, flat: (observation, direction), float64.

    Raises:
        ValueError: If operator, noise and baseline do not fit together.
    """
    variance, number = baseline.variance, len(operator)
    if operator.shape[1:] != variance.shape or noise.shape != (number, number):
        raise ValueError(
            f"{number} observations of fields {tuple(operator.shape[1:])} with an error covariance "
            f"{tuple(noise.shape)} do not fit a law of fields {tuple(variance.shape)}"
        )
    return baseline.rotate(operator.to(variance)).flatten(1)


def root_of(noise: Tensor) -> Tensor:
    """A square root of the covariance of the errors, which may be 0 where they are independent."""
    diagonal = torch.diagonal(noise)
    if torch.equal(noise, torch.diag(diagonal)):
        return torch.diag(diagonal.sqrt())
    root: Tensor = torch.linalg.cholesky(noise)
    return root


def log_density(gap: Tensor, factor: Tensor) -> Tensor:
    """log of N(gap; 0, factor factor^T), for gaps (..., observation)."""
    white: Tensor = torch.linalg.solve_triangular(
        factor, gap.reshape(-1, len(factor)).T, upper=False
    )
    volume = torch.diagonal(factor).log().sum() + len(factor) / 2 * math.log(2 * math.pi)
    return (-0.5 * white.square().sum(0) - volume).reshape(gap.shape[:-1])


def _factor(covariance: Tensor) -> Tensor:
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if failed:
        raise ValueError(
            f"observation {int(failed)} of {len(covariance)} follows from those before it, and has "
            "no error of its own: leave it out, or give it an error"
        )
    return factor
