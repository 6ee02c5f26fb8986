"""The Whittle-Matérn law under which a power spectrum is most likely, and how well it fits.

Whittle's likelihood of independent Gaussian coefficients is, but for a constant, minus the Gaussian
divergence of the data from the law: sum (2l + 1)/2 (S_l - 1 - log S_l), S_l = power_l / q_l.
Notation: docs/mathematics.md, 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from pipeline.arrays import FloatArray
from pipeline.gaussian.reference import Reference, SemiParametric, WhittleMatern

__all__ = ["WhittleMaternFit", "fit_whittle_matern", "reference_from_config"]

KAPPA = (0.1, 100.0)
BETA = (0.51, 4.0)


@dataclass(frozen=True, kw_only=True)
class WhittleMaternFit:
    """The most likely law, the standard errors of its three numbers, and what it misses.

    `kl_per_coefficient` is the Gaussian divergence of data from reference [nats per coefficient];
    sampling noise alone leaves about 1 / (2 samples) of it per degree. `bounds` names the numbers
    that ended where the search does: then this is not the best law of its kind, and the standard
    errors mean nothing.
    """

    measure: WhittleMatern
    standard_errors: Mapping[str, float]
    kl_per_coefficient: float
    bounds: tuple[str, ...]

    @property
    def words(self) -> str:
        """One sentence or two."""
        numbers = ", ".join(
            f"{name} {getattr(self.measure, name):.4g} ± {error:.2g}"
            for name, error in self.standard_errors.items()
        )
        missed = f"misses the data by {self.kl_per_coefficient:.2g} nats per coefficient"
        if not self.bounds:
            return f"{numbers}; {missed}."
        numbers = ", ".join(f"{n} {getattr(self.measure, n):.4g}" for n in self.standard_errors)
        return (
            f"{numbers}; {missed}. The search ended at its bound for {' and '.join(self.bounds)}: "
            "the spectrum does not have the shape of this family, and standard errors mean "
            'nothing. With spectral.reference = "semi-parametric" only the scales beyond lmax '
            "follow this law."
        )


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
    middle = float(np.exp(np.log(eigenvalue + 1.0).mean()))

    def divergence(parameters: FloatArray) -> tuple[float, FloatArray]:
        log_q, gradient = _log_power(parameters, eigenvalue, middle)
        ratio = power / unit * np.exp(-log_q)
        return float(weight @ (ratio - 1.0 - np.log(ratio))), gradient @ (weight * (1.0 - ratio))

    bounds = [(None, None), tuple(2 * np.log(KAPPA)), BETA]
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
    return WhittleMaternFit(
        measure=measure,
        standard_errors=_standard_errors(measure, weight, eigenvalue, samples),
        kl_per_coefficient=float(best.fun) / float(2.0 * weight.sum()),
        bounds=tuple(
            f"{name} = {end:g}"
            for name, ends in (("kappa", KAPPA), ("beta", BETA))
            for end in ends
            if np.isclose(getattr(measure, name), end, rtol=1e-4)
        ),
    )


def _log_power(
    parameters: FloatArray, eigenvalue: FloatArray, middle: float
) -> tuple[FloatArray, FloatArray]:
    """log q_l at (log A', log kappa^2, beta), and its derivatives by these three.

    A' is q at the eigenvalue `middle` of the spectrum: nearly uncorrelated with beta.
    """
    level, kappa2, beta = parameters[0], np.exp(parameters[1]), parameters[2]
    bend = np.log((kappa2 + eigenvalue) / (kappa2 + middle))
    slope = kappa2 / (kappa2 + eigenvalue) - kappa2 / (kappa2 + middle)
    return level - 2.0 * beta * bend, np.stack(
        [np.ones_like(bend), -2.0 * beta * slope, -2.0 * bend]
    )


def _standard_errors(
    measure: WhittleMatern, weight: FloatArray, eigenvalue: FloatArray, samples: float
) -> dict[str, float]:
    """By the Fisher information in (log A, log kappa^2, beta)."""
    kappa2 = measure.kappa**2
    derivative = np.stack(
        [
            np.ones_like(eigenvalue),
            -2.0 * measure.beta * kappa2 / (kappa2 + eigenvalue),
            -2.0 * np.log(kappa2 + eigenvalue),
        ]
    )
    error = np.sqrt(np.diag(np.linalg.pinv(samples * (weight * derivative) @ derivative.T)))
    return {
        "kappa": float(0.5 * measure.kappa * error[1]),
        "beta": float(error[2]),
        "amplitude": float(measure.amplitude * error[0]),
    }


def reference_from_config(
    reference: str | Mapping[str, float], power: FloatArray, samples: float
) -> tuple[Reference, WhittleMaternFit | None]:
    """The measure that a config asks for: "fit", "semi-parametric", or three numbers.

    With it the fit behind it, which for "semi-parametric" is the law beyond the data's lmax.
    """
    if isinstance(reference, Mapping):
        return WhittleMatern(**reference), None
    if reference not in ("fit", "semi-parametric"):
        raise ValueError(
            f'reference must be "fit", "semi-parametric" or three numbers; got {reference!r}'
        )
    fit = fit_whittle_matern(power, samples)
    semi_parametric = SemiParametric.smoothed(power, fit.measure)
    return (fit.measure if reference == "fit" else semi_parametric), fit
