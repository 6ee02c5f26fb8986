"""Days between known ones: what is drawn is the law that all days have together, cut there."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from pipeline.gaussian.dynamics import SequenceLaw
from pipeline.gaussian.dynamics_fit import fit_sequence
from pipeline.gaussian.lags import LagMoments
from pipeline.given.bridge import Bridge, Window, windows_of

CHANNELS, LMAX = 2, 3
SHAPE = (CHANNELS, (LMAX + 1) ** 2)
SIZE = CHANNELS * (LMAX + 1) ** 2


@cache
def world(past: int, degree: int = LMAX) -> SequenceLaw:
    """A stationary law that propagates waves, with a memory of its own in each order."""
    noise = np.random.default_rng(past).standard_normal((110, *SHAPE))
    mixing = np.random.default_rng(9).standard_normal((SHAPE[1], SHAPE[1])) * 0.12
    x = np.zeros_like(noise)
    for k in range(2, len(x)):
        x[k] = 0.6 * x[k - 1] + x[k - 1] @ mixing - 0.25 * x[k - 2] + noise[k]
    lags = LagMoments.of(x[50:], past, degree=degree)
    choice = {"shrinkage": np.full(degree + 1, 0.1), "reach": np.full(degree + 1, 4.0)}
    return fit_sequence(lags, {**choice, "beyond_shrinkage": np.array(0.1)})


@cache
def joint(past: int, degree: int, days: int) -> np.ndarray:
    """The covariance of so many days of the stationary law, all numbers of all days: dense."""
    unit = np.eye(days * SIZE).reshape(-1, days, *SHAPE)
    drawn = world(past, degree).draw(np.moveaxis(unit, 1, 0))
    root = np.moveaxis(drawn, 0, 1).reshape(days * SIZE, days * SIZE).T
    return root @ root.T


def cut(covariance: np.ndarray, known: np.ndarray, values: np.ndarray):
    """Mean and covariance of the unknown numbers of a Gaussian law given the known ones."""
    free = ~known
    gain = np.linalg.solve(covariance[np.ix_(known, known)], covariance[np.ix_(known, free)]).T
    left = covariance[np.ix_(free, free)] - gain @ covariance[np.ix_(known, free)]
    return gain @ values, left


PATTERNS = {  # days before the window, and which of its days are known
    "a gap": (2, (False, False, False, True, True)),
    "one day": (2, (False, True, True)),
    "two gaps, a day between them": (2, (False, False, True, False, True, True)),
    "no days after": (2, (False, False, False)),
    "no days before": (0, (False, False, True, True)),
    "one day before": (1, (False, True, False, True, True)),
}


def pattern(name: str, past: int) -> tuple[int, tuple[bool, ...]]:
    before, known = PATTERNS[name]
    return min(before, past), known


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize(("past", "degree"), [(1, LMAX), (2, LMAX), (2, 1), (3, 2)])
def test_mean_and_covariance_are_those_of_the_dense_law_of_all_days(name, past, degree):
    before, known = pattern(name, past)
    bridge = Bridge(world(past, degree), before=before, known=known)
    days = before + len(known)
    x = np.random.default_rng(4).standard_normal((days, *SHAPE))
    mask = np.repeat(np.r_[np.ones(before, bool), known], SIZE)
    mean, left = cut(joint(past, degree, days), mask, x.reshape(-1)[mask])
    there = x[before:][np.array(known)]
    free = ~np.array(known)
    found = bridge.mean(x[:before], there)
    np.testing.assert_allclose(found[free].reshape(-1), mean, atol=1e-12)
    np.testing.assert_array_equal(found[~free], there)
    unit = np.zeros((len(known), free.sum() * SIZE, *SHAPE))
    unit[free] = np.eye(free.sum() * SIZE).reshape(-1, free.sum(), *SHAPE).swapaxes(0, 1)
    spread = bridge.covariance(unit)[free].swapaxes(0, 1).reshape(len(left), -1)
    np.testing.assert_allclose(spread, left, atol=1e-12)


@pytest.mark.parametrize("name", PATTERNS)
def test_a_draw_is_the_mean_and_a_root_of_the_covariance_times_the_noise(name):
    """So its law is exact, without a sample."""
    before, known = PATTERNS[name]
    bridge, length = Bridge(world(2, 2), before=before, known=known), len(known)
    unit = np.eye(length * SIZE).reshape(-1, length, *SHAPE).swapaxes(0, 1)
    nothing = np.zeros((before, *SHAPE)), np.zeros((sum(known), *SHAPE))
    free = ~np.array(known)
    root = bridge.draw(unit, *nothing)[free].swapaxes(0, 1).reshape(length * SIZE, -1).T
    rows = np.zeros((length, free.sum() * SIZE, *SHAPE))
    rows[free] = np.eye(free.sum() * SIZE).reshape(-1, free.sum(), *SHAPE).swapaxes(0, 1)
    spread = bridge.covariance(rows)[free].swapaxes(0, 1).reshape(len(root), -1)
    np.testing.assert_allclose(root @ root.T, spread, atol=1e-12)


@pytest.mark.parametrize("name", PATTERNS)
def test_the_evidence_is_the_density_of_the_known_days_given_those_before(name):
    before, known = PATTERNS[name]
    bridge, days = Bridge(world(2, 2), before=before, known=known), before + len(known)
    x = np.random.default_rng(4).standard_normal((days, *SHAPE))
    covariance = joint(2, 2, days)
    mask = np.repeat(np.r_[np.ones(before, bool), known], SIZE)

    def density(which: np.ndarray) -> float:
        if not which.any():
            return 0.0
        law = multivariate_normal(cov=covariance[np.ix_(which, which)])
        return float(law.logpdf(x.reshape(-1)[which]))

    early = mask & (np.arange(len(mask)) < before * SIZE)
    expected = density(mask) - density(early)
    found = bridge.log_evidence(x[:before], x[before:][np.array(known)])
    assert found == pytest.approx(expected, abs=1e-8)


def test_days_further_away_than_the_law_looks_back_say_nothing():
    """The window of a gap is all that the record says of it."""
    past, known = 2, np.array([1, 1, 1, 0, 0, 1, 1, 1, 1], bool)
    x = np.random.default_rng(4).standard_normal((len(known), *SHAPE))
    mean, _ = cut(joint(past, LMAX, len(known)), np.repeat(known, SIZE), x[known].reshape(-1))
    (window,) = windows_of(known.tolist(), [3, 4], past)
    assert window == Window(start=3, before=2, known=(False, False, True, True))
    bridge = Bridge(world(past), before=2, known=window.known)
    np.testing.assert_allclose(bridge.mean(x[1:3], x[5:7])[:2].reshape(-1), mean, atol=1e-12)


WINDOWS = {  # of a record of days, x known, . unknown; days before and in each window
    "xxx..xxxx..xx": [(3, 2, "..xx"), (9, 2, "..xx")],
    "xx..x..xx": [(2, 2, "..x..xx")],
    "xx.xx.xxx": [(2, 2, ".xx"), (5, 2, ".xx")],
    "..xx": [(0, 0, "..xx")],
    "x.xx": [(1, 1, ".xx")],
    "xx.x": [(2, 2, ".x")],
    "xx...": [(2, 2, "...")],
    "xxxx": [],
}


@pytest.mark.parametrize("record", WINDOWS)
def test_a_window_ends_with_as_many_known_days_as_the_law_looks_back(record):
    known = [day == "x" for day in record]
    wanted = [number for number, there in enumerate(known) if not there]
    found = [
        (one.start, one.before, "".join(".x"[day] for day in one.known))
        for one in windows_of(known, wanted, 2)
    ]
    assert found == WINDOWS[record]


def test_windows_without_wanted_days_are_left_out():
    known = [day == "x" for day in "xx.xxx..xx"]
    (window,) = windows_of(known, [7], 2)
    assert (window.start, len(window.known)) == (6, 4)


def test_more_days_before_than_the_law_looks_back_are_refused():
    with pytest.raises(ValueError, match="looks back 2 days; it was given 3"):
        Bridge(world(2), before=3, known=(False,))
