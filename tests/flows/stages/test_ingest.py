from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from flows.cluster.map_units import UnitFailed
from flows.config.schema import ConfigError, RunConfig, read_config, within
from flows.progress import Progress
from flows.stages.content_keys import key_of
from flows.stages.ingest import ingest
from pipeline.errors import UnusableData
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from storage.sources.sources import SourceError


def layout_of(config: RunConfig) -> StoreLayout:
    return StoreLayout(config.run.root)


def rewrite(table: dict[str, Any], source: xr.Dataset) -> None:
    path = Path(table["source"]["paths"][0])
    path.unlink()
    source.to_netcdf(path)


def test_every_value_time_and_attribute_of_the_source_is_in_the_fields(
    config: RunConfig, source: xr.Dataset, client: Any, quiet: Progress
) -> None:
    receipt = ingest.run(config, layout_of(config), client, quiet)
    fields = xr.open_zarr(layout_of(config).name("fields"))
    np.testing.assert_array_equal(fields["z"], source["z"])
    for name in ("time", "lat", "lon"):
        np.testing.assert_array_equal(fields[name], source[name])
    assert fields["z"].attrs["units"] == "m"
    assert fields["z"].attrs["standard_name"] == "geopotential_height"
    assert fields.attrs["title"] == "indices"
    assert fields.attrs["artifact_digest"] == receipt.digest
    assert receipt.figures == {"times": 90, "variables": 1}


def test_the_demonstration_opens_as_its_configuration_says() -> None:
    root = Path(__file__).parents[3]
    source = read_config(root / "deploy" / "configs" / "demo.toml").source
    fields, _ = ingest.open_fields(replace(source, paths=(str(root / source.paths[0]),)))
    assert list(fields.data_vars)[: len(source.variables)] == list(source.variables)
    assert fields.sizes == {"time": 1096, "lat": 32, "lon": 64, "bnds": 2}


def test_covariates_come_along_at_the_times_of_the_fields(
    table: dict[str, Any], client: Any, quiet: Progress, tmp_path: Path
) -> None:
    path = tmp_path / "index.csv"
    path.write_text("time,nino34\n2001-01-01,0.0\n2001-04-01,90.0\n")
    table["source"]["covariates"] = {"nino34": str(path)}
    config = RunConfig.from_dict(table)
    before = key_of("ingest", config, layout_of(config))
    ingest.run(config, layout_of(config), client, quiet)
    fields = xr.open_zarr(layout_of(config).name("fields"))
    np.testing.assert_allclose(fields["nino34"], np.arange(90.0), atol=1e-6)
    path.write_text("time,nino34\n2001-01-01,0.0\n2001-04-01,91.0\n")
    assert key_of("ingest", config, layout_of(config)) != before


def test_the_digest_does_not_depend_on_what_was_there_before(
    config: RunConfig, table: dict[str, Any], client: Any, quiet: Progress, tmp_path: Path
) -> None:
    undisturbed = ingest.run(config, layout_of(config), client, quiet)

    table["run"]["root"] = str(tmp_path / "resumed")
    again = RunConfig.from_dict(table)
    layout = layout_of(again)
    fields, _ = ingest.open_fields(again.source)
    sizes = ingest.unit_sizes(fields, again.source)
    path = layout.artifact("fields", key_of("ingest", again, layout))
    artifacts.create(path, fields, chunks={"time": sizes["chunk"]}, shards={"time": sizes["shard"]})
    units = artifacts.plan_units({"time": 90}, {"time": sizes["shard"]})
    ingest.write_fields(path, again.source, "digest", {}, units[1])
    told: list[int] = []
    resumed = ingest.run(again, layout, client, lambda done, total, text: told.append(done))

    assert told[0] == 1, "the unit that was there is not done again"
    assert resumed.digest == undisturbed.digest
    assert resumed.key == undisturbed.key


def test_the_key_follows_contents_and_declarations_and_nothing_else(
    config: RunConfig, table: dict[str, Any], source: xr.Dataset
) -> None:
    layout = layout_of(config)
    key = key_of("ingest", config, layout)
    table["train"]["steps"] = 7
    assert key_of("ingest", RunConfig.from_dict(table), layout) == key
    table["source"]["units"] = {"z": "km"}
    assert key_of("ingest", RunConfig.from_dict(table), layout) != key
    table["source"]["units"] = {}
    rewrite(table, source + 1)
    assert key_of("ingest", RunConfig.from_dict(table), layout) != key


def test_cells_that_are_always_missing_need_a_policy(
    table: dict[str, Any], source: xr.Dataset, client: Any, quiet: Progress
) -> None:
    source["z"][:, 2, 3:6] = np.nan
    rewrite(table, source)
    config = RunConfig.from_dict(table)
    with pytest.raises(SourceError, match=r'source\.fill = \{ z = "harmonic" \}') as refusal:
        ingest.run(config, layout_of(config), client, quiet)
    assert refusal.value.exit_code == 10
    assert not layout_of(config).name("fields").exists()

    table["source"]["fill"] = "harmonic"
    config = RunConfig.from_dict(table)
    ingest.run(config, layout_of(config), client, quiet)
    fields = xr.open_zarr(layout_of(config).name("fields"))
    np.testing.assert_array_equal(fields["z"], source["z"])


