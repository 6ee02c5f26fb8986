"""Spectra of coefficient arrays, and how well a reference measure suits the data.

`compatibility` judges S_l = data power / reference power, degree by degree: whether the Gaussian
part of the data and the reference would stay comparable as lmax grows, and how much the first
differs from the second at this lmax. Notation: docs/mathematics.md, 6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.arrays import FloatArray
from pipeline.errors import UnusableData
from pipeline.sphere.coefficients import mean_by_degree

__all__ = [
    "Compatibility",
    "compatibility",
    "cross_spectrum",
    "divergences",
    "joint_words",
    "power_spectrum",
]

DEPENDENT = 1e-14  # eigenvalue over the largest: rounding of a variance that is none
FASTER_THAN_INVERSE = 1.1  # the exponent of an exact 1/l is estimated as 1.0, within 0.05


def power_spectrum(coefficients: FloatArray) -> FloatArray:
    """Mean square over the orders of each degree: (..., (lmax + 1)**2) to (..., lmax + 1)."""
    return mean_by_degree(np.square(coefficients, dtype=np.float64))


def cross_spectrum(coefficients: FloatArray) -> FloatArray:
    """Covariances of channels, mean over fields and orders: (n, C, K) to (lmax + 1, C, C)."""
    x = coefficients.astype(np.float64)
    products = np.einsum("nik,njk->ijk", x, x) / len(x)
    return np.moveaxis(mean_by_degree(products), -1, 0)


@dataclass(frozen=True, kw_only=True)
class Compatibility:
    """The verdict on a ratio S_l of data to reference power.

    Attributes:
        regime: 1 equivalent; 2 another level; 3 data smoother; 4 data much smoother;
            5 data rougher than the reference, at the smallest scales.
        slope: p in S_l ~ l^-p over the top octave of degrees.
        level: Weighted geometric mean of S_l over that octave.
        decay: d in |log S_l| ~ l^-d, from the octave below to the top one, where the difference is
            small but seen; else nan. Equivalence needs sum (2l + 1)(S_l - 1)^2 to be finite: d > 1.
        kl: Gaussian divergence of data from reference [nats], all coefficients together.
        growth: g in KL(L) ~ L^g, the divergence of the degrees up to L, over the top octave of L:
            0 has converged, 2 grows as the number of coefficients does.
        fisher: Relative Fisher information of the same two Gaussian laws.
        floor: Divergence that the sampling noise of the data's power alone would give [nats].
    """

    regime: int
    slope: float
    level: float
    decay: float
    smallest: float
    largest: float
    kl: float
    kl_per_coefficient: float
    growth: float
    fisher: float
    floor: float

    @property
    def words(self) -> str:
        """One paragraph for people who know fields better than measures."""
        agreement = (
            "The reference noise and the data agree at the smallest scales resolved."
            if np.isnan(self.decay)
            else f"At the smallest scales the data have {self.level:.3g} times the variance of the "
            f"reference noise, and the difference fades with wavenumber as l^-{self.decay:.2f}: "
            "faster than 1/l, so the two laws stay comparable on any finer grid."
        )
        level = (
            ", by a constant factor: adjust its amplitude."
            if not self.decay > 0.25
            else f"; the difference fades as l^-{self.decay:.2f}, and would have to fade faster "
            "than 1/l for the two laws to stay comparable on ever finer grids."
        )
        verdict = {
            1: agreement,
            2: f"At the smallest scales the data have {self.level:.3g} times the variance of the "
            f"reference noise{level}",
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
            f"differs from it by {self.kl:.3g} nats, {self.kl_per_coefficient:.2g} per coefficient "
            f"(relative Fisher information {self.fisher:.3g}). {self._growing}"
        )

    @property
    def _growing(self) -> str:
        if self.kl <= 2.0 * self.floor:
            return (
                f"That is no more than the sampling noise of the estimated spectrum explains: "
                f"{self.floor:.2g} nats if the fields were independent, more if they were not."
            )
        if self.growth <= 0.25:
            return "This sum has converged: smaller scales would add next to nothing."
        if self.growth >= 3.0:
            return "Nearly all of it comes from the smallest octave of scales resolved."
        if self.growth >= 1.5:
            return (
                f"It grows with the band limit L like L^{self.growth:.1f}, about as the number of "
                "coefficients does: compare it per coefficient, no total holds for a finer grid."
            )
        return f"It still grows with the band limit L, like L^{self.growth:.1f}."


def divergences(ratio: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Gaussian divergence [nats] and relative Fisher information of each degree.

        (2l + 1)/2 tr(S - 1 - log S)    and    (2l + 1) tr (S - 1)^2 S^-1

    Args:
        ratio: S_l, shape (lmax + 1,), or (lmax + 1, C, C) as L_l^-1 C_l L_l^-T; positive.
    Returns:
        Two arrays of shape (lmax + 1,).
    """
    s = ratio[:, None] if ratio.ndim == 1 else np.linalg.eigvalsh(ratio)
    orders = 2.0 * np.arange(len(s)) + 1.0
    kl: FloatArray = 0.5 * orders * (s - 1.0 - np.log(s)).sum(axis=1)
    fisher: FloatArray = orders * ((s - 1.0) ** 2 / s).sum(axis=1)
    return kl, fisher


