import numpy as np
import pytest

from pipeline.scores.return_levels import return_levels


def test_the_level_of_a_period_is_exceeded_by_one_in_that_many_draws():
    sample = np.arange(1000.0)
    found = return_levels(np.random.default_rng(0).permutation(sample), np.array([2.0, 10, 100]))
    for period, level in zip(found.period, found.level, strict=True):
        assert (sample > level).sum() == 1000 / period


def test_nothing_is_said_of_periods_beyond_the_sample():
    found = return_levels(np.arange(50.0), np.array([2.0, 50, 51, 1000]))
    assert np.isfinite(found.level).tolist() == [True, True, False, False]
    assert np.isnan(found.low[2:]).all() and np.isnan(found.high[1:]).all()


@pytest.mark.parametrize("period", [2.0, 10.0, 30.0])
def test_intervals_hold_the_true_level_as_often_as_they_say(period):
    generator = np.random.default_rng(7)
    truth, held, tried = -np.log(1.0 / period), 0, 2000
    for _ in range(tried):
        one = return_levels(generator.exponential(size=300), np.array([period]))
        held += one.low[0] <= truth <= one.high[0]
    assert held / tried > 0.95 - 3 * np.sqrt(0.95 * 0.05 / tried)
    assert held / tried < 0.99


def test_missing_draws_are_left_out_and_no_draw_or_period_is_refused():
    with_holes = np.array([np.nan, *np.arange(20.0), np.nan])
    whole = return_levels(np.arange(20.0), np.array([4.0]))
    assert return_levels(with_holes, np.array([4.0])) == whole
    with pytest.raises(ValueError, match="above 1; got 1"):
        return_levels(np.arange(20.0), np.array([1.0]))
    with pytest.raises(ValueError, match="all values are missing"):
        return_levels(np.array([np.nan]), np.array([2.0]))
