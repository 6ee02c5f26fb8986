"""Gaps of which something was observed, and what lies beyond the learned degrees beside them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.errors import UnusableData
from pipeline.gaussian.persistence import persistent
from pipeline.given import filling
from pipeline.given.bridge import Bridge
from pipeline.given.edges import agreeing, lags_of
from pipeline.given.filling import Filling
from tests.pipeline.given.test_bridge import SHAPE, SIZE, cut, joint, world
from tests.pipeline.given.test_seen import LAST, tail_of

BEFORE, KNOWN = 2, (False, False, True, False, True, True)
DAYS = BEFORE + len(KNOWN)


def observation(rows: int, seed: int) -> Any:
    """What some rows see of a day, with errors that covary."""
    random = np.random.default_rng(seed)
    root = random.standard_normal((rows, rows))
    noise = 0.05 * root @ root.T + 0.01 * np.eye(rows)
    return SimpleNamespace(
        operator=random.standard_normal((rows, *SHAPE)), noise=noise, error=np.zeros(rows)
    )


SEEN = {0: observation(5, 1), 3: observation(3, 2)}
VALUES = {0: np.linspace(-1.0, 2.0, 5), 3: np.array([0.3, -0.4, 1.2])}


def filled() -> Filling:
    return Filling(Bridge(world(2), before=BEFORE, known=KNOWN), SEEN)


def dense(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of all days and observations together, the known ones cut away."""
    whole = joint(2, 3, DAYS)
    rows = np.zeros((8, DAYS * SIZE))
    noise = np.zeros((8, 8))
    for day, part in ((0, slice(0, 5)), (3, slice(5, 8))):
        at = (BEFORE + day) * SIZE
        rows[part, at : at + SIZE] = SEEN[day].operator.reshape(-1, SIZE)
        noise[part, part] = SEEN[day].noise
    seen = rows @ whole
    covariance = np.block([[whole, seen.T], [seen, seen @ rows.T + noise]])
    known = np.r_[np.repeat(np.r_[np.ones(BEFORE, bool), KNOWN], SIZE), np.ones(8, bool)]
    values = np.r_[x.reshape(-1), VALUES[0], VALUES[3]]
    return cut(covariance, known, values[known])


def sides() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = np.random.default_rng(4).standard_normal((DAYS, *SHAPE))
    return x, x[:BEFORE], x[BEFORE:][np.array(KNOWN)]


def test_the_mean_given_partly_seen_days_is_that_of_the_dense_law():
    x, before, known = sides()
    mean, _ = dense(x)
    found = filled().mean(before, known, VALUES)
    free = ~np.array(KNOWN)
    np.testing.assert_allclose(found[free].reshape(-1), mean, atol=1e-11)
    np.testing.assert_array_equal(found[~free], known)


def test_draws_given_partly_seen_days_have_the_covariance_of_the_dense_law():
    """By pushing unit noise through, so that no sample is needed."""
    x, before, known = sides()
    _, covariance = dense(x)
    given, length, free = filled(), len(KNOWN), ~np.array(KNOWN)
    number = length * SIZE
    unit = np.eye(number + 8)
    white = unit[:, :number].reshape(-1, length, *SHAPE).swapaxes(0, 1)
    error = {0: unit[:, number : number + 5], 3: unit[:, number + 5 :]}
    nothing = {day: np.zeros_like(part) for day, part in VALUES.items()}
    root = given.draw(white, 0 * before, 0 * known, nothing, error)[free]
    root = root.swapaxes(0, 1).reshape(number + 8, -1)
    np.testing.assert_allclose(root.T @ root, covariance, atol=1e-11)


def test_the_evidence_of_what_is_seen_is_its_density_given_the_days_beside():
    _, before, known = sides()
    given, bridge = filled(), Bridge(world(2), before=BEFORE, known=KNOWN)
    mean = bridge.mean(before, known)
    operator = {day: SEEN[day].operator.reshape(-1, SIZE) for day in SEEN}
    gap = np.concatenate([VALUES[day] - operator[day] @ mean[day].reshape(-1) for day in SEEN])
    root = np.linalg.slogdet(given.factor @ given.factor.T)[1]
    square = gap @ np.linalg.solve(given.factor @ given.factor.T, gap)
    expected = -0.5 * (square + root + 8 * np.log(2 * np.pi))
    assert given.log_evidence(before, known, VALUES) == pytest.approx(expected, abs=1e-9)


def test_without_observations_it_is_the_bridge():
    _, before, known = sides()
    bridge = Bridge(world(2), before=BEFORE, known=KNOWN)
    white = np.random.default_rng(1).standard_normal((len(KNOWN), 3, *SHAPE))
    drawn = Filling(bridge, {}).draw(white, before, known, {}, {})
    np.testing.assert_array_equal(drawn, bridge.draw(white, before, known))


def test_more_values_than_can_be_treated_together_are_refused(monkeypatch):
    monkeypatch.setattr(filling, "LARGEST_BYTES", 8 * 7**2)
    with pytest.raises(UnusableData, match=r"8 values are observed .* no more than 7 .* shorter"):
        filled()


def test_noise_beside_known_days_has_the_law_of_all_days_cut_there():
    a, days = np.array([0.0, 0.6, 0.9]), 7
    back = 60
    unit = np.eye(days + back)

    def white(day: int) -> np.ndarray:
        return np.repeat(unit[:, day + back, None], 3, axis=1)

    w = persistent(white, range(days), a)  # (day, unit, part)
    lags = lags_of(a, days)
    known = np.array([1, 0, 0, 1, 0, 0, 1], bool)
    values = np.random.default_rng(2).standard_normal((days, 3))
    zero = {day: np.zeros(3) for day in np.flatnonzero(known)}
    moved = agreeing(w, zero, a)
    told = {day: values[day] for day in np.flatnonzero(known)}
    mean = agreeing(np.zeros((days, 1, 3)), told, a)[:, 0]
    for part in range(3):
        covariance = w[..., part] @ w[..., part].T
        np.testing.assert_allclose(covariance[0], lags[:, part], atol=1e-12)
        expected, left = cut(covariance, known, values[known, part])
        np.testing.assert_allclose(mean[~known, part], expected, atol=1e-12)
        found = moved[~known][..., part]
        np.testing.assert_allclose(found @ found.T, left, atol=1e-12)


def test_the_white_noise_of_a_tail_is_found_again():
    tail, random = tail_of(2), np.random.default_rng(3)
    x = random.standard_normal((4, 2, (tail.lmax + 1) ** 2))
    white = random.standard_normal((4, 2, (LAST + 1) ** 2 - x.shape[-1]))
    found = tail.white_of(x, tail.draw(x, white))
    np.testing.assert_allclose(found, white, atol=1e-9)
