"""A record of few dates and many members is split by members: from `init` to the report."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from flows import run as runs
from flows.config.draft import starter
from flows.config.schema import ConfigError, RunConfig, Split
from flows.plan.plan import workload
from flows.stages.preprocess.block_sums import Span
from flows.stages.splits import SPLITS, part_of, rows_of, witnesses
from pipeline.errors import UnusableData
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout

DATES, MEMBERS = 2, 10
LABELS = tuple(f"r{n}" for n in range(1, MEMBERS + 1))
WHOLE = ["2005-11-16", "2005-12-16"]


def record(shift: float = 0.0) -> xr.Dataset:
    """Two months of ten members; each member has a pattern of its own, each date another mean."""
    generator = np.random.default_rng(0)
    own = generator.standard_normal((1, MEMBERS, 8, 16))
    values = 5.0 * own + generator.standard_normal((DATES, MEMBERS, 8, 16))
    values += 280.0 + shift * np.arange(DATES)[:, None, None, None]
    attrs = {"standard_name": "air_temperature", "units": "K", "cell_methods": "time: mean"}
    return xr.Dataset(
        {"tas": (("time", "realization", "lat", "lon"), values.astype("f4"), attrs)},
        coords={
            "time": np.array(WHOLE, "datetime64[ns]"),
            "realization": ("realization", list(LABELS)),
            "lat": ("lat", 78.75 - 22.5 * np.arange(8), {"units": "degrees_north"}),
            "lon": ("lon", 22.5 * np.arange(16), {"units": "degrees_east"}),
        },
    )


def fields() -> xr.Dataset:
    """The record as ingest keeps it: a time for each member."""
    stacked = record().stack(row=("time", "realization")).transpose("row", ...)
    time, member = stacked["time"].values, np.tile(np.arange(MEMBERS), DATES)
    attrs = {"flag_values": list(range(MEMBERS)), "flag_meanings": " ".join(LABELS)}
    values = stacked["tas"].values
    return xr.Dataset(
        {"tas": (("time", "lat", "lon"), values)},
        coords={"time": time, "member": ("time", member, attrs)},
    )


def split(**changed: Any) -> Split:
    whole: tuple[str, str] = (WHOLE[0], WHOLE[1])
    made: dict[str, Any] = {
        **{name: whole for name in SPLITS},
        "train_members": LABELS[:6],
        "validation_members": LABELS[6:8],
        "test_members": LABELS[8:],
    }
    return Split(**{**made, **changed})


def test_no_field_is_in_two_splits_and_members_stand_one_after_the_other() -> None:
    whole = fields()
    parts = {name: part_of(whole, split(), name) for name in SPLITS}
    rows = np.concatenate([np.asarray(rows_of(whole, split(), name)) for name in SPLITS])
    assert sorted(rows) == list(range(DATES * MEMBERS)), "each field once"
    assert parts["train"]["member"].values.tolist() == np.repeat(np.arange(6), DATES).tolist()
    assert [len(part["time"]) for part in parts.values()] == [12, 4, 4]
    for part in parts.values():
        times = part["time"].values.reshape(-1, DATES)
        assert (np.diff(times, axis=1) > np.timedelta64(0)).all(), "each in order of time"


def test_members_are_witnesses_of_their_own_where_they_are_split() -> None:
    part = part_of(fields(), split(), "test")
    found = witnesses(part, split())
    assert found.exchangeable and found.of.tolist() == [8, 8, 9, 9]
    nats, season = np.array([1.0, 1.0, 3.0, 3.0]), np.zeros(4)
    interval = found.interval(nats, season)
    assert interval.block == 1 and interval.standard_error == pytest.approx(1.0), "of two members"


def test_sums_over_a_span_are_of_the_members_of_its_split() -> None:
    span = Span(3, 20, (8, 9))
    assert np.asarray(span.rows(fields(), 3, 20)).tolist() == [8, 9, 18, 19]
    assert np.asarray(span.rows(fields(), 10, 18)).tolist() == []
    assert Span(3, 20).rows(fields(), 3, 20) == slice(3, 20)


def test_members_are_split_within_their_periods() -> None:
    part = part_of(fields(), split(test=(WHOLE[1], WHOLE[1])), "test")
    assert part["member"].values.tolist() == [8, 9]
    assert {str(time)[:10] for time in part["time"].values} == {WHOLE[1]}


def test_periods_alone_split_as_they_did() -> None:
    periods = Split(train=("2005-11-01", "2005-11-30"), validation=("2005-12-01", "2005-12-10"),
                    test=("2005-12-11", "2005-12-31"))  # fmt: skip
    assert rows_of(fields(), periods, "train") == slice(0, MEMBERS)
    assert rows_of(fields(), periods, "test") == slice(MEMBERS, 2 * MEMBERS)
    assert not witnesses(part_of(fields(), periods, "test"), periods).exchangeable


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"test_members": ("r9", "r1")}, "member 'r1' is in split.train_members, too"),
        ({"test_members": ("r9",)}, "split.test_members: expected 2 labels or more"),
        ({"validation_members": ()}, "split.validation_members: expected 1 label or more"),
        ({"train_members": ("r1", "r1")}, "member 'r1' is in split.train_members, too"),
    ],
)
def test_a_member_in_two_splits_or_a_split_without_members_is_refused(
    changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        split(**changed)


def test_a_member_that_the_record_does_not_have_is_refused_with_those_that_it_has() -> None:
    wrong = split(test_members=("r9", "r11"))
    with pytest.raises(UnusableData, match="no member 'r11'; its members are r1, r2"):
        part_of(fields(), wrong, "test")
    with pytest.raises(UnusableData, match="no member 'r1'; its members are none"):
        part_of(fields().drop_vars("member"), split(), "train")


def test_members_of_a_record_without_samples_are_refused(table: dict[str, Any]) -> None:
    names = {"train_members": ["a"], "validation_members": ["b"], "test_members": ["c", "d"]}
    table["split"] |= names
    with pytest.raises(ConfigError, match=r"source\.samples: expected what tells members apart"):
        RunConfig.from_dict(table)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunConfig]:
    """What `init` proposes for two dates of ten members, run to its report."""
    directory = tmp_path_factory.mktemp("members")
    record().to_netcdf(directory / "members.nc")
    text = starter([str(directory / "members.nc")], str(directory / "run"))
    table = tomllib.loads(text)
    table["generate"] |= {"realizations": 2}
    table["verify"] = {"dates": 2, "realizations": 4}
    table["cluster"]["workers"] = 1
    config = RunConfig.from_dict(table)
    for stage in ("ingest", "preprocess", "train", "generate", "verify"):
        runs.run_alone(config, stage)
    yield config


def test_init_splits_few_dates_by_members_and_says_what_that_means(tmp_path: Path) -> None:
    record().to_netcdf(tmp_path / "members.nc")
    text = starter([str(tmp_path / "members.nc")], "runs/x")
    split = RunConfig.from_dict(tomllib.loads(text)).split
    assert split.train == split.validation == split.test == tuple(WHOLE)
    assert (split.train_members, split.validation_members) == (LABELS[:7], LABELS[7:8])
    assert split.test_members == LABELS[8:]
    assert "other members at these days, not of other days" in text


def test_many_dates_of_members_are_split_by_dates(tmp_path: Path) -> None:
    times = np.datetime64("2005-01-01", "ns") + np.arange(12) * np.timedelta64(1, "D")
    longer = record().isel(time=np.arange(12) % DATES).assign_coords(time=times)
    longer.to_netcdf(tmp_path / "members.nc")
    config = RunConfig.from_dict(tomllib.loads(starter([str(tmp_path / "members.nc")], "runs/x")))
    assert not config.split.by_members


def test_the_plan_counts_the_fields_of_each_split(finished: RunConfig) -> None:
    load = workload(finished)
    assert (load.times, load.fitted, load.validated, load.tested) == (20, 16, 2, 4)


def test_normals_know_the_members_that_are_learned_from_alone(finished: RunConfig) -> None:
    layout = StoreLayout(finished.run.root)
    normals = artifacts.open_published(layout, "normals")
    assert normals.attrs["samples"] == 14
    learned = record()["tas"].sel(realization=list(finished.split.train_members))
    whitened = artifacts.open_published(layout, "whitened")
    x = part_of(whitened, finished.split, "train")["x"].values
    np.testing.assert_allclose(x.mean(axis=0), 0.0, atol=1e-4)
    assert learned.size / 128 == len(x)
    assert np.abs(whitened["x"].values.mean(axis=0)).max() > 1e-2, "others are no part of it"


def test_the_report_says_that_members_were_held_out(finished: RunConfig) -> None:
    layout = StoreLayout(finished.run.root)
    card = json.loads(layout.scores.read_text())
    assert card["protocol"]["members"]["test"] == ["r9", "r10"]
    assert card["made"]["training_fields"] == 14
    assert card["certificate"]["fields"] == 4 and card["certificate"]["members"] == 2
    assert card["certificate"]["block"] == 1
    assert any("members were held out, not dates" in said for said in card["caveats"])
    assert card["protocol"]["realizations"]["noise-floor"] == 7, "the members learned from"
    page = layout.report.read_text()
    assert "the means of 2 members" in page and "members were held out" in page.lower()


def test_the_truth_that_is_scored_is_of_a_test_member(finished: RunConfig) -> None:
    from flows.stages.verify.candidates import Places, held_out_times

    layout = StoreLayout(finished.run.root)
    stored = artifacts.open_published(layout, "fields")
    dates = held_out_times(stored, finished)
    truth = stored["tas"].isel(time=Places.of(stored, finished, dates).truth)
    expected = record()["tas"].sel(realization="r9").values
    np.testing.assert_array_equal(truth.values, expected)
