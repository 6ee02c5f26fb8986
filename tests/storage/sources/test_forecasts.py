"""Forecasts: a field belongs to the time that it is valid at, start and lead together."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from storage.sources.sources import open_source
from tests.storage.imitations import days, opened, refused, regular, row, write

HOURS = {"units": "hours"}


def cube(
    time: str = "time",
    lead: str = "lead_time",
    leads: object = (0, 6, 12, 18),
    attrs: dict[str, str] | None = None,
    calendar: str | None = None,
    **of_time: str,
) -> xr.Dataset:
    """Three daily starts with four leads, and `truth` in a row."""
    truth = regular(12)
    source = xr.Dataset(
        {"ta": ((time, lead, "lat", "lon"), truth.ta.values.reshape(3, 4, 4, 8), truth.ta.attrs)},
        coords={name: truth[name] for name in ("lat", "lon")},
    )
    kept = {"units": "days since 2000-01-01"} | ({"calendar": calendar} if calendar else {})
    source[time] = (time, np.arange(3.0), kept | of_time)
    source[lead] = (lead, np.asarray(leads), HOURS if attrs is None else attrs)
    return source


@row(
    "time",
    "forecasts by start and lead, `(time, lead_time)` or `(init_time, prediction_timedelta)`, "
    "one lead selected",
    "labelled when they are valid: start + lead, in the unit of the lead",
)
@pytest.mark.parametrize(
    ("names", "leads", "attrs", "six"),
    [
        (("time", "lead_time"), (0, 6, 12, 18), {"units": "hours"}, 6),
        (("time", "leadtime"), (0, 0.25, 0.5, 0.75), {"units": "days"}, 0.25),
        (("init_time", "prediction_timedelta"), (0, 6, 12, 18), {"units": "h"}, 6),
        (("forecast_reference_time", "step"), (0, 360, 720, 1080), {"units": "minutes"}, 360),
        (("initial_time", "fhour"), (0, 6, 12, 18), {"units": "hr"}, 6),
        (
            ("time", "prediction_timedelta"),
            np.arange(4) * 21_600_000_000_000,
            {"units": "nanoseconds"},
            21_600_000_000_000,
        ),
        (
            ("time", "tau"),
            (0, 6, 12, 18),
            {"units": "hours", "standard_name": "forecast_period"},
            6,
        ),
    ],
)
@pytest.mark.parametrize("calendar", ["standard", "360_day"])
def test_a_selected_lead_is_part_of_the_time(tmp_path, names, leads, attrs, six, calendar):
    source = cube(*names, leads=leads, attrs=attrs, calendar=calendar)
    fields, report = opened(tmp_path, source, select={names[1]: six})
    assert [str(t).replace("T", " ")[:13] for t in fields.time.values] == [
        f"2000-01-0{day} 06" for day in (1, 2, 3)
    ]
    np.testing.assert_array_equal(fields.ta, source.ta[:, 1])
    assert any("when the forecast is valid" in note for note in report.notes)


@row("time", "all leads of forecasts that do not overlap", "put in one row")
def test_all_leads_are_put_in_a_row(tmp_path):
    fields, _ = opened(tmp_path, cube())
    np.testing.assert_array_equal(fields.time, days(12, step=np.timedelta64(6, "h")))
    np.testing.assert_array_equal(fields.ta, regular(12).ta)


@row("time", "forecasts that overlap", "refused; `select` chooses one lead, as the message says")
def test_leads_that_overlap_are_refused_with_a_selection(tmp_path):
    path = write(tmp_path, cube(leads=(0, 24, 48, 72)))
    refused(r"occurs twice.*select = \{ lead_time = 0 \}", path)
    fields, _ = open_source(path, ["ta"], select={"lead_time": 24})
    np.testing.assert_array_equal(fields.time, days(3, "2000-01-02"))


@row("time", "a reference time without valid times, a lead", "start + lead")
def test_a_reference_time_is_a_start(tmp_path):
    source = cube("time", "step", standard_name="forecast_reference_time")
    fields, _ = opened(tmp_path, source, select={"step": 18})
    assert str(fields.time.values[0])[:13] == "2000-01-01T18"


def test_a_single_lead_that_is_a_scalar_is_part_of_the_time(tmp_path):
    source = cube().isel(lead_time=2)
    fields, _ = opened(tmp_path, source)
    assert str(fields.time.values[0])[:13] == "2000-01-01T12"
    fields, _ = opened(tmp_path, cube().isel(time=1))
    np.testing.assert_array_equal(fields.time, days(4, "2000-01-02", np.timedelta64(6, "h")))


@row("time", "a lead beside valid times (`time` with `forecast_reference_time`)", "not added again")
def test_valid_times_are_left_as_they_are(tmp_path):
    source = regular(6)
    period = {"standard_name": "forecast_period", "units": "hours"}
    start = {"standard_name": "forecast_reference_time", "units": "hours since 1999-12-31"}
    source = source.assign_coords(
        forecast_period=((), 24.0, period), forecast_reference_time=((), 0.0, start)
    )
    fields, _ = opened(tmp_path, source)
    np.testing.assert_array_equal(fields.time, days())
    along = source.drop_vars("forecast_reference_time")
    along["forecast_period"] = ("time", np.arange(6.0) * 24, period)
    fields, _ = opened(tmp_path, along)
    np.testing.assert_array_equal(fields.time, days())
    named = cube("valid_time", "lead_time")
    fields, _ = opened(tmp_path, named, select={"lead_time": 6})
    np.testing.assert_array_equal(fields.time, days(3))


@row("time", "months of lead", "whole months after the start; C3S' `forecastMonth` counts from 1")
def test_leads_in_months_are_months(tmp_path):
    source = cube(leads=(0, 1, 2, 3), attrs={"units": "months"})
    fields, _ = opened(tmp_path, source.isel(time=[0]), select={"lead_time": 2})
    assert str(fields.time.values[0])[:10] == "2000-03-01"
    source = cube("time", "forecastMonth", leads=(1, 2, 3, 4), attrs={})
    fields, _ = opened(tmp_path, source.isel(time=[0]), select={"forecastMonth": 1})
    assert str(fields.time.values[0])[:10] == "2000-01-01"


@row(
    "time",
    "a lead without a unit, or without values",
    'refused; `units = { lead = "hours" }` says it, `dims = { lead = "" }` that it is none',
)
def test_a_lead_without_a_unit_is_asked_for(tmp_path):
    path = write(tmp_path, cube(attrs={}))
    refused(r'\[source\] units = \{ lead = "hours" \}', path, select={"lead_time": 6})
    fields, _ = open_source(path, ["ta"], select={"lead_time": 6}, units={"lead": "hours"})
    assert str(fields.time.values[0])[:13] == "2000-01-01T06"
    fields, _ = open_source(path, ["ta"], select={"lead_time": 6}, dims={"lead": ""})
    assert str(fields.time.values[0])[:13] == "2000-01-01T00"
    path = write(tmp_path, cube().drop_vars("lead_time"))
    refused(r'dims = \{ lead = "" \}', path, select={"lead_time": 1})


@row(
    "time",
    "a lead under a name that nobody knows",
    'the message about it says `dims = { lead = "..." }`',
)
def test_a_lead_of_an_unknown_name_is_declared(tmp_path):
    path = write(tmp_path, cube(lead="tau"))
    refused(r'if it is the lead of a forecast.*dims = \{ lead = "tau" \}', path)
    fields, _ = open_source(path, ["ta"], dims={"lead": "tau"}, select={"tau": 6})
    assert str(fields.time.values[0])[:13] == "2000-01-01T06"


def analysis_and_forecast(
    tmp_path, lead: str, of_time: dict[str, str], count: int = 6
) -> list[str]:
    """Two files of the same valid days: the analysis, and the forecast of two days before."""
    paths = []
    for name, hours, first in (("analysis", 0.0, "2000-01-03"), ("forecast", 48.0, "2000-01-01")):
        source = regular(count).assign_coords(time=days(count, first))
        source["time"].attrs = of_time
        source["ta"] = source.ta + hours
        source.ta.attrs = regular(count).ta.attrs
        source = source.assign_coords({lead: ((), hours, HOURS)})
        paths.append(write(tmp_path, source, f"{name}.nc"))
    return paths


@row(
    "time",
    "an analysis and a forecast of 48 hours for the same days, in two files or in one",
    "refused; `select` chooses one lead, as the message says, and `init` writes it",
)
@pytest.mark.parametrize("lead", ["forecast_period", "step"])
def test_an_analysis_beside_a_forecast_is_selected_by_its_lead(tmp_path, lead):
    paths = analysis_and_forecast(tmp_path, lead, {"standard_name": "forecast_reference_time"})
    said = rf"occurs twice.*[source] select = {{ {lead} = 48 }}".replace("[", r"\[")
    refused(said.replace("48", "(0|48)"), paths)
    for hours, added in ((0, 0.0), (48, 48.0)):
        fields, _ = open_source(paths, ["ta"], select={lead: hours})
        np.testing.assert_array_equal(fields.time, days(6, "2000-01-03"))
        np.testing.assert_allclose(fields.ta, regular(6).ta + added, rtol=1e-6)


def test_two_files_of_one_lead_are_no_choice_of_leads(tmp_path):
    one, other = regular(6), regular(6)
    other["ta"] = other.ta + 1
    other.ta.attrs = one.ta.attrs
    paths = [
        write(tmp_path, each.assign_coords(step=((), 6.0, HOURS)), f"{number}.nc")
        for number, each in enumerate((one, other))
    ]
    refused(r"occurs twice.*remove one of them.*samples", paths)
