"""Normal scores under a forcing: right in each world, on a straight line between, one to one."""

import numpy as np
import pytest
import xarray as xr
from scipy.special import ndtr

from pipeline.fields.pointwise.forced import FEWEST_TIMES, ForcedScores, Worlds
from pipeline.fields.pointwise.labels import pointwise_of, pointwise_variables
from pipeline.fields.pointwise.normal_scores import Extent, Histogram

SHAPE = (3, 4)
TIMES = {-1.0: 4000, 1.0: 3000}  # of the worlds, at these covariates
DRY = {-1.0: 0.2, 1.0: 0.4}
SCALE = {-1.0: 1.0, 1.0: 1.5}  # of amounts above zero, more in the east


def amounts(world, times, seed=0):
    """Rain that is rarer and heavier in the warmer world: gamma amounts and dry days."""
    generator = np.random.default_rng([seed, int(world > 0)])
    values = generator.gamma(0.7, SCALE[world], (times, *SHAPE)) * np.arange(1.0, 1 + SHAPE[1])
    return np.where(generator.random(values.shape) < DRY[world], 0.0, values)


@pytest.fixture(scope="module")
def seen():
    return {world: amounts(world, times) for world, times in TIMES.items()}


@pytest.fixture(scope="module")
def forced(seen):
    maps = []
    for values in seen.values():
        counts = Histogram.of(values, 0.0, Extent.of(values))
        maps.append(counts.fit(np.inf, times=min(TIMES.values())))
    forcing = np.array(list(seen))[:, None]
    times = np.array(list(TIMES.values()), float)
    return ForcedScores(maps=tuple(maps), forcing=forcing, times=times)


def test_scores_are_normal_in_each_world(seen, forced):
    for world, values in seen.items():
        scores = forced.at(np.array([world])).forward(values)
        for threshold in (-0.2, 0.0, 1.0, 2.0):
            share = ndtr(threshold)
            error = np.sqrt(share * (1.0 - share) / len(values))
            assert np.abs((scores <= threshold).mean(axis=0) - share).max() < 4.0 * error


def test_draws_have_the_mean_of_their_world_and_between_it_is_in_the_middle(seen, forced):
    """The means of the two worlds differ by a ninth: 0.56 and 0.63 of the amounts' unit."""
    normal = np.random.default_rng(5).standard_normal((20_000, *SHAPE))
    drawn = {at: forced.at(np.array([at])).inverse(normal).mean(axis=0) for at in (-1.0, 0.0, 1.0)}
    for world, values in seen.items():
        error = values.std(axis=0) * np.sqrt(1 / len(values) + 1 / len(normal))
        assert (np.abs(drawn[world] - values.mean(axis=0)) < 4.0 * error).all()
    assert (drawn[1.0] > drawn[-1.0]).mean() > 0.8
    quantile = forced.at(np.zeros(1)).quantiles
    ends = [forced.at(np.array([at])).quantiles for at in (-1.0, 1.0)]
    np.testing.assert_allclose(quantile, np.mean(ends, axis=0), rtol=1e-12)
    share = forced.at(np.zeros(1)).share
    np.testing.assert_allclose(share, np.mean([one.share for one in forced.maps], axis=0))


def test_values_come_back_at_times_of_several_worlds(seen, forced):
    values = np.concatenate([each[:40] for each in seen.values()])
    at = np.repeat(np.array(list(seen)), 40)[:, None]
    maps = forced.at(at)
    np.testing.assert_allclose(maps.inverse(maps.forward(values)), values, rtol=1e-9, atol=1e-12)
    alone = [forced.at(world).forward(value[None]) for world, value in zip(at, values, strict=True)]
    np.testing.assert_array_equal(maps.forward(values), np.concatenate(alone))
    np.testing.assert_array_equal(maps.at_bound(maps.forward(values)), values == 0.0)


def test_draws_of_several_realizations_have_the_world_of_their_time(seen, forced):
    scores = np.random.default_rng(2).standard_normal((3, 2, *SHAPE))
    drawn = forced.at(np.array(list(seen))[:, None]).inverse(scores)
    for time, world in enumerate(seen):
        np.testing.assert_array_equal(
            drawn[:, time], forced.at(np.array([world])).inverse(scores[:, time])
        )


def test_far_beyond_the_worlds_values_still_rise_with_their_scores(forced):
    for at in (-30.0, 30.0):
        there = forced.at(np.array([at]))
        assert (np.diff(there.quantiles, axis=0) >= 0.0).all() and there.quantiles.min() >= 0.0
        assert there.share.min() >= 0.0 and there.share.max() < 1.0
        drawn = there.inverse(np.linspace(-8.0, 8.0, 99)[:, None, None] * np.ones(SHAPE))
        assert (np.diff(drawn, axis=0) >= 0.0).all() and np.isfinite(drawn).all()


def test_the_map_of_an_artifact_is_the_map_that_was_stored(seen, forced):
    stored = pointwise_variables({"pr": forced}, ("lat", "lon"))
    (again,) = pointwise_of(xr.Dataset.from_dict(stored.to_dict()), ("lat", "lon"))
    maps = [one.at(np.array([0.3])) for one in (again, forced)]
    values = seen[1.0][:20]
    np.testing.assert_array_equal(maps[0].forward(values), maps[1].forward(values))


def test_worlds_are_few_values_with_many_times_each():
    two = np.repeat([-1.0, 1.0], FEWEST_TIMES)[:, None]
    np.testing.assert_array_equal(Worlds.of(two).forcing, [[-1.0], [1.0]])
    assert Worlds.of(two).places(np.array([[-0.9], [7.0]])).tolist() == [0, 1]
    assert len(Worlds.of(two[1:])) == 1, "a world of too few times"
    assert len(Worlds.of(np.linspace(-1.0, 1.0, 5000)[:, None])) == 1, "a series"
    assert len(Worlds.of(np.empty((500, 0)))) == 1, "no trend"
    assert len(Worlds.of(np.column_stack([two, two]))) == 1, "two covariates that are one"
