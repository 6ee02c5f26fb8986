"""A record that grows: what is kept, what is fitted anew, what a training goes on from."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from flows import run as runs
from flows.config.schema import ConfigError, RunConfig, within
from flows.stages.base import Receipt
from flows.stages.generate.generate import run as generate
from storage.artifacts import audit
from storage.artifacts import publishing as artifacts
from storage.artifacts.history import digest_of_times, history, marks_of_times, times_of_shards
from storage.artifacts.layout import StoreLayout

SHAPE = (8, 16)


def record(days: int) -> xr.Dataset:
    """Days of one variable on a global grid; longer records begin like shorter ones."""
    values = np.random.default_rng(3).normal(size=(700, *SHAPE)).astype(np.float32)[:days]
    times = np.datetime64("2001-01-01", "ns") + np.arange(days) * np.timedelta64(1, "D")
    return xr.Dataset(
        {"z": (("time", "lat", "lon"), values, {"units": "m"})},
        coords={
            "time": times,
            "lat": ("lat", 78.75 - 22.5 * np.arange(SHAPE[0]), {"units": "degrees_north"}),
            "lon": ("lon", 22.5 * np.arange(SHAPE[1]), {"units": "degrees_east"}),
        },
    )


@pytest.fixture(autouse=True)
def one_cluster(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages share workers, where each would start its own."""
    monkeypatch.setattr(runs, "client_on_demand", lambda *_: nullcontext(client))


@pytest.fixture
def nights(tmp_path: Path, table: dict[str, Any]) -> dict[str, Any]:
    """A configuration whose training period is open; files are to be written by `arrive`."""
    (tmp_path / "new").mkdir()
    table["source"]["paths"] = [str(tmp_path / "new" / "*.nc")]
    table["split"] = {
        "validation": ["2001-01-01", "2001-01-31"],
        "test": ["2001-02-01", "2001-02-28"],
        "train": ["2001-03-01", "latest"],
    }
    table["generate"]["times"] = ["2001-03-01"]
    table["spectral"]["statistics"] = "frozen"
    table["train"] = {"steps": 2, "width": 8, "blocks": 1, "device": "cpu"}
    return table


def arrive(table: dict[str, Any], start: int, stop: int) -> None:
    path = Path(table["source"]["paths"][0]).parent / f"days-{start:04d}.nc"
    record(stop).isel(time=slice(start, stop)).to_netcdf(path)


def bring(table: dict[str, Any], *stages: str) -> list[Receipt]:
    config = RunConfig.from_dict(table)
    return [runs.run_alone(config, stage) for stage in stages]


def test_frozen_statistics_stay_and_only_new_days_are_whitened(
    nights: dict[str, Any],
) -> None:
    layout = StoreLayout(nights["run"]["root"])
    arrive(nights, 0, 600)
    bring(nights, "ingest", "preprocess")
    normals, whitened = (artifacts.published(layout, kind) for kind in ("normals", "whitened"))
    assert normals is not None and whitened is not None
    assert all(one.skipped for one in bring(nights, "ingest", "preprocess"))

    arrive(nights, 600, 620)
    (_, receipt) = bring(nights, "ingest", "preprocess")
    assert not receipt.skipped
    kept, grown = (artifacts.published(layout, kind) for kind in ("normals", "whitened"))
    assert kept is not None and grown is not None
    assert kept.digest == normals.digest
    assert artifacts.open_artifact(grown).sizes["time"] == 620
    shared = [
        file.relative_to(grown.path)
        for file in sorted((grown.path / "x" / "c").rglob("*"))
        if file.is_file() and file.stat().st_nlink > 1
    ]
    assert len(shared) == 2, "two whole shards of 256 days are those of before"
    assert all(one.skipped for one in bring(nights, "ingest", "preprocess"))

    old = artifacts.open_artifact(whitened)["x"].values
    np.testing.assert_array_equal(old, artifacts.open_artifact(grown)["x"].values[:600])
    assert audit.check(layout) == []

    nights["spectral"]["statistics"] = "refit"
    bring(nights, "ingest", "preprocess")
    refitted = artifacts.published(layout, "normals")
    assert refitted is not None
    assert refitted.digest != normals.digest


