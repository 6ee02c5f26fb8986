"""Times: every calendar is kept, gaps are said, and what is no date is refused."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from storage.sources.sources import open_source
from tests.storage.imitations import days, levelled, opened, refused, regular, row, write


def numbered(numbers, units: str, calendar: str | None = None) -> xr.Dataset:
    attrs = {"units": units, "standard_name": "time"}
    source = regular(len(numbers))
    source["time"] = ("time", numbers, attrs | ({"calendar": calendar} if calendar else {}))
    return source


def monthly(count: int = 24, start: str = "2000-01-01") -> np.ndarray:
    return xr.date_range(start, periods=count, freq="MS").values


@row("time", "6-hourly, daily, monthly, yearly", "unequal months are no gaps")
@pytest.mark.parametrize("freq", ["6h", "D", "MS", "ME", "YS"])
def test_every_usual_step_is_without_gaps(tmp_path, freq):
    source = regular(30)
    source["time"] = xr.date_range("2000-01-01", periods=30, freq=freq)
    fields, report = opened(tmp_path, source)
    np.testing.assert_array_equal(fields.time, source.time)
    assert report.gaps == ()


@row("time", "gaps", "refused, listed; `allow_gaps = true` accepts and lists them")
@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_gaps_are_listed_and_refused_unless_allowed(tmp_path, calendar):
    source = regular(10)
    if calendar == "noleap":
        source["time"] = xr.date_range("2000-01-01", periods=10, calendar=calendar, use_cftime=True)
    path = write(tmp_path, source.isel(time=[0, 1, 2, 3, 6, 7, 8, 9]))
    refused("1 gap in time: 2000-01-04 to 2000-01-07; .*allow_gaps = true", path)
    _, report = open_source(path, ["ta"], allow_gaps=True)
    assert report.gaps == ("2000-01-04 to 2000-01-07",)


def test_a_gap_of_several_files_is_laid_on_none_of_them(tmp_path):
    source = regular(10)
    for name, times in (("a", slice(0, 4)), ("b", slice(6, 10))):
        write(tmp_path, source.isel(time=times), f"{name}.nc")
    refused("^2 files: 1 gap in time: 2000-01-04 to 2000-01-07", str(tmp_path / "*.nc"))


@row("time", "calendars noleap, 365_day, 360_day, all_leap, julian", "kept")
@pytest.mark.parametrize("calendar", ["noleap", "360_day", "all_leap", "julian"])
def test_other_calendars_are_kept(tmp_path, calendar):
    source = regular()
    source["time"] = xr.date_range(
        "2000-02-26", periods=6, freq="D", calendar=calendar, use_cftime=True
    )
    fields, report = opened(tmp_path, source)
    assert fields.time.dt.calendar == calendar
    assert (fields.time.values == source.time.values).all()
    assert report.gaps == ()


@row("time", "files with different calendars", "refused")
def test_calendars_that_differ_are_refused(tmp_path):
    write(tmp_path, numbered(np.arange(3), "days since 2000-01-01", "noleap"), "a.nc")
    write(tmp_path, numbered(np.arange(3), "days since 2000-01-04", "360_day"), "b.nc")
    refused("b.nc: its calendar 360_day differs from noleap, that of a.nc", str(tmp_path / "*.nc"))


@row("time", "files with different reference dates", "each decoded by its own")
def test_each_file_has_its_own_reference_date(tmp_path):
    write(tmp_path, numbered(np.arange(3), "days since 2000-01-01"), "a.nc")
    write(tmp_path, numbered(72.0 + 24 * np.arange(3), "hours since 2000-01-01"), "b.nc")
    fields, _ = open_source(str(tmp_path / "*.nc"), ["ta"])
    np.testing.assert_array_equal(fields.time, days())


@row("time", "`months since`, whole months", "the same day of each month")
def test_whole_months_are_decoded(tmp_path):
    fields, _ = opened(tmp_path, numbered(np.arange(11, 17), "months since 1999-01-15"))
    expected = ["1999-12", "2000-01", "2000-02", "2000-03", "2000-04", "2000-05"]
    np.testing.assert_array_equal(fields.time, np.array([f"{m}-15" for m in expected], "M8[ns]"))
    fields, _ = opened(tmp_path, numbered(np.arange(3.0), "years since 1850-01-01 00:00:00"))
    np.testing.assert_array_equal(fields.time.dt.year, [1850, 1851, 1852])


@row("time", "`months since`, parts of months", "refused (decoded in a calendar of 360 days)")
def test_parts_of_months_are_refused_with_the_remedy(tmp_path):
    path = write(tmp_path, numbered(np.arange(6) + 0.5, "months since 1960-01-01"))
    refused(r"0.5 among its values.*no fixed length; convert it first", path)
    source = numbered(np.arange(6) + 0.5, "months since 1960-01-01", "360")
    fields, _ = opened(tmp_path, source)
    assert fields.time.dt.calendar == "360_day"
    assert str(fields.time.values[0]).startswith("1960-01-16")
    refused("no fixed length", write(tmp_path, numbered(np.arange(6), "months since 1960-01-31")))


@row("time", "`day as %Y%m%d.%f` (CDO's absolute axis)", "decoded")
def test_days_as_digits_are_decoded(tmp_path):
    numbers = [19991230.0, 19991231.0, 20000101.0, 20000102.5]
    fields, _ = opened(tmp_path, numbered(numbers, "day as %Y%m%d.%f"))
    assert str(fields.time.values[-1]) == "2000-01-02T12:00:00.000000000"
    refused(
        "19991399 among|no date as", write(tmp_path, numbered([19991399.0], "day as %Y%m%d.%f"))
    )


@row("time", "before 1678 or after 2262, also in one file of several", "kept, as cftime")
def test_times_beyond_nanoseconds_are_kept(tmp_path):
    write(tmp_path, numbered(np.arange(3), "days since 2262-04-09", "proleptic_gregorian"), "a.nc")
    write(tmp_path, numbered(np.arange(3), "days since 2262-04-12", "standard"), "b.nc")
    fields, report = open_source(str(tmp_path / "*.nc"), ["ta"])
    assert [str(t)[:10] for t in fields.time.values[[0, -1]]] == ["2262-04-09", "2262-04-14"]
    assert fields.indexes["time"].is_unique
    assert report.gaps == ()
    fields, _ = open_source(
        write(tmp_path, numbered([1, 2], "days since 850-01-01", "noleap"), "c"), ["ta"]
    )
    assert fields.time.values[0].year == 850


@row("time", "bounds, absent or present, of any name", "kept; without units those of the time")
def test_bounds_come_along(tmp_path):
    source = numbered(np.arange(6) + 0.5, "days since 2000-01-01")
    source["time"].attrs["bounds"] = "bounds_time"
    edges = np.arange(6)[:, None] + [0.0, 1.0]
    source["bounds_time"] = (("time", "nv"), edges)
    fields, _ = opened(tmp_path, source)
    assert fields.time_bnds.dims == ("time", "bnds")
    np.testing.assert_array_equal(fields.time_bnds[:, 0], days())
    assert fields.time.attrs["bounds"] == "time_bnds"
    fields, _ = opened(tmp_path, source.drop_vars("bounds_time"))
    assert "time_bnds" not in fields


@row("time", "files out of order", "sorted, noted")
def test_times_of_many_files_are_joined_and_sorted(tmp_path):
    write(tmp_path, regular(3, "2000-01-04", seed=1), "a.nc")
    write(tmp_path, regular(3, "2000-01-01", seed=2), "b.nc")
    fields, report = open_source(str(tmp_path / "*.nc"), ["ta"])
    np.testing.assert_array_equal(fields.time, days())
    np.testing.assert_array_equal(fields.ta[:3], regular(3, seed=2).ta)
    assert "times were not in order, sorted" in report.notes


@row("time", "times out of order or descending in a file", "sorted, noted")
def test_descending_times_are_sorted(tmp_path):
    fields, report = opened(tmp_path, regular().isel(time=slice(None, None, -1)))
    np.testing.assert_array_equal(fields.ta, regular().ta)
    assert "times were not in order, sorted" in report.notes


@row("time", "the same time twice: equal values", "dropped, noted")
def test_equal_duplicates_are_dropped(tmp_path):
    fields, report = opened(tmp_path, regular().isel(time=[0, 1, 2, 2, 3, 4, 5, 0]))
    np.testing.assert_array_equal(fields.ta, regular().ta)
    assert any("2 repeated times" in note for note in report.notes)


@row("time", "the same time twice: other values (overlapping files, members)", "refused")
def test_unequal_duplicates_are_refused(tmp_path):
    write(tmp_path, regular(4), "a.nc")
    write(tmp_path, regular(4, "2000-01-03", seed=3), "b.nc")
    refused("2000-01-03 occurs twice with different values of ta", str(tmp_path / "*.nc"))


@row("time", "one file for each time, the time a scalar", "joined")
def test_scalar_times_are_joined(tmp_path):
    for index in range(6):
        write(tmp_path, regular().isel(time=index), f"{index}.nc")
    fields, _ = open_source(str(tmp_path / "*.nc"), ["ta"])
    np.testing.assert_array_equal(fields.ta, regular().ta)


@row("time", "no time at all, or a dimension without coordinate or units", "refused; CDO sets it")
def test_no_time_is_refused(tmp_path):
    path = write(tmp_path, regular().isel(time=0, drop=True))
    refused("ta has no time coordinate", path)
    refused("ta has no time coordinate.*6", write(tmp_path, regular().drop_vars("time")))
    bare = regular()
    bare["time"] = ("time", np.arange(6))
    refused("times cannot be decoded.*set units and calendar", write(tmp_path, bare))
    odd = numbered(np.arange(6), "days since the flood")
    refused("times cannot be decoded.*set units and calendar", write(tmp_path, odd))


@row("time", "a missing time", "refused")
def test_missing_times_are_refused(tmp_path):
    numbers = np.array([0.0, 1.0, np.nan, 3.0])
    refused("a time is missing", write(tmp_path, numbered(numbers, "days since 2000-01-01")))


@row(
    "time",
    "climatologies: year 0, or the attribute `climatology`",
    "refused: no record to learn from",
)
def test_climatologies_are_refused(tmp_path):
    year0 = numbered(np.arange(12) * 30.0 + 15, "days since 0000-01-01", "noleap")
    refused("year 0, as climatologies have.*give the series", write(tmp_path, year0))
    year0["time"].attrs["calendar"] = "standard"
    refused("year 0|cannot be decoded", write(tmp_path, year0))
    mean = regular(12)
    mean["time"] = monthly(12)
    mean["time"].attrs["climatology"] = "climatology_bounds"
    refused("time is a climatology", write(tmp_path, mean))


@row("time", "`hours since 1-1-1 00:00:0.0` (NCEP)", "decoded")
def test_hours_since_the_year_one_are_decoded(tmp_path):
    hours = 17522904 + 24 * np.arange(6)
    fields, _ = opened(tmp_path, numbered(hours, "hours since 1-1-1 00:00:0.0"))
    np.testing.assert_array_equal(fields.time, days())


@row(
    "time",
    "forecasts: reference time and step, valid times in two dimensions",
    "put in one row; the same valid time twice is refused unless equal",
)
def test_two_dimensional_times_are_put_in_a_row(tmp_path):
    flat = regular(6)
    field = flat.ta.values.reshape(3, 2, 4, 8)
    dims = ("time", "step", "lat", "lon")
    source = xr.Dataset(
        {"ta": (dims, field, flat.ta.attrs)}, coords={c: flat[c] for c in ("lat", "lon")}
    )
    reference = {"standard_name": "forecast_reference_time"}
    source["time"] = ("time", days()[::2], reference)
    source["step"] = ("step", [0, 24], {"standard_name": "forecast_period", "units": "hours"})
    source["valid_time"] = (("time", "step"), days().reshape(3, 2), {"standard_name": "time"})
    fields, _ = opened(tmp_path, source)
    np.testing.assert_array_equal(fields.ta, flat.ta)
    np.testing.assert_array_equal(fields.time, days())
    source["valid_time"] = source.valid_time.copy(data=days(4)[np.array([[0, 1], [1, 2], [2, 3]])])
    path = write(tmp_path, source)
    refused("2000-01-02 occurs twice", path)
    fields, _ = open_source(path, ["ta"], select={"step": 24})
    np.testing.assert_array_equal(fields.time, days(3, "2000-01-02"))


@row("time", "`valid_time` and `expver` (ERA5 since 2024), scalar `number`", "understood")
def test_era5_coordinates_are_understood(tmp_path):
    source = levelled([850.0, 500.0], "hPa", "pressure_level").rename(
        time="valid_time", lat="latitude", lon="longitude"
    )
    source = source.assign_coords(number=0, expver=("valid_time", ["0001"] * 6))
    fields, _ = open_source(write(tmp_path, source), ["ta@500"])
    np.testing.assert_array_equal(fields.time, days())


@row("time", "`[source] period`", "takes a part; refused if nothing lies in it")
def test_a_period_is_taken(tmp_path):
    path = write(tmp_path, regular(9))
    fields, _ = open_source(path, ["ta"], period=("2000-01-02", "2000-01-04"))
    np.testing.assert_array_equal(fields.time, days(3, "2000-01-02"))
    refused("no time lies in source.period", path, period=("2010-01-01", "2010-12-31"))


@row("time", "times as ISO text, as characters or strings (WRF's `Times` among them)", "decoded")
@pytest.mark.parametrize("kind", ["characters", "strings", "WRF"])
def test_times_as_text_are_dates(tmp_path, kind):
    source = regular().drop_vars("time")
    text = [f"2000-01-0{day}T06:00:00" for day in range(1, 7)]
    if kind == "WRF":
        source["Times"] = ("time", np.array([t.replace("T", "_") for t in text], "S19"))
        source = source.rename(time="Time")
    else:
        source["time"] = ("time", np.array(text, "S19" if kind == "characters" else object))
    fields, _ = opened(tmp_path, source)
    np.testing.assert_array_equal(fields.time, days() + np.timedelta64(6, "h"))
    broken = source.copy()
    name = "Times" if kind == "WRF" else "time"
    wrong = np.array([*text[:3], "soon", *text[4:]], "S19")
    broken[name] = (source[name].dims, wrong)
    refused(rf"{name} is 'soon' at record 4 of 6", write(tmp_path, broken))


@row(
    "time",
    "calendars by other names (THIRTY_DAY_MONTHS, no_leap, 366day)",
    "known; one that is not is refused with those that are",
)
@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("THIRTY_DAY_MONTHS", "360_day"),
        ("no_leap", "noleap"),
        ("NO LEAP", "noleap"),
        ("366day", "all_leap"),
        ("proleptic", "proleptic_gregorian"),
        ("360day", "360_day"),
    ],
)
def test_aliases_of_calendars_are_known(tmp_path, said, meant):
    fields, _ = opened(tmp_path, numbered(np.arange(55, 61), "days since 2001-01-01", said))
    expected = xr.date_range(
        "2001-01-01", periods=61, calendar=meant, use_cftime=meant[:4] != "prol"
    )
    assert [str(t)[:10] for t in fields.time.values] == [str(t)[:10] for t in expected[55:]]
    path = write(tmp_path, numbered(np.arange(6), "days since 2001-01-01", "mayan"))
    text = refused("calendar of time is 'mayan', which is not known; those that are: stand", path)
    assert "cftime" not in text


@row("time", "one time that was never written (9.97e36, -2147483647)", "refused with its record")
@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("f8", 9.969209968386869e36, "9.96921e[+]36"),
        ("i4", -2147483647, "-2.14748e[+]09"),
        ("f8", np.nan, "nan"),
        ("f8", 1e30, "1e[+]30"),
    ],
)
def test_a_time_that_was_never_written_is_named_with_its_record(tmp_path, kind, value, said):
    numbers = np.arange(6).astype(kind)
    numbers[3] = value
    source = numbered(numbers, "days since 2000-01-01")
    path = write(tmp_path, source, encoding={"time": {"_FillValue": None}})
    text = refused(rf"a time is missing, time is {said} at record 4 of 6", path)
    assert "cftime" not in text


@row(
    "time",
    "the unit `Month`",
    "refused; the unit that is offered, followed word for word, makes months of it",
)
def test_the_unit_that_is_offered_for_months_makes_months(tmp_path):
    path = write(tmp_path, numbered(np.arange(1, 13), "Month"))
    text = refused("times cannot be decoded", path)
    offered = text[text.index('time = "') + 8 :].split('"')[0]
    assert "cftime" not in text
    fields, _ = open_source(path, ["ta"], units={"time": offered})
    np.testing.assert_array_equal(fields.time, monthly(12))


@row(
    "time",
    "calendars without a 31st, and a `period` to 12-31 (360_day, noleap)",
    "a day beyond the end of its month is the end",
)
@pytest.mark.parametrize("calendar", ["360_day", "noleap", "standard"])
def test_a_period_ends_with_its_month_in_every_calendar(tmp_path, calendar):
    source = regular(1100)
    source["time"] = xr.date_range(
        "2000-01-01", periods=1100, calendar=calendar, use_cftime=calendar != "standard"
    )
    path = write(tmp_path, source)
    fields, _ = open_source(path, ["ta"], period=("2000-01-31", "2001-12-31"))
    ends = [str(fields.time.values[at])[:10] for at in (0, -1)]
    first, last = ("2000-02-01", "2001-12-30") if calendar == "360_day" else (None, "2001-12-31")
    assert ends == [first or "2000-01-31", last]
