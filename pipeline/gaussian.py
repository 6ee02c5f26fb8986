"""Gaussian baselines: fitted Gaussian laws of the whitened data, each diagonal in its own basis.

A baseline is an orthogonal change of coordinates y = U^T x together with the variance s of every
coordinate of y. In y the exact score, the exact reverse transition and the log-density are scalar
formulas, so score.py, sample.py and certificate.py never see a covariance matrix.

    isotropic   U mixes the channels of each degree           S_l   (channel x channel)
    m-block     U mixes degrees and channels of each order m  S_m   (Hermitian), the law of fields
                whose statistics do not depend on longitude

Both keep the layout of x, (..., channel, coefficient): y has the same shape. In the m-block basis
the positions (channel, l, +m) and (channel, l, -m) hold sqrt2 Re and sqrt2 Im of one complex
eigen-coordinate. Notation: docs/mathematics.md, 6.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.harmonics import degrees, orders

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]

SHRINKAGES = (0.0, 0.003, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5, 0.8, 1.0)
SMALLEST_VARIANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Sums of z z^H for each order m over a number of fields; add them to combine batches.

    `blocks[m]` has shape (n, n), n = channels * (lmax + 1 - m), rows ordered by channel, then
    degree; z = x_l0 for m = 0 and (x_lm + i x_l-m) / sqrt2 otherwise.
    """

    samples: int
    channels: int
    lmax: int
    blocks: tuple[ComplexArray, ...]

    @classmethod
    def of(cls, x: NDArray[np.floating]) -> Moments:
        """Moments of whitened fields of shape (samples, channel, coefficient), mean zero."""
        samples, channels, size = x.shape
        lmax = int(np.sqrt(size)) - 1
        blocks = []
        for m in range(lmax + 1):
            plus, minus = _positions(channels, lmax, m)
            flat = x.reshape(samples, -1).astype(np.float64)
            z = flat[:, plus] if m == 0 else (flat[:, plus] + 1j * flat[:, minus]) / np.sqrt(2)
            blocks.append(np.asarray(z.T @ z.conj(), dtype=np.complex128))
        return cls(samples=samples, channels=channels, lmax=lmax, blocks=tuple(blocks))

    def __add__(self, other: Moments) -> Moments:
        if (self.channels, self.lmax) != (other.channels, other.lmax):
            raise ValueError(
                "moments of different fields cannot be added: channels, lmax "
                f"{self.channels, self.lmax} and {other.channels, other.lmax}"
            )
        return Moments(
            samples=self.samples + other.samples,
            channels=self.channels,
            lmax=self.lmax,
            blocks=tuple(a + b for a, b in zip(self.blocks, other.blocks, strict=True)),
        )

    def covariance(self, m: int) -> ComplexArray:
        return self.blocks[m] / self.samples

    def isotropic_covariance(self) -> FloatArray:
        """S_l, the mean over the 2l + 1 orders of the channel covariance: (lmax + 1, C, C)."""
        result = np.zeros((self.lmax + 1, self.channels, self.channels))
        for m in range(self.lmax + 1):
            n = self.lmax + 1 - m
            block = self.covariance(m).real.reshape(self.channels, n, self.channels, n)
            multiplicity = 1 if m == 0 else 2
            result[m:] += multiplicity * np.einsum("cldl->lcd", block)
        return result / (2 * np.arange(self.lmax + 1) + 1)[:, None, None]


class Baseline(nn.Module, ABC):
    """A Gaussian law N(0, U diag(s) U^T) of whitened fields (..., channel, coefficient)."""

    name: str
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