def test_cells_that_are_sometimes_missing_are_refused(
    table: dict[str, Any], source: xr.Dataset, client: Any, quiet: Progress
) -> None:
    source["z"][7, 2, 3] = np.nan
    rewrite(table, source)
    table["source"]["fill"] = "harmonic"
    config = RunConfig.from_dict(table)
    with pytest.raises(
        SourceError, match=r'z: 1 values are missing, all .*"mask-ever".*fill = \{ z = 0.0 \}'
    ):
        ingest.run(config, layout_of(config), client, quiet)


def test_cells_that_are_ever_missing_are_masked_at_all_times_where_that_is_said(
    table: dict[str, Any], source: xr.Dataset, client: Any, quiet: Progress
) -> None:
    source["z"][7, 2, 3] = np.nan
    source["z"][:, 5, :4] = np.nan
    rewrite(table, source)
    table["source"]["fill"] = "mask-ever"
    config = RunConfig.from_dict(table)
    ingest.run(config, layout_of(config), client, quiet)
    fields = xr.open_zarr(layout_of(config).name("fields"))
    expected = source["z"].where(source["z"].notnull().all("time"))
    np.testing.assert_array_equal(fields["z"], expected)
    assert "z: 1 cells that are missing at some times are masked at all" in fields.attrs["notes"]


def test_masking_is_not_offered_where_it_would_leave_nothing(
    table: dict[str, Any], source: xr.Dataset, client: Any, quiet: Progress
) -> None:
    """As in a swath that moves: each cell is missing at some time."""
    cells = source["z"][0].size
    for at in range(90):
        source["z"].values[at].flat[(np.arange(3) + 3 * at) % cells] = np.nan
    assert bool(source["z"].isnull().any("time").all())
    rewrite(table, source)
    with pytest.raises(SourceError, match=r"z: 270 values are missing, all of them") as moving:
        ingest.run(RunConfig.from_dict(table), layout_of(RunConfig.from_dict(table)), client, quiet)
    assert "mask-ever" not in str(moving.value)
    table["source"]["fill"] = "mask-ever"
    config = RunConfig.from_dict(table)
    with pytest.raises(SourceError, match="every cell is missing at some time"):
        ingest.run(config, layout_of(config), client, quiet)


def test_no_number_stands_for_what_a_quantity_cannot_be(
    table: dict[str, Any], source: xr.Dataset, client: Any, quiet: Progress
) -> None:
    source["z"].attrs |= {"standard_name": "air_temperature", "units": "K"}
    source["z"][:] = 280.0 + np.arange(90)[:, None, None] / 100
    source["z"][7, 2, 3] = np.nan
    rewrite(table, source)
    config = RunConfig.from_dict(table)
    with pytest.raises(SourceError) as moving:
        ingest.run(config, layout_of(config), client, quiet)
    assert "mask-ever" in str(moving.value) and "0.0" not in str(moving.value)
    table["source"]["fill"] = 0.0
    config = RunConfig.from_dict(table)
    with pytest.raises(
        SourceError, match=r"source.fill: z would be 0 K .*out of range \(100 to 400"
    ):
        ingest.run(config, layout_of(config), client, quiet)
    table["source"]["valid_range"] = {"z": [0.0, 400.0]}
    config = RunConfig.from_dict(table)
    ingest.run(config, layout_of(config), client, quiet)


@pytest.mark.parametrize("fill", ["refuse", 0.0, "mask-ever"])
def test_no_fill_stands_for_whole_maps(
    fill: Any, table: dict[str, Any], source: xr.Dataset, client: Any, quiet: Progress
) -> None:
    source["z"][20:25] = np.nan
    rewrite(table, source)
    table["source"]["fill"] = fill
    config = RunConfig.from_dict(table)
    with pytest.raises(SourceError, match=r"z: 5 maps are empty, from .*drop = \[") as refusal:
        ingest.run(config, layout_of(config), client, quiet)
    assert not layout_of(config).name("fields").exists()
    told = str(refusal.value)
    offered = told[told.index("drop = [") + 8 :].rstrip("]").replace('"', "").split(", ")
    for drop in (offered, ["empty"]):
        table["source"]["drop"] = drop
        config = RunConfig.from_dict(table)
        ingest.run(config, layout_of(config), client, quiet)
        fields = xr.open_zarr(layout_of(config).name("fields"))
        np.testing.assert_array_equal(fields["z"], source["z"].dropna("time", how="all"))


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_splits_without_data_are_refused_before_anything_is_written(
    name: str, table: dict[str, Any], client: Any, quiet: Progress
) -> None:
    shift = {"train": "1990", "validation": "1991", "test": "2031"}[name]
    table["split"][name] = [f"{shift}{day[4:]}" for day in table["split"][name]]
    config = RunConfig.from_dict(table)
    with pytest.raises(UnusableData, match=rf"split.{name}: the data have no times from {shift}"):
        ingest.run(config, layout_of(config), client, quiet)
    assert not list(Path(config.run.root).glob("**/zarr.json"))


