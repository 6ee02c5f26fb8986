"""Second moments of whitened fields: the sums from which every Gaussian baseline is fitted.

Blocks of the covariance are kept, never the whole of it: the moments within each order m. Sums of
separate batches add up. Hands on to fit.py and whole.py; notation: docs/mathematics.md, 6.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.arrays import FloatArray
from pipeline.sphere.coefficients import lmax_of, orders

ComplexArray = NDArray[np.complex128]


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Sums over a number of fields; add them to combine batches.

    Attributes:
        blocks: for each order m the sum of z z^H, shape (n, n), n = channels * (lmax + 1 - m), rows
            by channel, then degree; z = x_l0 for m = 0 and (x_lm + i x_l-m) / sqrt2 otherwise.
    """

    samples: int
    channels: int
    lmax: int
    blocks: tuple[ComplexArray, ...]

    @classmethod
    def of(cls, x: NDArray[np.floating]) -> Moments:
        """Moments of whitened fields of shape (samples, channel, coefficient), mean zero."""
        samples, channels, size = x.shape
        lmax = lmax_of(size)
        flat, blocks = x.reshape(samples, -1).astype(np.float64), []
        for m in range(lmax + 1):
            z = complex_coordinates(flat, channels, lmax, m)
            blocks.append(np.asarray(z.T @ z.conj(), dtype=np.complex128))
        return cls(samples=samples, channels=channels, lmax=lmax, blocks=tuple(blocks))

    def __add__(self, other: Moments) -> Moments:
        if (self.channels, self.lmax) != (other.channels, other.lmax):
            raise ValueError(
                "moments of different fields cannot be added: channels, lmax "
                f"{self.channels, self.lmax} and {other.channels, other.lmax}"
            )
        return replace(
            self,
            samples=self.samples + other.samples,
            blocks=tuple(a + b for a, b in zip(self.blocks, other.blocks, strict=True)),
        )

    def without(self, cross: FloatArray, gram: FloatArray) -> Moments:
        """Moments of what a regression of the fields on some terms leaves of them.

        Args:
            cross: sums of terms times fields, (term, channel, coefficient).
            gram: sums of terms times terms, (term, term).
        """
        flat, blocks = cross.reshape(len(cross), -1).astype(np.float64), []
        for m, block in enumerate(self.blocks):
            z = complex_coordinates(flat, self.channels, self.lmax, m)
            blocks.append(block - z.T @ np.linalg.solve(gram, z.conj()))
        return replace(self, blocks=tuple(blocks))

    def mixed(self, matrices: NDArray[np.floating]) -> Moments:
        """Moments of the fields M_l x, whose channels each degree mixes by its own matrix.

        Args:
            matrices: M_l, (lmax + 1, channel, channel).
        """
        return replace(
            self,
            blocks=tuple(_mixed(block, matrices[m:]) for m, block in enumerate(self.blocks)),
        )

    def up_to(self, lmax: int) -> Moments:
        """Moments of the degrees up to `lmax` alone."""
        if lmax > self.lmax:
            raise ValueError(f"moments are kept up to degree {self.lmax}; got {lmax}")
        blocks = []
        for m, block in enumerate(self.blocks[: lmax + 1]):
            kept = np.tile(np.arange(m, self.lmax + 1) <= lmax, self.channels)
            blocks.append(block[np.ix_(kept, kept)])
        return replace(self, lmax=lmax, blocks=tuple(blocks))

    def covariance(self, m: int) -> ComplexArray:
        return self.blocks[m] / self.samples

    def channel_covariance(self) -> FloatArray:
        """S_l, the mean over the 2l + 1 orders of the channel covariance: (lmax + 1, C, C)."""
        result = np.zeros((self.lmax + 1, self.channels, self.channels))
        for m in range(self.lmax + 1):
            n = self.lmax + 1 - m
            block = self.covariance(m).real.reshape(self.channels, n, self.channels, n)
            multiplicity = 1 if m == 0 else 2
            result[m:] += multiplicity * np.einsum("cldl->lcd", block)
        return result / (2 * np.arange(self.lmax + 1) + 1)[:, None, None]


def positions(channels: int, lmax: int, m: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Flat indices of (channel, l, +m) and (channel, l, -m), by channel, then degree."""
    order = orders(lmax)
    offset = np.arange(channels)[:, None] * len(order)
    plus, minus = ((offset + np.flatnonzero(order == part)).ravel() for part in (m, -m))
    return plus, minus


def complex_coordinates(
    flat: FloatArray, channels: int, lmax: int, m: int
) -> NDArray[np.inexact[Any]]:
    """z of one order, (field, channel and degree), of fields (field, channel and coefficient)."""
    plus, minus = positions(channels, lmax, m)
    if m == 0:
        return flat[:, plus]
    return np.asarray((flat[:, plus] + 1j * flat[:, minus]) / np.sqrt(2))


def _mixed(block: NDArray[Any], matrices: NDArray[np.floating]) -> NDArray[Any]:
    """M S M^T of a covariance with rows by channel, then place, each with its own M."""
    places, channels, _ = matrices.shape
    rows = block.reshape(channels, places, channels, places)
    left = np.einsum("iac,cidj->iadj", matrices, rows)
    mixed: NDArray[Any] = np.einsum("jbd,iadj->aibj", matrices, left).reshape(block.shape)
    return mixed
