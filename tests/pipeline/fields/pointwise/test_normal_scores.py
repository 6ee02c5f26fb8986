"""Normal scores: exact inverse, and as many dry days in Gaussian draws as in the data."""

from dataclasses import replace
from functools import reduce
from operator import add

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from pipeline.fields.climatology import SeasonalMoments, design
from pipeline.fields.pointwise.atom import with_atom
from pipeline.fields.pointwise.normal_scores import Extent, Histogram
from pipeline.fields.pointwise.tail import over_surroundings
from pipeline.sphere.grid import RingGrid

TIMES, SHAPE = 1460, (4, 5)
PHASE = 2.0 * np.pi * np.arange(TIMES) / 365.0


@pytest.fixture(scope="module")
def rain():
    """Gamma amounts whose cells differ in their dry days, from none to 97 %, and in season."""
    generator = np.random.default_rng(3)
    dry = np.linspace(0.0, 0.97, np.prod(SHAPE)).reshape(SHAPE)
    seasonal = np.clip(dry * (1.0 + 0.5 * np.cos(PHASE)[:, None, None]), 0.0, 1.0)
    amounts = generator.gamma(0.7, 5.0, (TIMES, *SHAPE)) * np.linspace(0.2, 3.0, SHAPE[1])
    return np.where(generator.random(amounts.shape) < seasonal, 0.0, amounts)


def fitted(values, low=0.0, high=np.inf, blocks=3):
    """Normal scores of values that come in blocks, with the atom placed."""
    parts = np.array_split(values, blocks)
    extent = reduce(add, map(Extent.of, parts))
    ranks = reduce(add, (Histogram.of(part, low, extent) for part in parts)).fit(high)
    scores = ranks.forward(values)[:, None]
    moments = SeasonalMoments.of(scores, PHASE[: len(values)], ("pr",))
    indicator = ranks.at_bound(scores[:, 0])[:, None].astype(float)
    bound = SeasonalMoments.of(indicator, PHASE[: len(values)], ("pr",))
    return with_atom(ranks, moments, bound)


def test_values_of_the_training_range_and_beyond_come_back(rain):
    ranks, _ = fitted(rain)
    np.testing.assert_allclose(ranks.inverse(ranks.forward(rain)), rain, rtol=1e-9, atol=1e-12)
    beyond = 2.0 * rain.max(axis=0)
    np.testing.assert_allclose(ranks.inverse(ranks.forward(beyond)), beyond, rtol=1e-9)


def test_scores_rise_with_the_values_and_dry_days_lie_below_all_others(rain):
    ranks, _ = fitted(rain)
    values = np.concatenate([np.zeros(1), np.geomspace(1e-6, 300.0, 400)])
    scores = ranks.forward(np.broadcast_to(values[:, None, None], (401, *SHAPE)).copy())
    assert np.all(np.diff(scores, axis=0) > 0.0)
    back = ranks.inverse(np.linspace(-9.0, 9.0, 801)[:, None, None] * np.ones(SHAPE))
    assert np.all(np.diff(back, axis=0) >= 0.0)
    assert back.min() == 0.0


def test_values_without_ties_get_normal_scores():
    values = np.exp(np.random.default_rng(1).standard_normal((TIMES, *SHAPE)))
    ranks, _ = fitted(values, low=float(values.min()))
    scores = np.sort(ranks.forward(values), axis=0)
    expected = ndtri((np.arange(TIMES) + 0.5) / TIMES)[:, None, None]
    inner = np.abs(expected[:, 0, 0]) < 2.0
    assert np.abs(scores - expected)[inner].max() < 0.1


def test_a_gaussian_field_with_the_moments_of_the_scores_is_dry_as_often_as_the_data(rain):
    """Exact: the frequency is that of a normal law, no draws."""
    ranks, moments = fitted(rain)
    climatology = moments.fit()
    share = (rain == 0.0).mean(axis=0)
    seasons = np.tensordot(design(PHASE[:365]), climatology.coefficients[:, 0], axes=1)
    draws = (
        seasons + climatology.scale[0] * ndtri((np.arange(400) + 0.5) / 400)[:, None, None, None]
    )
    dry = (ranks.inverse(draws.reshape(-1, *SHAPE)) == 0.0).mean(axis=0)
    often = share > 0.02
    np.testing.assert_allclose(dry[often], share[often], atol=4e-3)