def test_splits_end_with_their_months_in_a_calendar_of_360_days(
    table: dict[str, Any], source: xr.Dataset, client: Any, quiet: Progress
) -> None:
    times = xr.date_range("2001-01-01", periods=90, calendar="360_day", use_cftime=True)
    rewrite(table, source.assign_coords(time=times))
    table["source"]["period"] = ["2001-01-01", "2001-12-31"]
    days = {
        "train": ("01-01", "01-31"),
        "validation": ("02-01", "02-30"),
        "test": ("03-01", "12-31"),
    }
    table["split"] = {name: [f"2001-{day}" for day in pair] for name, pair in days.items()}
    config = RunConfig.from_dict(table)
    ingest.run(config, layout_of(config), client, quiet)
    fields = artifacts.open_published(layout_of(config), "fields")
    for period in (config.split.train, config.split.validation, config.split.test):
        assert fields.sel(time=within(period)).sizes["time"] == 30
    table["split"]["validation"] = ["2001-01-31", "2001-02-30"]
    table["split"]["train"] = ["2001-01-01", "2001-01-30"]
    config = RunConfig.from_dict(table)
    with pytest.raises(ConfigError, match=r"split.validation: 2001-01-31 is no date of the cal"):
        ingest.run(config, layout_of(config), client, quiet)


def test_a_missing_value_may_stand_for_a_number_where_the_mask_moves(
    table: dict[str, Any], source: xr.Dataset, client: Any, quiet: Progress
) -> None:
    """As open water does in ice concentration; land stays empty."""
    source["z"][7, 2, 3] = np.nan
    source["z"][:, 5, :4] = np.nan
    rewrite(table, source)
    table["source"]["fill"] = {"z": -5}
    config = RunConfig.from_dict(table)
    ingest.run(config, layout_of(config), client, quiet)
    fields = xr.open_zarr(layout_of(config).name("fields"))
    expected = source["z"].copy()
    expected[7, 2, 3] = -5.0
    np.testing.assert_array_equal(fields["z"], expected)


def test_land_declared_by_a_value_is_missing_in_the_fields(
    table: dict[str, Any], source: xr.Dataset, client: Any, quiet: Progress
) -> None:
    source["z"] = (source["z"] - source["z"].mean()).assign_attrs(units="1")
    source["z"][:, 4, :5] = 0.0
    source["z"][3, 0, 0] = 0.0  # a value that happens to be zero
    rewrite(table, source)
    table["source"] |= {"missing": {"z": 0.0}, "fill": "harmonic"}
    config = RunConfig.from_dict(table)
    ingest.run(config, layout_of(config), client, quiet)
    missing = xr.open_zarr(layout_of(config).name("fields"))["z"].isnull().values
    assert missing[:, 4, :5].all()
    assert missing.sum() == 90 * 5


def test_a_unit_that_cannot_be_written_leaves_nothing_published(
    config: RunConfig, client: Any, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "write_fields", refuse)
    with pytest.raises(UnitFailed, match=r"fields .*no space"):
        ingest.run(config, layout_of(config), client, quiet)
    assert artifacts.published(layout_of(config), "fields") is None


def test_a_source_that_changes_while_it_is_read_is_not_published(
    config: RunConfig, client: Any, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = iter(["a" * 64, "b" * 64])
    monkeypatch.setattr(ingest, "digest_of_source", lambda source: next(digests))
    with pytest.raises(ingest.InputChanged) as changed:
        ingest.run(config, layout_of(config), client, quiet)
    assert changed.value.exit_code == 11
    assert artifacts.published(layout_of(config), "fields") is None


@pytest.mark.parametrize(("times", "cells"), [(3, 8), (90, 128), (1096, 2048), (16000, 65160)])
def test_shards_are_whole_chunks_and_units_are_many_but_not_small(times: int, cells: int) -> None:
    values = np.broadcast_to(np.float32(0), (times, cells))
    fields = xr.Dataset({"z": (("time", "cell"), values)})
    source = ingest.Source(paths=("x",), variables=("z",))
    sizes = ingest.unit_sizes(fields, source)
    assert 1 <= sizes["chunk"] <= min(64, times)
    assert sizes["shard"] % sizes["chunk"] == 0
    assert 4 * cells * sizes["shard"] <= 2 * ingest.SHARD_BYTES
    assert times / sizes["shard"] <= 100


def refuse(*arguments: Any, **named: Any) -> None:
    raise OSError(28, "no space left on device")
