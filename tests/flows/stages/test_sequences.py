"""Days that follow each other: their bytes, what they begin with, and what they remember."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from distributed import Client

import spherescore
from flows.cluster.map_units import UnitFailed
from flows.config.schema import ConfigError, RunConfig
from flows.report.correlations import correlation_curves
from flows.report.writing import written
from flows.stages.generate import generate, sequences
from flows.stages.preprocess import preprocess
from flows.stages.preprocess.sequence_law import sequence_law_of
from flows.stages.train import train
from flows.stages.verify.in_time import in_time
from pipeline.fields.climatology import season_phase
from pipeline.fields.whitening import to_whitened
from pipeline.gaussian.dynamics_fit import choose_sequence, fit_sequence
from pipeline.gaussian.lags import LagMoments
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import plan
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout

GRID, LMAX, DAYS = RingGrid.gaussian(12), 5, 730


def silent(*_: Any) -> None:
    pass


def publish_fields(layout: StoreLayout, times: Any) -> None:
    """Two variables whose days follow each other, coarse scales longer than fine ones.

    The second has scales beyond lmax that remember, too.
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
            "sequences": [asked | changes.pop("sequence", {})],
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
        marker = [*record.glob(f"realization-1-2.time-{lost[0]}-{lost[1]}.json")]
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
    one = drawn(make_config(root, realizations=5), here)
    two = drawn(make_config(other, realizations=5), client)
    xr.testing.assert_equal(one[["ta", "zg"]], two[["ta", "zg"]])


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


def test_sequences_in_the_calendar_of_a_model_without_leap_days(tmp_path, here):
    layout = StoreLayout(str(tmp_path))
    times = xr.date_range("2000-01-01T12:00", periods=DAYS, calendar="noleap", use_cftime=True)
    publish_fields(layout, times.values)
    config = make_config(tmp_path, days=70, realizations=1)
    preprocess.run(config, layout, here, silent)
    train.run(config, layout, None, silent)
    found = drawn(config, here)
    assert found["time"].dt.calendar == "noleap"
    days = [str(day)[:10] for day in found["time"].values]
    assert days[58:60] == ["2004-02-28", "2004-03-01"]