@pytest.mark.long
def test_a_training_goes_on_from_the_one_before(nights: dict[str, Any]) -> None:
    layout = StoreLayout(nights["run"]["root"])
    nights["train"]["start"] = "last"
    stages = ("ingest", "preprocess", "train")
    arrive(nights, 0, 300)
    bring(nights, *stages)
    first = artifacts.published(layout, "checkpoints")
    assert first is not None
    assert first.attrs["started_from"] == ""
    assert all(one.skipped for one in bring(nights, *stages))

    arrive(nights, 300, 310)
    bring(nights, *stages)
    second = artifacts.published(layout, "checkpoints")
    assert second is not None
    assert second.attrs["started_from"] == first.digest
    assert all(one.skipped for one in bring(nights, *stages)), "its own weights start nothing"
    assert [one.digest for one in history(layout, "checkpoints")] == [first.digest, second.digest]

    nights["train"]["start"] = "scratch"
    (*_, scratch) = bring(nights, *stages)
    assert scratch.digest != second.digest


def test_days_that_a_training_does_not_read_do_not_make_it_again(nights: dict[str, Any]) -> None:
    nights["split"] = {
        "train": ["2001-01-01", "2001-05-31"],
        "validation": ["2001-06-01", "2001-06-30"],
        "test": ["2001-07-01", "latest"],
    }
    stages = ("ingest", "preprocess", "train")
    arrive(nights, 0, 300)
    bring(nights, *stages)
    arrive(nights, 300, 310)
    assert [one.skipped for one in bring(nights, *stages)] == [False, False, True]


def test_the_name_moves_to_the_new_ensemble_and_the_old_one_stays_readable(
    nights: dict[str, Any], quiet: Any, client: Any
) -> None:
    layout, stages = StoreLayout(nights["run"]["root"]), ("ingest", "preprocess", "train")
    nights["train"] = {"model": "gaussian:channels"}
    nights["generate"]["times"] = ["2001-03-01"]
    nights["spectral"]["statistics"] = "refit"
    arrive(nights, 0, 300)
    bring(nights, *stages)
    generate(RunConfig.from_dict(nights), layout, client, quiet)
    old = artifacts.published(layout, "ensemble")
    assert old is not None
    before = artifacts.open_artifact(old)["z"].values

    arrive(nights, 300, 330)
    bring(nights, *stages)
    assert artifacts.published(layout, "ensemble") == old, "until the new one is whole"
    generate(RunConfig.from_dict(nights), layout, client, quiet)
    new = artifacts.published(layout, "ensemble")
    assert new is not None and new.digest != old.digest
    np.testing.assert_array_equal(artifacts.open_artifact(old)["z"].values, before)


def test_only_the_last_period_may_be_open(nights: dict[str, Any]) -> None:
    config = RunConfig.from_dict(nights)
    assert within(config.split.train) == slice("2001-03-01", None)
    assert within(config.split.test) == slice("2001-02-01", "2001-02-28")
    nights["split"]["test"] = ["2001-02-01", "latest"]
    with pytest.raises(ConfigError, match=r"split\.train starts on 2001-03-01, before split\.test"):
        RunConfig.from_dict(nights)
    nights["split"]["test"] = ["latest", "latest"]
    with pytest.raises(ConfigError, match=r'split\.test: expected a date like "2002-07-15"'):
        RunConfig.from_dict(nights)


def grown(nights: dict[str, Any]) -> tuple[artifacts.Published, artifacts.Published]:
    """The fields of 300 days, and of 310."""
    layout, found = StoreLayout(nights["run"]["root"]), []
    for first, stop in ((0, 300), (300, 310)):
        arrive(nights, first, stop)
        bring(nights, "ingest")
        published = artifacts.published(layout, "fields")
        assert published is not None
        found.append(published)
    return found[0], found[1]


def test_what_an_artifact_holds_at_some_times_has_a_digest_of_its_own(
    nights: dict[str, Any],
) -> None:
    short, longer = grown(nights)
    for part in (slice(0, 300), slice(5, 7), slice(100, 289)):
        assert digest_of_times(short, part) == digest_of_times(longer, part)
    assert digest_of_times(short, slice(0, 299)) != digest_of_times(short, slice(0, 300))
    assert digest_of_times(short, slice(0, 10)) != digest_of_times(short, slice(1, 11))


def test_marks_of_times_are_known_from_the_digests_of_files_alone(nights: dict[str, Any]) -> None:
    short, longer = grown(nights)
    shard = times_of_shards(longer)
    assert shard == times_of_shards(short) and 300 // shard >= 2
    inside = [slice(0, shard), slice(0, 2 * shard), slice(1, 3), slice(shard - 1, shard + 2)]
    marks = marks_of_times(longer, inside)
    assert marks == marks_of_times(short, inside)
    assert len({*marks, *marks_of_times(longer, [slice(2, 4), slice(shard, 2 * shard)])}) == 6
    end = slice(300 // shard * shard, 300)
    assert marks_of_times(short, [end]) == marks_of_times(longer, [end]), "by values"
    for file in longer.path.glob("*/c/0/*/*"):
        file.unlink()
    assert marks_of_times(longer, inside) == marks, "nothing is read"
