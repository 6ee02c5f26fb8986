"""Stamps: where they stand in what they stand for, decided for a variable over all of its files."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from storage.sources.sources import open_source
from tests.storage.imitations import days, opened, refused, regular, row, write

UNITS = {"units": "days since 2000-01-01", "standard_name": "time"}


def stamped(
    stamps: object, bounds: object = None, seed: int = 0, kind: str = "f8", **attrs: str
) -> xr.Dataset:
    """Fields with numbers of days as times, and bounds if there are some."""
    numbers = np.asarray(stamps, dtype=kind)
    source = regular(numbers.size, seed=seed)
    source["time"] = ("time", numbers, dict(UNITS))
    source.ta.attrs |= attrs
    if bounds is not None:
        source["time"].attrs["bounds"] = "time_bnds"
        source["time_bnds"] = (("time", "nbnd"), np.asarray(bounds, dtype=kind))
    return source


def ends(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Daily means as CESM stamps them, at the end, and their bounds."""
    stop = first + 1.0 + np.arange(count)
    return stop, np.stack([stop - 1, stop], axis=1)


def months(first: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """First days of months, and of those that follow them, as days since 2000."""
    start = np.datetime64(first, "M") + np.arange(count + 1)
    numbers = (start.astype("M8[D]") - np.datetime64("2000-01-01")).astype(float)
    return numbers[:-1], numbers[1:]


def days_of(dataset: xr.Dataset) -> list[str]:
    return [str(time)[:10] for time in dataset.time.values]


@row(
    "time",
    "an instantaneous first sample among means that are stamped at their end (CESM)",
    "the sample is dropped and noted, every mean stands in the middle of its bounds",
)
def test_an_instant_among_means_does_not_move_the_others(tmp_path):
    stop, bounds = ends(0, 5)
    first = stamped(np.r_[0.0, stop], np.r_[[[0.0, 0.0]], bounds])
    write(tmp_path, first, "a.nc")
    write(tmp_path, stamped(*ends(5, 6), seed=1), "b.nc")
    fields, report = open_source(str(tmp_path / "*.nc"), ["ta"])
    np.testing.assert_array_equal(fields.time, days(11) + np.timedelta64(12, "h"))
    np.testing.assert_array_equal(fields.ta[:5], first.ta[1:])
    np.testing.assert_array_equal(fields.time_bnds[:, 0], days(11))
    note = "a.nc: 1 time dropped, an instant among means (its bounds are equal): 2000-01-01"
    assert note in report.notes


@row(
    "time",
    "a file with nothing but that sample",
    "dropped and noted; the other files are read",
)
def test_a_file_of_one_instant_is_left_out(tmp_path):
    write(tmp_path, stamped([0.0], [[0.0, 0.0]]), "a.nc")
    write(tmp_path, stamped(*ends(0, 6), seed=1), "b.nc")
    fields, report = open_source(str(tmp_path / "*.nc"), ["ta"])
    assert days_of(fields) == [f"2000-01-0{day}" for day in range(1, 7)]
    np.testing.assert_array_equal(report.origins["ta"], np.ones(6))


@row("time", "bounds of no width everywhere: instants", "kept as they are stamped")
def test_instants_with_bounds_of_no_width_are_kept(tmp_path):
    fields, report = opened(tmp_path, stamped(np.arange(6.0), np.arange(6.0)[:, None] + [0, 0]))
    np.testing.assert_array_equal(fields.time, days())
    assert report.notes == ()


def test_one_file_at_the_end_of_bounds_and_one_in_the_middle_are_put_alike(tmp_path):
    stop, bounds = ends(0, 5)
    write(tmp_path, stamped(stop, bounds), "a.nc")
    write(tmp_path, stamped(bounds.mean(axis=1) + 5, bounds + 5, seed=1), "b.nc")
    fields, _ = open_source(str(tmp_path / "*.nc"), ["ta"])
    np.testing.assert_array_equal(fields.time, days(10) + np.timedelta64(12, "h"))


@row("time", "one file for each time, stamped at its end, bounds of a scalar", "in the middle")
def test_scalar_times_at_the_end_of_their_bounds_are_put_in_the_middle(tmp_path):
    source = stamped(*ends(0, 6))
    for index in range(6):
        write(tmp_path, source.isel(time=index), f"{index}.nc")
    fields, _ = open_source(str(tmp_path / "*.nc"), ["ta"])
    np.testing.assert_array_equal(fields.time, days() + np.timedelta64(12, "h"))
    np.testing.assert_array_equal(fields.time_bnds[:, 1], days() + np.timedelta64(1, "D"))


@row("time", "float32 stamps a few seconds before the end of their bounds", "in the middle")
def test_the_end_of_bounds_is_met_within_their_rounding(tmp_path):
    stop, bounds = ends(0, 6)
    fields, _ = opened(tmp_path, stamped(stop - 2 / 86400, bounds))
    np.testing.assert_array_equal(fields.time, days() + np.timedelta64(12, "h"))


@row("time", "bounds that do not hold their times", "left out, noted; the times are kept")
def test_wrong_bounds_are_not_published(tmp_path):
    fields, report = opened(tmp_path, stamped(np.arange(6.0), np.arange(6)[:, None] + [100, 101]))
    np.testing.assert_array_equal(fields.time, days())
    assert "time_bnds" not in fields.variables
    assert any("2000-01-01 is not within its bounds, 2000-04-10 to" in n for n in report.notes)


@row(
    "time",
    "stamps at the end of bounds in one file, no bounds in another",
    'refused; `[source] stamps = "day-end"` or `"month-end"` says what they are',
)
@pytest.mark.parametrize("step", ["day", "month"])
def test_files_without_bounds_beside_stamps_at_the_end_are_refused(tmp_path, step):
    start, stop = months("2000-01", 12) if step == "month" else (np.arange(12.0), np.arange(1, 13))
    write(tmp_path, stamped(stop[:6], np.stack([start, stop], 1)[:6]), "a.nc")
    write(tmp_path, stamped(stop[6:], seed=1), "b.nc")
    paths = str(tmp_path / "*.nc")
    refused(rf'b.nc has no bounds.*\[source\] stamps = "{step}-end"', paths)
    fields, _ = open_source(paths, ["ta"], stamps=f"{step}-end")
    hours = (np.stack([start, stop], 1) * 24).astype("m8[h]")
    expected = np.datetime64("2000-01-01", "ns") + hours
    np.testing.assert_array_equal(fields.time_bnds, expected)
    np.testing.assert_array_equal(fields.time, expected[:, 0] + np.diff(expected)[:, 0] / 2)


@row(
    "time",
    "months stamped at their end, no bounds",
    '`[source] stamps = "month-end"`: each is the month that ends there',
)
@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day"])
def test_months_that_are_stamped_at_their_end_are_declared(tmp_path, calendar):
    times = xr.date_range("2001-02-01", periods=12, freq="MS", calendar=calendar, use_cftime=True)
    source = regular(12).assign_coords(time=times)
    fields, _ = opened(tmp_path, source, stamps="month-end")
    assert [str(t)[:7] for t in fields.time.values] == [f"2001-{m:02d}" for m in range(1, 13)]
    assert str(fields.time_bnds.values[0, 1])[:10] == "2001-02-01"


@row("time", '`[source] stamps = "kept"`', "no stamp is moved, whatever its bounds say")
def test_stamps_are_kept_where_that_is_declared(tmp_path):
    fields, _ = opened(tmp_path, stamped(*ends(0, 6)), stamps="kept")
    np.testing.assert_array_equal(fields.time, days(6, "2000-01-02"))


@row(
    "time",
    "hours in float32 days beside the same hours in double precision",
    "rounded to what they were, noted; what repeats is dropped",
)
def test_float32_hours_are_the_hours_that_they_were(tmp_path):
    hours = 40000 + np.arange(48) / 24
    whole = stamped(hours)
    whole["time"].attrs["units"] = "days since 1900-01-01"
    coarse = whole.isel(time=slice(0, 32)).copy()
    coarse["time"] = ("time", hours[:32].astype("f4"), whole.time.attrs)
    write(tmp_path, coarse, "a.nc")
    write(tmp_path, whole.isel(time=slice(16, None)), "b.nc")
    fields, report = open_source(str(tmp_path / "*.nc"), ["ta"])
    assert fields.sizes["time"] == 48
    assert set(np.diff(fields.time.values)) == {np.timedelta64(1, "h")}
    np.testing.assert_array_equal(fields.ta, whole.ta)
    assert any("float32" in n and "rounded to whole hours" in n for n in report.notes)


@row(
    "time",
    "months stamped in their middle in one file, on the 15th in another that overlaps",
    'refused with both stamps and files; `[source] stamps = "month"` makes them one',
)
def test_months_that_are_stamped_twice_are_refused(tmp_path):
    start, stop = months("2000-01", 72)
    whole = stamped((start + stop) / 2)
    other = stamped(start + 14)
    write(tmp_path, whole.isel(time=slice(0, 47)), "a.nc")
    write(tmp_path, other.isel(time=slice(36, None)), "b.nc")
    paths = str(tmp_path / "*.nc")
    refused(
        r"2003-01-15 \(b.nc\) and 2003-01-16T12:00:00 \(a.nc\) are 36 hours apart, where the usual "
        r'step is 30.*\[source\] stamps = "month"',
        paths,
    )
    fields, _ = open_source(paths, ["ta"], stamps="month")
    assert fields.sizes["time"] == 72
    np.testing.assert_array_equal(fields.ta, whole.ta)
    assert fields.time_bnds.shape == (72, 2)


def test_months_on_the_first_and_in_the_middle_are_no_half_months(tmp_path):
    start, stop = months("2000-01", 24)
    write(tmp_path, stamped((start + stop) / 2), "a.nc")
    write(tmp_path, stamped(start, seed=1), "b.nc")
    refused(r'stamps = "month"', str(tmp_path / "*.nc"))


@row("time", "files of one hour of the day each, put together", "read: their steps are regular")
def test_interleaved_hours_are_one_record(tmp_path):
    for index, hour in enumerate((0, 6, 12, 18)):
        source = stamped(np.arange(10) + hour / 24, seed=index)
        write(tmp_path, source, f"{hour:02d}.nc")
    fields, _ = open_source(str(tmp_path / "*.nc"), ["ta"])
    assert set(np.diff(fields.time.values)) == {np.timedelta64(6, "h")}


@row(
    "time",
    "variables of two records, months on the 1st and months in their middle (ERSST, HadISST)",
    'refused; `[source] stamps = "month"` makes them the same months',
)
def test_two_records_that_stamp_their_months_otherwise(tmp_path):
    start, stop = months("2000-01", 24)
    write(tmp_path, stamped(start), "a.nc")
    write(tmp_path, stamped((start + stop) / 2).rename(ta="tb"), "b.nc")
    paths = str(tmp_path / "*.nc")
    refused(r'\[source\] stamps = "month"', paths, ["ta", "tb"])
    fields, _ = open_source(paths, ["ta", "tb"], stamps="month")
    assert fields.sizes["time"] == 24
    assert days_of(fields)[1] == "2000-02-15"


def test_days_at_noon_and_at_midnight_are_the_same_days(tmp_path):
    write(tmp_path, stamped(np.arange(6.0)), "a.nc")
    write(tmp_path, stamped(np.arange(6) + 0.5).rename(ta="tb"), "b.nc")
    paths = str(tmp_path / "*.nc")
    refused(r'\[source\] stamps = "day"', paths, ["ta", "tb"])
    fields, _ = open_source(paths, ["ta", "tb"], stamps="day")
    np.testing.assert_array_equal(fields.time, days() + np.timedelta64(12, "h"))


@row("time", 'days under `stamps = "month"`', "refused: a month has one time")
def test_a_month_that_has_many_times_is_refused(tmp_path):
    path = write(tmp_path, stamped(np.arange(40.0)))
    refused(r"source.stamps.*a.nc has 2000-01-01 and 2000-01-02 in one month", path, stamps="month")


@row(
    "time",
    "means of days and instants at their end in two variables",
    'refused; `[source] stamps = "day-end"` makes them the same days',
)
def test_means_and_instants_at_the_end_of_the_same_days(tmp_path):
    write(tmp_path, stamped(*ends(0, 6)), "a.nc")
    instants = stamped(np.arange(1.0, 7), cell_methods="time: point").rename(ta="tb")
    write(tmp_path, instants, "b.nc")
    paths = str(tmp_path / "*.nc")
    refused(r'\[source\] stamps = "day-end"', paths, ["ta", "tb"])
    fields, _ = open_source(paths, ["ta", "tb"], stamps="day-end")
    np.testing.assert_array_equal(fields.time, days() + np.timedelta64(12, "h"))


def test_what_stamps_are_is_said_of_means_alone(tmp_path):
    """The instant that CESM writes first is of no day."""
    stop, bounds = ends(0, 5)
    write(tmp_path, stamped(np.r_[0.0, stop], np.r_[[[0.0, 0.0]], bounds]), "a.nc")
    write(tmp_path, stamped(np.arange(6.0, 12), seed=1), "b.nc")
    fields, _ = open_source(str(tmp_path / "*.nc"), ["ta"], stamps="day-end")
    np.testing.assert_array_equal(fields.time, days(11) + np.timedelta64(12, "h"))


def test_two_stamps_of_one_file_that_are_too_near_are_dropped_not_renamed(tmp_path):
    path = write(tmp_path, stamped([0, 1, 2, 2.01, 3, 4, 5]))
    text = refused("2000-01-03 .a.nc. and 2000-01-03T00:14:24 .a.nc. are 864 seconds apart", path)
    assert text.endswith('[source] drop = ["2000-01-03T00:14:24"]')
    fields, _ = open_source(path, ["ta"], drop=["2000-01-03T00:14:24"])
    assert days_of(fields) == [f"2000-01-0{day}" for day in range(1, 7)]
