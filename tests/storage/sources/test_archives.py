"""Files of well-known archives, honestly imitated: opened with the names and labels they mean."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from storage.sources.sources import open_source
from tests.storage import archives
from tests.storage.imitations import refused, regular, row, write


@row("archive", "ERA5 of before 2024: packed anew in each file, `expver` 1 and 5", "read")
def test_era5_of_before(tmp_path):
    fields, report = open_source(archives.era5_of_before(tmp_path), ["t2m"])
    assert fields.t2m.shape == (59, 13, 24)
    assert str(fields.time.values[-1])[:10] == "2021-02-28"
    np.testing.assert_allclose(fields.t2m[:31], archives.field(31, 13, 24, seed=1), atol=6e-4)
    np.testing.assert_allclose(fields.t2m[31:], archives.field(28, 13, 24, seed=2), atol=2e-3)
    assert report.missing == {}


@row("archive", "ERA5 since 2024: `valid_time`, `pressure_level`, `expver` as text", "read")
def test_era5_of_now(tmp_path):
    fields, _ = open_source(archives.era5_of_now(tmp_path), ["u@850", "v@500"])
    expected = archives.field(40, 2, 13, 24, mean=0.0, seed=ord("v"))[:, 1]
    np.testing.assert_array_equal(fields["v@500"], expected)
    assert str(fields.time.values[1])[:19] == "2021-01-01T06:00:00"


@row("archive", "ERA5's monthly means with `date` as 20210101", "read, noted")
def test_era5_by_date(tmp_path):
    fields, report = open_source(archives.era5_by_date(tmp_path), ["t2m"])
    assert [str(time)[:10] for time in fields.time.values[[0, -1]]] == ["2021-01-01", "2021-12-01"]
    assert "date has no units, its digits are dates" in report.notes


@row(
    "archive",
    "CMIP6: a folder for each variable, a file for each decade, `height` and `type` scalars",
    "read in its calendar; what is below ground is missing",
)
@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_cmip6(tmp_path, calendar):
    fields, report = open_source(archives.cmip6(tmp_path, calendar), ["tas", "ta@1000", "ta@850"])
    assert fields.sizes["time"] == 360
    assert fields.time.dt.calendar == calendar
    assert str(fields.time_bnds.values[-1, 1])[:10] == "1880-01-01"
    np.testing.assert_array_equal(fields.tas[:120], archives.field(120, 12, 24, seed=1850))
    assert {name: (m.fraction, m.static) for name, m in report.missing.items()} == {
        "ta@1000": (0.25, True)
    }


@row("archive", "OISST: a file for each day, `zlev`, packed, ice with a moving edge", "read")
def test_oisst(tmp_path):
    fields, report = open_source(archives.oisst(tmp_path), ["sst", "ice"])
    assert fields.sst.shape == (20, 12, 24)
    assert report.missing["sst"].static and not report.missing["ice"].static
    np.testing.assert_allclose(
        fields.sst[3].values[:, 6:], archives.field(12, 24, mean=20.0, seed=3)[:, 6:], atol=0.0051
    )


@row("archive", "NCEP's reanalysis 1: packed, `millibar`, hours since 1800", "read")
def test_ncep(tmp_path):
    fields, _ = open_source(archives.ncep(tmp_path), ["air@850"])
    expected = archives.field(30, 3, 13, 24)[:, 1]
    np.testing.assert_allclose(fields["air@850"], expected, atol=0.0052)
    assert str(fields.time.values[0])[:10] == "2001-01-01"


@row("archive", "HadISST: -1000 under ice, unit `C`", "refused until `missing` says what it is")
def test_hadisst(tmp_path):
    path = archives.hadisst(tmp_path)
    refused(r"sst: -1000.0 is out of range \(432 times; unit 'degC'\)", path, ["sst"])
    fields, report = open_source(path, ["sst"], missing={"sst": -1000.0})
    assert fields.sst.attrs["units"] == "degC"
    assert report.missing["sst"].count == 36 * 60 + 432
    assert "sst: unit 'C' written as 'degC'" in report.notes


@row("archive", "GPCP's monthly precipitation: bounds of all axes, `mm/day`", "read")
def test_gpcp(tmp_path):
    fields, report = open_source(archives.gpcp(tmp_path), ["precip"])
    assert (fields.sizes["time"], fields.precip.attrs["units"]) == (36, "mm/day")
    assert [str(edge)[:10] for edge in fields.time_bnds.values[1]] == ["1979-02-01", "1979-03-01"]
    assert report.missing == {}


@row("archive", "ICON on HEALPix (nextGEMS, easygems): `crs` of size one, no positions", "read")
def test_nextgems(tmp_path):
    fields, _ = open_source(archives.nextgems(tmp_path), ["tas", "pr"])
    assert fields.tas.dims == ("time", "cell")
    assert fields.crs.attrs["indexing_scheme"] == "nested"
    np.testing.assert_array_equal(fields.tas, archives.field(24, 768))
    assert fields.tas.attrs["standard_name"] == "air_temperature"
    assert fields.pr.attrs["standard_name"] == "precipitation_flux"


@row(
    "archive",
    "WeatherBench 2: (time, level, longitude, latitude), names like `2m_temperature`",
    "read",
)
def test_weatherbench(tmp_path):
    path = archives.weatherbench(tmp_path)
    fields, _ = open_source(path, ["2m_temperature", "temperature@850"])
    expected = archives.field(28, 64, 32).transpose(0, 2, 1)
    np.testing.assert_array_equal(fields["2m_temperature"], expected)


@row("archive", "MERRA-2: minutes since the midnight of each file, 1e15 for missing", "read")
def test_merra2(tmp_path):
    fields, report = open_source(archives.merra2(tmp_path), ["TSKINWTR"])
    assert fields.sizes["time"] == 240
    assert str(fields.time.values[25])[:16] == "2001-01-02T01:30"
    assert report.missing["TSKINWTR"].static


@row(
    "archive", "CERES: a climatology beside the series, a sentence as standard name", "read, noted"
)
def test_ceres(tmp_path):
    path = archives.ceres(tmp_path)
    fields, report = open_source(path, ["toa_lw_all_mon"])
    assert str(fields.time.values[0])[:10] == "2000-03-15"
    assert "standard_name" not in fields.toa_lw_all_mon.attrs
    assert fields.toa_lw_all_mon.attrs["long_name"].startswith("Top of The Atmosphere")
    assert any("is no standard name, dropped" in note for note in report.notes)
    refused("climatology", path, ["toa_lw_all_clim"])


@row(
    "archive",
    "CESM: the time of a month is the end of it",
    "the middle of its bounds is taken, noted; constants like `P0` are no levels",
)
def test_cesm(tmp_path):
    fields, report = open_source(archives.cesm(tmp_path), ["TS", "U@859.5lev", "V@859.5lev"])
    assert str(fields.time.values[0]) == "0001-01-16 12:00:00"
    assert str(fields.time_bnds.values[0, 1]) == "0001-02-01 00:00:00"
    assert "times stood at the end of their bounds, put in the middle" in report.notes
    assert "level" not in fields.TS.attrs
    assert fields["U@859.5lev"].attrs["level"] == 859.5


@row("archive", "JRA-55 by NCL: `initial_time0_hours`, `g0_lat_1`", "read")
def test_jra55(tmp_path):
    fields, _ = open_source(archives.jra55(tmp_path), ["TMP_GDS0_HTGL"])
    assert fields.TMP_GDS0_HTGL.dims == ("time", "lat", "lon")
    assert str(fields.time.values[1])[:13] == "1958-01-01T06"


@row("archive", "Berkeley Earth: months as decimal years (`year A.D.`)", "decoded")
def test_berkeley(tmp_path):
    fields, _ = open_source(archives.berkeley(tmp_path), ["temperature"])
    assert list(fields.time.dt.month.values[:12]) == list(range(1, 13))
    assert list(np.unique(fields.time.dt.year)) == [1990, 1991, 1992]


@row("archive", "climatologies of Ferret (COADS, Levitus): year 0, `modulo`", "refused")
def test_ferret(tmp_path):
    message = refused(
        "TIME repeats itself.*as climatologies do", archives.ferret(tmp_path), ["AIRT"]
    )
    assert "decode_times" not in message
    fields, _ = open_source(archives.ferret(tmp_path, "1990"), ["AIRT"])
    assert (fields.AIRT.attrs["units"], fields.sizes["time"]) == ("degC", 12)
    source = regular().assign_coords(
        time=("time", np.arange(6) * 30.0, {"units": "days since 0000-01-01"})
    )
    refused("counts from the year 0", write(tmp_path, source))


@row(
    "time",
    "a unit of time that is wrong (`Month`) or missing, no coordinate at all",
    '`[source] units = { time = "months since 1990-01-15" }`',
)
def test_the_unit_of_time_can_be_declared(tmp_path):
    source = regular().assign_coords(time=("time", np.arange(6), {"units": "Month"}))
    path = write(tmp_path, source)
    refused(r"units are 'Month'.*units = \{ time", path)
    declared = {"time": "months since 1990-01-15"}
    fields, _ = open_source(path, ["ta"], units=declared)
    assert list(fields.time.dt.month) == [1, 2, 3, 4, 5, 6]
    bare = write(tmp_path, source.drop_vars("time").rename(time="step_of_model"), "b.nc")
    refused("no time coordinate", bare)
    fields, _ = open_source(bare, ["ta"], dims={"time": "step_of_model"}, units=declared)
    assert list(fields.time.dt.month) == [1, 2, 3, 4, 5, 6]


@row("value", "units in other spellings (`DEG C`, `M/S`, `C`, `mb`, `gpm`)", "in that of CF, noted")
@pytest.mark.parametrize(
    ("said", "unit"),
    [
        ("DEG C", "degC"),
        ("C", "degC"),
        ("M/S", "m s-1"),
        ("mb", "hPa"),
        ("gpm", "m"),
        ("m/s", "m/s"),
    ],
)
def test_units_are_spelled_as_cf_does(tmp_path, said, unit):
    source = regular()
    source.ta.attrs = {"units": said}
    fields, _ = open_source(write(tmp_path, source), ["ta"], check_values=False)
    assert fields.ta.attrs["units"] == unit


@row("grid", "2-D positions that repeat 1-D ones, in files of one time each", "used, noted")
def test_two_dimensional_positions_beside_a_map(tmp_path):
    for day in range(4):
        one = regular(1, f"2000-01-0{day + 1}").isel(time=0)
        lat, lon = np.meshgrid(one.lat.values, one.lon.values, indexing="ij")
        named = {"latitude": (("y", "x"), lat, one.lat.attrs)}
        named |= {"longitude": (("y", "x"), lon, one.lon.attrs)}
        plain = one.drop_vars(("lat", "lon")).rename(lat="y", lon="x").assign_coords(named)
        write(tmp_path, plain, f"{day}.nc")
    fields, _ = open_source(str(tmp_path / "*.nc"), ["ta"])
    assert fields.ta.shape == (4, 4, 8)
    np.testing.assert_array_equal(fields.lat, regular().lat)


@row("grid", "rotated and projected grids, cells without positions", "refused by what they are")
def test_other_grids_are_called_what_they_are(tmp_path):
    source = regular()
    for axis, name in (("lat", "grid_latitude"), ("lon", "grid_longitude")):
        source[axis].attrs = {"standard_name": name, "units": "degrees"}
    rotated = source.rename(lat="rlat", lon="rlon")
    refused("rlat is a grid_latitude, the grid is rotated", write(tmp_path, rotated))
    cells = xr.Dataset(
        {"ta": source.ta.stack(ncells=("lat", "lon")).drop_vars(("ncells", "lat", "lon"))}
    )
    refused(
        "one horizontal dimension .ncells of 32.*nothing says where", write(tmp_path, cells, "b.nc")
    )


@row("dimension", "a map without time among the variables", "refused; `[source] static` takes it")
def test_a_map_among_the_variables_is_sent_to_static(tmp_path):
    source = regular().assign(orog=regular().ta.isel(time=0, drop=True).assign_attrs(units="m"))
    refused(r'belongs to \[source\] static = \["orog"\]', write(tmp_path, source), ["orog"])
