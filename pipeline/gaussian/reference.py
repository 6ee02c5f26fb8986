"""Reference Gaussian measures, isotropic and diagonal in real spherical harmonics.

A reference is a power spectrum q_l > 0 that can be asked at any lmax, so truncation and whitening
commute. `WhittleMatern` is the law of the solution u of (kappa^2 - Laplacian)^beta u = sqrt(A) W;
`SemiParametric` follows a data spectrum as far as it is known and a Whittle-Matérn law beyond.
Fits: whittle.py; several variables: joint.py. Notation: docs/mathematics.md, 1 and 6.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.arrays import FloatArray
from pipeline.sphere.coefficients import degrees, lmax_of

__all__ = ["Reference", "SemiParametric", "WhittleMatern", "octave_weights"]


class Reference(Protocol):
    """An isotropic Gaussian measure N(0, Q) with Q Y_lm = q_l Y_lm."""

    @abstractmethod
    def spectrum(self, lmax: int) -> FloatArray:
        """q_l for l = 0..lmax: the variance of each real coefficient of degree l."""

    def pointwise_variance(self, lmax: int) -> float:
        """Variance of the field at any point, poles included: sum (2l + 1) q_l / (4 pi)."""
        return float((2 * np.arange(lmax + 1) + 1) @ self.spectrum(lmax) / (4.0 * np.pi))

    def covariance(self, angle: FloatArray, lmax: int) -> FloatArray:
        """Covariance of the field at two points `angle` radians apart."""
        series = (2 * np.arange(lmax + 1) + 1) * self.spectrum(lmax) / (4.0 * np.pi)
        covariance: FloatArray = np.polynomial.legendre.legval(np.cos(angle), series)
        return covariance

    def whiten(self, coefficients: FloatArray) -> FloatArray:
        """Divide each coefficient by the reference standard deviation of its degree.

        The Euclidean norm of the result is the Cameron-Martin norm of the field.

        Args:
            coefficients: Real a_lm, shape (..., (lmax + 1)**2), degree-major.
        Returns:
            x_lm = a_lm / sqrt(q_l), same shape and precision, dimensionless.
        """
        return coefficients / self._deviation(coefficients)

    def color(self, whitened: FloatArray) -> FloatArray:
        """Undo `whiten`: a_lm = sqrt(q_l) x_lm."""
        return whitened * self._deviation(whitened)

    def norm(self, coefficients: FloatArray) -> FloatArray:
        """Cameron-Martin norm over the last axis."""
        norm: FloatArray = np.linalg.norm(self.whiten(coefficients), axis=-1)
        return norm

    def sample(
        self, generator: np.random.Generator, lmax: int, shape: tuple[int, ...] = ()
    ) -> FloatArray:
        """Independent draws of the coefficients, shape (*shape, (lmax + 1)**2)."""
        return self.color(generator.standard_normal((*shape, (lmax + 1) ** 2)))

    def _deviation(self, like: FloatArray) -> FloatArray:
        lmax = lmax_of(like.shape[-1])
        return np.sqrt(self.spectrum(lmax))[degrees(lmax)].astype(like.dtype)


@dataclass(frozen=True, kw_only=True)
class WhittleMatern(Reference):
    """q_l = amplitude (kappa^2 + l (l + 1))^(-2 beta).

    References:
        Lindgren, Rue & Lindström (2011), doi:10.1111/j.1467-9868.2011.00777.x
    """

    kappa: float
    beta: float
    amplitude: float

    def __post_init__(self) -> None:
        if not (0.0 < self.kappa < np.inf and 0.0 < self.amplitude < np.inf):
            raise ValueError(
                f"kappa and amplitude must be positive; got {self.kappa} and {self.amplitude}"
            )
        if not 0.5 < self.beta < np.inf:
            raise ValueError(
                f"beta must exceed 1/2, else the field has no finite variance; got {self.beta}"
            )

    def spectrum(self, lmax: int) -> FloatArray:
        degree = np.arange(lmax + 1)
        spectrum: FloatArray = self.amplitude * (self.kappa**2 + degree * (degree + 1.0)) ** (
            -2.0 * self.beta
        )
        return spectrum


@dataclass(frozen=True, kw_only=True)
class SemiParametric(Reference):
    """The spectrum `power` for l < len(power), and `tail`, made continuous there, beyond."""

    power: tuple[float, ...]
    tail: WhittleMatern

    def __post_init__(self) -> None:
        if not self.power or not all(0.0 < value < np.inf for value in self.power):
            raise ValueError(f"power must be positive at every degree; got {self.power}")

    @classmethod
    def smoothed(cls, power: FloatArray, tail: WhittleMatern) -> SemiParametric:
        """Follow an estimated spectrum, the logarithm of its ratio to the tail's averaged over an
        eighth of an octave.

        Powerless degrees (a conserved mean) are lifted to a millionth of the tail's.
        """
        lmax = len(power) - 1
        law = tail.spectrum(lmax)
        smooth = law * np.exp(octave_weights(lmax) @ np.log(np.maximum(power / law, 1e-6)))
        return cls(power=tuple(map(float, smooth)), tail=tail)

    def spectrum(self, lmax: int) -> FloatArray:
        last = len(self.power) - 1
        spectrum = self.tail.spectrum(max(lmax, last))
        spectrum *= self.power[-1] / spectrum[last]
        spectrum[: last + 1] = self.power
        return spectrum[: lmax + 1]


def octave_weights(lmax: int) -> FloatArray:
    """Rows that average over an eighth of an octave around each degree, (lmax + 1, lmax + 1)."""
    degree = np.arange(lmax + 1)
    octave = np.log2(np.maximum(degree, 0.5))
    weight = (np.abs(octave[:, None] - octave) <= 0.0625) * (2 * degree + 1.0)
    average: FloatArray = weight / weight.sum(axis=1, keepdims=True)
    return average
