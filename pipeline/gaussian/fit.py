"""Gaussian baselines: laws of the whitened data (laws.py), fitted to their moments (moments.py).

    isotropic   variances of each channel and degree
    channels    channel covariances of each degree
    m-block     covariances of each order, shrunk towards the channel covariances
    averaged    the same, averaged with those of neighbouring orders before (averaged.py)

The last two are the channels law beyond the block degree of the moments that they are fitted to.
All are fitted to training fields; how much the last two are shrunk is chosen on validation fields.
Notation: docs/mathematics.md, 6.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, Protocol

import numpy as np

from pipeline.arrays import FloatArray
from pipeline.gaussian.averaged import choose_averages, fit_averaged
from pipeline.gaussian.baselines import (
    BASELINES,
    SMALLEST_VARIANCE,
    Baseline,
    Channels,
    Isotropic,
    MBlock,
    baseline_from_arrays,
    directions,
)
from pipeline.gaussian.moments import (
    ComplexArray,
    Moments,
    block_bytes,
    largest_block_degree,
)
from pipeline.sphere.coefficients import degrees

__all__ = [
    "BASELINES",
    "Baseline",
    "Choice",
    "LeftOut",
    "Moments",
    "baseline_from_arrays",
    "choose",
    "choose_shrinkage",
    "fit",
    "fit_channels",
    "fit_isotropic",
    "fit_m_block",
    "left_out",
    "refuse_sizes",
    "shrunk_covariance",
]

Choice = Mapping[str, FloatArray]  # what validation fields decided about a baseline

SHRINKAGES = (0.0, 0.003, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5, 0.8, 1.0)
LARGEST_BYTES = 8 << 30
AT_ONCE = 128  # fields in memory while moments are summed
EXTRAPOLATED = 5.0  # times the usual variance of a regression: beyond it, it is one no more


class Series(Protocol):
    """Fields in memory or on disk; a slice becomes an array when it is asked to."""

    def __len__(self) -> int: ...

    def __getitem__(self, fields: slice, /) -> Any: ...


def choose(name: str, train: Moments, validation: Moments) -> Choice:
    """What a fit of this baseline takes besides training fields; empty for most."""
    if name == "m-block":
        return {"shrinkage": choose_shrinkage(train, validation)}
    if name == "averaged":
        across, towards = choose_averages(train, validation)
        return {"across": across, "towards": towards}
    return {}


def fit(name: str, train: Moments, choice: Choice) -> Baseline:
    """The baseline of this name, fitted to the moments of training fields."""
    if name == "m-block":
        return fit_m_block(train, choice["shrinkage"])
    if name == "averaged":
        return fit_averaged(train, choice["across"], choice["towards"])
    return fit_channels(train) if name == "channels" else fit_isotropic(train)


def fit_isotropic(train: Moments) -> Isotropic:
    """The law with the power spectra of the training fields."""
    power = np.diagonal(train.channel_covariance(), axis1=1, axis2=2)
    floored = np.maximum(power, SMALLEST_VARIANCE)
    return Isotropic(variance=floored[degrees(train.lmax)].T)


def fit_channels(train: Moments) -> Channels:
    """The law with the power and cross spectra of the training fields."""
    vectors, variance = directions(train.channel_covariance())
    return Channels(vectors, variance[degrees(train.lmax)].T)


def choose_shrinkage(train: Moments, validation: Moments) -> FloatArray:
    """Choose for each order m the shrinkage under which the validation fields are most likely."""
    target, chosen = train.channel_covariance(), np.empty(train.degree + 1)
    for m in range(train.degree + 1):
        misfits = []
        for shrinkage in SHRINKAGES:
            values, basis = _shrunk(train, target, m, shrinkage)
            observed = (basis.conj() * (validation.covariance(m) @ basis)).sum(axis=0).real
            misfits.append(float((observed / values + np.log(values)).sum()))
        chosen[m] = SHRINKAGES[int(np.argmin(misfits))]
    return chosen


def fit_m_block(train: Moments, shrinkage: FloatArray) -> MBlock:
    """The m-block law, each S_m shrunk towards the channels law by its `shrinkage`, (m,)."""
    usual = train.channel_covariance()
    shrunk = (shrunk_covariance(train, usual, m, shrinkage[m]) for m in range(train.degree + 1))
    return MBlock.of_covariances(shrunk, usual)


def shrunk_covariance(
    moments: Moments, target: FloatArray, m: int, shrinkage: float
) -> ComplexArray:
    """(1 - shrinkage) S_m + shrinkage S_l, rows by channel, then degree.

    Args:
        target: S_l, the channel covariance of each degree, (lmax + 1, channel, channel).
    """
    channels, n = moments.channels, moments.degree + 1 - m
    spread = np.zeros((channels, n, channels, n))
    spread[:, range(n), :, range(n)] = target[m : moments.degree + 1]
    mixed = (1 - shrinkage) * moments.covariance(m)
    return mixed + shrinkage * spread.reshape(mixed.shape)


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A stretch of a series of fields, and what all the other fields say.

    Attributes:
        moments: of the others, about their own climatology.
        course: what the climatology of the others has beyond that of the whole series,
            (term, channel, coefficient); 0 if the others do not tell it.
    """

    stretch: slice
    moments: Moments
    course: FloatArray

    @property
    def about_others(self) -> bool:
        """Whether the others tell a climatology of the stretch."""
        return bool(self.course.any())

    def departures(self, x: Series, rows: FloatArray) -> Departures:
        """The fields of the stretch about the climatology of the others."""
        return Departures(x[self.stretch], rows[self.stretch], self.course)


