"""Responses to forcing, where all of it is known."""

import numpy as np
import pytest

from pipeline.scores.response import Climate, climate_of, response

AREA = np.array([1.0, 2.0, 2.0, 1.0])
BAND = np.array([0, 0, 1, 1])
OWNERS = ("model", "truth", "one", "other")


def fields(number: int = 5000) -> np.ndarray:
    return np.random.default_rng(0).gamma(2.0, 1.0, (number, 4)) * [1.0, 1.0, 2.0, 2.0]


def climate(mean: float, deviation: float = 1.0) -> Climate:
    return Climate(
        mean=np.full(4, mean), deviation=np.full(4, deviation), extreme=np.full(2, 3 * mean)
    )


def test_statistics_are_those_of_all_fields_however_they_are_read() -> None:
    values = fields()
    found = climate_of(np.split(values, [7, 400, 4000]), len(values), AREA, BAND)
    np.testing.assert_allclose(found.mean, values.mean(axis=0))
    np.testing.assert_allclose(found.deviation, values.std(axis=0, ddof=1))
    whole = climate_of([values], len(values), AREA, BAND)
    np.testing.assert_allclose(found.extreme, whole.extreme)
    weighted = np.concatenate([values[:, 0], values[:, 1], values[:, 1]])
    assert found.extreme[0] == pytest.approx(np.quantile(weighted, 0.999), rel=0.01)
    assert found.extreme[1] > 1.5 * found.extreme[0]


def test_cells_without_values_are_no_part_of_it() -> None:
    values = fields(100)
    values[:, 3] = np.nan
    found = climate_of([values[:50], values[50:]], 100, AREA, BAND)
    assert np.isnan(found.mean[3]) and np.isfinite(found.mean[:3]).all()
    alone = climate_of([values[:, :3]], 100, AREA[:3], BAND[:3])
    np.testing.assert_allclose(found.extreme, alone.extreme)
    told = response(dict.fromkeys(OWNERS, found), dict.fromkeys(OWNERS, found), AREA)
    assert told["mean"] == {"size": 0.0, "error": 0.0, "floor": 0.0}


def test_a_response_is_a_difference_and_its_error_that_of_two_differences() -> None:
    before = {who: climate(10.0) for who in OWNERS}
    under = {
        "truth": climate(12.0, 1.5),
        "model": climate(12.5, 1.5),
        "one": climate(12.1),
        "other": climate(11.8),
    }
    told = response(under, before, AREA)
    assert told["mean"] == pytest.approx({"size": 2.0, "error": 0.5, "floor": 0.3})
    assert told["deviation"] == pytest.approx({"size": 0.5, "error": 0.0, "floor": 0.0})
    assert told["extreme"] == pytest.approx({"size": 6.0, "error": 1.5, "floor": 0.9})
    assert told["global"] == pytest.approx({"truth": 2.0, "model": 2.5, "floor": 0.3})
