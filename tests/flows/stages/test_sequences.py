"""Days that follow each other: their bytes, what they begin with, and what they remember."""

from __future__ import annotations

import json
import shutil
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from distributed import Client

import spherescore
from flows.cli.export import export_with
from flows.cluster.map_units import UnitFailed
from flows.config.schema import ConfigError, RunConfig
from flows.report.correlations import correlation_curves
from flows.report.writing import written
from flows.stages import content_keys
from flows.stages.base import STAGES, skipped
from flows.stages.generate import chunks, generate, sequences
from flows.stages.generate.beginnings import Beginning, Stream
from flows.stages.generate.sequence_days import Drawing
from flows.stages.preprocess import preprocess
from flows.stages.preprocess.sequence_law import choice_of, sequence_law_of
from flows.stages.train import train
from flows.stages.verify.in_time import in_time
from pipeline.fields.climatology import season_phase
from pipeline.fields.whitening import to_whitened
from pipeline.gaussian.dynamics_fit import choose_sequence, fit_sequence
from pipeline.gaussian.lags import LagMoments, contiguous
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import plan
from storage.artifacts import publishing as artifacts
from storage.artifacts.audit import check
from storage.artifacts.garbage import garbage
from storage.artifacts.layout import StoreLayout
from storage.errors import IncompleteArtifact

GRID, LMAX, DAYS = RingGrid.gaussian(12), 5, 730


def silent(*_: Any) -> None:
    pass


def publish_fields(layout: StoreLayout, times: Any, warming: Any = None) -> None:
    """Two variables whose days follow each other, coarse scales longer than fine ones.

    The second has scales beyond lmax that remember, too. Both follow a covariate, if there is one.
    """
    generator = np.random.default_rng(0)
    harmonics = plan(GRID, 9, "float64")
    degree = np.repeat(np.arange(10), 2 * np.arange(10) + 1)
    rate, x = 0.9 - 0.05 * degree, np.zeros((2, len(degree)))
    days = []
    for _ in range(len(times) + 30):
        e = generator.standard_normal(x.shape)
        e[1] += 0.5 * e[0]
        x = rate * x + np.sqrt(1 - rate**2) * e
        days.append(x / (1 + degree))
    values = harmonics.synthesis(np.stack(days[30:], axis=1))
    attrs = {"ta": ("air_temperature", "K"), "zg": ("geopotential_height", "m")}
    season = 10 * np.cos(season_phase(xr.DataArray(times, dims="time")))[:, None, None]
    fields = xr.Dataset(
        {
            name: (
                ("time", "lat", "lon"),
                (280 + season + part).astype("f4"),
                {"standard_name": attrs[name][0], "units": attrs[name][1]},
            )
            for name, part in zip(attrs, values, strict=True)
        },
        coords={
            "time": times,
            "lat": np.asarray(GRID.latitudes),
            "lon": np.arange(24) * 15.0,
        },
    )
    if warming is not None:
        warmer = {name: fields[name] + warming[:, None, None].astype("f4") for name in attrs}
        for name in attrs:
            warmer[name].attrs = fields[name].attrs
        fields = fields.assign(warmer).assign(warming=("time", warming))
    path, shards = layout.artifact("fields", "f" * 64), {"time": 64}
    artifacts.create(path, fields, chunks=shards, shards=shards)
    units = artifacts.plan_units({"time": len(times)}, shards)
    for unit in units:
        artifacts.write_unit(path, unit, fields.isel(time=unit.region["time"]))
    artifacts.publish(layout, "fields", "f" * 64, units, {})