class Departures:
    """Fields less a course of their climatology, read when they are asked for."""

    def __init__(self, x: Any, rows: FloatArray, course: FloatArray) -> None:
        self.x, self.rows, self.course = x, rows, course

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, fields: Any) -> Any:
        values = np.asarray(self.x[fields])
        usual = np.tensordot(self.rows[fields], self.course, axes=1)
        return (values - usual).astype(values.dtype)


def left_out(
    x: Series, rows: FloatArray, folds: int, degree: int | None = None
) -> Iterator[LeftOut]:
    """Stretches of a series of fields, each with what all the other fields say.

    A law fitted to the fields that a network learns from knows them too well: in its coordinates
    they vary less than new ones do, and the network would learn that. So does a climatology. Both
    are fitted to the others here. A climatology of the others that would have to be extrapolated to
    the season of the stretch is left as it is.

    Args:
        x: whitened fields in order of time, (field, channel, coefficient), a few read at once.
        rows: terms of their climatology, (field, term), about which they are.
        degree: the block degree of the moments; lmax if not given.
    Yields:
        One stretch after the other, so that the moments of one can go before those of the next.
    """
    edges = np.linspace(0, len(x), folds + 1).astype(int)
    stretches = [slice(a, b) for a, b in itertools.pairwise(edges)]
    sums = [_sums(x, rows, stretch, degree) for stretch in stretches]
    grams = [rows[stretch].T @ rows[stretch] for stretch in stretches]
    for k, stretch in enumerate(stretches):
        others = [*range(k), *range(k + 1, folds)]
        moments = reduce(add, (sums[other][0] for other in others))
        cross = np.sum([sums[other][1] for other in others], axis=0)
        gram = np.sum([grams[other] for other in others], axis=0)
        course = np.zeros_like(cross)
        if tells(gram, rows[stretch]):
            course = np.tensordot(np.linalg.inv(gram), cross, axes=1)
            moments = moments.without(cross, gram)
        yield LeftOut(stretch=stretch, moments=moments, course=course)


def tells(gram: FloatArray, rows: FloatArray) -> bool:
    """Whether a regression with these sums says what it is at `rows` without extrapolating.

    The variance of what it says, in units of one field's, is p / n on average over its own fields.
    """
    if np.linalg.cond(gram) > 1e6:
        return False
    leverage = np.einsum("ns,st,nt->n", rows, np.linalg.inv(gram), rows)
    return bool(leverage.max() < EXTRAPOLATED * len(gram) / gram[0, 0])


def _sums(
    x: Series, rows: FloatArray, stretch: slice, degree: int | None
) -> tuple[Moments, FloatArray]:
    """Moments of a stretch, and the sums of its rows times its fields."""
    moments: Moments | None = None
    cross = np.zeros((rows.shape[1], *np.shape(x[stretch.start : stretch.start + 1])[1:]))
    for start in range(stretch.start, stretch.stop, AT_ONCE):
        part = slice(start, min(start + AT_ONCE, stretch.stop))
        fields = np.asarray(x[part])
        some = Moments.of(fields, degree)
        moments = some if moments is None else moments + some
        cross = cross + np.tensordot(rows[part], fields.astype(np.float64), axes=(0, 0))
    assert moments is not None
    return moments, cross


def refuse_sizes(channels: int, degree: int) -> None:
    """ValueError if the covariances of all orders up to a block degree take more than
    `LARGEST_BYTES`."""
    if (size := block_bytes(channels, degree)) > LARGEST_BYTES:
        fitting = largest_block_degree(channels, degree, LARGEST_BYTES)
        raise ValueError(
            f"the covariances of the orders of {channels} channels up to degree {degree} take "
            f"{size / 2**30:.1f} GiB, the limit is {LARGEST_BYTES / 2**30:.0f} GiB: lower it to "
            f'{fitting}, or to "auto", or take fewer source.variables'
        )


def _shrunk(
    moments: Moments, target: FloatArray, m: int, shrinkage: float
) -> tuple[FloatArray, ComplexArray]:
    """Variances and eigenvectors of `shrunk_covariance`."""
    values, basis = np.linalg.eigh(shrunk_covariance(moments, target, m, shrinkage))
    return np.maximum(values, SMALLEST_VARIANCE), basis
