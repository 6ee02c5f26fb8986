"""Days given the days before them: what is new in each, what it is new to, and laws of folds.

    e_k = x_k - K o_k,    o_k = (x_{k-p}, ..., x_{k-1})

e has the innovation covariance of the law of sequences, and is what a score of sequences is the
score of (dynamics.py). K o_k and the days of o_k are what that score is given. A law that was
fitted to the days a network learns from knows them too well; so each fold of contiguous time has
the law, and the climatology, of the others, as single days have (fit.py). Notation:
docs/mathematics.md, 10.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.arrays import FloatArray
from pipeline.gaussian.dynamics import SequenceLaw
from pipeline.gaussian.dynamics_fit import Choice, fit_sequence
from pipeline.gaussian.fit import Departures, Series, tells
from pipeline.gaussian.lags import LagMoments, contiguous

AT_ONCE = 128  # days in memory while lags are summed


def days_with_past(times: NDArray[np.generic], past: int) -> NDArray[np.intp]:
    """Places of the days that have `past` days right before them, none of these across a gap."""
    found = [np.arange(part.start + past, part.stop) for part in contiguous(times)]
    return np.concatenate([*found, np.empty(0, np.intp)]).astype(np.intp)


class Innovations:
    """What is new in each day, and what it is new to, read when it is asked for.

    `series[days]` is (day, 2 + past, channel, coefficient) in single precision: e, K o, then the
    days of o with the latest first.

    Args:
        x: whitened days, (day, channel, coefficient).
        days: places in x of the days that are meant (`days_with_past`).
        law: K.
    """

    def __init__(self, x: Any, days: NDArray[np.intp], law: SequenceLaw) -> None:
        self.x, self.days, self.law = x, days, law

    def __len__(self) -> int:
        return len(self.days)

    def __getitem__(self, numbers: Any) -> NDArray[np.float32]:
        places = self.days[numbers]
        wanted = places[:, None] + np.arange(-self.law.past, 1)
        each, where = np.unique(wanted, return_inverse=True)
        known = np.asarray(self.x[each])[where.reshape(wanted.shape)].astype(np.float64)
        past, day = known[:, :-1], known[:, -1]
        mean = self.law.mean(past)
        parts = [(day - mean)[:, None], mean[:, None], past[:, ::-1]]
        return np.concatenate(parts, axis=1).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Fold:
    """A stretch of a series of days, and what all the other days say.

    Attributes:
        series: the days of the stretch about the climatology of the others, and given their mean.
        law: of the others.
        about_others: whether the others tell a climatology of the stretch.
    """

    series: Innovations
    law: SequenceLaw
    about_others: bool


def sequences_left_out(
    x: Series,
    rows: FloatArray,
    times: NDArray[np.generic],
    folds: int,
    fit: Callable[[LagMoments], SequenceLaw],
    lags: tuple[int, int],
) -> list[Fold]:
    """Contiguous stretches of a series of days, each with what all the other days say.

    No pair of days crosses the border of a stretch, and the `past` days beside it are left out of
    the others, so that none of them is what a day of the stretch is given.

    Args:
        x: whitened days in order of time, (day, channel, coefficient), a few read at once.
        rows: terms of their climatology, (day, term), about which they are.
        fit: the law of lag sums (`law_as_chosen`).
        lags: past, and the block degree.
    """
    past, degree = lags
    edges = np.linspace(0, len(x), folds + 1).astype(int)
    found = []
    for begin, end in itertools.pairwise(edges):
        parts = [slice(0, max(0, begin - past)), slice(min(len(x), end + past), len(x))]
        kept = [part for part in parts if part.stop > part.start]
        course, told = _course(x, rows, kept, slice(begin, end))
        others = [
            slice(part.start + each.start, part.start + each.stop)
            for part in kept
            for each in contiguous(times[part])
        ]
        sums = [_lags(Departures(x[s], rows[s], course), past, degree) for s in others]
        law = fit(reduce(add, sums))
        here = Departures(x[begin:end], rows[begin:end], course)
        days = days_with_past(times[begin:end], past)
        found.append(Fold(series=Innovations(here, days, law), law=law, about_others=told))
    return found


def law_as_chosen(choice: Choice) -> Callable[[LagMoments], SequenceLaw]:
    """The fit of lag sums with the reach and the shrinkage that validation days chose."""
    return lambda lags: fit_sequence(lags, choice)


def _course(
    x: Series, rows: FloatArray, kept: list[slice], stretch: slice
) -> tuple[FloatArray, bool]:
    """What the climatology of the kept days has beyond that of all; 0 if they do not tell it."""
    gram = np.sum([rows[part].T @ rows[part] for part in kept], axis=0)
    cross = np.zeros((rows.shape[1], *np.shape(x[0:1])[1:]))
    for part in kept:
        for start in range(part.start, part.stop, AT_ONCE):
            some = slice(start, min(start + AT_ONCE, part.stop))
            days = np.asarray(x[some]).astype(np.float64)
            cross += np.tensordot(rows[some], days, axes=(0, 0))
    if not tells(gram, rows[stretch]):
        return np.zeros_like(cross), False
    return np.tensordot(np.linalg.inv(gram), cross, axes=1), True


def _lags(x: Departures, past: int, degree: int) -> LagMoments:
    """Lag sums of consecutive days, a few of them in memory at once."""
    parts = []
    for start in range(0, len(x), AT_ONCE):
        before = min(past, start)
        days = np.asarray(x[start - before : min(start + AT_ONCE, len(x))]).astype(np.float64)
        parts.append(LagMoments.of(days, past, before=before, degree=degree))
    return reduce(add, parts)