def make_config(root: Path, days: int = 20, realizations: int = 3, **changes: Any) -> RunConfig:
    asked = {"start": "2004-01-01", "days": days, "realizations": realizations}
    table: dict[str, dict[str, Any]] = {
        "run": {"root": str(root), "seed": 3},
        "source": {"paths": ["-"], "variables": ["ta", "zg"]},
        "split": {
            "train": ["2000-01-01", "2000-12-31"],
            "validation": ["2001-01-01", "2001-06-30"],
            "test": ["2001-07-01", "2001-12-30"],
        },
        "spectral": {"lmax": LMAX},
        "sequence": {"past": 2},
        "train": {"model": "gaussian:var"},
        "generate": {
            "realizations": 2,
            "times": ["2000-01-15"],
            "microbatch": 2,
            "sequences": [asked | changes.pop("sequence", {}), *changes.pop("more", [])],
        },
    }
    for key, value in changes.items():
        section, _, name = key.partition("_")
        table[section] |= {name: value}
    return RunConfig.from_dict(table)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, here: Client) -> Path:
    """The root of a run up to and with its training."""
    root = tmp_path_factory.mktemp("trained")
    config, layout = make_config(root), StoreLayout(str(root))
    times = xr.date_range("2000-01-01T12:00", periods=DAYS, freq="D").values
    publish_fields(layout, times)
    preprocess.run(config, layout, here, silent)
    train.run(config, layout, None, silent)
    return root


@pytest.fixture(autouse=True)
def short_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences, "UNIT_TIMES", 8)


def drawn(config: RunConfig, client: Client) -> xr.Dataset:
    layout = config.layout
    sequences.publish_sequences(config, layout, client, silent)
    return artifacts.open_published(layout, "sequences").load()


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    """A run of its own on the same artifacts, without sequences."""
    root = tmp_path / "run"
    shutil.copytree(trained, root, symlinks=True)
    for path in [*root.glob("artifacts/s*"), *root.glob("s*.zarr")]:
        path.unlink() if path.is_symlink() else shutil.rmtree(path)
    return root


def test_the_law_in_normals_is_the_one_that_the_whitened_days_give(trained):
    """Over blocks and spans, with their days before: the same sums as of the whole series."""
    layout = StoreLayout(str(trained))
    normals = artifacts.open_published(layout, "normals").load()
    x = artifacts.open_published(layout, "whitened")["x"].load()
    parts = [
        LagMoments.of(x.sel(time=slice(*period)).values.astype(np.float64), 2)
        for period in (("2000-01-01", "2000-12-31"), ("2001-01-01", "2001-06-30"))
    ]
    choice = choose_sequence(*parts)
    expected, found = fit_sequence(parts[0], choice), sequence_law_of(normals)
    test = x.sel(time=slice("2001-07-01", None)).values.astype(np.float64)
    np.testing.assert_allclose(found.log_density(test), expected.log_density(test), atol=0.02)
    past = np.random.default_rng(1).standard_normal((2, 2, 36))
    np.testing.assert_allclose(found.mean(past), expected.mean(past), atol=2e-3)


def test_sequences_are_days_in_the_calendar_of_the_source(root, here):
    found = drawn(make_config(root), here)
    assert found["ta"].dims == ("realization", "time", "lat", "lon")
    assert found["ta"].shape == (3, 20, 12, 24)
    steps = np.diff(found["time"].values)
    assert (steps == np.timedelta64(1, "D")).all()
    assert str(found["time"].values[0])[:13] == "2004-01-01T12"
    assert found["ta"].attrs["units"] == "K"
    assert np.isfinite(found["zg"]).all()
    xr.testing.assert_equal(spherescore.open_sequences(root).load(), found)


def test_generate_draws_single_days_as_before_and_sequences_beside_them(root, here):
    config = make_config(root)
    generate.run(config, config.layout, here, silent)
    single = artifacts.open_published(config.layout, "ensemble").load()
    assert single.sizes["time"] == 1
    alone = RunConfig.from_dict(
        config.to_dict()
        | {"generate": {"realizations": 2, "times": ["2000-01-15"], "microbatch": 2}}
    )
    generate.run(alone, config.layout, here, silent)
    again = artifacts.open_published(config.layout, "ensemble").load()
    xr.testing.assert_equal(single, again)
    assert artifacts.published(config.layout, "sequences") is not None


