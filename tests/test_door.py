"""What users open is one ensemble from its first value to its last."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import spherescore
from spherescore import SpherescoreBackend, open_ensemble, open_fields
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from tests.faults.operations import build, fields, key_of

HOUSE = Path(__file__).parent.parent


@pytest.fixture
def root(tmp_path: Path) -> Path:
    build(StoreLayout(str(tmp_path / "run")), 2, 1)
    return tmp_path / "run"


def swapped(root: Path) -> None:
    """Publish another ensemble, of negative values, under the same name."""
    layout, other = StoreLayout(str(root)), -fields(2)
    path, shards = layout.artifact("ensemble", key_of(9)), {"realization": 1, "time": 4}
    artifacts.create(path, other, chunks=shards | {"time": 2}, shards=shards)
    units = artifacts.plan_units({dim: other.sizes[dim] for dim in shards}, shards)
    for unit in units:
        artifacts.write_unit(path, unit, other.isel(unit.region))
    artifacts.publish(layout, "ensemble", key_of(9), units, {})


WAYS = {
    "open_ensemble": lambda place: open_ensemble(place),
    "open_ensemble with Dask": lambda place: open_ensemble(place, chunks={"realization": 1}),
    "engine": lambda place: xr.open_dataset(place, engine=SpherescoreBackend),
    "engine with Dask": lambda place: xr.open_dataset(place, engine=SpherescoreBackend, chunks={}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("below", ["", "ensemble.zarr"])
def test_a_reader_that_is_open_across_a_swap_reads_one_ensemble(root, way, below):
    opened = WAYS[way](root / below)
    first = opened["ta"].isel(time=slice(0, 2)).values
    swapped(root)
    assert (first > 0).all()
    rest = opened["ta"].isel(time=slice(2, None)).values
    np.testing.assert_array_equal(rest, fields(2)["ta"].isel(time=slice(2, None)))
    assert (WAYS[way](root / below)["ta"].values < 0).all()


def test_plain_xarray_through_the_name_reads_both_which_is_why_there_is_a_door(root):
    opened = xr.open_zarr(root / "ensemble.zarr", chunks=None)
    assert (opened["ta"].isel(time=slice(0, 2)).values > 0).all()
    swapped(root)
    assert (opened["ta"].isel(time=slice(2, None)).values < 0).all()


@pytest.mark.parametrize(
    "text", ["run", "run/", "./run", "run/ensemble.zarr", "run/ensemble.zarr/"]
)
def test_a_run_is_found_as_people_type_it(root, text, monkeypatch):
    monkeypatch.chdir(root.parent)
    xr.testing.assert_equal(open_ensemble(text), fields(2))
    xr.testing.assert_equal(xr.open_dataset(text, engine=SpherescoreBackend), fields(2))
    monkeypatch.chdir(root)
    xr.testing.assert_equal(open_ensemble("."), fields(2))
    xr.testing.assert_equal(open_ensemble("ensemble.zarr"), fields(2))


def test_a_home_and_a_link_to_a_run_are_followed(root, monkeypatch):
    monkeypatch.setenv("HOME", str(root.parent))
    xr.testing.assert_equal(open_ensemble("~/run"), fields(2))
    (root.parent / "link").symlink_to("run")
    xr.testing.assert_equal(open_ensemble(root.parent / "link"), fields(2))


def test_a_run_in_a_bucket_is_found(bucket):
    build(StoreLayout(f"s3://{bucket}/a/run"), 2, 1)
    for place in (f"s3://{bucket}/a/run", f"s3://{bucket}/a/run/ensemble.zarr"):
        xr.testing.assert_equal(open_ensemble(place), fields(2))


@pytest.mark.parametrize("command", [["cp", "-rL"], ["rsync", "-rL"]], ids=lambda one: one[0])
def test_an_ensemble_that_was_copied_away_is_whole(root, tmp_path, command):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    slash = "/" if command[0] == "rsync" else ""
    source, target = f"{root}/ensemble.zarr{slash}", tmp_path / "sent.zarr"
    subprocess.run([*command, source, target], check=True)
    xr.testing.assert_equal(xr.open_zarr(target).load(), fields(2))
    xr.testing.assert_equal(open_ensemble(target), fields(2))
    with pytest.raises(ValueError, match="holds ensemble, not fields"):
        open_fields(target)
    artifact = (root / "ensemble.zarr").resolve()
    xr.testing.assert_equal(open_ensemble(artifact), fields(2))


def test_fields_have_a_door_of_their_own(root):
    layout, given = StoreLayout(str(root)), fields(1).isel(realization=0, drop=True)
    path, shards = layout.artifact("fields", key_of(3)), {"time": 6}
    artifacts.create(path, given, chunks=shards, shards=shards)
    units = artifacts.plan_units({"time": 6}, shards)
    artifacts.write_unit(path, units[0], given)
    artifacts.publish(layout, "fields", key_of(3), units, {})
    xr.testing.assert_equal(open_fields(root), given)
    by_kind = xr.open_dataset(root, engine=SpherescoreBackend, kind="fields")
    xr.testing.assert_equal(by_kind, given)
    by_name = xr.open_dataset(root / "fields.zarr", engine=SpherescoreBackend, drop_variables="pr")
    xr.testing.assert_equal(by_name, given.drop_vars("pr"))


def test_what_is_not_published_is_said_with_the_remedy(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"ensemble\.zarr is not published; .*spherescore run"
    ):
        open_ensemble(tmp_path)
    with pytest.raises(
        ValueError,
        match="publishes ensemble, series, sequences, conditioned, fields; got kind 'report'",
    ):
        xr.open_dataset(tmp_path, engine=SpherescoreBackend, kind="report")


def test_the_engine_takes_our_names_and_leaves_the_rest_to_others(root, tmp_path):
    ours = SpherescoreBackend().guess_can_open
    assert ours(root) and ours(str(root / "ensemble.zarr"))
    target = (root / "ensemble.zarr").resolve()
    for other in (target, tmp_path, tmp_path / "none.nc", "https://host/ensemble.zarr", object()):
        assert not ours(other), other


def test_pyproject_offers_the_engine_and_the_door():
    told = tomllib.loads((HOUSE / "pyproject.toml").read_text())
    point = told["project"]["entry-points"]["xarray.backends"]["spherescore"]
    module, _, name = point.partition(":")
    assert (module, getattr(spherescore, name)) == ("spherescore", SpherescoreBackend)
    assert "spherescore*" in told["tool"]["setuptools"]["packages"]["find"]["include"]


def test_the_door_is_light_enough_for_every_user_of_xarray():
    code = "import spherescore, sys; print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=HOUSE, capture_output=True, text=True, check=True
    )
    assert not {"torch", "zarr", "dask", "prefect", "scipy", "flows"} & set(done.stdout.split())


def test_a_run_is_planned_and_made_through_the_door(
    table, tmp_path, write_config, monkeypatch, capsys
):
    path = Path(write_config(table))
    config = spherescore.read_config(path)
    for given in (path, str(path), table, config):
        made = spherescore.plan(given)
        assert list(made.index) == ["ingest", "preprocess", "train", "generate", "verify"]
        assert (made["bytes"] > 0).all()
    with pytest.raises(ValueError, match="'draw' is no stage; the stages are ingest, "):
        spherescore.run(config, until="draw")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ipykernel", None)  # a notebook is not left in silence
        done = spherescore.run(config, until="ingest")
    assert "ingest: published" in capsys.readouterr().err
    assert done.loc["ingest", "figures"]["times"] == 90 and not done.loc["ingest", "skipped"]
    assert spherescore.run(path, until="ingest").loc["ingest", "skipped"]
    assert capsys.readouterr().err == ""
    assert open_fields(config.run.root).sizes["time"] == 90


def test_a_configuration_is_proposed_for_files_and_taken_by_plan(table, tmp_path):
    (path,) = table["source"]["paths"]
    for files in (path, Path(path), [path]):
        proposed = tomllib.loads(spherescore.init(files, root=str(tmp_path / "run")))
        assert proposed["source"]["paths"] == [path]
    assert spherescore.plan(proposed)["bytes"].sum() > 0
    assert not (tmp_path / "run").exists()
