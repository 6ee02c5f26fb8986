"""Stored numbers: whatever their type and packing, what comes out is float32 and true."""

from __future__ import annotations

import netCDF4
import numpy as np
import pytest

from storage.sources.sources import open_source
from tests.storage.imitations import opened, refused, regular, row, write


def packed(**encoding: object) -> dict[str, dict[str, object]]:
    return {"ta": {"_FillValue": -32768, "dtype": "int16", **encoding}}


@row("value", "packed integers (`scale_factor`, `add_offset`)", "unpacked to float32")
def test_packed_integers_become_float32(tmp_path):
    encoding = packed(scale_factor=0.01, add_offset=280.0)
    fields, _ = open_source(write(tmp_path, regular(), encoding=encoding), ["ta"])
    assert fields.ta.dtype == np.float32
    np.testing.assert_allclose(fields.ta, regular().ta, atol=0.0051)
    assert "scale_factor" not in fields.ta.encoding


@row("value", "packing that differs between files", "each unpacked by its own")
def test_each_file_is_unpacked_with_its_own_scale(tmp_path):
    write(tmp_path, regular(3), "0.nc", encoding=packed(scale_factor=0.01, add_offset=280.0))
    other = packed(scale_factor=0.02, add_offset=270.0, _FillValue=32767)
    write(tmp_path, regular(3, "2000-01-04", seed=1), "1.nc", encoding=other)
    fields, _ = open_source(str(tmp_path / "*.nc"), ["ta"])
    np.testing.assert_allclose(fields.ta[3:], regular(3, seed=1).ta, atol=0.0101)


@row("value", "unsigned packing (`_Unsigned`, or unsigned types)", "unpacked")
@pytest.mark.parametrize("signed", [True, False])
def test_unsigned_integers_are_unpacked(tmp_path, signed):
    path = tmp_path / "a.nc"
    regular().drop_vars("ta").to_netcdf(path)
    with netCDF4.Dataset(path, "a") as file:
        file.set_auto_maskandscale(False)
        kind = "i1" if signed else "u1"
        fill = np.array(255, "u1").view(kind)
        variable = file.createVariable("ta", kind, ("time", "lat", "lon"), fill_value=fill)
        variable.set_auto_maskandscale(False)
        variable.setncatts({"units": "K", "scale_factor": 1.0, "add_offset": 100.0})
        if signed:
            variable.setncattr("_Unsigned", "true")
        variable[:] = np.full((6, 4, 8), 200, "u1").view(kind)
        variable[:, 0, 0] = fill
    fields, report = open_source(str(path), ["ta"])
    assert float(fields.ta[0, 1, 1]) == 300.0
    assert report.missing["ta"].count == 6


@row(
    "value",
    "`_FillValue` and `missing_value` both, or different ones in different files",
    "both are missing",
)
def test_both_fill_values_are_missing(tmp_path):
    for index in range(2):
        source = regular(3, f"2000-01-0{1 + 3 * index}")
        source.ta[:, 0, :2] = np.nan
        fill = np.float32(1e20 if index else -5e8)
        encoding = {"ta": {"_FillValue": fill, "missing_value": fill}}
        write(tmp_path, source, f"{index}.nc", encoding=encoding)
    fields, report = open_source(str(tmp_path / "?.nc"), ["ta"])
    assert np.isnan(fields.ta[:, 0, :2]).all()
    assert report.missing["ta"].count == 12
    assert report.missing["ta"].static


def test_a_file_may_have_two_fill_values(tmp_path):
    path = tmp_path / "a.nc"
    source = regular()
    source.ta[:, 0, 0], source.ta[:, 0, 1] = -999.0, 1e20
    source.to_netcdf(path, encoding={"ta": {"_FillValue": np.float32(1e20)}})
    with netCDF4.Dataset(path, "a") as file:
        file["ta"].setncattr("missing_value", np.float32(-999.0))
    fields, report = open_source(str(path), ["ta"])
    assert np.isnan(fields.ta[:, 0, :2]).all()
    assert report.missing["ta"].count == 12


@row("value", "big-endian numbers, float64, whole numbers", "float32 of this machine")
@pytest.mark.parametrize("kind", [">f4", ">f8", ">i2", "i8"])
def test_every_type_becomes_float32(tmp_path, kind):
    source = regular()
    path = tmp_path / "a.nc"
    source.drop_vars("ta").to_netcdf(path)
    numbers = np.round(source.ta.values)
    with netCDF4.Dataset(path, "a") as file:
        endian = "big" if kind.startswith(">") else "native"
        variable = file.createVariable(
            "ta", kind.lstrip(">"), ("time", "lat", "lon"), endian=endian
        )
        variable.setncatts({"units": "K"})
        variable[:] = numbers
    fields, _ = open_source(str(path), ["ta"])
    assert fields.ta.dtype == np.dtype("float32")
    np.testing.assert_array_equal(fields.ta, numbers)


