"""Reference Gaussian measures, isotropic and diagonal in real spherical harmonics.

A reference is a power spectrum q_l > 0 that can be asked at any lmax, so truncation and whitening
commute. `WhittleMatern` is the law of the solution u of (kappa^2 - Laplacian)^beta u = sqrt(A) W;
`SemiParametric` follows a data spectrum as far as it is known and a Whittle-Matérn law beyond.
Notation: docs/mathematics.md, 1 and 6.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.optimize import minimize

from pipeline.coefficients import degrees, lmax_of
from pipeline.sphere import FloatArray

__all__ = [
    "Reference",
    "SemiParametric",
    "WhittleMatern",
    "WhittleMaternFit",
    "fit_whittle_matern",
    "reference_from_config",
]


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
        """Follow an estimated spectrum, its logarithm averaged over an eighth of an octave.

        Powerless degrees (a conserved mean) are lifted to a millionth of the tail's.
        """
        lmax = len(power) - 1
        degree = np.arange(lmax + 1)
        logarithm = np.log(np.maximum(power, 1e-6 * tail.spectrum(lmax)))
        octave = np.log2(np.maximum(degree, 0.5))
        weight = (np.abs(octave[:, None] - octave) <= 0.0625) * (2 * degree + 1.0)
        smooth = np.exp(weight @ logarithm / weight.sum(axis=1))
        return cls(power=tuple(map(float, smooth)), tail=tail)

    def spectrum(self, lmax: int) -> FloatArray:
        last = len(self.power) - 1
        spectrum = self.tail.spectrum(max(lmax, last))
        spectrum *= self.power[-1] / spectrum[last]
        spectrum[: last + 1] = self.power
        return spectrum[: lmax + 1]


@dataclass(frozen=True, kw_only=True)
class WhittleMaternFit:
    """The most likely law, the standard errors of its three numbers, and what it misses.

    `kl_per_coefficient` is the Gaussian divergence of data from reference [nats per coefficient];
    sampling noise alone leaves about 1 / (2 samples) of it per degree.
    """

    measure: WhittleMatern
    standard_errors: Mapping[str, float]
    kl_per_coefficient: float


def fit_whittle_matern(
    power: FloatArray, samples: float, first_degree: int = 1
) -> WhittleMaternFit:
    """Whittle maximum likelihood: least sum (2l + 1)/2 (S_l - 1 - log S_l), S_l = power_l / q_l.

    Args:
        power: Mean square of the coefficients of each degree, shape (lmax + 1,).
        samples: Number of independent fields behind `power`; it scales the standard errors.
        first_degree: Degrees below are ignored (global means are often conserved).
    """
    degree = np.arange(len(power), dtype=np.float64)
    used = (degree >= first_degree) & (power > 0.0)
    if used.sum() < 4:
        raise ValueError(
            f"three numbers need a spectrum at four degrees or more; got {used.sum()} with power "
            f"from degree {first_degree} on: raise lmax"
        )
    degree, power = degree[used], np.asarray(power, np.float64)[used]
    weight, eigenvalue = degree + 0.5, degree * (degree + 1.0)
    unit = float(weight @ power / weight.sum())

    def logarithm(parameters: FloatArray) -> tuple[FloatArray, FloatArray]:
        """log q_l in units of `unit`, and its derivatives, at (log A', log kappa^2, beta)."""
        level, kappa2, beta = parameters[0], np.exp(parameters[1]), parameters[2]
        # A' is the power at the middle of the spectrum: nearly uncorrelated with beta.
        bend = np.log((kappa2 + eigenvalue) / (kappa2 + middle))
        slope = kappa2 / (kappa2 + eigenvalue) - kappa2 / (kappa2 + middle)
        return level - 2.0 * beta * bend, np.stack(
            [np.ones_like(bend), -2.0 * beta * slope, -2.0 * bend]
        )

    def divergence(parameters: FloatArray) -> tuple[float, FloatArray]:
        log_q, gradient = logarithm(parameters)
        ratio = power / unit * np.exp(-log_q)
        return float(weight @ (ratio - 1.0 - np.log(ratio))), gradient @ (weight * (1.0 - ratio))

    middle = float(np.exp(np.log(eigenvalue + 1.0).mean()))
    bounds = [(None, None), (np.log(1e-2), np.log(1e4)), (0.51, 4.0)]
    starts = ([0.0, np.log(kappa2), beta] for kappa2 in (3.0, 50.0) for beta in (0.75, 1.5))
    fits = [
        minimize(divergence, start, jac=True, bounds=bounds, method="L-BFGS-B", tol=1e-14)
        for start in starts
    ]
    best = min(fits, key=lambda fit: float(fit.fun))
    level, kappa2, beta = float(best.x[0]), float(np.exp(best.x[1])), float(best.x[2])
    measure = WhittleMatern(
        kappa=kappa2**0.5,
        beta=beta,
        amplitude=unit * np.exp(level) * (kappa2 + middle) ** (2 * beta),
    )
    # Fisher information in (log A, log kappa^2, beta).
    derivative = np.stack(
        [
            np.ones_like(eigenvalue),
            -2.0 * beta * kappa2 / (kappa2 + eigenvalue),
            -2.0 * np.log(kappa2 + eigenvalue),
        ]
    )
    error = np.sqrt(np.diag(np.linalg.pinv(samples * (weight * derivative) @ derivative.T)))
    return WhittleMaternFit(
        measure=measure,
        standard_errors={
            "kappa": float(0.5 * measure.kappa * error[1]),
            "beta": float(error[2]),
            "amplitude": float(measure.amplitude * error[0]),
        },
        kl_per_coefficient=float(best.fun) / float(2.0 * weight.sum()),
    )


def reference_from_config(
    reference: str | Mapping[str, float], power: FloatArray, samples: float
) -> Reference:
    """The measure that a config asks for: "fit", "semi-parametric", or three numbers."""
    if isinstance(reference, Mapping):
        return WhittleMatern(**reference)
    if reference not in ("fit", "semi-parametric"):
        raise ValueError(
            f'reference must be "fit", "semi-parametric" or three numbers; got {reference!r}'
        )
    measure = fit_whittle_matern(power, samples).measure
    return measure if reference == "fit" else SemiParametric.smoothed(power, measure)