def test_a_longer_sequence_begins_as_a_shorter_one(root, here):
    short = drawn(make_config(root, days=11), here)
    long = drawn(make_config(root, days=30), here)
    xr.testing.assert_equal(short[["ta", "zg"]], long[["ta", "zg"]].isel(time=slice(0, 11)))


@pytest.mark.parametrize("days", [3, 12, 60])
def test_a_sequence_may_have_any_length(root, here, days, monkeypatch):
    """Units are of whole chunks, as long as they are without a patch, and the last is cut."""
    monkeypatch.setattr(sequences, "UNIT_TIMES", chunks.UNIT_TIMES)
    found = drawn(make_config(root, days=days, realizations=1), here)
    assert found.sizes["time"] == days
    assert np.isfinite(found["zg"].values[:, -1]).all()


def test_members_have_the_same_bytes_alone_and_together(root, here, trained, tmp_path):
    together = drawn(make_config(root, realizations=5), here)
    other = tmp_path / "other"
    shutil.copytree(trained, other, symlinks=True)
    one = drawn(make_config(other, realizations=1), here)
    xr.testing.assert_equal(one[["ta", "zg"]], together[["ta", "zg"]].isel(realization=[0]))
    more = drawn(make_config(other, realizations=5), here)
    xr.testing.assert_equal(more[["ta", "zg"]], together[["ta", "zg"]])
    x, y = (together["ta"].isel(realization=k).values for k in (0, 1))
    assert np.corrcoef(x.ravel(), y.ravel())[0, 1] < 0.999


@pytest.mark.parametrize("lost", [(0, 8), (8, 16), (16, 20)])
def test_a_sequence_that_was_interrupted_at_any_day_has_the_same_bytes(
    root, here, lost, monkeypatch
):
    """One unit of one member is lost, between members that have theirs."""
    config = make_config(root)
    whole = drawn(config, here)
    for kind in ("states", "sequences"):
        path = artifacts.published(config.layout, kind).path
        (path.parent / path.name / "published.json").unlink(missing_ok=True)
        record = path.with_suffix(".records")
        marker = [*record.glob(f"realization-1-2/time-{lost[0]}-{lost[1]}.json")]
        assert len(marker) == 1
        marker[0].unlink()
        for file in path.glob(f"*/c/1/{lost[0] // 8}/*"):
            if file.is_file():
                file.write_bytes(b"")
        unpublish(path)
    again = drawn(config, here)
    xr.testing.assert_equal(again[["ta", "zg"]], whole[["ta", "zg"]])


@pytest.mark.parametrize("kept", [1, 4, 10])
def test_drawing_that_dies_is_gone_on_with_and_nothing_is_drawn_twice(
    root, here, kept, monkeypatch, trained, tmp_path
):
    """It dies at the writing of a unit, of states or of fields."""
    other = tmp_path / "whole"
    shutil.copytree(root, other, symlinks=True)
    whole = drawn(make_config(other), here)
    config, written, write = make_config(root), [], artifacts.write_unit

    def dying(path, unit, *args, **kwargs):
        if len(written) == kept:
            raise OSError("the machine dies")
        written.append((path, unit.name))
        return write(path, unit, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "write_unit", dying)
        with pytest.raises(UnitFailed, match="the machine dies"):
            drawn(config, here)

    def counting(path, unit, *args, **kwargs):
        written.append((path, unit.name))
        return write(path, unit, *args, **kwargs)

    monkeypatch.setattr(artifacts, "write_unit", counting)
    again = drawn(config, here)
    xr.testing.assert_equal(again[["ta", "zg"]], whole[["ta", "zg"]])
    assert len(written) == len(set(written)) == 2 * 3 * 3


