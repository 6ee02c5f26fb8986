"""Events over several days, and how much likelier they are in one world than in another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.stats import norm

from flows.config.schema import ConfigError, RunConfig
from flows.stages.condition import condition
from flows.stages.condition.events import require_event
from flows.stages.condition.spells import spells_of
from flows.stages.generate import sequences
from flows.stages.preprocess import preprocess
from flows.stages.train import train
from pipeline.errors import UnusableData
from pipeline.fields.standardisation import Normals
from pipeline.given.functionals import box
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from tests.flows.stages.test_sequences import make_config, publish_fields, silent

DAYS, TIMES = 5, ["2004-01-01", "2004-01-11", "2004-01-20"]
EVENT = {"variable": "zg", "box": [10.0, 60.0, 0.0, 90.0], "above": 291.2, "days": DAYS}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory, here: Any) -> Path:
    """The root of a run up to its training, with a tail, whose climatology follows a covariate."""
    root = tmp_path_factory.mktemp("spells")
    times = xr.date_range("2000-01-01T12:00", periods=730, freq="D").values
    config = config_of(root)
    warming = np.random.default_rng(5).standard_normal(730)
    publish_fields(config.layout, times, warming)
    preprocess.run(config, config.layout, here, silent)
    train.run(config, config.layout, None, silent)
    return root


def table_of(root: Path, **asked: Any) -> dict[str, Any]:
    table = make_config(root, spectral_tail=7).to_dict()
    table["source"] |= {"covariates": {"warming": "warming.csv"}, "trend": ["warming"]}
    table["generate"] |= {"times": TIMES, "covariates": {"warming": 1.0}}
    table["generate"]["sequences"] = asked.pop("sequences", [])
    about = {"event": EVENT | asked.pop("event", {}), "realizations": 3} | asked
    return table | {"condition": about}


def config_of(root: Path, **asked: Any) -> RunConfig:
    return RunConfig.from_dict(table_of(root, **asked))


@pytest.fixture
def drawn(record: Path, here: Any) -> Callable[..., xr.Dataset]:
    """Run the stage in this process, and open what it has made."""

    def run(**asked: Any) -> xr.Dataset:
        config = config_of(record, **asked)
        condition.run(config, config.layout, here, silent)
        return artifacts.open_published(config.layout, "conditioned").load()

    return run


def told(root: Path) -> dict[str, Any]:
    return json.loads((root / "findings" / "conditioned.json").read_text())["event"]["dates"]


def known_of(root: Path) -> Normals:
    return Normals.of(artifacts.open_published(StoreLayout(str(root)), "normals").load())


def means(root: Path, fields: xr.Dataset) -> np.ndarray:
    """Of the box, (realization, time)."""
    functionals = box(known_of(root).grid, EVENT["box"], 0)
    return functionals(fields["zg"].values[:, :, None].astype(np.float64))[..., 0]


def test_all_days_of_every_draw_have_the_event_in_their_mean(drawn, record):
    fields = drawn()
    days = [str(day)[:10] for day in fields["time"].values]
    assert days[:6] == [*(f"2004-01-0{day}" for day in range(1, 6)), "2004-01-11"]
    found = means(record, fields).reshape(3, 3, DAYS).mean(axis=-1)
    assert found.min() > EVENT["above"] - 1e-4
    assert found.max() < EVENT["above"] + 3.0
    below = means(record, drawn(event={"above": None, "below": 288.0})).reshape(3, 3, DAYS)
    assert below.mean(axis=-1).max() < 288.0 + 1e-4


def test_the_log_has_the_range_of_the_probabilities_of_several_dates(record, here):
    config = config_of(record)
    figures = condition.run(config, config.layout, here, silent).figures
    chances = [one["probability"] for one in told(record).values()]
    assert figures["probability"] == f"{min(chances):.3g} to {max(chances):.3g}"
    assert figures["standard error"] == 0.0


def test_more_realizations_leave_those_that_there_are(drawn):
    few = drawn(realizations=2)
    xr.testing.assert_equal(drawn(realizations=3).isel(realization=slice(0, 2)), few)


def test_plain_sequences_have_the_event_as_often_as_its_probability_says(drawn, record, here):
    drawn()
    chances = [one["probability"] for one in told(record).values()]
    assert 0.15 < np.mean(chances) < 0.6
    assert all(one["standard_error"] == 0.0 for one in told(record).values())
    config = config_of(record, sequences=[{"start": "2004-01-01", "days": 24, "realizations": 40}])
    sequences.publish_sequences(config, config.layout, here, silent)
    plain = means(record, artifacts.open_published(config.layout, "sequences").load())
    have = [plain[:, first : first + DAYS].mean(axis=1) > EVENT["above"] for first in (0, 10, 19)]
    error = np.sqrt(sum(chance * (1 - chance) for chance in chances) / 40) / 3
    assert abs(np.mean(have) - np.mean(chances)) < 3.5 * 1.3 * error  # they remember each other


def test_the_ratio_between_two_worlds_is_that_of_two_normal_tails(drawn, record):
    drawn(event={"against": {"warming": 0.0}})
    first = told(record)[TIMES[0]]
    drawn(event={"above": 292.2, "against": {"warming": 0.0}})
    other = told(record)[TIMES[0]]
    means = []
    for here, there in ((first, other), (first["against"], other["against"])):
        z = [norm.isf(one["probability"]) for one in (here, there)]
        means.append(EVENT["above"] - z[0] / (z[1] - z[0]))  # 1 K apart: over the deviation
    normals = artifacts.open_published(StoreLayout(str(record)), "normals").load()
    known = known_of(record)
    slope = known.climatology[-1] / normals["trend_scale"].item()  # of one unit of the covariate
    warmer = float(box(known.grid, EVENT["box"], 1)(slope)[0])
    assert warmer == pytest.approx(1.0, abs=0.2)  # as the fields were made
    assert means[0] - means[1] == pytest.approx(warmer, abs=1e-4)
    ratio, elsewhere = first["ratio"], first["against"]["probability"]
    assert ratio["probability"] == pytest.approx(first["probability"] / elsewhere, rel=1e-4)
    odds = [p / (1 - p) for p in (first["probability"], elsewhere)]
    assert ratio["odds"] == pytest.approx(odds[0] / odds[1], rel=1e-4)
    assert ratio["log_error"] == 0.0


def test_both_worlds_are_stored_and_shown(drawn, record):
    fields = drawn(event={"against": {"warming": 0.0}})
    assert (fields["log_evidence_against"] < fields["log_evidence"]).all()
    page = (record / "conditioned.html").read_text()
    assert "With warming 0" in page
    assert "times as likely" in page
    assert "log_evidence_against" not in page


SENTENCES: dict[str, tuple[dict[str, Any], str]] = {
    "no day": ({"event": {"days": 0}}, r"condition\.event\.days: expected a positive number"),
    "no such covariate": (
        {"event": {"against": {"warmth": 0.0}}},
        r"condition\.event\.against\.warmth is not in source\.covariates",
    ),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_an_event_that_cannot_be_read_is_refused_in_a_sentence(name, record):
    asked, words = SENTENCES[name]
    with pytest.raises(ConfigError, match=words):
        config_of(record, **asked)


def test_a_model_that_does_not_know_sequences_is_refused_with_what_does(record):
    table = table_of(record)
    table["train"] = {"model": "network", "steps": 1}
    with pytest.raises(ConfigError, match=r'"gaussian:var" for condition\.event\.days'):
        RunConfig.from_dict(table)
    table["train"], table["sequence"] = {"model": "gaussian:m-block"}, {"past": 0}
    with pytest.raises(ConfigError, match=r"sequence\.past: .* for condition\.event\.days"):
        RunConfig.from_dict(table)


def test_events_whose_days_overlap_are_refused_with_how_far_apart_they_have_to_be(record):
    table = table_of(record)
    table["generate"]["times"] = ["2004-01-01", "2004-01-05"]
    config = RunConfig.from_dict(table)
    with pytest.raises(ConfigError, match=r"5 days of the event from 2004-01-01 .* 2004-01-05"):
        spells_of(config, config.layout)


def test_a_gaussian_law_is_compared_with_another_world_only_where_its_trend_follows(record):
    table = table_of(record, event={"against": {"index": 0.0}})
    table["source"]["covariates"] = {"warming": "warming.csv", "index": "index.csv"}
    with pytest.raises(UnusableData, match=r"follows index only where source\.trend names it"):
        require_event(RunConfig.from_dict(table), known_of(record))
