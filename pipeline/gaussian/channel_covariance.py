"""The reference measure of several channels: N(0, Q) with a covariance of the channels per degree.

    Q_l = diag(sqrt q_l) R_l diag(sqrt q_l) = L_l L_l^T,     x_lm = L_l^-1 r_lm

with q_l the spectra of one `Reference` per channel, R_l correlations of the channels, and L_l the
lower Cholesky factor. R_l = 1, channels without correlation, is the simple choice; `correlations`
estimates R_l. Beyond the last degree of R the last one is kept, so Q is trace class as soon as the
law of every channel is. Notation: docs/mathematics.md, 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.arrays import FloatArray
from pipeline.gaussian.reference import Reference, octave_weights
from pipeline.sphere.coefficients import lmax_of

__all__ = ["JointReference", "correlations", "dependent", "mix_channels"]

DEPENDENT = 1e-8  # eigenvalue of correlations, below which single precision sees no difference
SMALLEST_EIGENVALUE = 1e-3  # of R_l: a whitened direction is amplified by 32 at most


@dataclass(frozen=True, kw_only=True, eq=False)
class JointReference:
    """An isotropic Gaussian measure on fields of C channels.

    Attributes:
        channels: The law of each channel.
        correlation: R_l for l = 0 ..., shape (degree, C, C): unit diagonal, positive definite.
    """

    channels: tuple[Reference, ...]
    correlation: FloatArray

    def __post_init__(self) -> None:
        count = len(self.channels)
        if self.correlation.ndim != 3 or self.correlation.shape[1:] != (count, count):
            raise ValueError(
                f"correlation needs the shape (degree, {count}, {count}); "
                f"got {self.correlation.shape}"
            )
        diagonal = np.diagonal(self.correlation, axis1=1, axis2=2)
        smallest = np.linalg.eigvalsh(self.correlation).min()
        if smallest <= 0.0 or not np.allclose(diagonal, 1.0):
            raise ValueError(
                "correlations need a unit diagonal and must be positive definite; the smallest "
                f"eigenvalue is {smallest:.3g}"
            )

    @classmethod
    def uncorrelated(cls, channels: tuple[Reference, ...]) -> JointReference:
        """Channels without correlation: whitening divides each by its own deviation."""
        return cls(channels=channels, correlation=np.eye(len(channels))[None])

    def spectrum(self, lmax: int) -> FloatArray:
        """Q_l for l = 0..lmax, shape (lmax + 1, C, C)."""
        factor = self.factor(lmax)
        return factor @ factor.swapaxes(1, 2)

    def factor(self, lmax: int) -> FloatArray:
        """L_l, lower triangular with L_l L_l^T = Q_l, shape (lmax + 1, C, C)."""
        deviation = np.sqrt(np.stack([each.spectrum(lmax) for each in self.channels], axis=1))
        degree = np.minimum(np.arange(lmax + 1), len(self.correlation) - 1)
        factor: FloatArray = deviation[:, :, None] * np.linalg.cholesky(self.correlation)[degree]
        return factor

    def pointwise_covariance(self, lmax: int) -> FloatArray:
        """Covariance (C, C) of the channels at any point: sum (2l + 1) Q_l / (4 pi)."""
        return self.covariance(np.zeros(()), lmax)

    def covariance(self, angle: FloatArray, lmax: int) -> FloatArray:
        """Covariance (..., C, C) of the channels at two points `angle` radians apart."""
        weight = (2 * np.arange(lmax + 1) + 1) / (4.0 * np.pi)
        series = weight[:, None, None] * self.spectrum(lmax)
        values = np.polynomial.legendre.legval(np.cos(angle), series)
        covariance: FloatArray = np.moveaxis(values, (0, 1), (-2, -1))
        return covariance

    def whiten(self, coefficients: FloatArray) -> FloatArray:
        """x_lm = L_l^-1 r_lm of coefficients (..., C, (lmax + 1)**2); same shape and precision."""
        lmax = lmax_of(coefficients.shape[-1])
        return mix_channels(np.linalg.inv(self.factor(lmax)), coefficients)

    def color(self, whitened: FloatArray) -> FloatArray:
        """Undo `whiten`: r_lm = L_l x_lm."""
        return mix_channels(self.factor(lmax_of(whitened.shape[-1])), whitened)

    def norm(self, coefficients: FloatArray) -> FloatArray:
        """Cameron-Martin norm over the last two axes: sqrt of sum r_lm^T Q_l^-1 r_lm."""
        norm: FloatArray = np.linalg.norm(self.whiten(coefficients), axis=(-2, -1))
        return norm

    def sample(
        self, generator: np.random.Generator, lmax: int, shape: tuple[int, ...] = ()
    ) -> FloatArray:
        """Independent draws of the coefficients, shape (*shape, C, (lmax + 1)**2)."""
        shape = (*shape, len(self.channels), (lmax + 1) ** 2)
        return self.color(generator.standard_normal(shape))


def correlations(covariance: FloatArray) -> FloatArray:
    """R_l of channel covariances (lmax + 1, C, C), smoothed and safely positive definite.

    Averaged over an eighth of an octave as a semi-parametric spectrum is, then moved towards the
    identity until no eigenvalue is below `SMALLEST_EIGENVALUE`. A channel without power in a degree
    has no correlations there.
    """
    power = np.diagonal(covariance, axis1=1, axis2=2)
    deviation = np.sqrt(np.where(power > 0.0, power, np.inf))
    identity = np.eye(covariance.shape[1])
    raw = covariance / (deviation[:, :, None] * deviation[:, None, :])
    raw = np.where(identity > 0, 1.0, raw)
    smooth = np.tensordot(octave_weights(len(covariance) - 1), raw, axes=1)
    smallest = np.linalg.eigvalsh(smooth)[:, 0]
    lacking = np.maximum(SMALLEST_EIGENVALUE - smallest, 0.0)
    share = (lacking / np.maximum(1.0 - smallest, SMALLEST_EIGENVALUE))[:, None, None]
    result: FloatArray = (1.0 - share) * smooth + share * identity
    return result


def dependent(covariance: FloatArray) -> list[int]:
    """Channels that follow from each other linearly in all degrees together; none if none do.

    Args:
        covariance: Of the channels, (lmax + 1, C, C).
    """
    weight = 2.0 * np.arange(len(covariance)) + 1.0
    total = np.tensordot(weight, covariance, axes=1)
    deviation = np.sqrt(np.diagonal(total))
    values, vectors = np.linalg.eigh(total / np.outer(deviation, deviation))
    return np.flatnonzero(np.abs(vectors[:, 0]) > 0.1).tolist() if values[0] < DEPENDENT else []


def mix_channels(matrices: FloatArray, coefficients: FloatArray) -> FloatArray:
    """Each degree's matrix on the channels of its coefficients.

    Args:
        matrices: Shape (degree, C, C), at least lmax + 1 of them.
        coefficients: Shape (..., C, (lmax + 1)**2).
    Returns:
        Same shape and precision as the coefficients.
    """
    lmax = lmax_of(coefficients.shape[-1])
    used = matrices[: lmax + 1].astype(coefficients.dtype)
    along = np.repeat(used, 2 * np.arange(lmax + 1) + 1, axis=0)
    mixed = np.empty_like(coefficients)
    for target, source in np.ndindex(used.shape[1:]):
        # Triangular factors are half zeros. The diagonal comes first for every target.
        source = (source + target) % used.shape[2]
        if source == target:
            np.multiply(
                coefficients[..., source, :], along[:, target, source], out=mixed[..., target, :]
            )
        elif used[:, target, source].any():
            mixed[..., target, :] += along[:, target, source] * coefficients[..., source, :]
    return mixed
