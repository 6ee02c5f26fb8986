"""Second moments of whitened fields: the sums from which every Gaussian baseline is fitted.

Blocks of the covariance are kept, never the whole of it: up to a block degree the moments within
each order m, and beyond it those of the channels of each degree, over all its orders. So memory
grows with the cube of the block degree, and with lmax beyond it. Sums of separate batches add up.
Hands on to fit.py and whole.py; notation: docs/mathematics.md, 6.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.arrays import FloatArray
from pipeline.sphere.coefficients import lmax_of, orders

ComplexArray = NDArray[np.complex128]

LARGEST_BYTES = 512 << 20  # of the covariances of one law; a training holds a dozen laws


def block_bytes(channels: int, degree: int) -> int:
    """Bytes of the covariances of all orders up to a degree: 16 C^2 sum (l + 1)^2."""
    return 16 * channels**2 * (degree + 1) * (degree + 2) * (2 * degree + 3) // 6


def largest_block_degree(channels: int, lmax: int, most: int | None = None) -> int:
    """The largest degree up to `lmax` whose covariances take no more than `most` bytes.

    It is the same on every machine, as draws are: `LARGEST_BYTES` if nothing else is said.
    """
    limit = LARGEST_BYTES if most is None else most
    return max((one for one in range(lmax + 1) if block_bytes(channels, one) <= limit), default=0)


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Sums over a number of fields; add them to combine batches.

    Attributes:
        blocks: for each order m = 0 ... degree the sum of z z^H, shape (n, n), n = channels *
            (degree + 1 - m), rows by channel, then degree; z = x_l0 for m = 0 and
            (x_lm + i x_l-m) / sqrt2 otherwise.
        beyond: for each degree beyond the block degree the sum of x_lm x_lm^T over fields and
            orders, (lmax - degree, channel, channel).
    """

    samples: int
    channels: int
    lmax: int
    blocks: tuple[ComplexArray, ...]
    beyond: FloatArray

    @classmethod
    def of(cls, x: NDArray[np.floating], degree: int | None = None) -> Moments:
        """Moments of whitened fields of shape (samples, channel, coefficient), mean zero.

        Args:
            degree: the block degree; lmax if not given.
        """
        samples, channels, size = x.shape
        lmax = lmax_of(size)
        degree = lmax if degree is None else degree
        if not 0 <= degree <= lmax:
            raise ValueError(f"the block degree must lie in [0, lmax = {lmax}]; got {degree}")
        flat, blocks = _flat(x, degree), []
        for m in range(degree + 1):
            z = complex_coordinates(flat, channels, degree, m)
            blocks.append(np.asarray(z.T @ z.conj(), dtype=np.complex128))
        beyond = np.zeros((lmax - degree, channels, channels))
        for place, part in _beyond(x, degree):
            beyond[place] = part.T @ part
        return cls(
            samples=samples, channels=channels, lmax=lmax, blocks=tuple(blocks), beyond=beyond
        )

    @property
    def degree(self) -> int:
        """The block degree: beyond it the channels of each degree are all that is known."""
        return len(self.blocks) - 1

    def __add__(self, other: Moments) -> Moments:
        ours, theirs = ((one.channels, one.lmax, one.degree) for one in (self, other))
        if ours != theirs:
            raise ValueError(
                "moments of different fields cannot be added: channels, lmax, block degree "
                f"{ours} and {theirs}"
            )
        return replace(
            self,
            samples=self.samples + other.samples,
            blocks=tuple(a + b for a, b in zip(self.blocks, other.blocks, strict=True)),
            beyond=self.beyond + other.beyond,
        )

    def without(self, cross: FloatArray, gram: FloatArray) -> Moments:
        """Moments of what a regression of the fields on some terms leaves of them.

        Args:
            cross: sums of terms times fields, (term, channel, coefficient).
            gram: sums of terms times terms, (term, term).
        """
        flat, blocks = _flat(cross, self.degree), []
        for m, block in enumerate(self.blocks):
            z = complex_coordinates(flat, self.channels, self.degree, m)
            blocks.append(block - z.T @ np.linalg.solve(gram, z.conj()))
        beyond = self.beyond.copy()
        root = np.linalg.inv(np.linalg.cholesky(gram))
        whole = np.tensordot(root, cross, axes=1)  # whose squares are what the terms explain
        for place, part in _beyond(whole, self.degree):
            beyond[place] -= part.T @ part
        return replace(self, blocks=tuple(blocks), beyond=beyond)

    def mixed(self, matrices: NDArray[np.floating]) -> Moments:
        """Moments of the fields M_l x, whose channels each degree mixes by its own matrix.

        Args:
            matrices: M_l, (lmax + 1, channel, channel).
        """
        low = matrices[: self.degree + 1]
        at = matrices[self.degree + 1 :]
        return replace(
            self,
            blocks=tuple(_mixed(block, low[m:]) for m, block in enumerate(self.blocks)),
            beyond=at @ self.beyond @ at.swapaxes(1, 2),
        )

    def up_to(self, lmax: int) -> Moments:
        """Moments of the degrees up to `lmax` alone."""
        if lmax > self.lmax:
            raise ValueError(f"moments are kept up to degree {self.lmax}; got {lmax}")
        blocks = []
        for m, block in enumerate(self.blocks[: lmax + 1]):
            kept = np.tile(np.arange(m, self.degree + 1) <= lmax, self.channels)
            blocks.append(block[np.ix_(kept, kept)])
        beyond = self.beyond[: max(0, lmax - self.degree)]
        return replace(self, lmax=lmax, blocks=tuple(blocks), beyond=beyond)

    def covariance(self, m: int) -> ComplexArray:
        return self.blocks[m] / self.samples

    def channel_covariance(self) -> FloatArray:
        """S_l, the mean over the 2l + 1 orders of the channel covariance: (lmax + 1, C, C)."""
        result = np.zeros((self.lmax + 1, self.channels, self.channels))
        for m in range(self.degree + 1):
            n = self.degree + 1 - m
            block = self.covariance(m).real.reshape(self.channels, n, self.channels, n)
            multiplicity = 1 if m == 0 else 2
            result[m : self.degree + 1] += multiplicity * np.einsum("cldl->lcd", block)
        result[self.degree + 1 :] = self.beyond / self.samples
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


def _flat(x: NDArray[np.floating], degree: int) -> FloatArray:
    """Coefficients up to a degree, (field, channel and coefficient)."""
    low: FloatArray = x[..., : (degree + 1) ** 2].reshape(len(x), -1).astype(np.float64)
    return low


def _beyond(x: NDArray[np.floating], degree: int) -> Iterator[tuple[int, FloatArray]]:
    """Each degree beyond a degree: its place among them, and (field and order, channel)."""
    for place, one in enumerate(range(degree + 1, lmax_of(x.shape[-1]) + 1)):
        part = x[..., one**2 : (one + 1) ** 2].astype(np.float64)
        yield place, part.swapaxes(1, 2).reshape(-1, x.shape[1])


def _mixed(block: NDArray[Any], matrices: NDArray[np.floating]) -> NDArray[Any]:
    """M S M^T of a covariance with rows by channel, then place, each with its own M."""
    places, channels, _ = matrices.shape
    rows = block.reshape(channels, places, channels, places)
    left = np.einsum("iac,cidj->iadj", matrices, rows)
    mixed: NDArray[Any] = np.einsum("jbd,iadj->aibj", matrices, left).reshape(block.shape)
    return mixed