def test_moments_are_those_of_the_scores_under_the_new_atom(rain):
    ranks, moments = fitted(rain)
    again = SeasonalMoments.of(ranks.forward(rain)[:, None], PHASE, ("pr",))
    np.testing.assert_allclose(moments.cross, again.cross, atol=1e-8)
    np.testing.assert_allclose(moments.square, again.square, rtol=1e-10)


def test_blocks_of_times_do_not_matter(rain):
    one, many = fitted(rain, blocks=1)[0], fitted(rain, blocks=7)[0]
    np.testing.assert_array_equal(one.quantiles, many.quantiles)
    np.testing.assert_allclose(one.atom, many.atom, atol=1e-9)


def test_draws_keep_to_declared_bounds_and_holes_stay_holes(rain):
    values = np.minimum(rain, 10.0)
    values[:, 0, 0] = np.nan
    ranks, _ = fitted(values, high=10.0)
    drawn = ranks.inverse(np.full((1, *SHAPE), 8.0))
    assert np.nanmax(drawn) == 10.0
    assert ranks.inverse(np.full((1, *SHAPE), -8.0)).min() == 0.0
    back = ranks.inverse(ranks.forward(values))
    np.testing.assert_allclose(back, values, rtol=1e-9, atol=1e-12)  # ties at 10 included


def test_cells_that_are_always_dry_stay_so(rain):
    values = rain.copy()
    values[:, 1, 1] = 0.0
    ranks, moments = fitted(values)
    climatology = moments.fit()
    normal = climatology.coefficients[0, 0] + 4.0 * climatology.scale[0]
    assert ranks.inverse(normal[None])[0, 1, 1] == 0.0
    assert replace(ranks).scores[-1, 1, 1] > ranks.scores[0, 1, 1]


def desert(seed, times=TIMES):
    """Rain on a grid whose cells are alike but for one in which it rains on one day in fifty."""
    generator = np.random.default_rng(seed)
    grid = RingGrid.gaussian(6)
    amounts = generator.exponential(3.0, (times, *grid.shape))
    wet = generator.random(amounts.shape) < 0.5
    wet[:, 3, 4] &= generator.random(times) < 0.04
    return np.where(wet, amounts, 0.0), grid


def test_a_storm_beyond_all_of_a_desert_is_rare_and_no_absurdity():
    values, grid = desert(5)
    values[:, 3, 4] *= 0.02  # all that has been seen there is a drizzle
    ranks = Histogram.of(values, 0.0, Extent.of(values)).fit(np.inf, over_surroundings(grid))
    storm = np.zeros((1, *grid.shape))
    storm[0, 3, 4] = 6.0
    score = ranks.forward(storm)[0, 3, 4]
    assert ranks.scores[-1, 3, 4] < score < 5.0  # a straight line through its ranks says 100
    np.testing.assert_allclose(ranks.inverse(ranks.forward(storm)), storm, rtol=1e-9)


def test_other_years_of_the_same_rain_have_the_variance_of_the_training():
    (seen, grid), (other, _) = desert(6), desert(7)
    ranks = Histogram.of(seen, 0.0, Extent.of(seen)).fit(np.inf, over_surroundings(grid))
    variance = [ranks.forward(values)[:, 3, 4].var() for values in (seen, other)]
    assert 0.5 < variance[1] / variance[0] < 2.0


def test_a_value_beyond_the_largest_is_as_rare_as_its_law_says():
    """Exponential amounts: what is beyond is a known part of the largest's rarity."""
    values, grid = desert(8)
    ranks = Histogram.of(values, 0.0, Extent.of(values)).fit(np.inf, over_surroundings(grid))
    assert ranks.tail.shape < 0.08
    wet = np.delete(ranks.tail.scale.ravel(), 3 * grid.shape[1] + 4)
    np.testing.assert_allclose(wet, 3.0, rtol=0.25)
    rarer = ndtr(-ranks.forward(ranks.quantiles[-1:] + 3.0)) / ndtr(-ranks.scores[-1])
    np.testing.assert_allclose(rarer, np.exp(-1.0), atol=0.09)


def test_the_largest_of_all_times_is_as_rare_in_a_desert_as_elsewhere():
    values, grid = desert(9)
    ranks = Histogram.of(values, 0.0, Extent.of(values)).fit(np.inf, over_surroundings(grid))
    np.testing.assert_allclose(ndtr(-ranks.scores[-1]), 0.5 / TIMES, rtol=1e-9)
