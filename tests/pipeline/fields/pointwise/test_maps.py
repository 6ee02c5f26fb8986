"""Pointwise maps: exact inverses, monotone, and nothing beyond the bounds of a variable."""

import numpy as np
import pytest
import xarray as xr

from pipeline.fields.pointwise.labels import pointwise_of, pointwise_variables
from pipeline.fields.pointwise.maps import SIMPLE, Logit, OutOfBounds
from pipeline.fields.pointwise.normal_scores import Extent, Histogram

FRACTION = Logit(low=0.0, high=1.0)
PERCENT = Logit(low=0.0, high=100.0)


@pytest.mark.parametrize("name", list(SIMPLE))
def test_transforms_are_inverted(name):
    values = np.array([0.0, 1e-6, 0.3, 40.0])
    transform = SIMPLE[name]
    np.testing.assert_allclose(transform.inverse(transform.forward(values)), values, rtol=1e-9)


@pytest.mark.parametrize("name", ["cbrt", "log1p"])
def test_amounts_drawn_below_zero_are_none(name):
    assert SIMPLE[name].inverse(np.array([-0.5]))[0] == 0.0


@pytest.mark.parametrize("logit", [FRACTION, PERCENT, Logit(low=-1.0, high=3.0)])
def test_a_logit_is_inverted_at_its_bounds_too_and_keeps_the_order(logit):
    values = logit.low + (logit.high - logit.low) * np.linspace(0.0, 1.0, 1001)
    scores = logit.forward(values)
    assert np.isfinite(scores).all()
    assert np.all(np.diff(scores) > 0.0)
    np.testing.assert_allclose(logit.inverse(scores), values, atol=1e-12 * (logit.high - logit.low))


def test_a_logit_turns_every_number_into_one_between_the_bounds():
    drawn = PERCENT.inverse(np.array([-1e9, -7.0, 0.0, 7.0, 1e9]))
    np.testing.assert_array_equal(drawn, [0.0, 0.0, 50.0, 100.0, 100.0])
    assert np.isnan(PERCENT.inverse(PERCENT.forward(np.array([np.nan])))).all()


def test_values_beyond_the_bounds_are_refused_but_for_what_packing_rounds():
    np.testing.assert_allclose(FRACTION.forward(np.array([-1e-4])), FRACTION.forward(np.zeros(1)))
    with pytest.raises(OutOfBounds, match=r"0\.2 to 1\.04 .* bounds 0 and 1"):
        FRACTION.forward(np.array([0.2, 1.04]))


def test_maps_are_stored_and_read_again():
    values = np.random.default_rng(0).gamma(0.4, size=(200, 3, 4))
    extent = Extent.of(values)
    ranks = Histogram.of(values, 0.0, extent).fit(np.inf)
    maps = {"ta": SIMPLE["identity"], "pr": ranks, "clt": PERCENT, "prw": SIMPLE["cbrt"]}
    stored = pointwise_variables(maps, ("lat", "lon"))
    again = pointwise_of(xr.Dataset.from_dict(stored.to_dict()), ("lat", "lon"))
    assert [one.name for one in again] == ["identity", "rank", "logit", "cbrt"]
    assert again[2] == PERCENT
    np.testing.assert_array_equal(again[1].forward(values), ranks.forward(values))
