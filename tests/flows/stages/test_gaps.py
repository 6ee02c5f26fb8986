"""Gaps of a record, filled by sequences that fit between the days beside them."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import spherescore
from flows.config.schema import ConfigError, RunConfig
from flows.stages.base import ON_REQUEST, skipped
from flows.stages.condition import condition, seams
from flows.stages.condition.gaps import gaps_of
from flows.stages.content_keys import key_of
from flows.stages.preprocess import preprocess
from flows.stages.train import train
from pipeline.errors import UnusableData
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from tests.flows.stages.test_sequences import make_config, publish_fields, silent

PAGE = Path(__file__).parents[3] / "docs" / "recipes.md"
GAP = ["2001-08-03", "2001-08-07"]
LACKING = slice(300, 304)  # of the record: 2000-10-27 to 2000-10-30


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory, here: Any) -> Path:
    """The root of a run up to its training, whose record lacks four days, with a tail."""
    root = tmp_path_factory.mktemp("gaps")
    times = xr.date_range("2000-01-01T12:00", periods=730, freq="D").values
    config = config_of(root)
    publish_fields(config.layout, np.delete(times, np.arange(730)[LACKING]))
    preprocess.run(config, config.layout, here, silent)
    train.run(config, config.layout, None, silent)
    return root


def config_of(root: Path, **asked: Any) -> RunConfig:
    table = make_config(root, spectral_tail=7).to_dict()
    table["generate"].pop("sequences")
    table["source"]["paths"] = asked.pop("paths", table["source"]["paths"])
    about = {"gaps": GAP, "realizations": 4} | asked
    return RunConfig.from_dict(table | {"condition": about})


@pytest.fixture
def filled(record: Path, here: Any) -> Callable[..., xr.Dataset]:
    """Run the stage in this process, and open what it has made."""

    def run(root: Path = record, client: Any = here, **asked: Any) -> xr.Dataset:
        config = config_of(root, **asked)
        condition.run(config, config.layout, client, silent)
        return artifacts.open_published(config.layout, "conditioned").load()

    return run


def fields_of(root: Path) -> xr.Dataset:
    return artifacts.open_published(StoreLayout(str(root)), "fields").load()


def card(root: Path) -> dict[str, Any]:
    assert "Where gaps begin and end" in (root / "conditioned.html").read_text()
    return json.loads((root / "findings" / "conditioned.json").read_text())


def test_the_days_that_the_record_lacks_are_found_and_filled(filled, record):
    drawn = filled(gaps="all", realizations=2)
    days = [str(day)[:10] for day in drawn["time"].values]
    assert days == ["2000-10-27", "2000-10-28", "2000-10-29", "2000-10-30"]
    assert drawn["ta"].dims == ("realization", "time", "lat", "lon")
    assert np.isfinite(drawn["zg"]).all()
    whole = xr.concat([fields_of(record)["ta"], drawn["ta"].isel(realization=0)], "time")
    steps = np.diff(whole.sortby("time")["time"].values)
    assert (steps == np.timedelta64(1, "D")).all()
    assert card(record)["gaps"] == [["2000-10-27", "2000-10-30"]]


def test_filled_days_resemble_their_neighbours_as_days_of_the_record_do(filled, record):
    """Both seams, in standard errors of what pairs of the record say; and not too much so."""
    periods = [f"2001-08-{day:02d}" for first in range(2, 28, 5) for day in (first, first + 2)]
    filled(gaps=periods, realizations=8)
    found = card(record)["seams"]
    for place in range(2):
        real = found["record"][place]
        for name in ("first day", "within", "last day"):
            one = found[name][place]
            error = np.hypot(
                real["deviation"] / np.sqrt(real["pairs"]), real["deviation"] / np.sqrt(6)
            )
            assert abs(one["mean"] - real["mean"]) < 3.5 * error, (name, place, found)


def test_filled_days_that_the_record_has_are_covered_by_the_draws(filled, record):
    filled(gaps=["2001-08-03", "2001-08-05", "2001-09-03", "2001-09-05"], realizations=16)
    told = card(record)["record"]
    assert list(told["by distance"]) == ["1", "2"]
    for one in told["by distance"].values():
        assert abs(one["coverage"] - told["nominal"]) < 0.08
    near, far = told["by distance"]["1"], told["by distance"]["2"]
    assert near["spread"] < far["spread"] < 1.0
    assert near["crps"] < 0.5


def test_the_remainder_and_the_tail_fit_at_the_seams_too(filled, record):
    """Beyond the degrees that the law knows days resemble each other as well."""
    from flows.stages.condition.filling import taken_apart
    from flows.stages.preprocess.normals import tail_of
    from pipeline.fields.standardisation import Normals

    drawn = filled(gaps=GAP, realizations=16)
    normals = artifacts.open_published(StoreLayout(str(record)), "normals").load()
    known, tail = Normals.of(normals), tail_of(normals)
    a = normals["sequence_remainder_persistence"].values
    assert a[1] > 0.3
    before = taken_apart(known, tail, fields_of(record).sel(time=slice("2001-08-02", "2001-08-02")))
    first = drawn.isel(time=0).expand_dims("time").transpose("time", "realization", ...)
    found = []
    for k in range(16):
        day = taken_apart(known, tail, first.isel(realization=k))
        found.append(
            (day.left[0, 1] * before.left[0, 1]).mean() / np.square(before.left[0, 1]).mean()
        )
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - a[1]) < 0.1 + 3.5 * error


def test_the_evidence_of_a_gap_is_recorded_and_that_of_what_is_observed_is_added(
    filled, record, tmp_path
):
    """Of the two known days after it given the two before it."""
    from flows.stages.condition.filling import taken_apart
    from flows.stages.preprocess.normals import tail_of
    from flows.stages.preprocess.sequence_law import sequence_law_of
    from pipeline.fields.standardisation import Normals
    from pipeline.given.bridge import Bridge

    normals = artifacts.open_published(StoreLayout(str(record)), "normals").load()
    bridge = Bridge(sequence_law_of(normals), before=2, known=[False] * 5 + [True] * 2)
    known, tail, fields = Normals.of(normals), tail_of(normals), fields_of(record)
    sides = [slice("2001-08-01", "2001-08-02"), slice("2001-08-08", "2001-08-09")]
    days = [taken_apart(known, tail, fields.sel(time=side)).x for side in sides]
    drawn = filled(realizations=2)
    told = card(record)["log_evidence"]
    np.testing.assert_allclose(told, [bridge.log_evidence(*days)], rtol=1e-6)
    np.testing.assert_allclose(drawn["log_evidence"], np.full((2, 5), told), rtol=1e-6)
    assert "log evidence" in (record / "conditioned.html").read_text()
    path, _, _ = with_holes(record, tmp_path)
    filled(realizations=2, fields=[path], error={"ta": 0.5, "zg": 0.5})
    assert abs(card(record)["log_evidence"][0] - told[0]) > 10.0


def test_figures_and_page_look_at_one_day_of_the_draws_at_a_time(filled, monkeypatch):
    read, stack = [], seams.stack_variables

    def counted(fields: xr.Dataset, pointwise: Any) -> np.ndarray:
        read.append(fields.sizes["time"])
        return stack(fields, pointwise)

    monkeypatch.setattr(seams, "stack_variables", counted)
    filled(gaps=["2001-08-03", "2001-08-22"], realizations=3)
    assert len(read) > 60
    assert max(read) <= 2  # a pair of the record


def test_growing_workers_and_interruptions_leave_the_bytes(
    filled, record, client, tmp_path, monkeypatch
):
    few = filled(realizations=2)
    more = filled(realizations=5)
    xr.testing.assert_equal(more.isel(realization=slice(0, 2)), few)
    other = tmp_path / "other"
    shutil.copytree(record, other, symlinks=True)
    for path in [*other.glob("artifacts/conditioned*"), *other.glob("conditioned.zarr")]:
        path.unlink() if path.is_symlink() else shutil.rmtree(path)
    written, write = [], artifacts.write_unit

    def dying(path: Any, unit: Any, *args: Any, **kwargs: Any) -> Any:
        if len(written) == 2:
            raise OSError("the machine dies")
        written.append(unit.name)
        return write(path, unit, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "write_unit", dying)
        with pytest.raises(Exception, match="the machine dies"):
            filled(other, realizations=5)
    again = filled(other, client, realizations=5)
    xr.testing.assert_equal(again, more)


def test_units_that_cut_a_gap_draw_the_same_sequence(filled, monkeypatch):
    whole = filled(gaps=["2001-08-03", "2001-08-22"], realizations=1)
    monkeypatch.setattr(condition, "times_of_unit", lambda *_: 8)
    cut = filled(gaps=["2001-08-03", "2001-08-22"], realizations=2)
    xr.testing.assert_equal(cut.isel(realization=[0]), whole)


def with_holes(record: Path, place: Path) -> tuple[str, xr.Dataset, np.ndarray]:
    """Two days of the gap of which a third of the cells is missing, and the whole days."""
    days = fields_of(record).sel(time=slice("2001-08-04", "2001-08-05"))
    missing = np.random.default_rng(3).random(days["ta"].shape) < 0.3
    path = place / "holes.nc"
    for name in ("lat", "lon"):
        units = {"lat": "degrees_north", "lon": "degrees_east"}[name]
        days[name].attrs["units"] = units
    days.drop_attrs(deep=False).where(~missing).to_netcdf(path)
    return str(path), days, missing


def test_days_of_a_gap_with_holes_keep_what_they_have(filled, record, tmp_path):
    path, days, missing = with_holes(record, tmp_path)
    asked = {"fields": [path], "error": {"ta": 0.0, "zg": 0.0}}
    drawn = filled(**asked).sel(time=days["time"])
    alone = filled().sel(time=days["time"])
    for name in ("ta", "zg"):
        gap = abs(drawn[name] - days[name]).max("realization").values
        assert gap[~missing].max() < 1e-3
        apart = [
            np.square(one[name] - days[name]).mean("realization").values[missing].mean()
            for one in (drawn, alone)
        ]
        assert apart[0] < 0.5 * apart[1]
        spread = drawn[name].std("realization").values
        assert spread[missing].mean() > 10 * spread[~missing].mean()


def test_observations_of_days_that_are_not_filled_are_refused(filled, record, tmp_path):
    path, _, _ = with_holes(record, tmp_path)
    with pytest.raises(UnusableData, match=r"observed on 2001-08-04, which is none of the days"):
        filled(gaps=["2001-08-05", "2001-08-06"], fields=[path], error={"ta": 0.1, "zg": 0.1})


def test_what_is_filled_is_not_filled_again_until_the_gap_is_another(filled, record):
    filled(realizations=2)
    (stage,) = ON_REQUEST
    config = config_of(record, realizations=2)
    assert skipped(stage, key_of("condition", config, config.layout), config.layout)
    other = config_of(record, realizations=2, gaps=[GAP[0], "2001-08-08"])
    assert not skipped(stage, key_of("condition", other, other.layout), other.layout)


EVENT = {"variable": "ta", "box": [0.0, 9.0, 0.0, 9.0], "above": 1.0}
SENTENCES: dict[str, tuple[dict[str, Any], str]] = {
    "an odd number": ({"gaps": ["2001-08-03"]}, "first and last day of each gap"),
    "no date": ({"gaps": ["2001-08-03", "tomorrow"]}, "a date like"),
    "the wrong order": ({"gaps": ["2001-08-07", "2001-08-03"]}, "gaps one after the other"),
    "an event": ({"event": EVENT}, "no gaps beside an event"),
    "all beside an event": ({"event": EVENT, "gaps": "all"}, r"got \('all',\)"),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_gaps_that_cannot_be_read_are_refused_in_a_sentence(name, record):
    asked, words = SENTENCES[name]
    with pytest.raises(ConfigError, match=words):
        config_of(record, **asked)


def test_a_word_that_is_not_all_is_refused_with_the_key(record):
    with pytest.raises(ConfigError, match=r"condition\.gaps.*all"):
        config_of(record, gaps="some")


def test_a_network_of_sequences_is_refused_with_what_works(record):
    table = config_of(record).to_dict()
    table["train"] = {"model": "network", "steps": 1}
    with pytest.raises(ConfigError, match=r'"gaussian:var" for condition\.gaps'):
        RunConfig.from_dict(table)
    table["sequence"]["learned"] = False
    RunConfig.from_dict(table)
    table["sequence"] = {"past": 0}
    table["train"] = {"model": "gaussian:m-block"}
    with pytest.raises(ConfigError, match=r"sequence\.past: expected at least 1 for condition"):
        RunConfig.from_dict(table)


def test_days_beyond_the_record_are_refused_with_what_draws_them(record):
    config = config_of(record, gaps=["2001-12-29", "2002-01-03"])
    with pytest.raises(ConfigError, match=r"not within the record.*generate\.sequences"):
        gaps_of(config, config.layout)


def test_the_recipe_runs_as_it_stands(record, here):
    _, _, rest = PAGE.read_text().partition("## Given the days beside a gap\n")
    (recipe,) = re.findall(r"```toml\n(.*?)```", rest.partition("\n## ")[0], re.S)
    assert len(recipe.splitlines()) <= 10
    asked = tomllib.loads(recipe)
    table = config_of(record).to_dict()
    for name in ("sequence", "train"):  # so the run of before is the recipe's
        assert table[name].items() >= asked[name].items()
    config = RunConfig.from_dict(table | {"condition": asked["condition"]})
    condition.run(config, config.layout, here, silent)
    filled = spherescore.open_conditioned(record)
    known = spherescore.open_fields(record)
    whole = xr.concat([known, filled.isel(realization=0)], "time").sortby("time")
    assert whole.sizes["time"] == 730
    assert filled.sizes["realization"] == 4
