"""Conditioning a score on observations y_obs = A x + eta, eta ~ N(0, R), without training.

With the denoiser m = E[X_0 | X_t] of a score and the posterior covariance Sigma_t = sigma^2 S / V
of its baseline,

    b^obs = b + J^T A^T (R + A Sigma_t A^T)^-1 (y_obs - A m(t, x)),      J = dm/dx.

The guided score is exact for Gaussian data: it is the score of the kriging posterior. For other
laws it is an approximation, because the posterior at time t is taken for Gaussian. The certificate
does not cover it, and as the baseline knows nothing of the observations, samplers should start far
out: the posterior mean is forgotten like e^-T, so a horizon of 4 rather than 2.5. It is for
use from Python; no stage of a run asks for it. Notation: docs/mathematics.md, 4.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import sph_harm_y
from torch import Tensor

from pipeline.arrays import FloatArray
from pipeline.diffusion.score import Posterior, Score
from pipeline.sphere.coefficients import degrees, orders


class GuidedScore:
    """A score given observations; takes the place of the score in a sampler.

    Args:
        score: of the law before the observations; its residual must be differentiable.
        operator: A, (observation, channel, coefficient), acts on whitened fields.
        observed: y_obs, (observation,), in the units of A x.
        noise_variance: diagonal of R, (observation,), positive or 0.
    Raises:
        ValueError: If the shapes do not fit together.
    """

    def __init__(
        self, score: Score, operator: Tensor, observed: Tensor, noise_variance: Tensor
    ) -> None:
        variance, number = score.baseline.variance, len(operator)
        if operator.shape[1:] != variance.shape or {len(observed), len(noise_variance)} != {number}:
            raise ValueError(
                f"{number} observations of fields {tuple(operator.shape[1:])} do not fit a score "
                f"of fields {tuple(variance.shape)} with {len(observed)} values and "
                f"{len(noise_variance)} noise variances"
            )
        self.baseline, self.score = score.baseline, score
        self.operator = score.baseline.rotate(operator.to(variance))
        self.observed = observed.to(variance)
        self.noise = torch.diag(noise_variance.to(variance))

    def residual(self, t: Tensor, y: Tensor, condition: Tensor) -> Tensor:
        posterior = Posterior(t, self.baseline.variance)
        scale = posterior.sigma**2 / posterior.alpha
        with torch.enable_grad():
            at = y.detach().requires_grad_()
            rho = self.score.residual(t, at, condition)
        mean = posterior.c_skip * y + scale * rho.detach()
        covariance = self.noise + torch.einsum(
            "nck,bck,mck->bnm", self.operator, posterior.c_out.square(), self.operator
        )
        gap = self.observed - torch.einsum("nck,bck->bn", self.operator, mean)
        misfit = torch.cholesky_solve(gap[..., None], torch.linalg.cholesky(covariance))[..., 0]
        pull = torch.einsum("nck,bn->bck", self.operator, misfit)
        guided = rho.detach() + posterior.c_skip * pull
        if rho.requires_grad:
            (learned,) = torch.autograd.grad(rho, at, (scale * pull).to(rho.dtype))
            guided = guided + learned
        return guided.to(y.dtype)


def point_values(
    factor: FloatArray, channel: int, latitudes: FloatArray, longitudes: FloatArray
) -> Tensor:
    """Values of one channel at points [degrees], as an operator on whitened fields.

    They are in units of the scaled anomalies: sum over channels of L_l R_lm(point) x_lm.

    Args:
        factor: L_l of the reference, (degree, channel, channel), `reference_factor` in `normals`.
    Returns:
        (point, channel, coefficient), float64.
    """
    degree, order = degrees(len(factor) - 1), orders(len(factor) - 1)
    polar, east = np.deg2rad(90 - latitudes)[:, None], np.deg2rad(longitudes)[:, None]
    harmonic = sph_harm_y(degree, np.abs(order), polar, east)
    part = np.where(order < 0, -harmonic.imag, harmonic.real)
    basis = np.where(order == 0, 1, np.sqrt(2)) * part
    return torch.from_numpy(basis[:, None] * factor[degree, channel].T)
