"""Gaussian laws of whitened fields, each diagonal in its own basis.

A baseline is an orthogonal change of coordinates y = U^T x together with the variance s of every
coordinate of y. In y the exact score, the exact reverse transition and the log-density are scalar
formulas, so score.py, sample.py and certificate.py never see a covariance matrix.

    isotropic   U = I                                  s_l of each channel
    channels    U mixes the channels of each degree    S_l   (channel x channel)
    m-block     U mixes degrees and channels of each   S_m   (Hermitian), the law of fields whose
                order m                                statistics do not depend on longitude
    averaged    the same, S_m from neighbouring orders too

The last two know the orders up to a block degree; beyond it they are the channels law, so their
size grows with the cube of the block degree and no faster than lmax beyond it.

All keep the layout of x, (..., channel, coefficient): y has the same shape. A coordinate stands at
a place where much of its direction lies; in the m-block basis (channel, l, +m) and (channel, l, -m)
hold sqrt2 Re and sqrt2 Im of one complex coordinate. Fits: gaussian.py. Notation:
docs/mathematics.md, 6.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from pipeline.arrays import FloatArray
from pipeline.gaussian.moments import ComplexArray, positions
from pipeline.sphere.coefficients import lmax_of

SMALLEST_VARIANCE = 1e-6


class Baseline(nn.Module, ABC):
    """A Gaussian law N(0, U diag(s) U^T) of whitened fields (..., channel, coefficient)."""

    name: str
    parts: tuple[str, ...]  # the arrays it is made of
    variance: Tensor

    @abstractmethod
    def rotate(self, x: Tensor) -> Tensor:
        """Whitened coordinates to the baseline's own: y = U^T x, same shape."""

    @abstractmethod
    def unrotate(self, y: Tensor) -> Tensor:
        """The inverse of `rotate`: x = U y."""

    @abstractmethod
    def to_arrays(self) -> dict[str, FloatArray]:
        """What is stored in `normals`; `baseline_from_arrays` rebuilds the same law."""

    def log_density(self, x: Tensor) -> Tensor:
        """log of the density [nats] of whitened fields, shape (...)."""
        y, s = self.rotate(x.double()), self.variance
        return -0.5 * (y.square() / s + torch.log(2 * torch.pi * s)).sum(dim=(-2, -1))

    def color(self, white: Tensor) -> Tensor:
        """A draw x of this law from white noise of the same shape."""
        return self.unrotate(self.variance.sqrt().to(white.dtype) * self.rotate(white))


class _Stored(Baseline):
    """A law whose arrays are its buffers."""

    def __init__(self, **arrays: FloatArray) -> None:
        super().__init__()
        for name, array in arrays.items():
            self.register_buffer(name, torch.as_tensor(array, dtype=torch.float64))

    def to_arrays(self) -> dict[str, FloatArray]:
        return {name: getattr(self, name).cpu().numpy() for name in self.parts}


class Isotropic(_Stored):
    """Every channel and degree by itself; `variance` is constant within a degree."""

    name = "isotropic"
    parts = ("variance",)

    def rotate(self, x: Tensor) -> Tensor:
        return x

    def unrotate(self, y: Tensor) -> Tensor:
        return y


class Channels(_Stored):
    """Independent degrees and orders; the channels of a degree covary.

    Args:
        vectors: eigenvectors of S_l in columns, (lmax + 1, channel, channel).
        variance: s, (channel, coefficient), constant within a degree.
    """

    name = "channels"
    parts: tuple[str, ...] = ("vectors", "variance")
    vectors: Tensor

    def __init__(self, vectors: FloatArray, variance: FloatArray) -> None:
        super().__init__(vectors=vectors, variance=variance)

    def rotate(self, x: Tensor) -> Tensor:
        return _turn_degrees(self.vectors, x, 0, transpose=False)

    def unrotate(self, y: Tensor) -> Tensor:
        return _turn_degrees(self.vectors, y, 0, transpose=True)


