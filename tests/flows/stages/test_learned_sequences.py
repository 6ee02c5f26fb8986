"""A learned law of days that follow each other: trained through the stage, drawn and certified."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from distributed import Client

from flows.config.schema import RunConfig
from flows.report.writing import written
from flows.stages.generate import sequences
from flows.stages.preprocess import preprocess
from flows.stages.preprocess.sequence_law import sequence_law_of
from flows.stages.train import train
from flows.stages.train.pasts import Pasts
from flows.stages.trained_model import certified_sampler, trained, trained_sequences
from flows.stages.verify.forecasts import LEADS, MEMBERS, drawn_from, forecasts
from flows.stages.verify.in_time import in_time
from flows.stages.verify.path_certificate import path_certificate
from flows.stages.verify.pictures import _films
from pipeline.certificate.path_bound import certify
from pipeline.diffusion.score import Condition, GaussianScore
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from tests.flows.stages.test_sequences import DAYS, drawn, make_config, publish_fields, silent


def learned_config(root: Path, **changes: Any) -> RunConfig:
    table = make_config(root, **changes).to_dict()
    table["train"] = {"model": "network", "steps": 6, "batch": 8, "width": 8, "blocks": 1}
    return RunConfig.from_dict(table)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, here: Client) -> Path:
    """The root of a run up to and with its training."""
    root = tmp_path_factory.mktemp("learned")
    config, layout = learned_config(root), StoreLayout(str(root))
    publish_fields(layout, xr.date_range("2000-01-01T12:00", periods=DAYS, freq="D").values)
    preprocess.run(config, layout, here, silent)
    train.run(config, layout, None, silent)
    return root


@pytest.fixture
def root(learned: Path, tmp_path: Path) -> Path:
    """A run of its own on the same artifacts."""
    return copied(learned, tmp_path / "run")


@pytest.fixture(autouse=True)
def short_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences, "UNIT_TIMES", 8)
    monkeypatch.setattr(sequences, "SPIN_UP", 3)


def copied(learned: Path, to: Path) -> Path:
    shutil.copytree(learned, to, symlinks=True)
    for path in [*to.glob("artifacts/s*"), *to.glob("s*.zarr")]:
        path.unlink() if path.is_symlink() else shutil.rmtree(path)
    return to


def test_a_training_of_sequences_learns_what_is_new_in_a_day_and_holds_the_variance(learned):
    config = learned_config(learned)
    normals = artifacts.open_published(config.layout, "normals").load()
    checkpoint = artifacts.published(config.layout, "checkpoints")
    model = trained_sequences(config, checkpoint, normals)
    law = sequence_law_of(normals)
    assert model is not None
    assert torch.equal(model.score.baseline.variance, law.innovations[2].variance)
    assert "of the data's by degree" in checkpoint.attrs["figures"]["variance of sequences"]
    assert isinstance(trained(config, checkpoint, normals).score, GaussianScore)
    x = torch.zeros(2, 2, 36)
    seen = [
        Condition(features=torch.zeros(2, 1), past=past)
        for past in (torch.zeros(2, 3, 2, 36), torch.ones(2, 3, 2, 36))
    ]
    t = torch.full((2,), 0.1)
    answers = [model.score.residual(t, x + 0.1, condition) for condition in seen]
    assert not torch.equal(*answers)


@pytest.mark.parametrize("lost", [(0, 8), (8, 16), (16, 20)])
def test_a_learned_sequence_that_was_interrupted_at_any_day_has_the_same_bytes(root, here, lost):
    config = learned_config(root)
    whole = drawn(config, here)
    for kind in ("states", "sequences"):
        path = artifacts.published(config.layout, kind).path
        (marker,) = path.with_suffix(".records").glob(
            f"realization-1-2/time-{lost[0]}-{lost[1]}.json"
        )
        marker.unlink()
        (path / "zarr.json").unlink()
    again = drawn(config, here)
    xr.testing.assert_equal(again[["ta", "zg"]], whole[["ta", "zg"]])


def test_learned_sequences_are_the_same_alone_and_together_shorter_and_longer(
    root, here, learned, tmp_path
):
    together = drawn(learned_config(root, realizations=5, days=20), here)
    other = copied(learned, tmp_path / "other")
    one = drawn(learned_config(other, realizations=1, days=11), here)
    shorter = together.isel(realization=[0], time=slice(0, 11))
    xr.testing.assert_equal(one[["ta", "zg"]], shorter[["ta", "zg"]])
    more = drawn(learned_config(other, realizations=5, days=20), here)
    xr.testing.assert_equal(more[["ta", "zg"]], together[["ta", "zg"]])


def test_one_worker_and_two_processes_draw_the_same_learned_sequences(
    root, here, client, learned, tmp_path
):
    """Two processes in units of the usual length: they do not know of the patch of this test."""
    config = learned_config(root, realizations=3, days=5)
    other = learned_config(copied(learned, tmp_path / "other"), realizations=3, days=5)
    sequence = {"start": "2001-08-11", "from": "2001-08-10"}  # no spin-up, which is patched
    config, other = (
        learned_config(Path(each.run.root), realizations=3, days=5, sequence=sequence)
        for each in (config, other)
    )
    xr.testing.assert_equal(drawn(config, here)[["ta", "zg"]], drawn(other, client)[["ta", "zg"]])


def test_a_learned_sequence_begins_after_a_spin_up_that_is_dropped(root, here):
    """Its first day is given the days of the spin-up; that of the linear law is given none."""
    config = learned_config(root, realizations=1, days=4)
    drawn(config, here)
    layout = config.layout
    law = sequence_law_of(artifacts.open_published(layout, "normals").load())
    own = artifacts.open_published(layout, "states")["x"].values[0].astype(np.float64)
    drawn(make_config(root, realizations=1, days=4), here)
    linear = artifacts.open_published(layout, "states")["x"].values[0].astype(np.float64)
    new = law.innovations[0].rotate(torch.from_numpy(linear[0] - own[0]))
    assert float((new.square() / law.innovations[0].variance).mean()) > 0.1
    # The same noise drives both: what is new in a day hardly differs.
    left = [x[3] - law.mean(x[None, 1:3])[0] for x in (own, linear)]
    assert np.square(left[0] - left[1]).mean() < 0.3 * np.square(left[1]).mean()


@pytest.mark.long
def test_the_report_says_how_many_nats_a_day_the_learned_law_adds(root, here, monkeypatch):
    config = learned_config(root)
    layout = config.layout
    found = path_certificate(config, layout, here, silent)
    assert found is not None
    normals = artifacts.open_published(layout, "normals").load()
    checkpoint = artifacts.published(layout, "checkpoints")
    score = trained_sequences(config, checkpoint, normals).score
    held_out = Pasts.of(layout, config.split, "test", normals).held_out(torch.device("cpu"))
    expected = certify(
        score,
        held_out.x,
        held_out.condition,
        certified_sampler(config).times,
        torch.Generator().manual_seed(config.run.seed),
        draws=found.summary["draws"],
        batch=config.generate.microbatch,
    )
    np.testing.assert_allclose(found.nats, expected.per_field, rtol=1e-6)
    assert sum(found.summary["per_variable"].values()) == pytest.approx(expected.nats)
    told = in_time(config, layout, normals, found)
    ladder = told["ladder"]
    assert [*ladder] == ["AR(1)", "1", "2", "model"]
    assert 5 < ladder["AR(1)"]["nats"] < ladder["1"]["nats"] + 5
    assert abs(ladder["1"]["nats"] - ladder["2"]["nats"]) < 5
    assert ladder["model"]["nats"] == pytest.approx(ladder["2"]["nats"] + found.nats.mean())
    drawn(learned_config(root, realizations=1, days=70), here)
    told = in_time(config, layout, normals, found)
    told["forecasts"] = forecasts(config, layout, here, silent)
    page = written("time.html", card={"time": told}, pictures={})
    assert "by the learned law, given 2 days before" in page
    assert "Madden-Julian" in page
    assert all(words in page for words in ("spells below", "linear law", "climatology"))
    weather = told["weather"]["variance_of_means"]
    assert np.shape(weather["model"]) == (5, 2)
    assert np.mean(weather["model"][2:4]) < np.mean(weather["independent"][2:4])
    waves = told["weather"]["spectrum"]
    assert np.shape(waves["model"]) == np.shape(waves["floor"]) == (3, 2)
    assert np.mean(waves["model"]) < np.mean(waves["independent"])
    assert "waves, tropics, symmetric" in page
    protocol = {"test": list(config.split.test)}
    shown = _films({"protocol": protocol}, layout, normals, {"ta": "Temperature"})
    assert [*shown] == ["film strip", "moving waves"]
    assert path_certificate(make_config(root), layout, here, silent) is None


def test_forecasts_are_better_than_climatology_and_the_linear_law_has_the_spread_of_its_error(
    root, here
):
    """Data of the linear law's own kind: it is reliable, and no other law is better."""
    config = learned_config(root)
    found = forecasts(config, config.layout, here, silent)
    assert found is not None
    crps = {name: np.array(values) for name, values in found["crps"].items()}
    assert [*crps] == ["model", "linear", "climatology", "persistence"]
    assert crps["linear"].shape == (LEADS, 2)
    assert (crps["linear"][0] < crps["persistence"][0]).all()
    assert (crps["linear"][0] < crps["climatology"][0]).all()
    assert crps["linear"][0].max() < crps["linear"][-1].min()
    assert 0.8 < np.array(found["spread"]["linear"]).mean() < 1.25


