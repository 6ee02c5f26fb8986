"""Spectra of coefficient arrays, and how well a reference measure suits the data.

`compatibility` judges S_l = data power / reference power, degree by degree: whether the Gaussian
part of the data and the reference would stay comparable as lmax grows, and how much the first
differs from the second at this lmax. Notation: docs/mathematics.md, 6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.coefficients import lmax_of
from pipeline.sphere import FloatArray

__all__ = ["Compatibility", "compatibility", "cross_spectrum", "power_spectrum"]


def power_spectrum(coefficients: FloatArray) -> FloatArray:
    """Mean square over the orders of each degree: (..., (lmax + 1)**2) to (..., lmax + 1)."""
    return _over_orders(np.square(coefficients, dtype=np.float64))


def cross_spectrum(coefficients: FloatArray) -> FloatArray:
    """Covariances of channels, mean over fields and orders: (n, C, K) to (lmax + 1, C, C)."""
    x = coefficients.astype(np.float64)
    products = np.einsum("nik,njk->ijk", x, x) / len(x)
    return np.moveaxis(_over_orders(products), -1, 0)


def _over_orders(squares: FloatArray) -> FloatArray:
    degree = np.arange(lmax_of(squares.shape[-1]) + 1)
    mean: FloatArray = np.add.reduceat(squares, degree**2, axis=-1) / (2 * degree + 1)
    return mean


@dataclass(frozen=True, kw_only=True)
class Compatibility:
    """The verdict on a ratio S_l of data to reference power.

    Attributes:
        regime: 1 equivalent; 2 another level; 3 data smoother; 4 data much smoother;
            5 data rougher than the reference, at the smallest scales.
        slope: p in S_l ~ l^-p over the top octave of degrees.
        level: Weighted geometric mean of S_l over that octave.
        kl: Gaussian divergence of data from reference [nats], all coefficients together.
        fisher: Relative Fisher information of the same two Gaussian laws.
    """

    regime: int
    slope: float
    level: float
    smallest: float
    largest: float
    kl: float
    kl_per_coefficient: float
    fisher: float

    @property
    def words(self) -> str:
        """One paragraph for people who know fields better than measures."""
        verdict = {
            1: "The reference noise and the data agree at the smallest scales resolved.",
            2: f"At the smallest scales the data have {self.level:.3g} times the variance of the "
            "reference noise, by a constant factor: adjust its amplitude.",
            3: f"The data are smoother than the reference noise: their variance falls faster with "
            f"wavenumber, by a factor l^-{self.slope:.2f}. Raise beta, or keep an integrator that "
            "is exact for Gaussian data.",
            4: f"The data are much smoother than the reference noise (l^-{self.slope:.2f} faster): "
            "most of the noise is at scales where the data have nothing. Raise beta.",
            5: "The data are rougher than the reference noise: relative to it their variance grows "
            f"like l^{-self.slope:.2f}. Lower beta, or the noise starts far from the data there.",
        }[self.regime]
        return (
            f"{verdict} By degree, the variance of the data is {self.smallest:.3g} to "
            f"{self.largest:.3g} times that of the reference; the Gaussian part of the data "
            f"differs from it by {self.kl:.3g} nats, {self.kl_per_coefficient:.2g} per coefficient."
        )


def compatibility(
    ratio: FloatArray, samples: float = np.inf, first_degree: int = 1
) -> Compatibility:
    """Judge S_l = data power / reference power.

    Args:
        ratio: S_l for l = 0..lmax.
        samples: Independent fields behind the data power: what noise alone explains is no verdict.
        first_degree: Degrees below are left out.
    """
    ratio = np.asarray(ratio, np.float64)[first_degree:]
    degree = np.arange(first_degree, first_degree + ratio.size, dtype=np.float64)
    if ratio.size < 4 or not np.all(ratio > 0.0):
        raise ValueError(f"a verdict needs positive ratios at four degrees or more; got {ratio}")
    weight, logarithm, lmax = 2.0 * degree + 1.0, np.log(ratio), degree[-1]
    top, below = degree > lmax / 2.0, (degree > lmax / 4.0) & (degree <= lmax / 2.0)
    position = np.log(degree[top]) - np.average(np.log(degree[top]), weights=weight[top])
    spread = float(weight[top] @ position**2)
    slope = -float((weight[top] * position) @ logarithm[top]) / spread
    level = float(np.average(logarithm[top], weights=weight[top]))
    before = float(np.average(logarithm[below], weights=weight[below]))
    # log S_l has variance 2 / (samples (2l + 1)).
    slope_noise = 3.0 * (2.0 / (samples * spread)) ** 0.5
    level_noise = 3.0 * (2.0 / (samples * weight[top].sum())) ** 0.5
    fading = (
        abs(level) <= 0.5 * abs(before) and abs(level) < 0.1
    )  # |S_l - 1| falls as 1/l or faster
    if fading or (abs(slope) <= max(0.1, slope_noise) and abs(level) <= max(0.01, level_noise)):
        regime = 1
    elif abs(slope) <= max(0.1, slope_noise):
        regime = 2
    elif slope < 0.0:
        regime = 5
    else:
        regime = 3 if slope <= 2.0 else 4
    kl = float(0.5 * weight @ (ratio - 1.0 - logarithm))
    return Compatibility(
        regime=regime,
        slope=slope,
        level=float(np.exp(level)),
        smallest=float(ratio.min()),
        largest=float(ratio.max()),
        kl=kl,
        kl_per_coefficient=kl / float(weight.sum()),
        fisher=float(weight @ ((ratio - 1.0) ** 2 / ratio)),
    )