class MBlock(_Stored):
    """Independent orders m; degrees and channels of an order covary up to the block degree.

    Args:
        vectors: for each m the unitary matrix whose columns are the eigenvectors of S_m,
            flattened one after the other, real and imaginary part last: (sum n_m^2, 2).
        variance: s, (channel, coefficient), equal at +m and -m.
        beyond: eigenvectors in columns of S_l of the degrees beyond the block degree, (degree,
            channel, channel); without it the block degree is lmax.
    """

    name = "m-block"
    parts: tuple[str, ...] = ("vectors", "variance", "beyond")
    vectors: Tensor
    beyond: Tensor
    order_of: Tensor
    place_of: Tensor

    def __init__(
        self, vectors: FloatArray, variance: FloatArray, beyond: FloatArray | None = None
    ) -> None:
        channels, size = variance.shape
        none = np.empty((0, channels, channels))
        super().__init__(
            vectors=vectors, variance=variance, beyond=none if beyond is None else beyond
        )
        self.degree = lmax_of(size) - len(self.beyond)
        places = [positions(channels, self.degree, m) for m in range(self.degree + 1)]
        order_of = np.concatenate([np.concatenate(p) if m else p[0] for m, p in enumerate(places)])
        self.register_buffer("order_of", torch.as_tensor(order_of), persistent=False)
        self.register_buffer("place_of", torch.as_tensor(np.argsort(order_of)), persistent=False)
        self._rotations: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}

    @classmethod
    def of_covariances(cls, covariances: Iterable[ComplexArray], usual: FloatArray) -> Self:
        """The law with these S_m, m = 0 ... block degree, rows by channel, then degree.

        Args:
            usual: S_l, (lmax + 1, channel, channel), which is the law beyond the block degree.
        """
        lmax, channels = len(usual) - 1, usual.shape[1]
        vectors, variances = [], []
        for covariance in covariances:
            values, basis = np.linalg.eigh(covariance)
            order = overlapping(basis)
            variances.append(np.maximum(values, SMALLEST_VARIANCE)[order])
            basis = basis[:, order]
            vectors.append(np.stack([basis.real, basis.imag], axis=-1).reshape(-1, 2))
        degree = len(vectors) - 1
        low = np.empty((channels, (degree + 1) ** 2))
        for m, values in enumerate(variances):
            plus, minus = positions(channels, degree, m)
            low.flat[plus] = low.flat[minus] = values
        beyond, high = directions(usual[degree + 1 :])
        for each, values in zip(beyond, high, strict=True):
            order = overlapping(each)
            each[:], values[:] = each[:, order], values[order]
        counts = 2 * np.arange(degree + 1, lmax + 1) + 1
        variance = np.concatenate([low, np.repeat(high, counts, axis=0).T], axis=1)
        return cls(np.concatenate(vectors), variance, beyond)

    def _real_blocks(self, like: Tensor) -> list[Tensor]:
        """The orthogonal matrices that act on (x_m, x_-m), one for each m."""
        key = (like.dtype, like.device)
        if key not in self._rotations:
            channels, start, blocks = self.variance.shape[0], 0, []
            for m in range(self.degree + 1):
                n = channels * (self.degree + 1 - m)
                a, b = self.vectors[start : start + n * n].reshape(n, n, 2).unbind(-1)
                start += n * n
                block = a if m == 0 else torch.cat([torch.cat([a, b]), torch.cat([-b, a])], dim=1)
                blocks.append(block.to(*key[1:], key[0]))
            self._rotations[key] = blocks
        return self._rotations[key]

    def _turn(self, x: Tensor, transpose: bool) -> Tensor:
        if not len(self.beyond):
            return self._turn_orders(x, transpose)
        size = (self.degree + 1) ** 2
        low = self._turn_orders(x[..., :size], transpose)
        high = _turn_degrees(self.beyond, x[..., size:], self.degree + 1, transpose)
        return torch.cat([low, high], dim=-1)

    def _turn_orders(self, x: Tensor, transpose: bool) -> Tensor:
        ordered = x.flatten(-2).index_select(-1, self.order_of)
        blocks = self._real_blocks(x)
        parts = torch.split(ordered, [block.shape[0] for block in blocks], dim=-1)
        moved = [
            part @ (block.T if transpose else block)
            for part, block in zip(parts, blocks, strict=True)
        ]
        return torch.cat(moved, dim=-1).index_select(-1, self.place_of).reshape(x.shape)

    def rotate(self, x: Tensor) -> Tensor:
        return self._turn(x, transpose=False)

    def unrotate(self, y: Tensor) -> Tensor:
        return self._turn(y, transpose=True)


class Averaged(MBlock):
    """An m-block law whose orders lean on their neighbours (averaged.py)."""

    name = "averaged"


BASELINES: Mapping[str, type[Baseline]] = {
    law.name: law for law in (Isotropic, Channels, MBlock, Averaged)
}


def baseline_from_arrays(name: str, arrays: Mapping[str, FloatArray]) -> Baseline:
    """The baseline that `to_arrays` described."""
    if name not in BASELINES:
        raise ValueError(f"baseline must be one of {', '.join(BASELINES)}; got {name!r}")
    return BASELINES[name](**arrays)


def directions(covariance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Eigenvectors in columns and variances of channel covariances (degree, C, C), by degree."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors, np.maximum(values, SMALLEST_VARIANCE)


def _turn_degrees(vectors: Tensor, x: Tensor, first: int, transpose: bool) -> Tensor:
    """Channels to the directions of each degree or, transposed, back.

    One product a degree: a matrix for each coefficient would be C times as large as the fields.

    Args:
        vectors: in columns, (degree, channel, channel).
        x: coefficients of these degrees, (..., channel, coefficient), the first one `first`.
    """
    used = vectors.to(x.dtype)
    parts = torch.split(x, [2 * (first + k) + 1 for k in range(len(used))], dim=-1)
    turned = [
        (each if transpose else each.T) @ part for each, part in zip(used, parts, strict=True)
    ]
    return torch.cat(turned, dim=-1)


def overlapping(basis: NDArray[np.inexact]) -> NDArray[np.intp]:
    """The order of the columns of a unitary matrix in which each has most of itself in its row.

    A fit places its directions so, and "by degree" keeps its sense in the coordinates of a law.
    """
    order: NDArray[np.intp] = linear_sum_assignment(-(np.abs(basis) ** 2))[1]
    return order
