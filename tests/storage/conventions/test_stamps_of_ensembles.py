"""Times of ensembles are stamped as the source stamps them, and have its bounds."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from storage.conventions.stamps import bounds_like, stamps_on


def record(times: np.ndarray, bounds: np.ndarray | None = None) -> xr.Dataset:
    source = xr.Dataset(coords={"time": ("time", times)})
    if bounds is None:
        return source
    source["time"].attrs["bounds"] = "time_bnds"
    return source.assign_coords(time_bnds=(("time", "bnds"), bounds))


def monthly(calendar: str, place: float = 0.5) -> xr.Dataset:
    edges = xr.date_range(
        "2001-01-01", periods=49, freq="MS", calendar=calendar, use_cftime=calendar != "standard"
    ).values
    times = edges[:-1] + (edges[1:] - edges[:-1]) * place if place < 1 else edges[1:]
    return record(times, np.stack([edges[:-1], edges[1:]], axis=1))


def test_a_day_of_the_source_has_the_hour_that_it_has_there():
    """Months in their middle: at 12:00 where they have 31 days, else at midnight."""
    times = monthly("standard")["time"].values
    found = stamps_on(["2002-01-16", "2003-11-16"], times)
    assert [str(t)[:16] for t in found] == ["2002-01-16T12:00", "2003-11-16T00:00"]
    beyond = stamps_on(["2050-01-16", "2050-11-16", "2050-11-20"], times)
    assert [str(t)[11:16] for t in beyond] == ["12:00", "00:00", "00:00"]


def test_hours_of_a_day_are_those_of_the_source():
    """The first day has 20:00 alone; all others begin at 02:00."""
    hours = np.arange(20, 240, 6).astype("m8[h]")
    times = np.datetime64("2001-03-01", "ns") + hours
    found = stamps_on(["2001-03-01", "2001-03-04", "2031-07-01"], times)
    assert [str(t)[:16] for t in found] == [
        "2001-03-01T20:00",
        "2001-03-04T02:00",
        "2031-07-01T02:00",
    ]


@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_other_calendars_keep_their_hours(calendar):
    times = monthly(calendar)["time"].values
    found = stamps_on(["2002-02-15", "2060-02-15"], times)
    assert [str(t)[:16] for t in found] == ["2002-02-15 00:00", "2060-02-15 00:00"]
    with pytest.raises(ValueError):
        stamps_on(["2060-02-31"], times)


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day"])
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_months_have_bounds_in_every_ensemble(calendar, place):
    source = monthly(calendar, place)
    asked = source["time"].isel(time=[1, 2, 3])
    bounds = bounds_like(source, asked)
    assert bounds is not None
    np.testing.assert_array_equal(bounds.values, source["time_bnds"].values[1:4])


def test_bounds_that_follow_no_rule_are_not_invented():
    times = np.datetime64("2001-01-01", "ns") + np.array([0, 3, 4, 9]).astype("m8[D]")
    edges = np.stack([times, times + np.array([3, 1, 5, 2]).astype("m8[D]")], axis=1)
    assert bounds_like(record(times, edges), record(times)["time"]) is None
