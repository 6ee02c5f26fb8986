"""Covariates meet the fields in time."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from storage.conventions.axes import SourceError
from storage.sources.covariates import decimal_year, read_covariate


def daily(first: str, days: int) -> xr.DataArray:
    time = pd.date_range(first, periods=days, freq="D").to_numpy()
    return xr.DataArray(time, dims="time", coords={"time": time})


@pytest.fixture
def monthly(tmp_path):
    """2000 and 2001, the value of a month is its number since January 2000."""
    time = pd.date_range("2000-01-01", periods=24, freq="MS").to_numpy()
    path = tmp_path / "index.nc"
    series = xr.DataArray(np.arange(24.0), dims="time", coords={"time": time}, name="index")
    series.assign_attrs(units="K", long_name="an index").to_netcdf(path)
    return str(path)


def test_a_monthly_index_is_interpolated_to_days(monthly):
    index = read_covariate(monthly, "index", daily("2000-02-01", 29))
    assert index.values[0] == pytest.approx(1.0)
    np.testing.assert_allclose(np.diff(index), 1 / 29, rtol=1e-6)
    assert index.attrs == {"units": "K", "long_name": "an index"}


def test_a_csv_file_says_the_same(monthly, tmp_path):
    path = tmp_path / "index.csv"
    xr.open_dataset(monthly)["index"].to_series().to_csv(path)
    times = daily("2001-03-10", 20)
    np.testing.assert_allclose(
        read_covariate(str(path), "index", times), read_covariate(monthly, "index", times)
    )


def test_a_model_calendar_is_met_by_the_year(monthly):
    time = xr.date_range(
        "2001-01-01", periods=360, freq="D", calendar="360_day", use_cftime=True
    ).to_numpy()
    times = xr.DataArray(time, dims="time", coords={"time": time})
    index = read_covariate(monthly, "index", times)
    assert index.values[0] == pytest.approx(12.0)
    assert index.values[180] == pytest.approx(18.0, abs=0.1)


def test_decimal_years_know_leap_years():
    years = decimal_year(daily("2000-12-31", 2))
    np.testing.assert_allclose(years, [2000 + 365 / 366, 2001.0])


def test_a_series_that_ends_a_step_too_early_is_held_and_earlier_is_refused(monthly):
    held = read_covariate(monthly, "index", daily("2001-12-01", 30))
    np.testing.assert_array_equal(held, 23.0)
    with pytest.raises(SourceError, match=r"known from 2000\.000 to 2001\.915"):
        read_covariate(monthly, "index", daily("2001-12-01", 60))


def test_a_missing_value_is_named(monthly, tmp_path):
    path = tmp_path / "holes.nc"
    with xr.open_dataset(monthly) as dataset:
        dataset["index"].where(dataset["index"] != 5).to_netcdf(path)
    with pytest.raises(SourceError, match="no value at 2000-06-01"):
        read_covariate(str(path), "index", daily("2000-02-01", 3))


def test_an_unknown_name_is_answered_with_what_there_is(monthly):
    with pytest.raises(SourceError, match="no variable nino; it has index"):
        read_covariate(monthly, "nino", daily("2000-02-01", 3))
