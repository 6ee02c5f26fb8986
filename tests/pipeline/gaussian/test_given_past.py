"""Days given the days before them, and folds that know nothing of the days they are judged on."""

from __future__ import annotations

import numpy as np
import torch

from pipeline.gaussian.given_past import (
    Innovations,
    days_with_past,
    law_as_chosen,
    sequences_left_out,
)
from tests.pipeline.gaussian.test_dynamics import KEPT, LMAX, white, world

CHOICE = {**KEPT, "shrinkage": np.full(LMAX + 1, 0.2), "reach": np.full(LMAX + 1, 3.0)}
TIMES = np.datetime64("2000-01-01") + np.arange(240)
ROWS = np.ones((240, 1))


def folds_of(x: np.ndarray, times: np.ndarray = TIMES) -> list:
    return sequences_left_out(x, ROWS, times, 4, law_as_chosen(CHOICE), (2, LMAX))


def test_no_day_is_given_a_day_from_across_a_gap():
    times = np.concatenate([TIMES[:5], TIMES[10:12], TIMES[20:25]])
    assert days_with_past(times, 2).tolist() == [2, 3, 4, 9, 10, 11]
    assert days_with_past(times[:2], 2).tolist() == []


def test_what_is_new_and_what_it_is_new_to_make_the_day_again():
    law, x = world(2), white(12, 4)
    series = Innovations(x, days_with_past(TIMES[:12], 2), law)
    found = series[np.array([3, 0])]
    assert found.shape == (2, 4, *x.shape[1:])
    np.testing.assert_allclose(found[:, 0] + found[:, 1], x[[5, 2]], atol=1e-5)
    np.testing.assert_allclose(found[:, 2], x[[4, 1]], atol=1e-6)
    np.testing.assert_allclose(found[:, 3], x[[3, 0]], atol=1e-6)
    np.testing.assert_allclose(found[0, 1], law.mean(x[None, 3:5])[0], atol=1e-5)


def test_the_law_of_a_fold_knows_neither_its_days_nor_those_that_they_are_given():
    x = world(2, days=200).draw(white(240, 5)) + 0.3
    other = x.copy()
    other[58:122] = white(64, 6)  # the second fold, 60 to 119, and two days beside it
    before, after = folds_of(x), folds_of(other)
    assert torch.equal(before[1].law.innovations[2].variance, after[1].law.innovations[2].variance)
    assert not torch.equal(
        before[0].law.innovations[2].variance, after[0].law.innovations[2].variance
    )
    assert all(fold.about_others for fold in before)


def test_the_days_of_a_fold_are_about_the_climatology_of_the_others():
    """One fold is warmer by one than the others: it still is, about theirs."""
    x = 0.1 * white(240, 7)
    x[60:120] += 1.0
    x -= x.mean(axis=0)
    fold = folds_of(x)[1]
    day = fold.series[np.arange(10)]
    assert abs(float((day[:, 0] + day[:, 1]).mean()) - 1.0) < 0.02


def test_days_of_a_fold_vary_in_its_law_as_new_days_do():
    """In the law of all days they vary less: that law was fitted to them."""
    truth = world(2, days=400)
    x = truth.draw(white(240, 8))
    everything = law_as_chosen(KEPT)
    folds = sequences_left_out(x, ROWS, TIMES, 4, everything, (2, LMAX))
    ratios = []
    for fold in folds:
        e = torch.from_numpy(fold.series[:][:, 0]).double()
        law = fold.law.innovations[2]
        ratios.append(float((law.rotate(e).square() / law.variance).mean()))
    from pipeline.gaussian.lags import LagMoments

    own = everything(LagMoments.of(x, 2))
    e = torch.from_numpy(Innovations(x, days_with_past(TIMES, 2), own)[:][:, 0]).double()
    known = float((own.innovations[2].rotate(e).square() / own.innovations[2].variance).mean())
    assert known < 1.02 < 1.1 < np.mean(ratios)