class Isotropic(Baseline):
    """Independent degrees and orders; the channels of a degree covary.

    Args:
        vectors: eigenvectors of S_l in columns, (lmax + 1, channel, channel).
        variance: s, (channel, coefficient), constant within a degree.
    """

    name = "isotropic"
    vectors: Tensor
    degree: Tensor

    def __init__(self, vectors: FloatArray, variance: FloatArray) -> None:
        super().__init__()
        lmax = vectors.shape[0] - 1
        self.register_buffer("vectors", torch.as_tensor(vectors, dtype=torch.float64))
        self.register_buffer("variance", torch.as_tensor(variance, dtype=torch.float64))
        self.register_buffer("degree", torch.as_tensor(degrees(lmax)), persistent=False)

    def _per_coefficient(self, dtype: torch.dtype) -> Tensor:
        return self.vectors.to(dtype)[self.degree]

    def rotate(self, x: Tensor) -> Tensor:
        return torch.einsum("kcd,...ck->...dk", self._per_coefficient(x.dtype), x)

    def unrotate(self, y: Tensor) -> Tensor:
        return torch.einsum("kcd,...dk->...ck", self._per_coefficient(y.dtype), y)

    def to_arrays(self) -> dict[str, FloatArray]:
        return {"vectors": self.vectors.cpu().numpy(), "variance": self.variance.cpu().numpy()}


class MBlock(Baseline):
    """Independent orders m; degrees and channels of an order covary.

    Args:
        vectors: for each m the unitary matrix whose columns are the eigenvectors of S_m,
            flattened one after the other, real and imaginary part last: (sum n_m^2, 2).
        variance: s, (channel, coefficient), equal at +m and -m.
    """

    name = "m-block"
    vectors: Tensor
    order_of: Tensor
    place_of: Tensor

    def __init__(self, vectors: FloatArray, variance: FloatArray) -> None:
        super().__init__()
        channels, size = variance.shape
        self.lmax = int(np.sqrt(size)) - 1
        self.register_buffer("vectors", torch.as_tensor(vectors, dtype=torch.float64))
        self.register_buffer("variance", torch.as_tensor(variance, dtype=torch.float64))
        places = [_positions(channels, self.lmax, m) for m in range(self.lmax + 1)]
        order_of = np.concatenate([np.concatenate(p) if m else p[0] for m, p in enumerate(places)])
        self.register_buffer("order_of", torch.as_tensor(order_of), persistent=False)
        self.register_buffer("place_of", torch.as_tensor(np.argsort(order_of)), persistent=False)
        self._rotations: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}

    def _real_blocks(self, like: Tensor) -> list[Tensor]:
        """The orthogonal matrices that act on (x_m, x_-m), one for each m."""
        key = (like.dtype, like.device)
        if key not in self._rotations:
            channels, start, blocks = self.variance.shape[0], 0, []
            for m in range(self.lmax + 1):
                n = channels * (self.lmax + 1 - m)
                a, b = self.vectors[start : start + n * n].reshape(n, n, 2).unbind(-1)
                start += n * n
                block = a if m == 0 else torch.cat([torch.cat([a, b]), torch.cat([-b, a])], dim=1)
                blocks.append(block.to(*key[1:], key[0]))
            self._rotations[key] = blocks
        return self._rotations[key]

    def _turn(self, x: Tensor, transpose: bool) -> Tensor:
        ordered = x.flatten(-2)[..., self.order_of]
        blocks = self._real_blocks(x)
        parts = torch.split(ordered, [block.shape[0] for block in blocks], dim=-1)
        moved = [
            part @ (block.T if transpose else block)
            for part, block in zip(parts, blocks, strict=True)
        ]
        return torch.cat(moved, dim=-1)[..., self.place_of].reshape(x.shape)

    def rotate(self, x: Tensor) -> Tensor:
        return self._turn(x, transpose=False)

    def unrotate(self, y: Tensor) -> Tensor:
        return self._turn(y, transpose=True)

    def to_arrays(self) -> dict[str, FloatArray]:
        return {"vectors": self.vectors.cpu().numpy(), "variance": self.variance.cpu().numpy()}


