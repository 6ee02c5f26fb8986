import numpy as np
import pytest

from pipeline.gaussian.persistence import LARGEST, memory, persistence, persistent


def addressed(day: int) -> np.ndarray:
    return np.random.default_rng([7, day + 1000]).standard_normal((3, 200))


def test_the_noise_of_a_day_does_not_depend_on_where_the_days_begin():
    a = np.array([0.7, 0.3, 0.0])[:, None]
    whole = persistent(addressed, range(0, 12), a)
    for start in (1, 5, 11):
        np.testing.assert_array_equal(persistent(addressed, range(start, 12), a), whole[start:])


@pytest.mark.parametrize("a", [0.0, 0.4, 0.8])
def test_its_variance_is_one_and_its_lags_are_those_of_an_autoregression(a):
    """Exactly, from its weights; 0.1 % of the variance is cut off."""
    unit = np.eye(60)
    w = persistent(lambda day: unit[day + 30], range(0, 10), np.array(a))
    lags = w[:5] @ w[0]
    np.testing.assert_allclose(lags, a ** np.arange(5), atol=0.01)
    assert lags[0] == pytest.approx(1.0, abs=1e-12)


def test_persistence_is_a_ratio_kept_below_one():
    found = persistence(np.array([0.5, -1.0, 2.0, 0.0]), np.array([1.0, 1.0, 1.0, 0.0]))
    np.testing.assert_array_equal(found, [0.5, 0.0, LARGEST, 0.0])
    assert memory(np.zeros(2)) == 0
