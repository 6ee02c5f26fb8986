"""Ensembles carry the labels that readers of CF expect."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from storage.conventions import labels
from storage.conventions.attributes import frequency_of


@pytest.fixture
def source() -> xr.Dataset:
    time = np.datetime64("2000-01-01T12:00", "ns") + np.arange(3) * np.timedelta64(1, "D")
    half = np.timedelta64(12, "h")
    attrs = {"units": "K", "standard_name": "air_temperature", "cell_methods": "time: mean"}
    return xr.Dataset(
        {"ta": (("time", "lat", "lon"), np.zeros((3, 4, 8), dtype=np.float32), attrs)},
        coords={
            "time": ("time", time, {"bounds": "time_bnds"}),
            "time_bnds": (("time", "bnds"), np.stack([time - half, time + half], axis=1)),
            "lat": np.linspace(75.0, -75.0, 4),
            "lon": np.arange(8) * 45.0,
        },
        attrs={"title": "a simulation", "license": "CC0-1.0"},
    )


@pytest.fixture
def ensemble(source) -> xr.Dataset:
    drawn = source[["ta"]].drop_vars("time_bnds", errors="ignore").isel(time=[0, 2])
    drawn["ta"].attrs = {}
    many = drawn.expand_dims(realization=4).transpose("time", ...)
    return labels.label_ensemble(many, source, realizations=range(4), attrs={"seed": 3})


def test_realization_is_the_first_dimension_and_a_cf_coordinate(ensemble):
    assert ensemble.ta.dims == ("realization", "time", "lat", "lon")
    assert ensemble.realization.dtype.kind == "i"
    assert ensemble.realization.attrs["standard_name"] == "realization"
    assert ensemble.realization.attrs["units"] == "1"


def test_variables_take_their_attributes_from_the_source(ensemble, source):
    assert ensemble.ta.attrs == source.ta.attrs | {"coverage_content_type": "modelResult"}


def test_coordinates_say_what_they_are(ensemble):
    assert [ensemble[name].attrs["axis"] for name in ("time", "lat", "lon")] == ["T", "Y", "X"]
    assert ensemble.lat.attrs["units"] == "degrees_north"
    assert ensemble.lon.attrs["standard_name"] == "longitude"


def test_times_get_bounds_as_the_source_has_them(ensemble, source):
    assert ensemble.time.attrs["bounds"] == "time_bnds"
    np.testing.assert_array_equal(ensemble.time_bnds, source.time_bnds.isel(time=[0, 2]))


def test_root_attributes_follow_acdd(ensemble):
    assert ensemble.attrs["Conventions"] == "CF-1.13, ACDD-1.3"
    assert ensemble.attrs["time_coverage_start"] == "2000-01-01T12:00:00"
    assert ensemble.attrs["geospatial_lat_max"] == 75.0
    assert ensemble.attrs["license"] == "CC0-1.0"
    assert ensemble.attrs["seed"] == 3
    assert "a simulation" in ensemble.attrs["source"]


def test_well_labelled_datasets_are_valid(ensemble, source):
    assert labels.validate(ensemble, "ensemble") is ensemble
    assert labels.validate(source, "fields") is source


def test_faults_are_named(ensemble, source):
    with pytest.raises(labels.LabelError, match="ta has dims"):
        labels.validate(source.transpose("time", "lon", "lat", "bnds"), "fields")
    with pytest.raises(labels.LabelError, match="realization repeats 0"):
        labels.validate(ensemble.assign_coords(realization=[0, 0, 1, 2]), "ensemble")
    with pytest.raises(labels.LabelError, match="time is not in order"):
        labels.validate(source.isel(time=[2, 1, 0]), "fields")
    source.ta.attrs.pop("units")
    with pytest.raises(labels.LabelError, match="no units"):
        labels.validate(source, "fields")


@pytest.mark.parametrize(
    ("step", "name"),
    [
        ("30m", "30min"), ("1h", "1hr"), ("3h", "3hr"), ("6h", "6hr"), ("12h", "12hr"),
        ("1D", "day"), ("5D", "5day"), ("7D", "7day"), ("10D", "10day"), ("30D", "mon"),
        ("91D", "3mon"), ("365D", "yr"), ("3652D", "10yr"),
    ],
)  # fmt: skip
def test_an_interval_is_called_what_it_is(step, name):
    one = np.timedelta64(int(step[:-1]), step[-1])
    times = np.datetime64("2000-01-01", "ns") + np.arange(5) * one
    assert frequency_of(xr.DataArray(times, dims="time")) == name
