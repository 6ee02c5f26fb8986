"""Predictors of the climatology beside the season."""

import numpy as np
import pytest
import xarray as xr

from pipeline.errors import UnusableData
from pipeline.fields.climatology import SeasonalMoments, design, season_phase
from pipeline.fields.trend import NO_TREND, Trend, climatology_rows, terms_of_day

TIMES = xr.date_range("1950-01-15", periods=1200, freq="30D")
CO2 = 300.0 + 0.1 * np.arange(1200) + np.sin(np.arange(1200) / 40.0)


@pytest.fixture
def fields():
    return xr.Dataset({"co2": ("time", CO2)}, coords={"time": TIMES})


def test_predictors_are_standard_over_the_training_times_and_remembered(fields):
    trend = Trend.fit(("co2", "time"), fields)
    rows = trend.standard(fields)
    np.testing.assert_allclose(rows.mean(axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(rows.std(axis=0), 1.0)
    again = Trend.of(trend.to_variables())
    np.testing.assert_array_equal(again.standard(fields), rows)
    years = (rows * trend.scale + trend.mean)[:, 1]
    assert years[0] == pytest.approx(1950 + 14 / 365)
    assert NO_TREND.standard(fields).shape == (1200, 0)
    assert not NO_TREND.to_variables()


def test_rows_that_a_dataset_brings_along_are_taken(fields):
    trend = Trend.fit(("co2",), fields)
    given = fields.drop_vars("co2").assign_coords(trend.coordinates(CO2[:, None]))
    np.testing.assert_array_equal(trend.standard(given)[:, 0], CO2)
    with pytest.raises(ValueError, match="depends on co2, which the coordinates time do not tell"):
        trend.given(fields["time"])
    with pytest.raises(UnusableData, match=r"co2 is not known at these times"):
        trend.standard(fields.drop_vars("co2"))


def test_a_season_and_a_trend_without_noise_are_recovered_exactly(fields):
    trend, generator = Trend.fit(("co2",), fields), np.random.default_rng(0)
    rows = climatology_rows(season_phase(fields.time), trend.standard(fields))
    assert rows.shape == (1200, 6)
    truth = generator.standard_normal((6, 1, 3, 4))
    values = np.tensordot(rows, truth, axes=1)
    values[0] += 1e-3
    fitted = SeasonalMoments.of(values, rows, ("ta",)).fit()
    np.testing.assert_allclose(fitted.coefficients, truth, atol=2e-5)


def test_trends_that_follow_from_each_other_and_constant_ones_are_refused(fields):
    twice = fields.assign(again=2.0 * fields.co2 + 1.0)
    trend = Trend.fit(("co2", "again"), twice)
    rows = climatology_rows(season_phase(fields.time), trend.standard(twice))
    noise = np.random.default_rng(1).standard_normal((1200, 1, 2, 2))
    with pytest.raises(UnusableData, match=r"2 trends; .* no trend may follow"):
        SeasonalMoments.of(noise, rows, ("ta",)).fit()
    with pytest.raises(UnusableData, match=r"co2 is 3 at all training times"):
        Trend.fit(("co2",), fields.assign(co2=("time", np.full(1200, 3.0))))


def test_what_is_asked_for_beyond_the_training_times_is_named(fields):
    trend = Trend.fit(("co2", "time"), fields)
    assert trend.beyond(trend.standard(fields)) == []
    later = xr.DataArray(xr.date_range("2100-07-01", periods=1), dims="time", name="time")
    later = later.assign_coords(time=later.values)
    words = trend.beyond(trend.of_values(later, {"co2": 350.0}))
    assert len(words) == 1 and words[0].startswith("time from 2100.5")
    (co2, _) = trend.beyond(trend.of_values(later, {"co2": 700.0}))
    assert co2.startswith("co2 from 700 to 700, trained on 300")
    with pytest.raises(UnusableData, match=r"give generate\.covariates\.co2"):
        trend.of_values(later, {})


def test_without_predictors_the_rows_are_those_of_the_season():
    phase = np.linspace(0.0, 6.0, 7)
    np.testing.assert_array_equal(climatology_rows(phase, np.empty((7, 0))), design(phase))


def of_hours(*hours, days=730, calendar="standard"):
    """Times at these hours of each day of some years."""
    dates = xr.date_range("2001-01-01", periods=days, calendar=calendar, use_cftime=True)
    times = np.array([date.replace(hour=hour) for date in dates for hour in hours])
    return xr.Dataset(coords={"time": times})


@pytest.mark.parametrize(
    ("hours", "day"),
    [
        ((12,), []),
        ((0, 12), ["day cos"]),
        ((0, 6), ["day cos"]),
        ((0, 6, 12, 18), ["day cos", "day sin", "half day cos"]),
        (range(0, 24, 3), ["day cos", "day sin", "half day cos", "half day sin"]),
    ],
)
def test_the_time_of_day_has_the_terms_that_the_times_tell_apart(hours, day):
    found = terms_of_day(of_hours(*hours, calendar="noleap"), (), 2)
    assert list(found) == [term + year for year in ("", ", year cos", ", year sin") for term in day]
    assert list(terms_of_day(of_hours(*hours, days=20), (), 0)) == day


def test_months_in_their_middle_and_scenarios_at_two_hours_have_one_time_a_day():
    middles = np.array(["2001-01-16T12", "2001-02-15T00", "2001-03-16T12"], "M8[ns]")
    assert not terms_of_day(xr.Dataset(coords={"time": middles}), (), 0)
    both = of_hours(0, 12).assign_coords(member=("time", np.tile([0, 1], 730)))
    assert not terms_of_day(both, (), 2)


def test_no_term_of_the_day_follows_from_a_trend_that_was_asked_for():
    hourly = of_hours(0, 6, 12, 18)
    hourly["sun"] = ("time", np.tile([3.0, 2.0, 1.0, 2.0], 730))
    assert list(terms_of_day(hourly, ("sun",), 0)) == ["day sin", "half day cos"]


def test_the_time_of_day_is_told_by_times_alone():
    hourly = of_hours(0, 6, 12, 18)
    trend = Trend.fit(terms_of_day(hourly, (), 2), hourly)
    assert not trend.covariates and not trend.asked
    rows = trend.standard(hourly)
    assert not trend.coordinates(rows)
    np.testing.assert_array_equal(trend.given(hourly["time"]), rows)
    np.testing.assert_array_equal(trend.of_values(hourly["time"], {}), rows)
