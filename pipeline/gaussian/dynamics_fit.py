"""Fits of the Gaussian law of sequences (dynamics.py) to lag covariances (lags.py).

What few days say of the covariance of two distant degrees is mostly chance. Two things are done
about that, both to **the whole sequence of lags at once**, which keeps it positive:

    taper      S_m(h) times exp(-(l - l')^2 / (2 reach^2)), for all channels and lags alike: a
               product, entry by entry, with a positive matrix
    shrinkage  (1 - a) S_m(h) + a S*(h), towards the lags of the `channels` law: a convex
               combination

so the autoregression of what comes out is stable, and its stationary covariances are what comes
out. Reach and a of each order are those under which validation days are likeliest. Shrinking the
lags one by one would promise neither. Notation: docs/mathematics.md, 10.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from pipeline.arrays import FloatArray
from pipeline.gaussian.baselines import SMALLEST_VARIANCE, overlapping
from pipeline.gaussian.dynamics import Innovations, SequenceLaw
from pipeline.gaussian.lags import LagMoments, OrderLayout
from pipeline.gaussian.moments import ComplexArray, positions

__all__ = ["choose_sequence", "fit_alone", "fit_sequence", "shrunk", "toeplitz"]

SHRINKAGES = (0.0, 0.003, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.0)
REACHES = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, np.inf)  # degrees
FIRST_SHRINKAGE = 0.02  # at which the reach is chosen

Choice = Mapping[str, FloatArray]
Predictors = Callable[[ComplexArray], list[tuple[ComplexArray, ComplexArray]]]


def choose_sequence(
    train: LagMoments,
    validation: LagMoments,
    *,
    alone: bool = False,
    reaches: Sequence[float] = REACHES,
) -> dict[str, FloatArray]:
    """Reach and shrinkage of each order, and the shrinkage beyond the block degree.

    Both are those under which validation days are likeliest given the `past` days before them;
    first the reach, then the shrinkage.

    Args:
        alone: whether the law is that of `fit_alone`.
        reaches: of the taper, among which is chosen.
    """
    target, layout = train.channel_lags(), train.layout
    reach, shrinkage = np.empty(layout.degree + 1), np.empty(layout.degree + 1)
    for m in range(layout.degree + 1):
        seen = toeplitz(validation.sequence(m))

        def misfit(far: float, shrinkage: float, m: int = m, seen: ComplexArray = seen) -> float:
            law = shrunk(train, m, target, reach=far, shrinkage=shrinkage)
            return _misfit(law, seen, alone)

        reach[m] = _best(reaches, partial(misfit, shrinkage=FIRST_SHRINKAGE))
        shrinkage[m] = _best(SHRINKAGES, partial(misfit, reach[m]))
    beyond = _best(SHRINKAGES, partial(_misfit_beyond, train, validation, target, alone))
    return {"reach": reach, "shrinkage": shrinkage, "beyond_shrinkage": np.array(beyond)}


def _misfit_beyond(
    train: LagMoments, validation: LagMoments, target: FloatArray, alone: bool, shrinkage: float
) -> float:
    """The misfit of all places beyond the block degree; 0 where there are none."""
    weight = np.where(train.layout.beyond_orders() == 0, 0.5, 1.0)
    law = _shrunk_beyond(train, target, shrinkage)
    seen = toeplitz(_by_place(validation.beyond) / validation.samples)
    return math.fsum(
        float(part) * _misfit(own, other, alone)
        for part, own, other in zip(weight, law, seen, strict=True)
    )


def fit_sequence(train: LagMoments, choice: Choice) -> SequenceLaw:
    """The law of sequences with the lags of training days, tapered and shrunk as was chosen."""
    return _fit(train, choice, _predictors)


def fit_alone(train: LagMoments, choice: Choice) -> SequenceLaw:
    """The rung below: each coefficient follows its own last day, and what is new covaries.

    A comparison for densities given the day before. Its draws would leave the covariance of a
    single day, which is that of `fit_sequence`.
    """
    return _fit(train.up_to(1), choice, _predictors_alone)


def _fit(train: LagMoments, choice: Choice, predictors: Predictors) -> SequenceLaw:
    layout, past, target = train.layout, train.past, train.channel_lags()
    known = [
        predictors(
            shrunk(train, m, target, reach=choice["reach"][m], shrinkage=choice["shrinkage"][m])
        )
        for m in range(layout.degree + 1)
    ]
    beyond = [
        predictors(one) for one in _shrunk_beyond(train, target, float(choice["beyond_shrinkage"]))
    ]
    none = np.empty((0, layout.channels, past * layout.channels), np.complex128)
    return SequenceLaw(
        layout=layout,
        blocks=tuple(tuple(order[days][0] for order in known) for days in range(1, past + 1)),
        beyond=tuple(
            np.stack([place[days][0] for place in beyond])
            if beyond
            else none[..., : days * layout.channels]
            for days in range(1, past + 1)
        ),
        innovations=tuple(
            _innovations(
                layout,
                [order[days][1] for order in known],
                [place[days][1] for place in beyond],
            )
            for days in range(past + 1)
        ),
    )


def shrunk(
    lags: LagMoments, m: int, target: FloatArray, *, reach: float, shrinkage: float
) -> ComplexArray:
    """The lags of an order, tapered and shrunk as one sequence: (past + 1, n, n).

    Args:
        target: S*(h), the lags of the `channels` law (`LagMoments.channel_lags`).
    """
    layout, sequence = lags.layout, lags.sequence(m)
    n, channels = layout.degree + 1 - m, layout.channels
    degree = np.arange(n, dtype=np.float64)
    taper = np.exp(-np.square((degree[:, None] - degree) / reach) / 2)
    spread = np.zeros((lags.past + 1, channels, n, channels, n))
    spread[:, :, range(n), :, range(n)] = target[:, m : layout.degree + 1].swapaxes(0, 1)
    mixed: ComplexArray = (1 - shrinkage) * np.tile(taper, (channels, channels)) * sequence
    return mixed + shrinkage * spread.reshape(sequence.shape)


def toeplitz(sequence: ComplexArray) -> ComplexArray:
    """The covariance of consecutive days, the earliest first, from lags (..., lag, n, n).

    Block (i, j) is S(i - j), and S(-h) = S(h)^H.
    """
    days, n = sequence.shape[-3], sequence.shape[-1]
    whole = np.empty((*sequence.shape[:-3], days, n, days, n), dtype=np.complex128)
    for i in range(days):
        for j in range(days):
            lag = sequence[..., abs(i - j), :, :]
            whole[..., i, :, j, :] = lag if i >= j else lag.conj().swapaxes(-1, -2)
    return whole.reshape(*sequence.shape[:-3], days * n, days * n)


def _shrunk_beyond(lags: LagMoments, target: FloatArray, shrinkage: float) -> ComplexArray:
    """The same beyond the block degree, where there is nothing to taper: (place, lag, C, C)."""
    at = target[:, lags.layout.beyond_degrees()]
    mixed = (1 - shrinkage) * lags.beyond / lags.samples + shrinkage * at
    return _by_place(mixed)


def _by_place(lags: ComplexArray) -> ComplexArray:
    return lags.swapaxes(0, 1)


def _predictors(sequence: ComplexArray) -> list[tuple[ComplexArray, ComplexArray]]:
    """Regression on 0, 1, ... days before a day, the earliest first, and what is left of it.

    From one Cholesky factor of the Toeplitz matrix: its row of blocks j is what day j is made of.
    """
    n = sequence.shape[-1]
    factor = _factor(toeplitz(sequence))
    found = []
    for days in range(len(sequence)):
        known, rows = slice(0, days * n), slice(days * n, (days + 1) * n)
        # K L_known = L_row: the row in terms of the white noise of the days before.
        solved = solve_triangular(
            factor[known, known], factor[rows, known].conj().T, lower=True, trans="C"
        )
        own = factor[rows, rows]
        found.append((np.ascontiguousarray(solved.conj().T), own @ own.conj().T))
    return found


def _predictors_alone(sequence: ComplexArray) -> list[tuple[ComplexArray, ComplexArray]]:
    """Regression of each coordinate on itself alone, a day before, and what that leaves."""
    now, then = sequence[0] + SMALLEST_VARIANCE * np.eye(sequence.shape[1]), sequence[1]
    own = np.diagonal(then) / np.diagonal(now)
    cross = then * own.conj()
    left = now - cross - cross.conj().T + own[:, None] * now * own.conj()
    return [(np.empty((len(now), 0), np.complex128), now), (np.diag(own), left)]


def _factor(covariance: ComplexArray) -> ComplexArray:
    """The lower Cholesky factor, with the smallest variance added to every coordinate: some have
    none (winds have no degree 0), and few days leave directions without any."""
    loaded = covariance + SMALLEST_VARIANCE * np.eye(len(covariance))
    factor: ComplexArray = cholesky(loaded, lower=True, overwrite_a=True)
    return factor


def _misfit(sequence: ComplexArray, seen: ComplexArray, alone: bool) -> float:
    """tr(Sigma^-1 C) + log det Sigma of a day given those before it.

    Args:
        sequence: the lags of the law.
        seen: the covariance of as many consecutive days of those it is judged on.
    """
    if alone:
        regression, left = _predictors_alone(sequence)[1]
        factor = _factor(left)
        new = np.concatenate([-regression, np.eye(len(left))], axis=1)
        rows = solve_triangular(factor, new, lower=True)
        scale = np.diagonal(factor).real
    else:
        try:
            factor = _factor(toeplitz(sequence))
        except np.linalg.LinAlgError:  # rounding has taken what few days leave
            return np.inf
        last = slice(len(factor) - sequence.shape[1], None)
        unit = np.eye(len(factor), dtype=np.complex128)[:, last]
        # The rows of L^-1 of the last day: what it has that is new, in units of its deviation.
        rows = solve_triangular(factor, unit, lower=True, trans="C").conj().T
        scale = np.diagonal(factor).real[last]
    return float((rows.conj() * (rows @ seen)).sum().real + 2 * np.log(scale).sum())


def _best(candidates: Sequence[float], misfit: Callable[[float], float]) -> float:
    return candidates[int(np.argmin([misfit(each) for each in candidates]))]


def _innovations(
    layout: OrderLayout, blocks: list[ComplexArray], beyond: list[ComplexArray]
) -> Innovations:
    """The eigenvalues and -vectors of what is left of a day, as the law of innovations has them."""
    channels, lmax = layout.channels, layout.lmax
    variance, vectors = np.empty((channels, (lmax + 1) ** 2)), []
    low = np.empty((channels, (layout.degree + 1) ** 2))
    for m, covariance in enumerate(blocks):
        values, basis = np.linalg.eigh(covariance)
        order = overlapping(basis)
        plus, minus = positions(channels, layout.degree, m)
        low.flat[plus] = low.flat[minus] = np.maximum(values[order], SMALLEST_VARIANCE)
        vectors.append(_pairs(basis[:, order]).reshape(-1, 2))
    variance[:, : low.shape[1]] = low
    turned = np.empty((layout.places, channels, channels, 2))
    centre = layout.beyond_degrees() * (layout.beyond_degrees() + 1)
    for place, covariance in enumerate(beyond):
        values, basis = np.linalg.eigh(covariance)
        m = layout.beyond_orders()[place]
        for at in (centre[place] + m, centre[place] - m):
            variance[:, at] = np.maximum(values, SMALLEST_VARIANCE)
        turned[place] = _pairs(basis)
    return Innovations(vectors=np.concatenate(vectors), beyond=turned, variance=variance)


def _pairs(values: ComplexArray) -> FloatArray:
    return np.stack([values.real, values.imag], axis=-1)