def fit_isotropic(train: Moments) -> Isotropic:
    """The isotropic law with the channel covariances of the training fields."""
    values, vectors = np.linalg.eigh(train.isotropic_covariance())
    floored = np.maximum(values, SMALLEST_VARIANCE)
    return Isotropic(vectors, floored[degrees(train.lmax)].T)


def choose_shrinkage(train: Moments, validation: Moments) -> FloatArray:
    """For each order m the shrinkage under which the validation fields are most likely."""
    isotropic, chosen = train.isotropic_covariance(), np.empty(train.lmax + 1)
    for m in range(train.lmax + 1):
        misfits = []
        for shrinkage in SHRINKAGES:
            values, basis = _shrunk(train, isotropic, m, shrinkage)
            observed = (basis.conj() * (validation.covariance(m) @ basis)).sum(axis=0).real
            misfits.append(float((observed / values + np.log(values)).sum()))
        chosen[m] = SHRINKAGES[int(np.argmin(misfits))]
    return chosen


def fit_m_block(train: Moments, shrinkage: FloatArray) -> MBlock:
    """The m-block law, each S_m shrunk towards the isotropic law by `shrinkage`, (lmax + 1,)."""
    isotropic, channels, lmax = train.isotropic_covariance(), train.channels, train.lmax
    variance, vectors = np.empty((channels, (lmax + 1) ** 2)), []
    for m in range(lmax + 1):
        values, basis = _shrunk(train, isotropic, m, shrinkage[m])
        plus, minus = _positions(channels, lmax, m)
        variance.flat[plus] = variance.flat[minus] = values
        vectors.append(np.stack([basis.real, basis.imag], axis=-1).reshape(-1, 2))
    return MBlock(np.concatenate(vectors), variance)


def cross_fitted(
    x: NDArray[np.floating], shrinkage: FloatArray, folds: int
) -> list[tuple[slice, MBlock]]:
    """Stretches of a series of fields, each with the m-block law of all the other fields.

    A law fitted to the fields that a network learns from knows them too well: in its coordinates
    they vary less than new ones do, and the network would learn that.

    Args:
        x: whitened fields in order of time, (field, channel, coefficient).
    """
    edges = np.linspace(0, len(x), folds + 1).astype(int)
    stretches = [slice(a, b) for a, b in itertools.pairwise(edges)]
    moments = [Moments.of(x[stretch]) for stretch in stretches]
    return [
        (stretch, fit_m_block(reduce(add, moments[:k] + moments[k + 1 :]), shrinkage))
        for k, stretch in enumerate(stretches)
    ]


def _shrunk(
    moments: Moments, isotropic: FloatArray, m: int, shrinkage: float
) -> tuple[FloatArray, ComplexArray]:
    """Variances and eigenvectors of (1 - shrinkage) S_m + shrinkage S_l."""
    channels, n = moments.channels, moments.lmax + 1 - m
    target = np.zeros((channels, n, channels, n))
    target[:, range(n), :, range(n)] = isotropic[m:]
    mixed = (1 - shrinkage) * moments.covariance(m)
    values, basis = np.linalg.eigh(mixed + shrinkage * target.reshape(mixed.shape))
    return np.maximum(values, SMALLEST_VARIANCE), basis


BASELINES: Mapping[str, type[Isotropic] | type[MBlock]] = {
    "isotropic": Isotropic,
    "m-block": MBlock,
}


def baseline_from_arrays(name: str, arrays: Mapping[str, FloatArray]) -> Baseline:
    """The baseline that `to_arrays` described."""
    if name not in BASELINES:
        raise ValueError(f"baseline must be one of {', '.join(BASELINES)}; got {name!r}")
    return BASELINES[name](arrays["vectors"], arrays["variance"])


def _positions(channels: int, lmax: int, m: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Flat indices of (channel, l, +m) and (channel, l, -m), by channel, then degree."""
    order = orders(lmax)
    offset = np.arange(channels)[:, None] * len(order)
    plus, minus = ((offset + np.flatnonzero(order == part)).ravel() for part in (m, -m))
    return plus, minus
