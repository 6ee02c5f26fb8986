"""Input is opened as it is, put right with a note, or refused with the remedy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from storage.sources import SourceError, missing_values, open_source, source_digest


def dataset(days: int = 6, start: str = "2000-01-01", lat=None, lon=None) -> xr.Dataset:
    lat = np.array([-67.5, -22.5, 22.5, 67.5]) if lat is None else np.asarray(lat)
    lon = np.arange(8) * 45.0 if lon is None else np.asarray(lon)
    time = np.datetime64(start, "ns") + np.arange(days) * np.timedelta64(1, "D")
    values = 280 + np.random.default_rng(0).normal(size=(days, len(lat), len(lon)))
    attrs = {"units": "K", "standard_name": "air_temperature"}
    return xr.Dataset(
        {"ta": (("time", "lat", "lon"), values.astype(np.float32), attrs)},
        coords={
            "time": ("time", time, {"standard_name": "time"}),
            "lat": ("lat", lat, {"units": "degrees_north"}),
            "lon": ("lon", lon, {"units": "degrees_east"}),
        },
    )


def write(tmp_path: Path, source: xr.Dataset, name: str = "a.nc", **options) -> str:
    path = tmp_path / name
    path.unlink(missing_ok=True)
    source.to_netcdf(path, **options)
    return str(path)


def opened(tmp_path: Path, source: xr.Dataset, **options):
    return open_source(write(tmp_path, source), ["ta"], **options)


def refused(tmp_path: Path, source: xr.Dataset, match: str, **options) -> None:
    with pytest.raises(SourceError, match=match) as caught:
        opened(tmp_path, source, **options)
    assert caught.value.exit_code == 10


def test_a_good_file_is_opened_lazily_as_it_is(tmp_path):
    source = dataset()
    fields, report = opened(tmp_path, source)
    assert fields.ta.chunks is not None
    assert fields.ta.dtype == np.float32
    xr.testing.assert_equal(fields, source)
    assert (report.notes, report.gaps, dict(report.missing)) == ((), (), {})


def test_packed_integers_become_float32(tmp_path):
    packing = {
        "ta": {"dtype": "int16", "_FillValue": -32768, "scale_factor": 0.01, "add_offset": 280.0}
    }
    fields, _ = open_source(write(tmp_path, dataset(), encoding=packing), ["ta"])
    assert fields.ta.dtype == np.float32
    np.testing.assert_allclose(fields.ta, dataset().ta, atol=0.0051)
    assert "scale_factor" not in fields.ta.encoding


def test_coordinates_are_found_by_attributes_names_and_axes(tmp_path):
    source = dataset().rename(lat="Breite", lon="longitude", time="T")
    source.longitude.attrs.clear()
    fields, _ = opened(tmp_path, source)
    assert fields.ta.dims == ("time", "lat", "lon")


def test_dims_are_put_in_order_and_single_levels_dropped_with_notes(tmp_path):
    source = dataset().transpose("lon", "lat", "time").expand_dims(plev=[85000.0])
    fields, report = opened(tmp_path, source)
    xr.testing.assert_equal(fields.ta, dataset().ta)
    assert any("plev" in note for note in report.notes)
    assert any("put in the order" in note for note in report.notes)


def test_bounds_and_static_maps_come_along(tmp_path):
    source = dataset()
    half = np.timedelta64(12, "h")
    source["time_bnds"] = (
        ("time", "nv"),
        np.stack([source.time.values - half, source.time.values + half], axis=1),
    )
    source.time.attrs["bounds"] = "time_bnds"
    source.time.encoding["units"] = "hours since 2000-01-01"
    source["orog"] = source.ta[0].drop_vars("time").assign_attrs(units="m", standard_name="x")
    fields, _ = opened(tmp_path, source, static=["orog"])
    assert set(fields.data_vars) == {"ta", "orog"}
    assert fields.orog.dims == ("lat", "lon")
    assert fields.time_bnds.dims == ("time", "bnds")
    np.testing.assert_array_equal(fields.time_bnds, source.time_bnds)


def test_descending_latitudes_and_negative_longitudes_are_kept_and_noted(tmp_path):
    source = dataset(lat=[67.5, 22.5, -22.5, -67.5], lon=np.arange(8) * 45.0 - 180)
    fields, report = opened(tmp_path, source)
    xr.testing.assert_equal(fields, source)
    assert "latitudes descend, kept" in report.notes
    assert "longitudes start at -180, kept" in report.notes


def test_a_repeated_meridian_is_dropped_and_noted(tmp_path):
    fields, report = opened(tmp_path, dataset(lon=np.arange(9) * 45.0))
    assert fields.sizes["lon"] == 8
    assert "longitude 360 repeats 0, dropped" in report.notes


@pytest.mark.parametrize(
    ("grid", "match"),
    [
        ({"lon": np.arange(8) * 10.0}, "regional"),
        ({"lat": [10.0, 20.0, 30.0]}, "regional"),
        ({"lon": [0, 45, 90, 135, 180, 225, 270, 300.0]}, "not equally spaced"),
        ({"lat": [-60.0, 20.0, 10.0, 60.0]}, "not strictly"),
        ({"lat": [-100.0, 0.0, 100.0]}, "not in degrees"),
    ],
)
def test_grids_that_do_not_cover_the_sphere_are_refused(tmp_path, grid, match):
    refused(tmp_path, dataset(**grid), match)


def test_curvilinear_and_unstructured_grids_are_refused(tmp_path):
    curved = dataset().rename(lat="y", lon="x").drop_vars(["y", "x"])
    curved["nav_lat"] = (("y", "x"), np.zeros((4, 8)), {"standard_name": "latitude"})
    curved["nav_lon"] = (("y", "x"), np.zeros((4, 8)), {"standard_name": "longitude"})
    refused(tmp_path, curved, "curvilinear")
    points = dataset().stack(cell=("lat", "lon")).reset_index("cell")
    refused(tmp_path, points, "unstructured")


def test_times_of_many_files_are_joined_and_sorted(tmp_path):
    write(tmp_path, dataset(3, "2000-01-04"), "a.nc")
    write(tmp_path, dataset(3, "2000-01-01"), "b.nc")
    fields, report = open_source(str(tmp_path / "*.nc"), ["ta"])
    assert fields.time.values[0] == np.datetime64("2000-01-01")
    assert fields.indexes["time"].is_monotonic_increasing
    assert "times were not in order, sorted" in report.notes
    assert len(report.files) == 2


def test_equal_duplicates_are_dropped_and_noted(tmp_path):
    source = dataset()
    fields, report = opened(tmp_path, source.isel(time=[0, 1, 2, 2, 3, 4, 5, 0]))
    xr.testing.assert_equal(fields, source)
    assert any("2 repeated times" in note for note in report.notes)


def test_unequal_duplicates_are_refused(tmp_path):
    source = dataset().isel(time=[0, 1, 2, 2, 3])
    source.ta[3, 0, 0] += 1
    refused(tmp_path, source, "2000-01-03.* occurs twice with different values of ta")


def test_gaps_are_listed_and_refused_unless_allowed(tmp_path):
    source = dataset(10).isel(time=[0, 1, 2, 3, 6, 7, 8, 9])
    refused(tmp_path, source, "1 gaps in time: 2000-01-04 to 2000-01-07; .*allow_gaps = true")
    _, report = opened(tmp_path, source, allow_gaps=True)
    assert report.gaps == ("2000-01-04 to 2000-01-07",)


def test_months_of_different_length_are_no_gaps(tmp_path):
    source = dataset(24)
    source["time"] = xr.date_range("2000-01-01", periods=24, freq="MS")
    _, report = opened(tmp_path, source)
    assert report.gaps == ()


@pytest.mark.parametrize("calendar", ["360_day", "noleap"])
def test_other_calendars_are_kept(tmp_path, calendar):
    source = dataset()
    source["time"] = xr.date_range(
        "2000-02-26", periods=6, freq="D", calendar=calendar, use_cftime=True
    )
    fields, report = opened(tmp_path, source)
    assert fields.time.dt.calendar == calendar
    assert report.gaps == ()


def test_months_since_are_refused_with_the_remedy(tmp_path):
    source = dataset()
    source["time"] = ("time", np.arange(6), {"units": "months since 2000-01-01"})
    refused(tmp_path, source, "no fixed length; convert it first")


def test_undecodable_times_are_refused_with_the_remedy(tmp_path):
    source = dataset()
    source["time"] = ("time", np.arange(6), {"units": "days since the flood"})
    refused(tmp_path, source, "cannot be decoded.*set units and calendar")


def test_missing_and_wrong_units_are_declared_in_the_config(tmp_path):
    source = dataset()
    del source.ta.attrs["units"]
    refused(tmp_path, source, r'no units; .*units = \{ ta = "..." \}')
    fields, report = opened(tmp_path, source, units={"ta": "K"})
    assert fields.ta.attrs["units"] == "K"
    assert any("declared to be 'K'" in note for note in report.notes)


def test_units_that_change_between_files_are_converted_or_refused(tmp_path):
    write(tmp_path, dataset(3), "a.nc")
    later = dataset(3, "2000-01-04")
    celsius = later.copy(deep=True)
    celsius["ta"] = (later.ta - 273.15).assign_attrs(later.ta.attrs, units="degC")
    write(tmp_path, celsius, "b.nc")
    fields, report = open_source(str(tmp_path / "*.nc"), ["ta"])
    np.testing.assert_allclose(fields.ta[3:], later.ta, atol=1e-4)
    assert "b.nc: ta converted from degC to K" in report.notes
    celsius.ta.attrs["units"] = "furlong"
    write(tmp_path, celsius, "b.nc")
    with pytest.raises(SourceError, match=r"b\.nc: ta is in 'furlong'.*a value there is"):
        open_source(str(tmp_path / "*.nc"), ["ta"])


def test_each_file_is_unpacked_with_its_own_scale(tmp_path):
    for index, (scale, start) in enumerate([(0.01, "2000-01-01"), (0.02, "2000-01-04")]):
        packing = {
            "ta": {
                "dtype": "int16",
                "_FillValue": -32768,
                "scale_factor": scale,
                "add_offset": 280.0,
            }
        }
        write(tmp_path, dataset(3, start), f"{index}.nc", encoding=packing)
    fields, _ = open_source(str(tmp_path / "*.nc"), ["ta"])
    np.testing.assert_allclose(fields.ta[3:], dataset(3).ta, atol=0.0101)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e20, "1e+20"), (9.969209968386869e36, "9.96921e+36"), (-999.0, "-999.0"), (9e3, "9000.0")],
)
def test_undeclared_fills_are_refused_with_value_count_and_remedy(tmp_path, value, text):
    source = dataset()
    source.ta[:2, 0, 0] = value
    with pytest.raises(SourceError) as caught:
        opened(tmp_path, source)
    assert f"ta: {text}" in str(caught.value)
    assert "2 times" in str(caught.value)
    assert f"[source] missing = {{ ta = {text} }}" in str(caught.value)
    fields, report = opened(tmp_path, source, missing={"ta": float(text)})
    assert np.isnan(fields.ta[:2, 0, 0]).all()
    assert report.missing["ta"].count == 2
    assert not report.missing["ta"].static


def test_an_unnamed_quantity_is_judged_by_the_declared_range(tmp_path):
    source = dataset()
    del source.ta.attrs["standard_name"]
    opened(tmp_path, source)
    refused(tmp_path, source, "out of range", valid_range={"ta": (0.0, 100.0)})


def test_a_declared_value_among_the_others_masks_only_cells_that_always_have_it(tmp_path):
    source = dataset() - 280
    source.ta.attrs = {"units": "K"}
    source.ta[:, 1, 2:5] = 0
    source.ta[3, 0, 0] = 0
    fields, report = opened(tmp_path, source, missing={"ta": 0.0})
    assert np.isnan(fields.ta[:, 1, 2:5]).all()
    assert fields.ta[3, 0, 0] == 0
    assert report.missing["ta"].count == 18
    assert report.missing["ta"].static
    assert any("1 single values of 0 elsewhere are kept" in note for note in report.notes)


def test_a_declared_value_that_never_occurs_is_refused(tmp_path):
    refused(tmp_path, dataset(), "never occurs", missing={"ta": -1.0})


def test_missing_values_are_reported_with_their_mask(tmp_path):
    source = dataset()
    source.ta[:, 0, :2] = np.nan
    fields, report = opened(tmp_path, source)
    assert report.missing["ta"].static
    assert report.missing["ta"].fraction == pytest.approx(2 / 32)
    assert missing_values(fields, ["ta"]) == dict(report.missing)
    source.ta[0, 1, 1] = np.nan
    _, report = opened(tmp_path, source)
    assert not report.missing["ta"].static


@pytest.mark.parametrize("format", ["NETCDF4", "NETCDF3_64BIT"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7])
def test_a_truncated_file_is_named(tmp_path, format, keep):
    path = Path(write(tmp_path, dataset(200), format=format))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(SourceError, match=r"a\.nc.*truncated or corrupt"):
        open_source(str(path), ["ta"])


def test_a_corrupt_chunk_is_found_and_its_file_named(tmp_path):
    packing = {"ta": {"zlib": True, "chunksizes": (500, 4, 8)}}
    good = write(tmp_path, dataset(1000), "a.nc", encoding=packing)
    bad = Path(write(tmp_path, dataset(1000, "2002-09-27"), "b.nc", encoding=packing))
    content = bytearray(bad.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    bad.write_bytes(content)
    with pytest.raises(SourceError, match=r"b\.nc"):
        open_source([good, str(bad)], ["ta"])


def test_paths_and_names_that_do_not_exist_or_escape_are_refused(tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        open_source(str(tmp_path / "none.nc"), ["ta"])
    with pytest.raises(SourceError, match="local files"):
        open_source("http://example.org/a.nc", ["ta"])
    path = write(tmp_path, dataset())
    with pytest.raises(SourceError, match="no variable 'tas'; there are ta"):
        open_source(path, ["tas"])
    with pytest.raises(SourceError, match="characters"):
        open_source(path, ["../ta"])


def test_the_source_digest_follows_contents_and_not_names(tmp_path):
    one = write(tmp_path, dataset(), "a.nc")
    reference = source_digest(one)
    Path(one).rename(tmp_path / "b.nc")
    assert source_digest([str(tmp_path / "b.nc")]) == reference
    assert source_digest(write(tmp_path, dataset(5), "c.nc")) != reference
