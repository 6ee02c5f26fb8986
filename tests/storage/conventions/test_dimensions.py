"""Names, order, levels, members and the like: every dimension is taken or said."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from storage.conventions.labels import once, validate
from storage.sources.sources import open_source
from tests.storage.imitations import (
    days,
    levelled,
    opened,
    refused,
    regular,
    row,
    values,
    write,
)


@row("dimension", "any names of dimensions with CF attributes", "found by them")
def test_names_do_not_matter_with_attributes(tmp_path):
    source = regular().rename(lat="Breite", lon="Laenge", time="Zeit")
    fields, _ = opened(tmp_path, source)
    np.testing.assert_array_equal(fields.ta, regular().ta)
    assert fields.ta.dims == ("time", "lat", "lon")


@row("dimension", "usual names without attributes", "found by name")
def test_usual_names_do_without_attributes(tmp_path):
    source = regular().rename(lat="latitude", lon="longitude")
    for name in ("latitude", "longitude", "time"):
        source[name].attrs.clear()
    fields, _ = opened(tmp_path, source)
    np.testing.assert_array_equal(fields.ta, regular().ta)


@row(
    "dimension", "names that say nothing, no attributes", "refused; `[source] dims = {...}` says it"
)
def test_dims_are_declared(tmp_path):
    source = regular().rename(lat="a", lon="b", time="c")
    source.a.attrs.clear()
    source.b.attrs.clear()
    source.c.attrs.clear()
    path = write(tmp_path, source)
    assert 'dims = { lat = "..." }' in refused("no lat coordinate", path)
    fields, _ = open_source(path, ["ta"], dims={"lat": "a", "lon": "b", "time": "c"})
    np.testing.assert_array_equal(fields.ta, regular().ta)
    refused("source.dims.lat is 'z', which is not there", path, dims={"lat": "z"})


@row("dimension", "any order of dimensions, time last", "put in order, noted; read in blocks")
def test_time_may_be_the_last_dimension(tmp_path):
    fields, report = opened(tmp_path, regular().transpose("lon", "lat", "time"))
    np.testing.assert_array_equal(fields.ta, regular().ta)
    assert any("put in the order" in note for note in report.notes)


@row("dimension", "`lat(y)`, `lon(x)`: coordinates that are not dimensions", "used")
def test_coordinates_along_other_dimensions_are_used(tmp_path):
    source = regular().rename(lat="y", lon="x").reset_index(["y", "x"])
    source = source.rename_vars(y="lat", x="lon")
    assert source.lat.dims == ("y",)
    fields, _ = opened(tmp_path, source)
    assert fields.ta.dims == ("time", "lat", "lon")
    np.testing.assert_array_equal(fields.lat, regular().lat)


@row("dimension", "two grids in one file (`lat`, `slat`)", "each variable with its own")
def test_staggered_coordinates_do_not_disturb(tmp_path):
    other = regular(lat=[-45.0, 0.0, 45.0]).rename(lat="slat", ta="us")
    fields, _ = opened(tmp_path, xr.merge([regular(), other], join="outer"))
    np.testing.assert_array_equal(fields.lat, regular().lat)


@row(
    "dimension", "bounds and other variables with the units of a coordinate", "not mistaken for it"
)
def test_bounds_with_units_are_no_coordinates(tmp_path):
    source = regular().rename(lat="y").reset_index("y").rename_vars(y="lat")
    source["lat_bnds"] = (("y", "nv"), np.zeros((4, 2)), {"units": "degrees_north"})
    source["lat"].attrs["bounds"] = "lat_bnds"
    source["stamp"] = ("time", np.arange(6), {"units": "days since 1999-12-31"})
    fields, _ = opened(tmp_path, source)
    np.testing.assert_array_equal(fields.time, regular().time)


@row(
    "dimension", "levels; `t@850` asks for one", "hPa on a pressure axis, whatever the file's unit"
)
@pytest.mark.parametrize(
    ("plev", "units", "dim"),
    [
        ([100000.0, 85000.0, 50000.0], "Pa", "plev"),
        ([1000.0, 850.0, 500.0], "hPa", "pressure_level"),
        ([500.0, 850.0, 1000.0], "millibars", "level"),
        (np.float32([1000, 850, 500]), None, "lev"),
        ([1000, 850, 500], None, "level_full"),
    ],
)
def test_a_level_is_a_channel(tmp_path, plev, units, dim):
    path = write(tmp_path, levelled(plev, units, dim))
    fields, _ = open_source(path, ["ta@850", "ta@500"])
    assert set(fields.data_vars) == {"ta@850", "ta@500"}
    for name in ("850", "500"):
        assert float(fields[f"ta@{name}"].mean()) == pytest.approx(200 + float(name) / 10, abs=1)
    assert fields["ta@850"].attrs["level"] == pytest.approx(85000 if units == "Pa" else 850)
    assert fields["ta@850"].attrs.get("level_units") == units


@row("dimension", "`t@85000Pa`, `u@10m`: a level with its unit", "converted to the file's")
def test_levels_carry_units(tmp_path):
    path = write(tmp_path, levelled([100000.0, 85000.0], "Pa"))
    fields, _ = open_source(path, ["ta@85000Pa"])
    assert float(fields["ta@85000Pa"].mean()) == pytest.approx(285, abs=1)
    refused("its levels are in Pa, not in m", path, ["ta@10m"])
    refused("after @ comes a level|characters", path, ["ta@low"])


@row("dimension", "levels, none asked for or one that is not there", "refused with the levels")
def test_missing_levels_are_listed(tmp_path):
    path = write(tmp_path, levelled([100000.0, 85000.0], "Pa"))
    text = refused(r"ta has 2 levels \(1000, 850 hPa\)", path)
    assert 'variables = ["ta@1000"]' in text
    refused(r"no ta@500; a.nc: ta has the levels 1000, 850 hPa", path, ["ta@500"])
    refused("no ta@500; a.nc: ta has no levels", write(tmp_path, regular()), ["ta@500"])


@row("dimension", "one file for each level, the level a scalar coordinate", "joined as channels")
def test_levels_in_files_of_their_own(tmp_path):
    for index, name in enumerate(("850.nc", "500.nc")):
        write(tmp_path, levelled([85000.0, 50000.0]).isel(plev=index), name)
    fields, _ = open_source(str(tmp_path / "*.nc"), ["ta@850", "ta@500"])
    assert float(fields["ta@500"].mean()) == pytest.approx(250, abs=1)


@row(
    "dimension", "scalar levels of several variables, all listed with each", "kept without a level"
)
def test_scalar_levels_of_other_variables_are_no_axis(tmp_path):
    pressure = {"standard_name": "air_pressure", "units": "Pa", "positive": "down"}
    levels = {f"p{hpa}": ((), 100.0 * hpa, pressure) for hpa in (850, 500)}
    fields, _ = opened(tmp_path, regular().assign_coords(levels))
    np.testing.assert_array_equal(fields.ta, regular().ta)


@row(
    "dimension",
    "scalar coordinates and dimensions of size 1",
    "dropped, noted; a level is kept as attribute",
)
def test_single_levels_are_dropped(tmp_path):
    fields, report = opened(tmp_path, levelled([85000.0]))
    assert fields.ta.dims == ("time", "lat", "lon")
    assert fields.ta.attrs["level"] == 85000.0
    assert "ta: dimension plev of size 1 dropped" in report.notes


@row(
    "dimension",
    "members, steps or another dimension",
    "refused; `[source] select = { number = 0 }` chooses one",
)
def test_other_dimensions_are_selected(tmp_path):
    parts = [regular(seed=k) for k in range(3)]
    source = xr.concat(parts, xr.DataArray([1, 2, 3], dims="number", name="number"))
    path = write(tmp_path, source)
    text = refused(r"3 members \(1, 2, 3\)", path)
    assert "[source] select = { number = 1 }" in text
    fields, _ = open_source(path, ["ta"], select={"number": 3})
    np.testing.assert_array_equal(fields.ta, parts[2].ta)
    refused("source.select.number = 7 is not there; number has 1, 2, 3", path, select={"number": 7})


@row(
    "dimension",
    "members by name (`r1i1p1f1`), or without a coordinate",
    "chosen by label, else by index",
)
def test_members_have_labels_or_numbers(tmp_path):
    parts = [regular(seed=k) for k in range(2)]
    named = xr.concat(
        parts, xr.DataArray(["r1i1p1f1", "r2i1p1f1"], dims="member_id", name="member_id")
    )
    path = write(tmp_path, named)
    refused(r'select = \{ member_id = "r1i1p1f1" \}', path)
    fields, _ = open_source(path, ["ta"], select={"member_id": "r2i1p1f1"})
    np.testing.assert_array_equal(fields.ta, parts[1].ta)
    path = write(tmp_path, named.drop_vars("member_id"))
    fields, _ = open_source(path, ["ta"], select={"member_id": 1})
    np.testing.assert_array_equal(fields.ta, parts[1].ta)


@row("dimension", "several labels of each member (`gcm_model`, `gcm_variant`)", "read as one axis")
def test_members_may_have_several_labels(tmp_path):
    parts = [regular().ta + 10 * number for number in range(3)]
    whole = xr.concat(parts, "member", coords="minimal", compat="override").to_dataset(name="ta")
    attrs = {"standard_name": "realization", "axis": "E"}
    whole = whole.assign_coords(
        gcm_model=("member", ["CNRM", "CNRM", "MIROC"], attrs),
        gcm_variant=("member", ["r1", "r2", "r1"], attrs),
    )
    path = write(tmp_path, whole)
    assert 'samples = "member"' in refused("3 members", path)
    fields, _ = open_source(path, ["ta"], samples="member")
    np.testing.assert_array_equal(fields.member, np.tile([0, 1, 2], 6))
    for wanted in ({"member": 2}, {"gcm_model": "MIROC"}):
        one, _ = open_source(path, ["ta"], select=wanted)
        np.testing.assert_array_equal(one.ta, parts[2])
    refused(
        "gcm_variant = 'r1' is said of 2 along member, numbers 0, 2",
        path,
        select={"gcm_variant": "r1"},
    )


@row(
    "dimension",
    'members, `[source] samples = "number"`',
    "all taken: each time once for each member, told by the coordinate `member`",
)
def test_members_are_samples(tmp_path):
    parts = [regular(seed=k) for k in range(3)]
    whole = xr.concat(parts, xr.DataArray(["r10", "r1", "r2"], dims="number", name="number"))
    assert 'samples = "number"' in refused("3 members", write(tmp_path, whole))
    fields, report = opened(tmp_path, whole, samples="number")
    assert fields.ta.dims == ("time", "lat", "lon")
    np.testing.assert_array_equal(fields.time, np.repeat(regular().time, 3))
    np.testing.assert_array_equal(fields.member, np.tile([0, 1, 2], 6))
    for number, seed in enumerate((1, 2, 0)):  # r1, r2, r10
        np.testing.assert_array_equal(fields.ta[number::3], parts[seed].ta)
    assert report.gaps == ()
    assert "3 members are samples, numbered as r1, r2, r10" in report.notes
    assert validate(fields, "fields") is fields
    np.testing.assert_array_equal(once(fields).ta, parts[1].ta)


@row("dimension", "a file for each member, told by a scalar or a global attribute", "the same")
def test_members_in_files_of_their_own(tmp_path):
    for name in ("ta", "ua"):
        for k in (1, 2):
            part = regular(name=name, seed=k).assign_attrs(variant_label=f"r{k}")
            write(tmp_path, part.isel(time=slice(0, 4)), f"a-{name}-{k}.nc")
            write(tmp_path, part.isel(time=slice(4, 6)), f"b-{name}-{k}.nc")
    paths = str(tmp_path / "*.nc")
    assert "samples" in refused(
        "2000-01-01 occurs twice with different values", paths, ["ta", "ua"]
    )
    fields, _ = open_source(paths, ["ta", "ua"], samples="variant_label")
    np.testing.assert_array_equal(fields.member, np.tile([0, 1], 6))
    np.testing.assert_array_equal(fields.ua[1::2], regular(seed=2).ta)
    refused(
        "no such dimension, and the file no such scalar or attribute",
        paths,
        ["ta", "ua"],
        samples="number",
    )


@row("dimension", "final and preliminary ERA5 along `expver`", "put together, noted")
def test_versions_of_era5_are_put_together(tmp_path):
    source = regular()
    parts = [
        source.ta.where(source.time < source.time[4]),
        source.ta.where(source.time >= source.time[4]),
    ]
    both = xr.concat(parts, xr.DataArray([1, 5], dims="expver", name="expver")).to_dataset()
    path = write(tmp_path, both.transpose("time", "expver", "lat", "lon"))
    fields, report = open_source(path, ["ta"])
    np.testing.assert_array_equal(fields.ta, source.ta)
    assert any("expver put together" in note for note in report.notes)
    refused("ta: 2 maps are empty", path, select={"expver": 1})


@row("dimension", "a selected dimension that no variable has", "refused")
def test_a_selection_that_selects_nothing_is_refused(tmp_path):
    refused("source.select names 'numbr'", write(tmp_path, regular()), select={"numbr": 0})


@row("dimension", "one file for each variable", "joined; their times have to be the same")
def test_one_file_for_each_variable(tmp_path):
    write(tmp_path, regular(), "ta.nc")
    write(tmp_path, regular(name="ua", seed=1), "ua.nc")
    fields, _ = open_source(str(tmp_path / "*.nc"), ["ta", "ua"])
    np.testing.assert_array_equal(fields.ua, regular(seed=1).ta)
    np.testing.assert_array_equal(fields.ta, regular().ta)


@row("dimension", "one file for each variable and period, CMIP's way", "joined both ways")
def test_files_for_each_variable_and_period(tmp_path):
    for name, seed in (("ta", 0), ("ua", 1)):
        whole = regular(name=name, seed=seed)
        write(tmp_path, whole.isel(time=slice(3, 6)), f"{name}_2.nc")
        write(tmp_path, whole.isel(time=slice(0, 3)), f"{name}_1.nc")
    fields, _ = open_source(str(tmp_path / "*.nc"), ["ta", "ua"])
    np.testing.assert_array_equal(fields.ua, regular(seed=1).ta)
    np.testing.assert_array_equal(fields.ta, regular().ta)
    assert fields.indexes["time"].is_unique


@row(
    "dimension",
    "variables that cover different periods",
    "refused; `[source] period = [...]` takes the common one",
)
def test_variables_have_the_same_times(tmp_path):
    write(tmp_path, regular(9), "ta.nc")
    write(tmp_path, regular(6, "2000-01-03", name="ua"), "ua.nc")
    paths = str(tmp_path / "*.nc")
    text = refused("ta has 9 times, ua 6: ta has 2000-01-01, ua does not", paths, ["ta", "ua"])
    assert 'period = ["2000-01-03", "2000-01-08"]' in text
    fields, _ = open_source(paths, ["ta", "ua"], period=("2000-01-03", "2000-01-08"))
    assert fields.sizes["time"] == 6


@row("dimension", "a file with none of the variables among the others", "refused by name")
def test_a_file_of_no_use_is_refused(tmp_path):
    write(tmp_path, regular(), "a.nc")
    write(tmp_path, regular(name="hus"), "b.nc")
    refused("b.nc: none of the variables ta is there; there are", str(tmp_path / "*.nc"))


@row("dimension", "groups (satellite products)", '`[source] group = "Grid"`')
def test_a_group_is_named(tmp_path):
    path = write(tmp_path, regular(), group="Grid")
    refused("no variable 'ta'", path)
    fields, _ = open_source(path, ["ta"], group="Grid")
    np.testing.assert_array_equal(fields.ta, regular().ta)


@row("dimension", "maps without time, or with one time", "`[source] static`")
def test_static_maps_come_along(tmp_path):
    orog = regular(1).ta.rename("orog").assign_attrs(units="m", standard_name="surface_altitude")
    write(tmp_path, regular(), "a.nc")
    write(tmp_path, orog.to_dataset(), "b.nc")
    fields, _ = open_source(str(tmp_path / "*.nc"), ["ta"], static=["orog"])
    assert fields.orog.dims == ("lat", "lon")


@row("dimension", "a variable that is not there", "refused with those that are")
def test_an_unknown_variable_is_refused(tmp_path):
    refused(
        r"no variable 'tas'; there are ta \(is it 'ta'\?\)", write(tmp_path, regular()), ["tas"]
    )


@row("dimension", "a series with a time only", "refused: no grid")
def test_a_series_is_no_field(tmp_path):
    source = xr.Dataset({"nino": ("time", values(6), {"units": "K"})}, coords={"time": days()})
    refused("no lat coordinate of nino", write(tmp_path, source), ["nino"])


@row("dimension", "members with labels that are no counts (r5i1, 7)", "the labels are kept")
def test_labels_of_members_are_kept(tmp_path):
    parts = [regular(seed=k) for k in range(3)]
    whole = xr.concat(parts, "m")
    numbers = whole.assign_coords(realization=("m", [7, 5, 12]))
    path = write(tmp_path, numbers, "numbers.nc")
    assert 'samples = "realization"' in refused("3 members", path)
    for samples in ("realization", "m"):
        fields, _ = open_source(path, ["ta"], samples=samples)
        np.testing.assert_array_equal(fields.member, np.tile([5, 7, 12], 6))
        np.testing.assert_array_equal(fields.ta[2::3], parts[2].ta)
        assert "flag_values" not in fields.member.attrs
    texts = whole.assign_coords(realization=("m", ["r5 i1", "r1", "r2"]))
    fields, _ = open_source(write(tmp_path, texts, "texts.nc"), ["ta"], samples="realization")
    assert fields.member.attrs["flag_values"] == [0, 1, 2]
    assert fields.member.attrs["flag_meanings"] == "r1 r2 r5_i1"


@row("dimension", "`samples` names no members, but times, levels or nothing", "refused")
def test_what_tells_no_members_apart_is_refused(tmp_path):
    whole = xr.concat([regular(), regular(seed=1)], xr.DataArray([0, 1], dims="number"))
    path = write(tmp_path, whole)
    for name in ("time", "lat"):
        refused(f"samples is '{name}', along which ta has its times, grid", path, samples=name)
    refused("has no such dimension", path, samples="numbers")


def hybrid(**attrs: object) -> xr.Dataset:
    """Levels of a model with nominal pressures, as CAM writes them."""
    levels = levelled([200.0, 850.0, 992.5], "hPa", "lev")
    levels.lev.attrs = {"units": "hPa", "positive": "down", **attrs}
    return levels


@row(
    "dimension",
    "hybrid levels with nominal pressures (CAM's `lev`, `pfull`)",
    "refused as pressures; `t@992.5lev` or `select = { lev = 992.5 }` takes a level of "
    "the model, of which no export claims a pressure",
)
@pytest.mark.parametrize(
    "attrs",
    [
        {"standard_name": "atmosphere_hybrid_sigma_pressure_coordinate"},
        {"formula_terms": "a: hyam b: hybm p0: P0 ps: PS"},
        {"long_name": "hybrid level at midpoints (1000*(A+B))"},
        {"long_name": "ref full pressure level"},
    ],
)
def test_hybrid_levels_are_no_pressures(tmp_path, attrs):
    path = write(tmp_path, hybrid(**attrs))
    for name in ("ta@850", "ta@850hPa", "ta@85000Pa"):
        refused(r"nominal, its levels follow the ground .*\"ta@992.5lev\"", path, [name])
    for name, options in (("ta@992.5lev", {}), ("ta", {"select": {"lev": 992.5}})):
        fields, _ = open_source(path, [name], **options)
        np.testing.assert_array_equal(fields[name], hybrid().ta[:, 2])
        assert fields[name].attrs["level_kind"]
    refused(r"3 levels \(200, 850, 992.5 lev, nominal hPa\).*ta@200lev", path)
    plain, _ = open_source(write(tmp_path, hybrid(standard_name="air_pressure"), "b.nc"),
                           ["ta@850"])  # fmt: skip
    assert "level_kind" not in plain["ta@850"].attrs


def test_init_names_hybrid_levels_as_such(tmp_path):
    from storage.sources.candidates import contents

    path = write(tmp_path, hybrid(formula_terms="a: hyam b: hybm"))
    names = [one.name for one in contents([path]) if not one.refused]
    assert names == ["ta@200lev", "ta@850lev", "ta@992.5lev"]
