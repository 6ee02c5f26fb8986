"""The layout of spherical harmonic coefficients, and the way to healpy's.

Coefficients are those of the real orthonormal basis R_lm with the Condon-Shortley phase: index
l^2 + l + m on the last axis, m > 0 is sqrt2 Re a_lm and m < 0 is sqrt2 Im a_l|m| of the complex
a_lm (docs/mathematics.md, 1). Truncation to a lower lmax is a prefix; lmax is inclusive.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pipeline.arrays import FloatArray
from pipeline.sphere.grid import IntArray

__all__ = [
    "ComplexArray",
    "degrees",
    "from_complex",
    "lmax_of",
    "mean_by_degree",
    "of_columns",
    "orders",
    "places_among",
    "sum_by_degree",
    "to_complex",
]

ComplexArray = npt.NDArray[np.complexfloating]


def degrees(lmax: int) -> IntArray:
    """Degree l of each of the (lmax + 1)**2 coefficients."""
    return np.repeat(np.arange(lmax + 1), 2 * np.arange(lmax + 1) + 1)


def orders(lmax: int) -> IntArray:
    """Order m, from -l to l, of each coefficient."""
    degree = degrees(lmax)
    return np.arange(degree.size) - degree * (degree + 1)


def lmax_of(coefficients: int) -> int:
    """The lmax of a coefficient axis of this length; ValueError if there is none."""
    lmax = math.isqrt(coefficients) - 1
    if lmax < 0 or (lmax + 1) ** 2 != coefficients:
        raise ValueError(f"a coefficient axis has length (lmax + 1)**2; got {coefficients}")
    return lmax


def sum_by_degree(values: FloatArray) -> FloatArray:
    """Sums over the orders of each degree: (..., (lmax + 1)**2) to (..., lmax + 1)."""
    starts = np.arange(lmax_of(values.shape[-1]) + 1) ** 2
    sums: FloatArray = np.add.reduceat(values, starts, axis=-1)
    return sums


def mean_by_degree(values: FloatArray) -> FloatArray:
    """Means over the orders of each degree: (..., (lmax + 1)**2) to (..., lmax + 1)."""
    sums = sum_by_degree(values)
    return sums / (2 * np.arange(sums.shape[-1]) + 1)


def to_complex(coefficients: FloatArray) -> ComplexArray:
    """Complex a_lm, m >= 0, in healpy's order on the last axis."""
    lmax = lmax_of(coefficients.shape[-1])
    degree, order = _complex_order(lmax)
    centre = degree * (degree + 1)
    half = np.where(order > 0, np.sqrt(0.5), 1.0).astype(coefficients.dtype)
    alm: ComplexArray = half * (coefficients[..., centre + order] + 0j)
    alm.imag = np.where(order > 0, half * coefficients[..., centre - order], 0.0)
    return alm


def from_complex(alm: ComplexArray) -> FloatArray:
    """Real coefficients of complex a_lm in healpy's order; undoes `to_complex`."""
    lmax = round((8 * alm.shape[-1] + 1) ** 0.5 - 3) // 2
    degree, order = _complex_order(lmax)
    if degree.size != alm.shape[-1]:
        raise ValueError(f"a complex axis has length (lmax + 1)(lmax + 2)/2; got {alm.shape[-1]}")
    centre = degree * (degree + 1)
    out = np.empty((*alm.shape[:-1], (lmax + 1) ** 2), alm.real.dtype)
    scale = np.where(order > 0, np.sqrt(2.0), 1.0).astype(out.dtype)
    out[..., centre - order] = scale * alm.imag
    out[..., centre + order] = scale * alm.real
    return out


def of_columns(degree: IntArray, order: IntArray) -> IntArray:
    """Which coefficients are the two parts of complex columns.

    Args:
        degree, order: Of each column, order >= 0; where the degree is -1 there is none.
    Returns:
        Indices (2, ...): of the real part, which belongs to order m, and of the imaginary one,
        which belongs to -m and is void at m = 0; 0 where there is no column.
    """
    there, order = degree >= 0, np.broadcast_to(order, degree.shape)
    centre = degree * (degree + 1)
    return np.where(there, np.stack([centre + order, centre - order]), 0)


def places_among(columns: IntArray, degree: IntArray, place: IntArray, out: IntArray) -> None:
    """Undo `of_columns`: write into `out` where each coefficient stands.

    Args:
        columns: What `of_columns` gave, (2, ...).
        degree: Of each column, -1 where there is none.
        place: Of each part of each column, (2, ...).
        out: (coefficient,).
    """
    there = degree >= 0
    for part in (1, 0):  # the real part last: at m = 0 there is no other
        out[columns[part][there]] = place[part][there]


def _complex_order(lmax: int) -> tuple[IntArray, IntArray]:
    order = np.repeat(np.arange(lmax + 1), lmax + 1 - np.arange(lmax + 1))
    degree = np.concatenate([np.arange(m, lmax + 1) for m in range(lmax + 1)])
    return degree, order
