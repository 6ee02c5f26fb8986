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

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.gaussian.fit import Baseline
from pipeline.network.calibration import Calibration
from pipeline.network.network import SphericalNetwork
from pipeline.sphere.coefficients import degrees
from pipeline.sphere.torch_harmonics import TorchHarmonics

ROUGHNESS = 2.2


class Score(Protocol):
    """A score in the coordinates of `baseline`; exact and learned ones are interchangeable."""

    baseline: Baseline

    def residual(self, t: Tensor, y: Tensor, condition: Tensor) -> Tensor:
        """rho: the score less its Gaussian part.

        Args:
            t: diffusion time of each field, shape (batch,), positive.
            y: noised fields in baseline coordinates, (batch, channel, coefficient).
            condition: (batch, 1 + covariates): the season of each field [rad], then its
                covariates in standard units, NaN where none is given.
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

    def residual(self, t: Tensor, y: Tensor, condition: Tensor) -> Tensor:
        return torch.zeros_like(y)


class ScoreNet(nn.Module):
    """The Gaussian part of a baseline plus a residual learned on the sphere.

    The network sees three pictures on its own Gaussian grid: the posterior mean of the baseline
    and the noised field, coloured as physical fields are, and the noised field once more with a
    spectrum l^-`ROUGHNESS` that shows its small scales. Whitened coefficients synthesised as they
    are would be white noise, on which a local operator finds nothing. The output is analysed
    into F, so the correction lies in the Cameron-Martin space at every band limit. A finished
    training gives it a `calibration`.

    Args:
        baseline: the exact linear part.
        factor: Cholesky factor of the reference covariance of each coefficient,
            (coefficient, channel, channel).
        harmonics: transforms of the network's grid at the band limit of the data.
        network: maps (batch, 3 channel, lat, lon) pictures, log noise-to-signal ratio
            (batch,) and condition (batch, feature) to (batch, channel, lat, lon).
        precision: of the network's arithmetic; transforms and Gaussian parts never go below
            float32.
    """

    factor: Tensor
    rough: Tensor

    def __init__(
        self,
        baseline: Baseline,
        factor: Tensor,
        harmonics: TorchHarmonics,
        network: SphericalNetwork,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.precision = precision
        self.calibration: Calibration | None = None
        self.baseline, self.harmonics, self.network = baseline, harmonics, network
        self.register_buffer("factor", factor.float(), persistent=False)
        rough = (1.0 + torch.as_tensor(degrees(harmonics.lmax))) ** (-ROUGHNESS / 2)
        rough *= math.sqrt(4 * math.pi) / rough.norm()
        self.register_buffer("rough", rough.float(), persistent=False)

    def standardised(
        self,
        posterior: Posterior,
        t: Tensor,
        y: Tensor,
        condition: Tensor,
        baseline: Baseline | None = None,
    ) -> Tensor:
        """F: the learned mean of Y_0, less c_skip y, in units of c_out.

        Training passes a baseline that was fitted without the fields behind y.
        """
        baseline = baseline or self.baseline
        mean_and_noised = torch.stack([posterior.c_skip * y, posterior.c_in * y], dim=1).float()
        shown = baseline.unrotate(mean_and_noised)
        colored = torch.einsum("kcd,bpdk->bpck", self.factor, shown)
        coefficients = torch.cat([colored, self.rough * shown[:, 1:]], dim=1)
        pictures = self.harmonics.synthesis(coefficients)
        log_noise = torch.log(torch.expm1(2 * t.double())).float() / 2
        low = self.precision != torch.float32
        with torch.autocast(y.device.type, self.precision, enabled=low):
            output = self.network(pictures.flatten(1, 2), log_noise, condition.float())
        return baseline.rotate(self.harmonics.analysis(output))

    def residual(self, t: Tensor, y: Tensor, condition: Tensor) -> Tensor:
        posterior = Posterior(t, self.baseline.variance)
        standardised = self.standardised(posterior, t, y, condition)
        if self.calibration is not None:
            standardised = self.calibration(t, standardised, (posterior.c_in * y).float())
        return (posterior.residual_scale * standardised).to(y.dtype)
