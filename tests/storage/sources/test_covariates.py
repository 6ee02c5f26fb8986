"""Covariates meet the fields in time."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from storage.conventions.axes import SourceError
from storage.sources.covariates import decimal_year, read_covariate
from tests.storage.imitations import row


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


def series(tmp_path, numbers, units: str, bounds=None, values=None, **attrs: str) -> str:
    """An index in a file, its times as numbers."""
    numbers = np.asarray(numbers, dtype=float)
    known = {"units": units, "standard_name": "time"} | attrs
    dataset = xr.Dataset(
        {"index": ("time", np.arange(numbers.size) * 1.0 if values is None else values)},
        coords={"time": ("time", numbers, known)},
    )
    if bounds is not None:
        dataset["time"].attrs["bounds"] = "time_bnds"
        dataset["time_bnds"] = (("time", "nv"), bounds)
    path = tmp_path / "series.nc"
    dataset.to_netcdf(path)
    return str(path)


@row("time", "times of covariates: `months since`, calendars, decimal years", "read as of fields")
def test_months_since_are_read_as_they_are_of_fields(tmp_path, monthly):
    path = series(tmp_path, np.arange(24), "months since 2000-01-01")
    times = daily("2000-02-01", 400)
    np.testing.assert_array_equal(
        read_covariate(path, "index", times), read_covariate(monthly, "index", times)
    )
    path = series(tmp_path, 2000 + (np.arange(24) + 0.5) / 12, "year A.D.")
    index = read_covariate(path, "index", daily("2000-02-15", 2))
    assert index.values[0] == pytest.approx(1.0, abs=0.05)


@row("time", "a covariate that is stamped at the end of its bounds", "put in their middle")
def test_an_index_that_is_stamped_at_its_end_is_put_in_the_middle(tmp_path):
    """Fields are; the mean of January would be taken for that of 1 February."""
    starts = np.arange("2000-01", "2002-02", dtype="M8[M]").astype("M8[D]")
    edges = (starts - np.datetime64("2000-01-01")).astype(float)
    bounds = np.stack([edges[:-1], edges[1:]], axis=1)
    path = series(tmp_path, edges[1:], "days since 2000-01-01", bounds)
    index = read_covariate(path, "index", daily("2000-01-16", 32))
    assert index.values[0] == pytest.approx(0.0, abs=0.02)
    assert index.values[30] == pytest.approx(1.0, abs=0.05)


def test_calendars_of_models_and_other_spellings_are_read(tmp_path):
    path = series(
        tmp_path, np.arange(24) * 30.0, "days since 2000-01-01", calendar="THIRTY_DAY_MONTHS"
    )
    index = read_covariate(path, "index", daily("2001-01-01", 2))
    assert index.values[0] == pytest.approx(12.0)


@row("time", "years alone among the times of a table of covariates", "refused with the record")
def test_years_in_a_table_are_no_nanoseconds(tmp_path):
    path = tmp_path / "co2.csv"
    path.write_text("time,co2\n1999,360\n2000,361\n2001,362\n")
    with pytest.raises(SourceError, match=r"'1999' at record 1 of 3, which is no date"):
        read_covariate(str(path), "co2", daily("2000-02-01", 3))
    path.write_text("time,co2\n1999-07,360\n2000-7-1,361\n20010701,362\n")
    assert read_covariate(str(path), "co2", daily("2000-07-01", 1)).values[0] == 361