def test_one_worker_and_two_processes_draw_the_same_bytes(root, here, client, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(root, other, symlinks=True)
    one = drawn(make_config(root, realizations=5, more=[branch()]), here)
    two = drawn(make_config(other, realizations=5, more=[branch()]), client)
    xr.testing.assert_equal(one[["ta", "zg"]], two[["ta", "zg"]])
    branches = (opened(each, "heat")[["ta", "zg"]] for each in (root, other))
    xr.testing.assert_equal(*branches)


def test_sequences_on_another_grid_are_the_same_days(root, here):
    """Their large scales; what is beyond them is other noise."""
    own = drawn(make_config(root), here)
    config = make_config(root, generate_grid="latlon:13x24")
    other = drawn(config, here)
    assert other["ta"].shape == (3, 20, 13, 24)
    means = [each["ta"].mean(("lat", "lon")).values for each in (own, other)]
    assert np.corrcoef(means[0].ravel(), means[1].ravel())[0, 1] > 0.98


def unpublish(path: Any) -> None:
    """Take away what makes an artifact published."""
    for name in ("zarr.json",):
        (path / name).unlink(missing_ok=True)


def test_days_follow_each_other_as_those_of_the_data_do(root, here):
    """Lag-1 correlation by degree, beyond lmax too, where it comes from noise that remembers."""
    config = make_config(root, days=600, realizations=2)
    found = drawn(config, here)
    source = artifacts.open_published(config.layout, "fields").load()
    harmonics = plan(GRID, 9, "float64")
    degree = np.repeat(np.arange(10), 2 * np.arange(10) + 1)

    def correlations(fields: xr.Dataset, name: str) -> np.ndarray:
        values = fields[name].values.astype(np.float64)
        phase = season_phase(fields["time"])
        terms = np.stack([np.ones_like(phase), np.cos(phase), np.sin(phase)], axis=1)
        flat = values.reshape(len(values), -1)
        flat = flat - terms @ np.linalg.lstsq(terms, flat, rcond=None)[0]
        x = harmonics.analysis(flat.reshape(values.shape))
        products, squares = (x[1:] * x[:-1]).sum(axis=0), (x * x).sum(axis=0)
        return np.bincount(degree, products) / np.bincount(degree, squares)

    for name in ("ta", "zg"):
        expected = correlations(source, name)
        for member in (0, 1):
            got = correlations(found.isel(realization=member), name)
            np.testing.assert_allclose(got[1:6], expected[1:6], atol=0.13)
            np.testing.assert_allclose(got[7:], expected[7:], atol=0.13)


def test_the_report_says_what_the_days_before_are_worth_and_what_the_draws_miss(root, here):
    config = make_config(root, days=300, realizations=2)
    layout = config.layout
    drawn(config, here)
    normals = artifacts.open_published(layout, "normals").load()
    found = in_time(config, layout, normals)
    law = sequence_law_of(normals)
    x = artifacts.open_published(layout, "whitened")["x"]
    x = x.sel(time=slice(*config.split.test)).values.astype(np.float64)
    expected = (law.log_density(x) - law.log_density(x, at_most=0))[2:].mean()
    assert found["ladder"]["2"]["nats"] == pytest.approx(expected)
    assert found["ladder"]["1"]["low"] > 5
    assert found["channels"] == ["ta", "zg"]
    model, floor = (np.array(found["misses"][name]) for name in ("model", "floor"))
    assert model.shape == (31, 2)
    assert model[1:6].mean() < 1.5 * floor[1:6].mean()
    page = written("time.html", card={"time": found}, pictures={})
    assert f"<b>{expected:.0f}</b>" in page
    assert "in brackets" in page
    correlation_curves(found, {"ta": "Temperature", "zg": "Height"})
    assert written("time.html", card={}, pictures={}) == ""


def test_days_on_two_sides_of_a_border_of_units_are_as_near_as_others(root, here):
    """Units are of 8 days: a sequence that began anew in each would lose every eighth pair."""
    config = make_config(root, days=400, realizations=2)
    drawn(config, here)
    x = artifacts.open_published(config.layout, "states")["x"].values.astype(np.float64)
    products = (x[:, 1:] * x[:, :-1]).sum(axis=(0, 2, 3))
    at_border = np.arange(1, 400) % 8 == 0
    assert products[at_border].mean() > 0.9 * products[~at_border].mean()


def test_a_forecast_goes_on_from_a_day_of_the_source(root, here):
    sequence = {"start": "2001-08-11", "from": "2001-08-10"}
    config = make_config(root, realizations=24, days=3, sequence=sequence)
    found = drawn(config, here)
    normals = artifacts.open_published(config.layout, "normals").load()
    members = [to_whitened(found.isel(realization=k), normals)["x"].values for k in range(24)]
    x = artifacts.open_published(config.layout, "whitened")["x"]
    past = x.sel(time=slice("2001-08-09", "2001-08-10")).values.astype(np.float64)
    law = sequence_law_of(normals)
    mean = law.mean(past)
    spread = np.stack(members)[:, 0].astype(np.float64) - mean
    score = law.innovations[2].rotate(torch.from_numpy(spread)).numpy()
    score /= np.sqrt(law.innovations[2].variance.numpy())
    assert np.square(score).mean() == pytest.approx(1.0, abs=0.1)
    truth = x.sel(time="2001-08-11").values[0]
    assert np.square(mean - truth).sum() < 0.7 * np.square(truth).sum()


@pytest.mark.parametrize(
    ("sequence", "words"),
    [
        ({"start": "2001-08-12", "from": "2001-08-10"}, "does not follow .* is 2001-08-11T12"),
        (
            {"start": "2009-01-02", "from": "2009-01-01"},
            "source has no day 2009-01-01; it has 2000",
        ),
    ],
)
def test_a_forecast_from_a_day_that_is_not_there_is_refused(root, here, sequence, words):
    with pytest.raises(ConfigError, match=words):
        drawn(make_config(root, sequence=sequence), here)


def test_sequences_need_a_past_and_a_law_that_has_one(tmp_path):
    with pytest.raises(ConfigError, match=r"sequence\.past: expected at least 1 .* got 0"):
        make_config(tmp_path, sequence_past=0)
    expected = r"train\.model: expected \"network\" or \"gaussian:var\""
    with pytest.raises(ConfigError, match=expected):
        make_config(tmp_path, train_model="gaussian:m-block")


def require_no_pair_across_a_gap(config: RunConfig) -> None:
    """The law in normals is that of the stretches, and another one where pairs cross gaps."""
    normals = artifacts.open_published(config.layout, "normals").load()
    x = artifacts.open_published(config.layout, "whitened")["x"].load()
    train = x.sel(time=slice(*config.split.train))
    days, stretches = train.values.astype(np.float64), contiguous(train["time"].values)
    assert len(stretches) > 10
    choice, found = choice_of(normals), sequence_law_of(normals)
    apart = fit_sequence(reduce(add, [LagMoments.of(days[part], 2) for part in stretches]), choice)
    joined = fit_sequence(LagMoments.of(days, 2), choice)
    block = days[stretches[2]]
    expected = apart.log_density(block)
    np.testing.assert_allclose(found.log_density(block), expected, atol=0.02)
    assert np.abs(joined.log_density(block) - expected).max() > 0.2


@pytest.mark.parametrize(
    ("calendar", "leap"),
    [("noleap", ["2004-02-28", "2004-03-01"]), ("360_day", ["2004-02-29", "2004-02-30"])],
)
def test_sequences_in_the_calendar_of_a_model_and_as_files(tmp_path, here, calendar, leap):
    layout = StoreLayout(str(tmp_path))
    times = xr.date_range("2000-01-01T12:00", periods=DAYS, calendar=calendar, use_cftime=True)
    publish_fields(layout, np.delete(times.values, np.arange(40, DAYS, 20)))  # every 20th is lost
    split = {"split_train": ["2000-01-01", "2000-12-30"]}
    config = make_config(tmp_path, days=70, realizations=2, **split)
    preprocess.run(config, layout, here, silent)
    train.run(config, layout, None, silent)
    found = drawn(config, here)
    require_no_pair_across_a_gap(config)
    assert found["time"].dt.calendar == calendar
    days = [str(day)[:10] for day in found["time"].values]
    assert days[58:60] == leap
    told = export_with(here, silent, layout, tmp_path / "out", "netcdf", None, "sequences")
    assert told["files"] == told["written"] == 4
    decoder = xr.coders.CFDatetimeCoder(use_cftime=True)
    with xr.open_dataset(tmp_path / "out/zg/zg_realization-1.nc", decode_times=decoder) as file:
        assert file["time"].encoding["calendar"] == calendar
        assert [str(day)[:10] for day in file["time"].values] == days
        np.testing.assert_array_equal(file["zg"].values, found["zg"].values[1])
        assert "given the 2 before it" in file.attrs["summary"]
        assert "independent" not in file.attrs["summary"]
    with xr.open_dataset(tmp_path / "out/ta/ta_realization-0.nc", decode_times=False) as file:
        assert (np.diff(file["time"].values) == 1.0).all()
    item = json.loads((tmp_path / "out/item.json").read_text())
    assert len(item["assets"]) == 4
    assert item["properties"]["title"] == "Generated sequences of 70 times, 2 realizations"
    with pytest.raises(IncompleteArtifact, match=r"sequences-heat\.zarr is not published"):
        export_with(here, silent, layout, tmp_path / "out", "netcdf", None, "sequences-heat")


def branch(**changes: Any) -> dict[str, Any]:
    """Four realizations that go on from the tenth day of realization 2."""
    known = {"start": "2004-01-11", "from": "2004-01-10", "of": "sequences.zarr", "realization": 2}
    return known | {"days": 10, "realizations": 4, "name": "heat"} | changes


def opened(root: Path, name: str = "") -> xr.Dataset:
    return spherescore.open_sequences(root, name).load()


def test_a_branch_on_the_stream_of_its_sequence_would_be_that_sequence(root, here, monkeypatch):
    """Large scales from its states, small ones from the noise of the days before, bit by bit."""
    monkeypatch.setattr(Beginning, "words", "in sequence")
    drawn(make_config(root, more=[branch()]), here)
    whole, part = opened(root), opened(root, "heat")
    assert part.sizes["realization"] == 4
    xr.testing.assert_equal(
        part[["ta", "zg"]].isel(realization=[2]),
        whole[["ta", "zg"]].isel(realization=[2], time=slice(10, 20)),
    )


def test_a_branch_takes_another_stream_than_its_sequence_and_remembers_it(root, here):
    """Near to it at first, then nearer to none; realizations of a branch differ from each other."""
    drawn(make_config(root, more=[branch()]), here)
    whole, part = opened(root).isel(time=slice(10, 20)), opened(root, "heat")

    def apart(one: int, day: int) -> float:
        other = whole["ta"].isel(realization=one, time=day)
        return float(np.square(part["ta"].isel(time=day) - other).mean())

    assert apart(2, 0) < 0.7 * min(apart(0, 0), apart(1, 0))
    assert apart(2, 0) > 0
    first = part["zg"].isel(time=0)
    assert float(first.var("realization").min()) > 0


def test_a_branch_has_the_same_bytes_in_another_run_and_may_be_branched_again(
    root, here, trained, tmp_path
):
    own = [branch(), branch(name="hotter", start="2004-01-16", of="sequences-heat.zarr")]
    own[1]["from"] = "2004-01-15"
    drawn(make_config(root, more=own), here)
    other = tmp_path / "other"
    shutil.copytree(trained, other, symlinks=True)
    place = f"{root}/sequences.zarr"
    config = make_config(other, sequence=branch(of=place, name="", realizations=2, days=6))
    drawn(config, here)
    part = {"realization": slice(0, 2), "time": slice(0, 6)}
    heat = opened(root, "heat")
    xr.testing.assert_equal(opened(other)[["ta", "zg"]], heat[["ta", "zg"]].isel(part))
    again, before = opened(root, "hotter"), heat.isel(time=slice(5, 10))
    assert again.attrs["begins"] == "2004-01-15 of sequences-heat.zarr"
    assert not np.isclose(again["ta"].values[2, :5], before["ta"].values[2]).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"realization": 3}, "has realizations 0 to 2, not 3"),
        ({"start": "2004-01-02", "from": "2004-01-01"}, "goes on from 2 of them"),
        ({"start": "2004-02-02", "from": "2004-02-01"}, "has days 2004-01-01 to 2004-01-20"),
        ({"of": "runs/none/sequences.zarr"}, r"runs/none/sequences\.zarr is not published"),
    ],
)
def test_a_branch_from_a_day_that_is_not_there_is_refused(root, here, changes, words):
    with pytest.raises(ConfigError, match=words):
        drawn(make_config(root, more=[branch(**changes)]), here)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (branch(name=""), "another name for each"),
        (branch(name="He at"), "lower-case letters"),
        (branch(of="sequences-none.zarr"), "that stand before"),
        (branch(of="ensemble.zarr"), r"sequences-NAME\.zarr of a run"),
    ],
)
def test_sequences_that_cannot_be_told_apart_or_found_are_refused(tmp_path, more, words):
    with pytest.raises(ConfigError, match=words):
        make_config(tmp_path, more=[more])


