"""What a 95 % interval is worth: coverage for series with a known mean and a known memory."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from pipeline.scores.bootstrap import Blocks, Ratio, date_weights
from pipeline.scores.intervals import (
    block_of,
    mean_interval,
    of_times,
    politis_white,
    standard_errors,
)

REPEATS = 1000


def persistent(shape: tuple[int, int], memory: float, seed: int) -> np.ndarray:
    """Series (repeat, time) of mean 0, variance 1 and e-folding time `memory`, from their law."""
    generator, keep = np.random.default_rng(seed), np.exp(-1 / memory) if memory else 0.0
    noise = generator.standard_normal(shape)
    noise[:, 1:] *= np.sqrt(1 - keep**2)
    return lfilter([1.0], [1.0, -keep], noise, axis=1)


def coverage(series: np.ndarray, truth: float = 0.0, season: np.ndarray | None = None) -> float:
    found = [mean_interval(each, season=season) for each in series]
    return float(np.mean([each.low <= truth <= each.high for each in found]))


@pytest.mark.parametrize("memory", [0.0, 5.0, 10.0])
@pytest.mark.parametrize("days", [184, 365])
def test_ninety_five_per_cent_are_92_to_98_whatever_the_memory(days, memory):
    assert 0.92 <= coverage(persistent((REPEATS, days), memory, 0)) <= 0.98


@pytest.mark.parametrize("memory", [0.0, 5.0, 10.0])
@pytest.mark.parametrize("days", [184, 365])
def test_they_are_so_beside_a_yearly_cycle_too(days, memory):
    """Of the mean over the seasons that there are, however large the cycle is."""
    season = 2 * np.pi * np.arange(days) / 365.25
    cycle = 5.0 * np.cos(season - 1.0)
    series = persistent((500, days), memory, 9) + cycle
    assert 0.92 <= coverage(series, cycle.mean(), season) <= 0.98
    widths = [
        np.mean([np.subtract(i.high, i.low) for i in (mean_interval(s, season=p) for s in series)])
        for p in (season, None)
    ]
    assert widths[0] < 0.8 * widths[1]


def test_members_are_of_their_times_beside_a_cycle_too():
    days, season = 184, 2 * np.pi * np.arange(184) / 365.25
    weather, order = persistent((1, days), 3.0, 10)[0] + np.cos(season), np.arange(3 * days) % days
    found = mean_interval(weather[order], order, season[order])
    alone = mean_interval(weather, season=season)
    assert (found.block, found.low) == (alone.block, pytest.approx(alone.low))


@pytest.mark.parametrize("memory", [0.0, 5.0, 10.0])
def test_members_that_share_times_do_not_narrow_the_interval(memory):
    """What members have in common is a day's weather; blocks are of times."""
    days, members = 184, 5
    weather = persistent((REPEATS, days), memory, 1)
    own = np.random.default_rng(2).standard_normal((REPEATS, members, days))
    values = (weather[:, None] + 0.5 * own).reshape(REPEATS, -1)
    times = np.tile(np.arange(days), members)  # one member after the other
    found = [mean_interval(each, times) for each in values]
    covered = np.mean([each.low <= 0 <= each.high for each in found])
    assert 0.92 <= covered <= 0.98


@pytest.mark.parametrize("memory", [0.0, 5.0, 10.0])
def test_ratios_of_scores_of_dates_eight_days_apart_cover_as_they_say(memory):
    """Two scores of the same law, each a mean over 48 dates of what one date says."""
    dates, repeats, generator = 48, 500, np.random.default_rng(4)
    spaced = memory / 8.0
    pairs = np.exp(0.3 * persistent((2 * repeats, dates), spaced, 3)).reshape(repeats, 2, dates)
    hits = 0
    for ours, floor in pairs:
        block = block_of(np.stack([ours, floor], axis=1))
        weights = date_weights(dates, block=block, replicates=100, generator=generator)
        blocks = Blocks(dates=dates, block=block)
        found = Ratio.of(weights @ ours / dates, weights @ floor / dates, blocks)
        hits += found.low <= 1.0 <= found.high
    assert 0.92 <= hits / repeats <= 0.98


def test_the_mean_over_times_is_that_over_fields_and_times_come_in_order():
    values, times = np.array([1.0, 5.0, 2.0, 4.0, 9.0]), np.array([3, 1, 3, 2, 3])
    series = of_times(values, times)
    assert series.mean() == pytest.approx(values.mean())
    np.testing.assert_allclose(series, [4.68, 4.08, 3.84])
    np.testing.assert_array_equal(of_times(values), values)


def test_blocks_of_members_are_counted_in_times():
    """Two hundred fields at fifty times: no block is longer than a third of the times."""
    slow = np.repeat(persistent((1, 50), 10.0, 5)[0], 4)
    found = mean_interval(slow, np.repeat(np.arange(50), 4))
    assert 1 < found.block <= 50 // 3
    assert found == mean_interval(slow[::4])


def test_the_block_of_politis_and_white_is_that_of_an_autoregressive_series():
    """(3/2 (2 a / (1 - a^2))^2 n)^(1/3), by 4 standard errors over many series."""
    days, keep = 3000, np.exp(-1 / 5.0)
    found = [politis_white(each) for each in persistent((60, days), 5.0, 6)]
    expected = (1.5 * (2 * keep / (1 - keep**2)) ** 2 * days) ** (1 / 3)
    assert abs(np.mean(found) - expected) < 4 * np.std(found) / 60**0.5 + 0.03 * expected


def test_columns_with_one_memory_have_the_block_of_each():
    columns = persistent((40, 365), 5.0, 7).T
    each = np.mean([politis_white(column) for column in columns.T])
    assert politis_white(columns) == pytest.approx(each, rel=0.15)


def test_standard_errors_of_independent_days_are_the_textbooks():
    values = np.random.default_rng(8).standard_normal((4000, 2)) * [1.0, 3.0]
    found = standard_errors(values, 1)
    np.testing.assert_allclose(found, values.std(axis=0, ddof=1) / 4000**0.5, rtol=1e-12)


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0], [3.0] * 10])
def test_series_that_say_nothing_of_their_scatter_have_an_interval_all_the_same(values):
    found = mean_interval(np.array(values))
    assert found.value == values[0]
    assert not found.standard_error > 0


@pytest.mark.parametrize("times", [4, 5, 6, 9])
def test_a_few_values_without_memory_have_blocks_of_their_own(times):
    values = [np.random.default_rng(seed).standard_normal(times) for seed in range(9)]
    assert all(1.0 <= block_of(series) <= times for series in values)