@row("value", "text instead of numbers", "refused")
def test_text_is_refused(tmp_path):
    source = regular()
    source["ta"] = source.ta.astype(str).assign_attrs(units="K")
    refused("ta has type .*; fields are numbers", write(tmp_path, source))


@row(
    "value",
    "undeclared fills on HEALPix or in a level",
    "refused with the line to write, the name in quotes",
)
def test_names_with_levels_are_quoted_in_remedies(tmp_path):
    source = regular().expand_dims(plev=[850.0]).copy(deep=True)
    source["plev"].attrs["units"] = "hPa"
    source.ta[:, 0, 0, 0] = -999.0
    path = write(tmp_path, source)
    assert '[source] missing = { "ta@850" = -999.0 }' in refused("fill value", path, ["ta@850"])
    assert opened(tmp_path, source, "ta@850", missing={"ta@850": -999.0})[1].missing


@row(
    "value",
    "values beyond `valid_range`, `valid_min` or `valid_max`, packed or not",
    "missing, noted; `[source] valid_range` takes the attribute's place",
)
@pytest.mark.parametrize(
    "attrs",
    [{"valid_max": 330.0}, {"valid_range": [200.0, 330.0]}, {"valid_min": 200, "valid_max": 330}],
)
def test_values_beyond_the_valid_range_of_a_file_are_missing(tmp_path, attrs):
    source = regular()
    source.ta.values[2, 1, 3] = 350.0
    source.ta.attrs |= attrs
    path = write(tmp_path, source)
    fields, report = open_source(path, ["ta"])
    assert np.isnan(fields.ta[2, 1, 3]) and report.missing["ta"].count == 1
    assert any("missing, as the file's valid range says" in note for note in report.notes)
    assert not {"valid_max", "valid_min", "valid_range"} & set(fields.ta.attrs)
    fields, report = open_source(path, ["ta"], valid_range={"ta": (200.0, 360.0)})
    assert fields.ta[2, 1, 3] == 350.0 and not report.missing
    refused("350.0 is out of range", path, valid_range={"ta": (200.0, 340.0)})
    fields, report = open_source(path, ["ta"], missing={"ta": 350.0})
    assert report.missing["ta"].count == 1, "a declaration of before still finds its value"


@pytest.mark.parametrize(
    ("kind", "valid", "expected"),
    [
        ("i2", np.array([-1000, 1000], "i2"), 1),  # of the packed numbers
        ("i2", np.array([270.0, 290.0], "f4"), 1),  # of the unpacked ones
        ("u1", np.array([0, 200], "u1"), 1),
        ("i1", np.array([0, -56], "i1"), 1),  # unsigned, said as signed: up to 200
        ("i2", np.array([-2000, 2000], "i2"), 0),
    ],
)
def test_valid_ranges_are_of_packed_or_unpacked_numbers_by_their_type(
    tmp_path, kind, valid, expected
):
    path = tmp_path / "a.nc"
    regular().drop_vars("ta").to_netcdf(path)
    numbers = {"i2": 1100, "u1": 210, "i1": 210}[kind]
    with netCDF4.Dataset(path, "a") as file:
        file.set_auto_maskandscale(False)
        variable = file.createVariable("ta", kind, ("time", "lat", "lon"))
        variable.set_auto_maskandscale(False)
        offset = 280.0 if kind == "i2" else 200.0
        variable.setncatts({"units": "K", "scale_factor": 0.01 if kind == "i2" else 0.5,
                            "add_offset": offset, "valid_range": valid})  # fmt: skip
        if kind == "i1":
            variable.setncattr("_Unsigned", "true")
        variable[:] = np.full((6, 4, 8), 100, kind)
        variable[3, 2, 1] = np.array(numbers, "i8").astype(kind)
    _, report = open_source(str(path), ["ta"])
    assert sum(one.count for one in report.missing.values()) == expected


def test_values_at_the_bounds_are_valid(tmp_path):
    source = regular()
    source.ta.values[0, 0, :2] = 330.0, 200.1
    source.ta.attrs |= {"valid_max": np.float64(330.0), "valid_min": np.float64(200.1)}
    assert not opened(tmp_path, source)[1].missing


@pytest.mark.parametrize("valid", ["200, 330", [1.0, 2.0, 3.0], [330.0, 200.0], []])
def test_a_valid_range_that_is_none_is_passed_over(tmp_path, valid):
    source = regular()
    source.ta.attrs["valid_range"] = valid
    assert not opened(tmp_path, source)[1].missing
