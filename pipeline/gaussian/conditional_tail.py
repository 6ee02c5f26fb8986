"""The Gaussian tail: degrees beyond lmax given those up to lmax.

Fields that are smooth where they are measured are scaled cell by cell before the analysis, and the
scale spreads what they are to degrees where they have nothing: small scales of scaled anomalies
follow from the large ones, and drawn by themselves they would not cancel. So the tail is drawn
from its law given the learned degrees, within each order m, that of the m-block Gaussian:

    z_tail = K z_low + R e,    K = S_tl S_ll^-1,    R R^H = S_tt - K S_lt

with S_m of all degrees up to the block degree, shrunk as the m-block baseline is. Degrees of the
tail beyond the block degree are white, as the channels of each are after whitening. Notation:
docs/mathematics.md, 6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.arrays import FloatArray
from pipeline.gaussian.baselines import SMALLEST_VARIANCE
from pipeline.gaussian.fit import shrunk_covariance
from pipeline.gaussian.moments import ComplexArray, Moments, positions

SMALLEST_ROOT = 1e-8  # of the largest: directions of the tail that are nothing but rounding


@dataclass(frozen=True, kw_only=True)
class GaussianTail:
    """Draws whitened coefficients of degrees lmax + 1 to `last` given those up to lmax.

    Attributes:
        degree: last degree that has a law of its own, from lmax to `last`: the block degree of the
            moments it was fitted to, or lmax if nothing of the tail is below that.
        regression: K of each order m = 0 ... degree, (tail rows, low rows), by channel, then
            degree.
        root: R of each order, (tail rows, tail rows).
    """

    channels: int
    lmax: int
    last: int
    degree: int
    regression: tuple[ComplexArray, ...]
    root: tuple[ComplexArray, ...]

    @classmethod
    def fit(cls, train: Moments, shrinkage: FloatArray, lmax: int) -> GaussianTail:
        """Fitted to whitened moments up to the last degree.

        Args:
            shrinkage: towards the channel covariance of each degree, by order.
        """
        channels, degree = train.channels, max(train.degree, lmax)
        target = train.channel_covariance()
        regressions: list[ComplexArray] = []
        roots: list[ComplexArray] = []
        for m in range(degree + 1 if degree > lmax else 0):
            covariance = shrunk_covariance(train, target, m, shrinkage[m])
            beyond = np.tile(np.arange(m, degree + 1) > lmax, channels)
            low, cross = covariance[np.ix_(~beyond, ~beyond)], covariance[np.ix_(beyond, ~beyond)]
            nothing = np.diagonal(low).real == 0.0  # winds have no degree 0
            low[nothing, nothing] = SMALLEST_VARIANCE
            solved = np.linalg.solve(low, cross.conj().T)
            regression = np.asarray(solved.conj().T, dtype=np.complex128)
            left = covariance[np.ix_(beyond, beyond)] - regression @ cross.conj().T
            regressions.append(regression)
            roots.append(_root(left))
        return cls(
            channels=channels,
            lmax=lmax,
            last=train.lmax,
            degree=degree,
            regression=tuple(regressions),
            root=tuple(roots),
        )

    def draw(self, x: NDArray[np.floating], white: NDArray[np.floating]) -> FloatArray:
        """The tail of whitened fields, (..., channel, coefficients beyond lmax).

        Args:
            x: degrees up to lmax, (..., channel, (lmax + 1)^2).
            white: standard normal numbers of the result's shape.
        """
        known, size = (self.lmax + 1) ** 2, (self.degree + 1) ** 2
        joined = np.concatenate([x, white[..., : size - known]], axis=-1).astype(np.float64)
        whole = joined.reshape(-1, self.channels * size)
        result = whole.copy()
        for m in range(len(self.regression)):
            plus, minus = positions(self.channels, self.degree, m)
            beyond = plus % size >= known
            z = whole[:, plus] if m == 0 else (whole[:, plus] + 1j * whole[:, minus]) / np.sqrt(2)
            drawn = z[:, ~beyond] @ self.regression[m].T + z[:, beyond] @ self.root[m].T
            if m == 0:
                result[:, plus[beyond]] = drawn.real
            else:
                result[:, plus[beyond]] = np.sqrt(2) * drawn.real
                result[:, minus[beyond]] = np.sqrt(2) * drawn.imag
        tail = result.reshape(*x.shape[:-1], size)[..., known:]
        return np.concatenate([tail, white[..., size - known :]], axis=-1)

    def adjoint(self, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The transposed maps of `draw` applied to functionals of the tail.

        Args:
            rows: (row, channel, coefficients beyond lmax).
        Returns:
            What the rows say of x, (row, channel, (lmax + 1)^2), and of the white noise, as rows.
        """
        known, size = (self.lmax + 1) ** 2, (self.degree + 1) ** 2
        whole = self._padded(rows)
        flat = np.zeros_like(whole)
        for m in range(len(self.regression)):
            plus, minus = positions(self.channels, self.degree, m)
            beyond = plus % size >= known
            b = whole[:, plus[beyond]] + (1j * whole[:, minus[beyond]] if m else 0.0)
            for matrix, columns in ((self.regression[m], ~beyond), (self.root[m], beyond)):
                found = b @ matrix.conj()
                if m:
                    flat[:, minus[columns]] = found.imag
                flat[:, plus[columns]] = found.real
        result = flat.reshape(*rows.shape[:2], size)
        white = np.concatenate([result[..., known:], rows[..., size - known :]], axis=-1)
        return result[..., :known], white

    def white_of(self, x: FloatArray, beyond: FloatArray) -> FloatArray:
        """The white noise of which the tail of whitened fields is made; undoes `draw`.

        Args:
            x: degrees up to lmax, (..., channel, (lmax + 1)^2).
            beyond: the degrees beyond, (..., channel, coefficients beyond lmax).
        """
        known, size = (self.lmax + 1) ** 2, (self.degree + 1) ** 2
        left = beyond - self.draw(x, np.zeros_like(beyond))
        whole = self._padded(left)
        found = np.zeros_like(whole)
        for m, root in enumerate(self.root):
            plus, minus = positions(self.channels, self.degree, m)
            which = plus % size >= known
            inverse = np.linalg.pinv(root, rcond=SMALLEST_ROOT).T
            z = whole[:, plus[which]] + (1j * whole[:, minus[which]] if m else 0.0)
            white = z @ inverse
            if m:
                found[:, minus[which]] = white.imag
            found[:, plus[which]] = white.real
        low = found.reshape(*left.shape[:-1], size)[..., known:]
        return np.concatenate([low, left[..., size - known :]], axis=-1)

    def _padded(self, beyond: FloatArray) -> FloatArray:
        """Coefficients beyond lmax with zeros for those up to it, cut at the block degree, in one
        row of all channels, (row, channel and coefficient)."""
        known, size = (self.lmax + 1) ** 2, (self.degree + 1) ** 2
        padded = np.zeros((*beyond.shape[:-1], size))
        padded[..., known:] = beyond[..., : size - known]
        return padded.reshape(-1, self.channels * size)

    def to_arrays(self) -> dict[str, FloatArray]:
        """What is stored in `normals`: matrices one after the other, real and imaginary part."""
        return {"regression": _flat(self.regression), "root": _flat(self.root)}

    @classmethod
    def from_arrays(
        cls,
        channels: int,
        lmax: int,
        last: int,
        degree: int,
        regression: FloatArray,
        root: FloatArray,
    ) -> GaussianTail:
        """Undo `to_arrays`."""
        regressions, roots, a, b = [], [], 0, 0
        for m in range(degree + 1 if degree > lmax else 0):
            low, tail = channels * max(0, lmax + 1 - m), channels * (degree - max(lmax, m - 1))
            regressions.append(_complex(regression[a : a + tail * low]).reshape(tail, low))
            roots.append(_complex(root[b : b + tail * tail]).reshape(tail, tail))
            a, b = a + tail * low, b + tail * tail
        return cls(
            channels=channels,
            lmax=lmax,
            last=last,
            degree=degree,
            regression=tuple(regressions),
            root=tuple(roots),
        )


def _root(covariance: ComplexArray) -> ComplexArray:
    """A square root of a covariance that may have lost a little to rounding."""
    values, vectors = np.linalg.eigh(covariance)
    root: ComplexArray = vectors * np.sqrt(np.maximum(values, 0.0))
    return root


def _flat(matrices: tuple[ComplexArray, ...]) -> FloatArray:
    none = np.empty(0, np.complex128)
    parts = np.concatenate([none, *(matrix.ravel() for matrix in matrices)])
    return np.stack([parts.real, parts.imag], axis=-1)


def _complex(pairs: FloatArray) -> ComplexArray:
    return pairs[:, 0] + 1j * pairs[:, 1]