def test_several_sequences_are_one_step_that_is_up_to_date_with_all_of_them(root, here):
    """Names that a change of mind led elsewhere lead back, and a forecast may stand beside."""
    forecast = {"start": "2001-08-11", "from": "2001-08-10", "days": 3, "name": "forecast"}
    config = make_config(root, more=[branch(), forecast], generate_series=True)
    (stage,) = [one for one in STAGES if one.name == "generate"]

    def receipt(of: RunConfig, **options: Any) -> Any:
        key = content_keys.key_of("generate", of, of.layout)
        return skipped(stage, key, of.layout, **options)

    assert receipt(config) is None
    generate.run(config, config.layout, here, silent)
    assert receipt(config, point_names=False) is not None
    assert opened(root, "forecast").sizes["time"] == 3
    copy = xr.open_dataset(root, engine="spherescore", kind="series-sequences-heat")
    xr.testing.assert_equal(copy[["ta"]].load(), opened(root, "heat")[["ta"]])
    other = make_config(root, days=12, more=[branch(realizations=2)])
    generate.run(other, other.layout, here, silent)
    assert opened(root, "heat").sizes["realization"] == 2
    assert receipt(config, point_names=False) is None
    assert receipt(config) is not None
    assert opened(root, "heat").sizes["realization"] == 4
    assert opened(root).sizes["time"] == 20
    needed = [str(path) for one in garbage(config.layout, []) for path in one.paths]
    heat = artifacts.published(config.layout, "sequences", "heat")
    assert str(heat.path) not in needed
    assert check(config.layout) == []


def test_the_noise_of_a_day_is_of_the_sequence_that_had_it(tmp_path):
    """A branch of a branch: three streams, one after the other, and the last one its own."""
    parents = (
        Stream(seed=5, realization=7, words="in sequence", last=-3),
        Stream(seed=4, realization=2, words="in branch 1", last=-1),
    )
    times = xr.Dataset(coords={"time": xr.date_range("2004-01-11", periods=4, freq="D")})
    published: Any = None
    drawing = Drawing(
        config=make_config(tmp_path),
        normals=published,
        checkpoint=published,
        times=times,
        step=np.timedelta64(1, "D"),
        lead=0,
        features=np.empty((4, 1)),
        beginning=Beginning(days=np.zeros((2, 2, 36), np.float32), streams=parents),
    )
    found = [drawing.noise(1, day) for day in (-4, -3, -2, -1, 0)]
    expected = [(5, 7, "in sequence")] * 2 + [(4, 2, "in branch 1")] * 2 + [(3, 1, "in branch 2")]
    assert [(one.seed, one.realization, one.time[30:]) for one in found] == expected
    assert [one.time[8:10] for one in found] == ["07", "08", "09", "10", "11"]
