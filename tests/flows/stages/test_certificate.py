"""What the certificate of a run says in words."""

import copy

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from flows.config.schema import RunConfig
from flows.stages.preprocess.normals import STORED_AS
from flows.stages.verify.best_gaussian import BestGaussian
from flows.stages.verify.certificate import Certified, _assembled, _parts, statement
from pipeline.certificate.path_bound import Certificate
from pipeline.scores.intervals import mean_interval, standard_errors

FOUND = {
    "over": {
        "m-block": {"nats": 222.0, "low": 210.0, "high": 230.0, "per_coefficient": 0.05},
        "whole": {"nats": 101.0, "low": 95.0, "high": 107.0, "per_coefficient": 0.02},
    },
    "baseline": "m-block",
    "best": {"name": "whole", "choice": {}},
    "chain": {"integrator": "gme", "steps": 32, "drawn_with": "gme"},
    "fields": 184,
}


def test_the_statement_is_about_held_out_fields_one_baseline_and_one_sampler():
    words = statement(FOUND)
    for part in (
        "184 held-out fields",
        "with 95 % confidence",
        "GME chain of 32 steps",
        "fitted m-block Gaussian law by at least 210.0 nats",
        "0.05 for each coefficient",
        "Over the best Gaussian law we know how to fit (whole) it is 101.0 nats",
        "95 %: 95.0 to 107.0",
        "The divergence itself stays unknown",
        "chosen on the validation split; this is measured on the test split",
    ):
        assert part in words


def test_without_an_improvement_none_is_stated():
    found = copy.deepcopy(FOUND)
    found["over"]["m-block"]["low"] = -1.0
    assert "no improvement" in statement(found) and "at least" not in statement(found)


def test_an_ensemble_of_another_integrator_is_not_covered():
    found = copy.deepcopy(FOUND)
    found["chain"]["drawn_with"] = "z-heun"
    assert "drawn with z-heun, which the number does not cover" in statement(found)


def assembled(nats: np.ndarray, times: pd.DatetimeIndex, steps: int = 1) -> dict:
    """The certificate of fields that say `nats`, each at one of the steps of their chain."""
    config = RunConfig.from_dict(
        {
            "run": {"root": "-"},
            "source": {"paths": ["-"], "variables": ["ta"]},
            "split": {
                "train": ["2000-01-01", "2000-12-31"],
                "validation": ["2001-01-01", "2001-12-31"],
                "test": ["2002-01-01", "2002-12-31"],
            },
            "spectral": {"lmax": 1},
            "train": {"steps": 1},
            "generate": {
                "realizations": 1,
                "times": ["2002-01-01"],
                "integrator": "gme",
                "evaluations": steps,
            },
        }
    )
    held_out = xr.Dataset(
        {"x": (("time", "channel", "coefficient"), np.zeros((len(nats), 1, 4)))},
        coords={
            "time": times,
            "channel": ["ta"],
            "phase": ("time", 2 * np.pi * (times.day_of_year.values - 1) / 365),
        },
    )
    by_field = np.stack([nats, 0 * nats], axis=1)[:, None]
    visits = np.arange(len(nats))[:, None] % steps
    by_step = np.zeros((steps, *by_field.shape[1:]))
    np.add.at(by_step, visits[:, 0], by_field)
    whole = Certificate(by_field=by_field, by_step=by_step, visits=visits)
    found = Certified(
        nats=whole,
        own=np.zeros(len(nats)),
        ratios={name: np.zeros(len(nats)) for name in STORED_AS},
        start=0.0,
        gains=[np.zeros(2) for _ in range(8)],
        steps=[0.0],
    )
    best = BestGaussian(log_density=np.full(len(nats), 3.0), choice={"own": 0.9})
    return _assembled(config, held_out, _parts(len(nats), 1), [found], best)


def test_blocks_are_of_times_not_of_members():
    """Four members of fifty days: as sure as fifty days, and the block is no longer than they."""
    generator, days, members = np.random.default_rng(0), 50, 4
    weather = np.convolve(generator.standard_normal(days + 9), np.ones(10))[9 : days + 9]
    times = pd.date_range("2002-01-01", periods=days)
    season = 2 * np.pi * np.arange(days) / 365
    told = assembled(np.tile(weather, members), times.append([times] * (members - 1)))
    own, alone = told["over"]["m-block"], mean_interval(weather, season=season)
    assert 1 < own["block"] == alone.block <= days // 3
    assert own["low"] == pytest.approx(alone.low) and own["high"] == pytest.approx(alone.high)
    assert own["low"] < own["nats"] < own["high"]
    assert told["per_degree_error"][0] == pytest.approx(standard_errors(weather, own["block"]))


def test_a_chain_of_many_steps_is_told_in_parts_that_add_up():
    nats, steps = np.random.default_rng(2).standard_normal(150), 150
    times = pd.date_range("2002-01-01", periods=150)
    told = assembled(nats, times, steps)
    assert len(told["per_time"]) == len(told["spectrum"]) == 50
    assert len(told["times"]) == 51 and told["times"][-1] == 0.0
    assert told["chain"]["steps"] == steps
    assert sum(told["per_time"]) == pytest.approx(told["over"]["m-block"]["nats"])


def test_what_each_field_says_is_kept():
    nats = np.random.default_rng(1).standard_normal(20)
    times = pd.date_range("2002-01-01", periods=20)
    kept = assembled(nats, times)["per_field"]
    np.testing.assert_allclose(kept["over"]["m-block"], nats, rtol=1e-4)
    np.testing.assert_allclose(kept["over"]["whole"], nats - 3.0, rtol=1e-4)
    assert set(kept["over"]) == {*STORED_AS, "whole"} and kept["times"][19] == "2002-01-20T00:00:00"
