"""Lag covariances of whitened sequences: the sums from which their Gaussian law is fitted.

    S_m(h) = E z_{k+h} z_k^H,    h = 0 ... past

of the complex coordinates z of each order m, all channels and degrees of the order together up to
a block degree, and beyond it the channels of each degree and order alone. The phase of S_m(1) is
the propagation of waves: real lags would not have it.

The sums are biased, divided by the number of days and not by the number of pairs: the sequence
S(0), ..., S(past) of a series is then that of the series between zeros, which is positive, and so
are sums of such sequences. Sums over blocks of days add up; a block is given the days before it,
and days that do not follow each other are never paired. Notation: docs/mathematics.md, 10.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.arrays import FloatArray
from pipeline.gaussian.moments import ComplexArray
from pipeline.sphere.coefficients import from_complex, lmax_of, to_complex

__all__ = ["LagMoments", "OrderLayout", "block_degree", "contiguous"]

LARGEST_BYTES = 2 << 30  # of a law of sequences
LONGEST_GAP = 1.5  # median steps between neighbours that still follow each other


@dataclass(frozen=True, kw_only=True)
class OrderLayout:
    """The layout of the complex coordinates of each order, which is known here alone.

    Attributes:
        degree: the block degree, up to which all degrees of an order go together.
    """

    channels: int
    lmax: int
    degree: int

    def __post_init__(self) -> None:
        if not 0 <= self.degree <= self.lmax:
            raise ValueError(
                f"the block degree must lie in [0, lmax = {self.lmax}]; got {self.degree}"
            )

    def size(self, m: int) -> int:
        """Coordinates of the block of order m: by channel, then degree."""
        return self.channels * (self.degree + 1 - m)

    def split(self, x: NDArray[np.floating]) -> tuple[list[ComplexArray], ComplexArray]:
        """Complex coordinates of real x (..., channel, coefficient), degree-major.

        Returns:
            The blocks (..., size(m)) of m = 0 ... degree, and what lies beyond the block degree,
            (..., place, channel): the degrees of m = 0, those of m = 1 and so on.
        """
        z = np.asarray(to_complex(np.asarray(x, dtype=np.float64)), dtype=np.complex128)
        blocks: list[ComplexArray] = []
        beyond: list[ComplexArray] = []
        start = 0
        for m in range(self.lmax + 1):
            stop, kept = start + self.lmax + 1 - m, max(0, self.degree + 1 - m)
            if kept:
                part = z[..., start : start + kept]
                blocks.append(np.ascontiguousarray(part).reshape(*part.shape[:-2], -1))
            beyond.append(z[..., start + kept : stop])
            start = stop
        rest = np.concatenate(beyond, axis=-1)
        return blocks, np.ascontiguousarray(np.swapaxes(rest, -1, -2))

    def join(self, blocks: list[ComplexArray], beyond: ComplexArray) -> FloatArray:
        """Real coefficients of complex coordinates; undoes `split`."""
        parts, start = [], 0
        rest = np.swapaxes(beyond, -1, -2)
        for m in range(self.lmax + 1):
            kept = max(0, self.degree + 1 - m)
            if kept:
                block = blocks[m]
                parts.append(block.reshape(*block.shape[:-1], self.channels, kept))
            stop = start + self.lmax + 1 - m - kept
            parts.append(rest[..., start:stop])
            start = stop
        return np.asarray(from_complex(np.concatenate(parts, axis=-1)), dtype=np.float64)

    @property
    def places(self) -> int:
        """Pairs of degree and order beyond the block degree."""
        return (self.lmax + 1) * (self.lmax + 2) // 2 - (self.degree + 1) * (self.degree + 2) // 2

    def beyond_degrees(self) -> NDArray[np.intp]:
        """The degree of each place beyond the block degree, (place,)."""
        return np.concatenate(
            [np.arange(max(m, self.degree + 1), self.lmax + 1) for m in range(self.lmax + 1)]
        )

    def beyond_orders(self) -> NDArray[np.intp]:
        """The order of each place beyond the block degree, (place,)."""
        counts = [self.lmax + 1 - max(m, self.degree + 1) for m in range(self.lmax + 1)]
        return np.repeat(np.arange(self.lmax + 1), counts)


@dataclass(frozen=True, kw_only=True)
class LagMoments:
    """Sums of z_{k+h} z_k^H over days; add them to combine blocks of days.

    Attributes:
        samples: days that were counted.
        blocks: for each order m up to the block degree, (past + 1, n, n), n = layout.size(m).
        beyond: at each place beyond it, (past + 1, place, channel, channel).
    """

    samples: int
    layout: OrderLayout
    blocks: tuple[ComplexArray, ...]
    beyond: ComplexArray

    @classmethod
    def of(
        cls,
        x: NDArray[np.floating],
        past: int,
        *,
        before: int = 0,
        degree: int | None = None,
    ) -> LagMoments:
        """Sums over consecutive days of whitened fields (day, channel, coefficient), mean zero.

        Args:
            before: so many of the first days are not counted themselves: they were in the block
                before this one and are here to be paired with.
            degree: the block degree; lmax if not given.
        """
        lmax = lmax_of(x.shape[-1])
        layout = OrderLayout(
            channels=x.shape[1], lmax=lmax, degree=lmax if degree is None else degree
        )
        blocks, beyond = layout.split(x)
        return cls(
            samples=len(x) - before,
            layout=layout,
            blocks=tuple(
                np.stack([_pairs(z, lag, before, "ka,kb->ab") for lag in range(past + 1)])
                for z in blocks
            ),
            beyond=np.stack(
                [_pairs(beyond, lag, before, "kpc,kpd->pcd") for lag in range(past + 1)]
            ),
        )

    @classmethod
    def of_stretches(
        cls, x: NDArray[np.floating], stretches: list[slice], past: int, degree: int | None = None
    ) -> LagMoments:
        """Sums over several stretches of a series (`contiguous`), no pair across their borders."""
        parts = [cls.of(x[part], past, degree=degree) for part in stretches]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    @property
    def past(self) -> int:
        return len(self.beyond) - 1

    def __add__(self, other: LagMoments) -> LagMoments:
        if (self.layout, self.past) != (other.layout, other.past):
            raise ValueError(
                "lag sums of different fields cannot be added: "
                f"{self.layout}, past {self.past} and {other.layout}, past {other.past}"
            )
        return replace(
            self,
            samples=self.samples + other.samples,
            blocks=tuple(a + b for a, b in zip(self.blocks, other.blocks, strict=True)),
            beyond=self.beyond + other.beyond,
        )

    def up_to(self, past: int) -> LagMoments:
        """The sums of the first lags alone."""
        if past > self.past:
            raise ValueError(f"lags are known up to {self.past}; got {past}")
        return replace(
            self,
            blocks=tuple(block[: past + 1] for block in self.blocks),
            beyond=self.beyond[: past + 1],
        )

    def mixed(self, matrices: NDArray[np.floating]) -> LagMoments:
        """Sums of the fields M_l x, whose channels each degree mixes by its own matrix.

        Args:
            matrices: M_l, (lmax + 1, channel, channel).
        """
        layout, blocks = self.layout, []
        for m, block in enumerate(self.blocks):
            rows = block.reshape(len(block), *_shape(layout, m), *_shape(layout, m))
            used = matrices[m : layout.degree + 1]
            left = np.einsum("iac,hcidj->haidj", used, rows)
            mixed = np.einsum("jbd,haidj->haibj", used, left)
            blocks.append(mixed.reshape(block.shape))
        at = matrices[layout.beyond_degrees()]
        return replace(self, blocks=tuple(blocks), beyond=at @ self.beyond @ at.swapaxes(-1, -2))

    def sequence(self, m: int) -> ComplexArray:
        """S_m(0), ..., S_m(past) of a block, (past + 1, n, n)."""
        return self.blocks[m] / self.samples

    def channel_lags(self) -> FloatArray:
        """The lags of the `channels` law: means over the orders, (past + 1, lmax + 1, C, C).

        Orders +m and -m together, so they are real: a law that does not depend on direction has no
        eastward waves.
        """
        layout, channels = self.layout, self.layout.channels
        total = np.zeros((self.past + 1, layout.lmax + 1, channels, channels))
        for m, block in enumerate(self.blocks):
            rows = block.real.reshape(len(block), *_shape(layout, m), *_shape(layout, m))
            diagonal = np.einsum("hcidi->hicd", rows)
            total[:, m : layout.degree + 1] += (1 if m == 0 else 2) * diagonal
        weight = np.where(layout.beyond_orders() == 0, 1, 2)[:, None, None]
        np.add.at(
            total.swapaxes(0, 1),
            layout.beyond_degrees(),
            (weight * self.beyond.real).swapaxes(0, 1),
        )
        count = self.samples * (2 * np.arange(layout.lmax + 1) + 1)
        lags: FloatArray = total / count[:, None, None]
        return lags


def contiguous(times: NDArray[np.generic]) -> list[slice]:
    """Stretches of a time axis in which each time follows the one before it.

    A step of more than `LONGEST_GAP` median steps is a gap; months of 28 and 31 days are none.
    """
    if len(times) < 2:
        return [slice(0, len(times))] if len(times) else []
    steps = np.diff(times)
    usual = np.sort(steps)[len(steps) // 2]
    breaks = [0, *(np.flatnonzero(steps > LONGEST_GAP * usual) + 1).tolist(), len(times)]
    return [slice(a, b) for a, b in itertools.pairwise(breaks)]


def block_degree(channels: int, lmax: int, past: int) -> int:
    """The degree up to which all degrees of an order go together: the largest, up to lmax, whose
    law takes no more than `LARGEST_BYTES`."""
    matrices = past * (past + 1) // 2 + 2 * (past + 1)

    def size(band: int) -> int:
        squares = (band + 1) * (band + 2) * (2 * band + 3) // 6
        return 16 * channels**2 * matrices * squares

    return max((band for band in range(lmax + 1) if size(band) <= LARGEST_BYTES), default=0)


def _pairs(z: ComplexArray, lag: int, before: int, subscripts: str) -> ComplexArray:
    """The sum of z_{k+lag} z_k^H over the pairs whose later day is counted."""
    first = max(before, lag)
    later, earlier = z[first:], z[first - lag : len(z) - lag]
    if subscripts == "ka,kb->ab":
        return np.asarray(later.T @ earlier.conj())
    return np.asarray(np.einsum(subscripts, later, earlier.conj(), optimize=True))


def _shape(layout: OrderLayout, m: int) -> tuple[int, int]:
    return layout.channels, layout.degree + 1 - m