def joint_words(ratio: FloatArray, first_degree: int = 1) -> str:
    """What all channels together differ by, and how much of it is their correlations.

    Args:
        ratio: S_l = L_l^-1 C_l L_l^-T, shape (lmax + 1, C, C).
    Raises:
        UnusableData: If some combination of channels has no variance: no verdict is finite then.
    """
    ratio = ratio.copy()
    ratio[:first_degree] = np.eye(ratio.shape[1])
    s = np.linalg.eigvalsh(ratio[first_degree:])
    if s.min() <= DEPENDENT * s.max():
        degree = first_degree + int(s[:, 0].argmin())
        raise UnusableData(
            f"in degree {degree} a combination of channels has no variance of its own (eigenvalues "
            f"from {s.min():.3g} to {s.max():.3g}): they depend on each other, or the training "
            "fields are too few to tell them apart; leave one out or train longer"
        )
    together = divergences(ratio)[0][first_degree:].sum()
    alone = sum(
        divergences(ratio[:, channel, channel])[0][first_degree:].sum()
        for channel in range(ratio.shape[1])
    )
    coefficients = ratio.shape[1] * (len(ratio) ** 2 - first_degree**2)
    return (
        f"All variables together differ from the reference by {together:.3g} nats, "
        f"{together / coefficients:.2g} per coefficient, of which {together - alone:.3g} nats are "
        "correlations between variables that it does not have; by degree and combination of "
        f"variables the variance is {s.min():.3g} to {s.max():.3g} times that of the reference."
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
    ratio = np.asarray(ratio, np.float64)
    used = ratio[first_degree:]
    if used.size < 4 or not np.all(used > 0.0):
        raise ValueError(f"a verdict needs positive ratios at four degrees or more; got {used}")
    degree = np.arange(first_degree, ratio.size, dtype=np.float64)
    weight, logarithm, lmax = 2.0 * degree + 1.0, np.log(used), degree[-1]
    top, below = degree > lmax / 2.0, (degree > lmax / 4.0) & (degree <= lmax / 2.0)
    position = np.log(degree[top]) - np.average(np.log(degree[top]), weights=weight[top])
    spread = float(weight[top] @ position**2)
    slope = -float((weight[top] * position) @ logarithm[top]) / spread
    level = float(np.average(logarithm[top], weights=weight[top]))
    before = float(np.average(logarithm[below], weights=weight[below]))
    # log S_l has variance 2 / (samples (2l + 1)).
    slope_noise = 3.0 * (2.0 / (samples * spread)) ** 0.5
    level_noise = 3.0 * (2.0 / (samples * weight[top].sum())) ** 0.5
    even = abs(slope) <= max(0.1, slope_noise)
    unseen = even and abs(level) <= max(0.01, level_noise)
    small = not unseen and abs(level) < 0.1
    decay = float(np.log2(max(abs(before / level), 1e-9))) if small else np.nan
    if unseen or decay > FASTER_THAN_INVERSE:
        regime = 1
    elif even:
        regime = 2
    elif slope < 0.0:
        regime = 5
    else:
        regime = 3 if slope <= 2.0 else 4
    kl, fisher = (np.cumsum(part[first_degree:]) for part in divergences(np.maximum(ratio, 1e-300)))
    half = kl[int(lmax / 2.0) - first_degree]
    return Compatibility(
        regime=regime,
        slope=slope,
        level=float(np.exp(level)),
        decay=decay,
        smallest=float(used.min()),
        largest=float(used.max()),
        kl=float(kl[-1]),
        kl_per_coefficient=float(kl[-1] / weight.sum()),
        growth=float(np.log2(kl[-1] / half)) if half > 0.0 else 0.0,
        fisher=float(fisher[-1]),
        floor=used.size / (2.0 * samples),
    )
