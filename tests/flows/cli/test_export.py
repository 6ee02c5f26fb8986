"""Ensembles as files: names, bytes, what other programs make of them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cf_xarray  # noqa: F401
import healpy
import netCDF4
import numpy as np
import pytest
import xarray as xr

from flows.cli import main as cli
from flows.cli.export import export_with
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.named_grids import grid_coordinates, grid_named
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from storage.conventions.labels import label_ensemble
from storage.errors import NoPyramid
from storage.export.netcdf import Cmip, planned_files, write_netcdf
from storage.export.pyramid import parents

REALIZATIONS, DAYS = 2, 3


class Local:
    """Units here and now, as the cluster would do them."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError("nothing is missing: no worker has to start")


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Tasks run in this process; their names are kept."""
    done: list[str] = []

    def map_here(client, function, units, progress, **_):
        done.extend(map(str, units))
        return [function(unit) for unit in units]

    monkeypatch.setattr("flows.cli.export.map_units", map_here)
    yield done


def publish_ensemble(
    root: Path,
    grid: str | RingGrid = "gaussian:12x24",
    realizations: int = REALIZATIONS,
    days: int = DAYS,
    names: dict[str, dict[str, Any]] | None = None,
) -> artifacts.Published:
    """Temperature, and precipitation that is masked on a continent; or other variables."""
    where = grid_named(grid) if isinstance(grid, str) else grid
    time = xr.date_range("2001-07-14T12:00", periods=days, freq="D")
    shape = (realizations, days, *where.shape)
    values = np.random.default_rng(0).standard_normal((2, *shape)).astype("f4")
    latitude, longitude = where.coordinates
    land = (np.abs(latitude) < 30) & (longitude > 60) & (longitude < 150)
    attrs = {
        "ta": {"standard_name": "air_temperature", "units": "K", "long_name": "Air temperature"},
        "pr": {
            "standard_name": "precipitation_flux",
            "units": "kg m-2 s-1",
            "long_name": "Precipitation",
        },
    }
    attrs = attrs if names is None else names
    half = np.timedelta64(12, "h")
    source = xr.Dataset(
        {
            name: ("time", np.zeros(9), {**each, "cell_methods": "time: mean"})
            for name, each in attrs.items()
        },
        coords={"time": xr.date_range("2000-01-01T12:00", periods=9, freq="D")},
        attrs={"title": "A small world"},
    )
    middle = source["time"].values[:, None]
    source = source.assign_coords(time_bnds=(("time", "bnds"), middle + np.array([-half, half])))
    source["time"].attrs["bounds"] = "time_bnds"
    dims = ("realization", "time", *where.dims)
    drawn = {"ta": 280 + values[0], "pr": np.where(land, np.nan, values[1] ** 2)}
    fields = xr.Dataset(
        {name: (dims, drawn.get(name, 10 + values[0])) for name in attrs},
        coords={"time": time, **grid_coordinates(where)},
    )
    ensemble = label_ensemble(fields, source, realizations=np.arange(realizations))
    layout, shards = StoreLayout(str(root)), {"realization": 1, "time": min(8, days)}
    path = layout.artifact("ensemble", "e" * 64)
    artifacts.create(path, ensemble, chunks=shards, shards=shards)
    units = artifacts.plan_units({str(k): n for k, n in ensemble.sizes.items()}, shards)
    data = ensemble.reset_coords(drop=True)
    for unit in units:
        artifacts.write_unit(path, unit, data.isel(unit.region))
    said = {"id": "small-world", "grid": where.describe(), "history": "2001 made by a test"}
    return artifacts.publish(layout, "ensemble", "e" * 64, units, said)


def exported(root: Path, directory: Path, format: str = "netcdf", cmip: Cmip | None = None) -> dict:
    layout = StoreLayout(str(root))
    return export_with(Local(), lambda *_: None, layout, directory, format, cmip)  # type: ignore[arg-type]


@pytest.fixture
def world(tmp_path: Path) -> Path:
    publish_ensemble(tmp_path / "run")
    return tmp_path / "run"


def test_files_hold_what_the_store_holds(world, tmp_path):
    exported(world, tmp_path / "out")
    ensemble = artifacts.open_published(StoreLayout(str(world)), "ensemble").load()
    for name in ("ta", "pr"):
        for number in range(REALIZATIONS):
            path = tmp_path / "out" / name / f"{name}_realization-{number}.nc"
            with xr.open_dataset(path, decode_coords="all") as found:
                expected = ensemble[name].sel(realization=number)
                xr.testing.assert_identical(found[name].load(), expected)


def test_cells_of_healpix_are_exported_with_their_grid_mapping(tmp_path):
    publish_ensemble(tmp_path / "run", "healpix:4:nested")
    exported(tmp_path / "run", tmp_path / "out")
    expected = artifacts.open_published(StoreLayout(str(tmp_path / "run")), "ensemble").load()
    path = tmp_path / "out" / "pr" / "pr_realization-1.nc"
    with xr.open_dataset(path, decode_coords="all") as found:
        assert found["pr"].encoding["grid_mapping"] == "crs"
        xr.testing.assert_identical(found["pr"].load(), expected["pr"].sel(realization=1))
        assert found["crs"].attrs["refinement_level"] == 2
    with netCDF4.Dataset(path) as file:
        assert set(file["pr"].coordinates.split()) == {"lat", "lon", "realization"}
        assert "coordinates" not in {*file["crs"].ncattrs(), *file["time_bnds"].ncattrs()}


def test_values_are_single_precision_compressed_and_filled_only_where_masked(world, tmp_path):
    exported(world, tmp_path / "out")
    for name in ("ta", "pr"):
        with netCDF4.Dataset(tmp_path / "out" / name / f"{name}_realization-0.nc") as file:
            assert file.data_model == "NETCDF4"
            assert file.dimensions["time"].isunlimited()
            assert file[name].dtype == np.float32
            assert file[name].filters()["zlib"] and file[name].chunking()[0] == 1
            assert ("_FillValue" in file[name].ncattrs()) == (name == "pr")
            assert not any("_FillValue" in file[each].ncattrs() for each in ("lat", "lon", "time"))


def test_a_second_export_writes_nothing(world, tmp_path, here):
    first = exported(world, tmp_path / "out")
    assert (first["files"], first["written"], len(here)) == (4, 4, 4)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    again = exported(world, tmp_path / "out")
    assert (again["files"], again["written"], len(here)) == (4, 0, 4)
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}


def test_what_was_cut_short_is_written_again_and_nothing_else(world, tmp_path, here):
    exported(world, tmp_path / "out")
    torn = tmp_path / "out" / "ta" / "ta_realization-1.nc"
    torn.unlink()
    (tmp_path / "out" / "item.json").unlink()
    del here[:]
    kept = (tmp_path / "out" / "pr" / "pr_realization-0.nc").stat().st_mtime_ns
    exported(world, tmp_path / "out")
    assert torn.exists()
    assert (tmp_path / "out" / "pr" / "pr_realization-0.nc").stat().st_mtime_ns == kept


def test_a_failed_export_leaves_no_file_behind(world, tmp_path, monkeypatch):
    def fails(*_: Any) -> None:
        raise OSError("no space")

    monkeypatch.setattr("storage.export.netcdf.move_into_place", fails)
    with pytest.raises(OSError, match="no space"):
        exported(world, tmp_path / "out")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_files_of_others_are_not_replaced(world, tmp_path):
    place = tmp_path / "out" / "ta"
    place.mkdir(parents=True)
    (place / "ta_realization-0.nc").write_text("mine")
    with pytest.raises(artifacts.NameConflict, match=r"ta_realization-0\.nc is there .* move it"):
        exported(world, tmp_path / "out")
    assert (place / "ta_realization-0.nc").read_text() == "mine"


def test_memory_is_that_of_a_few_fields(tmp_path):
    """A hundred fields of 96 kB: 9.6 MB in all."""
    published = publish_ensemble(tmp_path / "run", "latlon:109x220", 1, 100)
    fields = artifacts.open_artifact(published)
    file = next(each for each in planned_files(fields) if each.variable == "ta")
    write_netcdf(published, tmp_path / "warm", file)
    tracemalloc.start()
    try:
        write_netcdf(published, tmp_path / "out", file)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert fields["ta"].nbytes > 9_000_000 > 2 * peak


def test_cmip_names_say_what_is_in_the_file(world, tmp_path):
    made = exported(world, tmp_path / "out", cmip=Cmip.named("ICTP/spherescore-1/present-day"))
    date = re.sub(
        r"\D",
        "",
        artifacts.open_published(StoreLayout(str(world)), "ensemble").attrs["date_created"],
    )[:8]
    path = (
        tmp_path / "out/ICTP/spherescore-1/present-day/r2i1p1f1/day/pr/gn" / f"v{date}"
        / "pr_day_spherescore-1_present-day_r2i1p1f1_gn_20010714-20010716.nc"
    )  # fmt: skip
    with xr.open_dataset(path) as found:
        about = {"variant_label": "r2i1p1f1", "realization_index": 2, "table_id": "day"}
        assert about.items() <= found.attrs.items()
        assert int(found["realization"]) == 1
    assert made["files"] == len(list((tmp_path / "out").rglob("*.nc"))) == 4


def test_cmip_names_bring_units_and_levels(tmp_path):
    """`t2m` in degC is `tas` in K at 2 m; a level of pressure is `plev`; what is unknown stays."""
    named = {
        "t2m": {
            "units": "degC",
            "standard_name": "air_temperature",
            "level": 2.0,
            "level_units": "m",
        },
        "z@500": {
            "units": "m2 s-2",
            "standard_name": "geopotential",
            "level": 500.0,
            "level_units": "hPa",
        },
        "tp": {"units": "m", "long_name": "Total precipitation"},
    }
    publish_ensemble(tmp_path / "run", names=named)
    source = artifacts.open_published(StoreLayout(str(tmp_path / "run")), "ensemble").load()
    exported(tmp_path / "run", tmp_path / "out", cmip=Cmip.named("ICTP/spherescore-1/x"))
    files = {path.name.split("_")[0]: path for path in (tmp_path / "out").rglob("*_r1i1p1f1_*.nc")}
    assert set(files) == {"tas", "zg500", "tp"}
    with xr.open_dataset(files["tas"]) as found:
        np.testing.assert_allclose(found["tas"], source["t2m"][0] + 273.15, rtol=1e-6)
        assert (found["tas"].attrs["units"], float(found["height"])) == ("K", 2.0)
        assert found.attrs["original_name"] == "t2m" and "level" not in found["tas"].attrs
    with xr.open_dataset(files["zg500"]) as found:
        np.testing.assert_allclose(found["zg500"], source["z@500"][0] / 9.80665, rtol=1e-6)
        assert found["zg500"].attrs["standard_name"] == "geopotential_height"
        assert (float(found["plev"]), found["plev"].attrs["axis"]) == (5e4, "Z")
    with xr.open_dataset(files["tp"]) as found:
        assert found["tp"].attrs["units"] == "m"
    report = checked(files["tas"], "cf:1.11", tmp_path / "report.json")
    assert [entry["msgs"] for entry in report["high_priorities"] if entry["msgs"]] == []


@pytest.mark.parametrize("text", ["ICTP/model", "a/b/c/d", "a/b_c/d", "a//d", "../b/c"])
def test_names_that_cmip_does_not_take_are_refused(text):
    with pytest.raises(ValueError, match=r"institution/model/experiment|letters, digits"):
        Cmip.named(text)


def test_the_item_lists_every_file_with_its_digest(world, tmp_path):
    exported(world, tmp_path / "out")
    item = json.loads((tmp_path / "out" / "item.json").read_text())
    assert item["type"] == "Feature" and item["stac_version"] == "1.1.0" and item["links"] == []
    times = item["properties"]
    assert times["datetime"] is None
    assert times["start_datetime"] == "2001-07-14T12:00:00Z"
    assert times["end_datetime"] == "2001-07-16T12:00:00Z"
    assert times["cube:variables"]["pr"]["dimensions"] == ["realization", "time", "lat", "lon"]
    assert set(times["cube:dimensions"]) == {"realization", "time", "lat", "lon"}
    for asset in item["assets"].values():
        file = tmp_path / "out" / asset["href"]
        assert file.stat().st_size == asset["file:size"]
        assert len(asset["file:checksum"]) == 68
    assert len(item["assets"]) == 4
    pystac = pytest.importorskip("pystac", reason="`make test` installs it")
    assert pystac.Item.from_dict(item).get_self_href() is None


def test_the_command_exports_a_root(world, tmp_path, capsys, table, write_config):
    published = artifacts.published(StoreLayout(str(world)), "ensemble")
    assert published is not None
    table["run"]["root"] = str(world)
    code = cli.main(["export", write_config(table), "--to", str(tmp_path / "out"), "--json"])
    assert code == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["files"] == last["written"] == 4
    bad = ["export", write_config(table), "--to", str(tmp_path / "out"), "--cmip", "a/b"]
    assert cli.main(bad) == 2
    assert "institution/model/experiment" in capsys.readouterr().err
    pyramid = ["export", write_config(table), "--to", str(tmp_path / "p"), "--format", "pyramid"]
    assert cli.main(pyramid) == 2
    assert "needs HEALPix cells" in capsys.readouterr().err


def test_names_of_cmip_are_refused_for_a_pyramid(table, write_config, tmp_path, capsys):
    to = tmp_path / "out"
    options = ["--to", str(to), "--format", "pyramid", "--cmip", "MPI-M/ICON/historical"]
    assert cli.main(["export", write_config(table), *options]) == 2
    assert "--cmip names NetCDF files, and --format is pyramid" in capsys.readouterr().err
    assert not to.exists()


def test_parents_are_means_of_the_children_that_are_there():
    children = np.array([1, 2, 3, 6, np.nan, 4, np.nan, 8, *[np.nan] * 4], np.float32)
    np.testing.assert_array_equal(parents(children), [3, 6, np.nan])
    assert parents(children).dtype == np.float32


def test_cells_that_have_no_parents_make_no_pyramid(tmp_path):
    publish_ensemble(tmp_path / "run", RingGrid.healpix(12))
    with pytest.raises(NoPyramid, match="nside a power of two"):
        exported(tmp_path / "run", tmp_path / "out", "pyramid")


@pytest.mark.parametrize("grid", ["healpix:8", "healpix:8:nested"])
def test_every_level_of_a_pyramid_is_that_of_healpy(grid, tmp_path):
    published = publish_ensemble(tmp_path / "run", grid)
    fields = artifacts.open_artifact(published).load()
    made = exported(tmp_path / "run", tmp_path / "out", "pyramid")
    assert made["written"] == 1
    with xr.open_datatree(tmp_path / "out" / "pyramid.zarr", engine="zarr") as tree:
        assert sorted(tree.children) == ["0", "1", "2", "3"]
        for level, node in tree.children.items():
            expected = healpy.ud_grade(
                np.where(np.isnan(fields["ta"]), healpy.UNSEEN, fields["ta"])[1, 2].astype(float),
                2 ** int(level),
                order_in="NEST" if grid.endswith("nested") else "RING",
                order_out="NEST",
            )
            np.testing.assert_allclose(node["ta"][1, 2], expected, rtol=1e-6)
            lon, lat = healpy.pix2ang(
                2 ** int(level), np.arange(len(expected)), nest=True, lonlat=True
            )
            np.testing.assert_allclose(node["lat"], lat)
            np.testing.assert_allclose(node["lon"], lon)
            assert node["crs"].attrs["refinement_level"] == int(level)
            assert node["ta"].attrs["grid_mapping"] == "crs"
            assert "time_bnds" in node.variables
        assert 0 < np.isnan(tree["2"]["pr"]).mean() < 0.2
    before = (tmp_path / "out" / "pyramid.zarr" / "zarr.json").stat().st_mtime_ns
    assert exported(tmp_path / "run", tmp_path / "out", "pyramid")["written"] == 0
    assert (tmp_path / "out" / "pyramid.zarr" / "zarr.json").stat().st_mtime_ns == before


@pytest.fixture
def one_file(world: Path, tmp_path: Path) -> Path:
    exported(world, tmp_path / "out")
    return tmp_path / "out" / "pr" / "pr_realization-0.nc"


CHECKER = """
import os, sys
from compliance_checker.runner import CheckSuite, ComplianceChecker
CheckSuite.load_all_available_checkers()
path, version, report = sys.argv[1:]
ComplianceChecker.run_checker(
    path, [version], 0, "strict", output_filename=report, output_format="json"
)
os._exit(0)
"""


def checked(path: Path, version: str, report: Path) -> dict[str, Any]:
    # On its own: with its C libraries loaded, the interpreter may crash when it ends.
    subprocess.run(
        [sys.executable, "-c", CHECKER, str(path), version, str(report)], check=True, timeout=120
    )
    found: dict[str, Any] = json.loads(report.read_text())[version]
    assert found["scored_points"] > 20
    return found


@pytest.mark.parametrize(
    ("version", "grid"),
    [
        ("cf:1.9", "gaussian:12x24"),
        ("cf:1.11", "gaussian:12x24"),
        ("cf:1.11", "latlon:13x24"),
        ("cf:1.11", "healpix:4:nested"),
    ],
)
def test_the_compliance_checker_finds_no_error(version, grid, tmp_path):
    publish_ensemble(tmp_path / "run", grid)
    exported(tmp_path / "run", tmp_path / "out")
    one_file = tmp_path / "out" / "pr" / "pr_realization-0.nc"
    found = checked(one_file, version, tmp_path / "report.json")
    errors = [m for entry in found["high_priorities"] for m in entry["msgs"]]
    assert [m for m in errors if "healpix" not in m] == [], "its table is older than CF-1.13"
    # It does not know conventions newer than itself.
    said = [m for entry in found["medium_priorities"] for m in entry["msgs"]]
    assert [m for m in said if "Conventions global" not in m and "units_metadata" not in m] == []


def test_all_that_acdd_highly_recommends_is_there(one_file, tmp_path):
    found = checked(one_file, "acdd:1.3", tmp_path / "report.json")
    assert [entry["msgs"] for entry in found["high_priorities"] if entry["msgs"]] == []


def test_cf_xarray_finds_every_axis(one_file):
    with xr.open_dataset(one_file, decode_coords="all") as found:
        assert {axis: names for axis, names in found.cf.axes.items()} == {
            "X": ["lon"], "Y": ["lat"], "T": ["time"]
        }  # fmt: skip
        assert found.cf["realization"].item() == 0
        assert found.cf["precipitation_flux"].name == "pr"
        assert found.cf["latitude"].name == "lat" and found.cf["longitude"].name == "lon"
    with xr.open_dataset(one_file) as found:
        for axis in ("time", "lat", "lon"):
            assert found.cf.get_bounds(axis).dims == (axis, "bnds")


def test_plain_xarray_reads_it_without_a_warning(one_file):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xr.open_dataset(one_file) as found:
            assert found["pr"].dims == ("time", "lat", "lon")


@pytest.mark.parametrize("command", [["ncdump", "-h"], ["cdo", "-s", "sinfo"]], ids=lambda c: c[0])
def test_other_programs_read_it(command, one_file):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not on this machine")
    done = subprocess.run(
        [*command, str(one_file)], capture_output=True, text=True, timeout=60, check=True
    )
    assert "error" not in (done.stdout + done.stderr).lower()
    if command[0] == "ncdump":
        assert "time = UNLIMITED" in done.stdout and 'pr:units = "kg m-2 s-1"' in done.stdout
    else:
        assert "gaussian" in done.stdout and "2001-07-14 12:00:00" in done.stdout