def test_forecasts_begin_with_the_days_before_and_share_their_noise(root):
    config = learned_config(root)
    inputs = [artifacts.published(config.layout, kind) for kind in ("checkpoints", "normals")]
    held_out = artifacts.open_published(config.layout, "whitened").sel(
        time=slice(*config.split.test)
    )
    found = drawn_from(config, *inputs, held_out, 20)
    law = sequence_law_of(artifacts.open_published(config.layout, "normals").load())
    assert found["linear"].shape == (MEMBERS, LEADS, 2, 36)
    mean = law.mean(held_out["x"][19:21].values.astype(np.float64))
    left = found["linear"][:, 0] - mean
    expected = law.innovations[2].variance.numpy()
    spread = law.innovations[2].rotate(torch.from_numpy(left)).numpy()
    assert 0.7 < (np.square(spread) / expected).mean() < 1.3
    apart = np.square(found["model"][:, 0] - found["linear"][:, 0]).mean()
    assert apart < 0.3 * np.square(left).mean()


def test_a_network_of_single_days_stands_beside_linear_sequences(learned, tmp_path, here):
    """`learned = false`: the network sees no past, and sequences are those of the linear law."""
    root = tmp_path / "run"
    shutil.copytree(learned, root, symlinks=True)
    table = learned_config(root, days=9).to_dict()
    config = RunConfig.from_dict(table | {"sequence": {"past": 2, "learned": False}})
    assert (config.draws_by_network, config.learns_sequences) == (True, False)
    train.run(config, config.layout, None, silent)
    normals = artifacts.open_published(config.layout, "normals").load()
    checkpoint = artifacts.published(config.layout, "checkpoints")
    model = trained(config, checkpoint, normals).score
    assert not isinstance(model, GaussianScore)
    answer = model.residual(torch.ones(1), torch.ones(1, 2, 36), torch.zeros(1, 1))
    assert torch.isfinite(answer).all()
    assert trained_sequences(config, checkpoint, normals) is None
    found = drawn(config, here)
    other = copied(learned, tmp_path / "linear")
    linear = drawn(make_config(other, days=9), here)
    xr.testing.assert_equal(found[["ta", "zg"]], linear[["ta", "zg"]])
    assert path_certificate(config, config.layout, here, silent) is None
