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
from flows.report.time_section import time_section
from flows.stages.generate import sequences
from flows.stages.preprocess import preprocess
from flows.stages.preprocess.sequence_law import sequence_law_of
from flows.stages.train import train
from flows.stages.train.pasts import Pasts
from flows.stages.trained_model import certified_sampler, trained, trained_sequences
from flows.stages.verify.in_time import in_time
from flows.stages.verify.path_certificate import path_certificate
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
            f"realization-1-2.time-{lost[0]}-{lost[1]}.json"
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


def test_a_learned_sequence_differs_from_the_linear_one_and_shares_its_noise(root, here):
    config = learned_config(root, realizations=1)
    own = drawn(config, here)
    layout = config.layout
    normals = artifacts.open_published(layout, "normals").load()
    law = sequence_law_of(normals)
    x = artifacts.open_published(layout, "states")["x"].values[0].astype(np.float64)
    days = [x[k] - law.mean(x[None, k - 2 : k])[0] for k in range(2, 20)]
    linear = drawn(RunConfig.from_dict(make_config(root, realizations=1).to_dict()), here)
    assert not np.array_equal(own["ta"], linear["ta"])
    assert np.isfinite(np.stack(days)).all()


def test_the_report_says_how_many_nats_a_day_the_learned_law_adds(root, here, monkeypatch):
    config = learned_config(root)
    layout = config.layout
    found = path_certificate(config, layout, here, silent)
    assert found is not None
    normals = artifacts.open_published(layout, "normals").load()
    checkpoint = artifacts.published(layout, "checkpoints")
    score = trained_sequences(config, checkpoint, normals).score
    held_out = Pasts.of(layout, config.split.test, normals).held_out(torch.device("cpu"))
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
    assert ladder["AR(1)"]["nats"] < ladder["1"]["nats"] < ladder["2"]["nats"] + 5
    assert ladder["model"]["nats"] == pytest.approx(ladder["2"]["nats"] + found.nats.mean())
    page = time_section({"time": told}, {})
    assert "by the learned law, given 2 days before" in page
    assert "Madden-Julian" in page
    assert path_certificate(make_config(root), layout, here, silent) is None
