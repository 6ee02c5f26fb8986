"""The mean of a box over several days: its law, and days that have a mean that is asked for."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.stats import norm

from pipeline.gaussian.conditional_tail import GaussianTail
from pipeline.gaussian.dynamics import SequenceLaw
from pipeline.gaussian.dynamics_fit import fit_sequence
from pipeline.gaussian.lags import LagMoments
from pipeline.gaussian.persistence import memory, persistent
from pipeline.given.bridge import Bridge
from pipeline.given.events import log_probability
from pipeline.given.functionals import box
from pipeline.given.seen import Seen
from pipeline.given.several_days import MeanOverDays, Parts
from tests.pipeline.given.test_seen import GRID, LAST, LMAX, normals, tail_of

DAYS, PLACE = 3, 1
SHAPE = (2, (LMAX + 1) ** 2)
REMAINDER, TAIL = np.array([0.2, 0.3]).reshape(2, 1, 1), 0.35


@cache
def law() -> SequenceLaw:
    """Days that remember two days before them."""
    noise = np.random.default_rng(1).standard_normal((160, *SHAPE))
    x = np.zeros_like(noise)
    for k in range(2, len(x)):
        x[k] = 0.7 * x[k - 1] - 0.2 * x[k - 2] + noise[k]
    choice = {"shrinkage": np.full(LMAX + 1, 0.1), "reach": np.full(LMAX + 1, 4.0)}
    return fit_sequence(
        LagMoments.of(x[50:], 2, degree=LMAX), {**choice, "beyond_shrinkage": np.array(0.1)}
    )


@cache
def world(last: int) -> tuple[MeanOverDays, GaussianTail | None]:
    known, tail = normals(2, last), tail_of(2) if last > LMAX else None
    scales = [replace(known, scale=known.scale * (1.0 + 0.3 * day)) for day in range(DAYS)]
    one = box(GRID, (20, 70, -10, 60), PLACE)
    seen = [Seen.of(at, tail, one, np.zeros(1)) for at in scales]  # the season goes on
    size = (last + 1) ** 2 - SHAPE[1]
    bridge = Bridge(law(), before=0, known=[False] * DAYS)
    return MeanOverDays.of(bridge, seen, REMAINDER, np.full(size, TAIL)), tail


@cache
def pushed(last: int) -> Parts:
    """Days that each single number of the noise makes alone: squares of them sum to variances."""
    mean, _ = world(last)
    known, size = mean.seen[0].known, (last + 1) ** 2 - SHAPE[1]
    unit = np.eye(DAYS * SHAPE[0] * SHAPE[1]).reshape(-1, DAYS, *SHAPE)
    x = law().draw(np.moveaxis(unit, 1, 0))

    def units(a: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        first, cells = -memory(a), int(np.prod(shape))
        whole = np.eye((DAYS - first) * cells).reshape(-1, DAYS - first, *shape)
        return persistent(lambda day: whole[:, day - first], range(DAYS), a)

    alone = units(REMAINDER[PLACE], GRID.shape)  # the other variable's noise says nothing
    noise = np.zeros((DAYS, alone.shape[1], 2, *GRID.shape))
    noise[:, :, PLACE] = alone
    left = known.remainder_of(noise.reshape(-1, *noise.shape[2:])).reshape(noise.shape)
    tail = units(np.full(size, TAIL), (2, size)) if size else None
    return joined(x, tail, left)


def joined(x: np.ndarray, tail: np.ndarray | None, left: np.ndarray) -> Parts:
    """Draws in which one part is there and the others are 0."""
    counts = [x.shape[1], 0 if tail is None else tail.shape[1], left.shape[1]]
    ends = np.cumsum([0, *counts])

    def among(part: np.ndarray, place: int) -> np.ndarray:
        whole = np.zeros((DAYS, ends[-1], *part.shape[2:]))
        whole[:, ends[place] : ends[place + 1]] = part
        return whole

    beyond = None if tail is None else among(tail, 1)
    return Parts(x=among(x, 0), beyond=beyond, left=among(left, 2))


@pytest.mark.parametrize("last", [LMAX, LAST])
def test_the_deviation_of_the_mean_is_that_of_all_noise_pushed_through(last):
    mean, _ = world(last)
    values = mean.values(pushed(last))
    assert mean.deviation == pytest.approx(np.sqrt(np.square(values).sum()), rel=1e-10)


@pytest.mark.parametrize("last", [LMAX, LAST])
def test_each_part_moves_by_its_covariance_with_the_mean(last):
    mean, _ = world(last)
    made = pushed(last)
    values = mean.values(made)
    found = np.einsum("n,dnck->dck", values, made.x)
    np.testing.assert_allclose(mean.x, found, atol=1e-10)
    found = np.einsum("n,dnij->dij", values, made.left[:, :, PLACE])
    np.testing.assert_allclose(mean.left, found, atol=1e-10)
    if last > LMAX:
        found = np.einsum("n,dnck->dck", values, made.beyond)
        np.testing.assert_allclose(mean.beyond, found, atol=1e-10)


def test_moved_days_have_the_mean_that_is_asked_for_and_vary_less_by_what_it_tells():
    """The covariance of what is drawn is that of the law given the mean, part by part."""
    mean, _ = world(LAST)
    made, values = pushed(LAST), np.zeros(pushed(LAST).x.shape[1])
    moved = mean.moved(made, values)
    np.testing.assert_allclose(mean.values(moved), 0.0, atol=1e-12)
    asked = mean.moved(made, values + 2.5)
    np.testing.assert_allclose(mean.values(asked), 2.5, atol=1e-12)
    before, after = (np.einsum("dnck,enck->dck", one.x, one.x) for one in (made, moved))
    told = mean.x * mean.x.sum(axis=0) / mean.deviation**2
    np.testing.assert_allclose(before - after, told, atol=1e-9)


def test_days_that_remember_make_long_events_likelier_than_days_that_do_not():
    """The tail of the normal law with the deviation; independent days would have 1 / sqrt(D)."""
    mean, _ = world(LAST)
    bridge, seen = Bridge(law(), before=0, known=[False]), mean.seen[0]
    persistence = REMAINDER, np.full(len(mean.beyond[0, 0]), TAIL)
    one = MeanOverDays.of(bridge, [seen], *persistence)
    bridge = Bridge(law(), before=0, known=[False] * DAYS)
    alike = MeanOverDays.of(bridge, [seen] * DAYS, *persistence)
    assert one.deviation / np.sqrt(DAYS) < alike.deviation < one.deviation
    threshold = 3.0 * alike.deviation
    assert log_probability(threshold, alike.deviation) == pytest.approx(norm.logsf(3.0))
