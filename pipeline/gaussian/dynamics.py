"""The Gaussian law of sequences: a day given the days before it, within each order m.

    z_k = A_1 z_{k-1} + ... + A_p z_{k-p} + e_k,    e ~ N(0, Sigma),    Sigma = U diag(s) U^H

for the complex coordinates z of all channels and degrees of an order together, up to a block
degree, and of the channels of each degree and order beyond it (lags.py). It is fitted so that it is
stable (dynamics_fit.py).

One Cholesky factor of the block Toeplitz matrix of the lags holds the law of a day given none, one,
... p days before it. So a sequence starts in its stationary law and never leaves it, and days after
a gap have an exact density, too. In

    y = U^T (x_k - K o_k),    o_k = (x_{k-p}, ..., x_{k-1}),    variances s

everything that is known of single days holds as it is (baselines.py): score, integrators and
certificate see y alone. Notation: docs/mathematics.md, 10.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.arrays import FloatArray
from pipeline.gaussian.baselines import Baseline, MBlock
from pipeline.gaussian.lags import OrderLayout
from pipeline.gaussian.moments import ComplexArray


class Innovations(Baseline):
    """The law N(0, Sigma) of what is new in a day: an m-block law up to the block degree, and
    beyond it one of the channels of each degree and order.

    Args:
        vectors: as those of the m-block law, for the degrees up to the block degree.
        beyond: unitary matrices of the places beyond it, eigenvectors in columns, real and
            imaginary part last, (place, channel, channel, 2), by order, then degree.
        variance: s, (channel, coefficient), equal at +m and -m.
    """

    name = "innovations"
    parts = ("vectors", "beyond", "variance")
    beyond: Tensor
    plus: Tensor
    minus: Tensor

    def __init__(self, vectors: FloatArray, beyond: FloatArray, variance: FloatArray) -> None:
        super().__init__()
        channels, size = variance.shape
        low = _low_size(size, len(beyond))
        self.low = MBlock(vectors, variance[:, :low])
        layout = OrderLayout(channels=channels, lmax=int(size**0.5) - 1, degree=int(low**0.5) - 1)
        centre = layout.beyond_degrees() * (layout.beyond_degrees() + 1)
        self.register_buffer("beyond", torch.as_tensor(beyond, dtype=torch.float64))
        self.register_buffer("variance", torch.as_tensor(variance, dtype=torch.float64))
        for name, sign in (("plus", 1), ("minus", -1)):
            places = torch.as_tensor(centre + sign * layout.beyond_orders())
            self.register_buffer(name, places, persistent=False)

    def to_arrays(self) -> dict[str, FloatArray]:
        own = {"beyond": self.beyond.cpu().numpy(), "variance": self.variance.cpu().numpy()}
        return {"vectors": self.low.to_arrays()["vectors"], **own}

    def rotate(self, x: Tensor) -> Tensor:
        return self._turn(x, back=False)

    def unrotate(self, y: Tensor) -> Tensor:
        return self._turn(y, back=True)

    def _turn(self, x: Tensor, back: bool) -> Tensor:
        size = self.low.variance.shape[1]
        low = x[..., :size]
        low = self.low.unrotate(low) if back else self.low.rotate(low)
        if not len(self.plus):
            return low
        result = torch.empty_like(x)
        result[..., :size] = low
        a, b = self.beyond.to(x.dtype).unbind(-1)  # V = a + i b
        plus, minus = x[..., self.plus], x[..., self.minus]
        minus = torch.where(self.plus == self.minus, 0.0, minus)
        if back:  # z = V y
            real = _mix("kcd,...dk->...ck", (a, plus), (-b, minus))
            imaginary = _mix("kcd,...dk->...ck", (b, plus), (a, minus))
        else:  # y = V^H z
            real = _mix("kcd,...ck->...dk", (a, plus), (b, minus))
            imaginary = _mix("kcd,...ck->...dk", (a, minus), (-b, plus))
        result[..., self.minus] = imaginary
        result[..., self.plus] = real
        return result


@dataclass(frozen=True, kw_only=True)
class SequenceLaw:
    """A stationary Gaussian law of sequences of whitened fields (day, channel, coefficient).

    Attributes:
        blocks: for j = 1 ... past and each order m the regression of a day on j days before it,
            (n, j n), the earliest day first.
        beyond: for j = 1 ... past the same at each place beyond the block degree,
            (place, channel, j channel).
        innovations: the law of what is left of a day given 0 ... past days before it.
    """

    layout: OrderLayout
    blocks: tuple[tuple[ComplexArray, ...], ...]
    beyond: tuple[ComplexArray, ...]
    innovations: tuple[Innovations, ...]

    @property
    def past(self) -> int:
        return len(self.beyond)

    def mean(self, past: NDArray[np.floating]) -> FloatArray:
        """K o: the expected fields (..., channel, coefficient) given the days before them.

        Args:
            past: (..., day, channel, coefficient), the last day last; no more than `self.past`.
        """
        days = past.shape[-3]
        if days > self.past:
            raise ValueError(f"this law looks back {self.past} days; it was given {days}")
        if days == 0:
            return np.zeros((*past.shape[:-3], *past.shape[-2:]))
        blocks, beyond = self.layout.split(past)
        expected = [
            _flat(z) @ regression.T
            for z, regression in zip(blocks, self.blocks[days - 1], strict=True)
        ]
        together = np.moveaxis(beyond, -3, -2)  # (..., place, day, channel)
        rest = np.einsum(
            "pcd,...pd->...pc",
            self.beyond[days - 1],
            together.reshape(*together.shape[:-2], days * self.layout.channels),
        )
        return self.layout.join(expected, rest)

    def next(self, past: NDArray[np.floating], white: NDArray[np.floating]) -> FloatArray:
        """A draw of the day after `past` from white noise (..., channel, coefficient)."""
        law = self.innovations[past.shape[-3]]
        new = law.color(torch.from_numpy(np.asarray(white, dtype=np.float64)))
        drawn: FloatArray = self.mean(past) + new.numpy()
        return drawn

    def draw(self, white: NDArray[np.floating]) -> FloatArray:
        """A sequence of the stationary law from white noise (day, ..., channel, coefficient)."""
        drawn: list[FloatArray] = []
        for noise in white:
            days = drawn[-self.past :] if self.past else []
            past = (
                np.stack(days, axis=-3)
                if days
                else np.empty((*noise.shape[:-2], 0, *noise.shape[-2:]))
            )
            drawn.append(self.next(past, noise))
        return np.stack(drawn)

    def residuals(
        self, x: NDArray[np.floating], at_most: int | None = None
    ) -> Iterator[tuple[slice, int, FloatArray]]:
        """x - K o of consecutive days (day, channel, coefficient), by the days that are known.

        Args:
            at_most: so many days before are used, though more may be known.
        Yields:
            Days, how many days before each of them were used, and their residuals.
        """
        most = self.past if at_most is None else min(at_most, self.past)
        for days in range(min(most, len(x))):
            part = slice(days, days + 1)
            yield part, days, x[part] - self.mean(x[None, :days])
        if len(x) > most:
            before = np.arange(len(x) - most)[:, None] + np.arange(most)
            yield slice(most, len(x)), most, x[most:] - self.mean(x[before])

    def log_density(self, x: NDArray[np.floating], at_most: int | None = None) -> FloatArray:
        """log of the density [nats] of each of consecutive days given those before it, (day,)."""
        nats = np.empty(len(x))
        for part, days, left in self.residuals(np.asarray(x, dtype=np.float64), at_most):
            nats[part] = self.innovations[days].log_density(torch.from_numpy(left)).numpy()
        return nats

    def to_arrays(self) -> dict[str, FloatArray]:
        """What is stored in `normals`; `from_arrays` rebuilds the same law."""
        arrays = {
            "regression": _pairs(np.concatenate([r.ravel() for k in self.blocks for r in k])),
            "beyond_regression": _pairs(np.concatenate([r.ravel() for r in self.beyond])),
        }
        for days, law in enumerate(self.innovations):
            arrays |= {f"{part}_{days}": array for part, array in law.to_arrays().items()}
        return arrays

    @classmethod
    def from_arrays(
        cls, lmax: int, degree: int, past: int, arrays: Mapping[str, FloatArray]
    ) -> SequenceLaw:
        """Undo `to_arrays`."""
        layout = OrderLayout(channels=len(arrays["variance_0"]), lmax=lmax, degree=degree)
        take, rest = _reader(arrays["regression"]), _reader(arrays["beyond_regression"])
        channels = layout.channels
        return cls(
            layout=layout,
            blocks=tuple(
                tuple(take(n, j * n) for n in map(layout.size, range(degree + 1)))
                for j in range(1, past + 1)
            ),
            beyond=tuple(rest(layout.places, channels, j * channels) for j in range(1, past + 1)),
            innovations=tuple(
                Innovations(**{part: arrays[f"{part}_{days}"] for part in Innovations.parts})
                for days in range(past + 1)
            ),
        )


def _flat(z: ComplexArray) -> ComplexArray:
    return z.reshape(*z.shape[:-2], -1)


def _mix(subscripts: str, *terms: tuple[Tensor, Tensor]) -> Tensor:
    return sum((torch.einsum(subscripts, *term) for term in terms), start=torch.zeros(()))


def _low_size(size: int, places: int) -> int:
    """Coefficients up to the block degree, of the places that lie beyond it."""
    orders = int(size**0.5)
    below = orders * (orders + 1) // 2 - places
    return int(((8 * below + 1) ** 0.5 - 1) / 2) ** 2


def _pairs(values: ComplexArray) -> FloatArray:
    return np.stack([values.real, values.imag], axis=-1)


def _reader(pairs: FloatArray) -> Callable[..., ComplexArray]:
    """Hands out one matrix after the other of those that `_pairs` flattened."""
    values, start = pairs[:, 0] + 1j * pairs[:, 1], 0

    def take(*shape: int) -> ComplexArray:
        nonlocal start
        size = int(np.prod(shape))
        start += size
        return values[start - size : start].reshape(shape)

    return take
