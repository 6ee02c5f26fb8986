"""What the stage `condition` is said to take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from flows.config.schema import RunConfig
from flows.plan.conditioning import Asked, asked_of, conditioning
from flows.plan.plan import estimate
from flows.plan.work import prices
from flows.plan.workload import Machines, Workload
from tests.small import small_table

LOAD = Workload(
    times=1000, fitted=700, validated=100, tested=200, channels=5, nlat=64, points=8192, lmax=31,
    ensemble=(4, 4), verification=(4, 4), past=2,
)  # fmt: skip


def configured(tmp_path: Path, **asked: Any) -> RunConfig:
    table = small_table(tmp_path) | {"condition": asked, "sequence": {"past": 2}}
    return RunConfig.from_dict(table | {"train": {"model": "gaussian:var"}})


def table_of(tmp_path: Path, rows: int) -> str:
    path = tmp_path / "stations.csv"
    days = ["2002-07-04"] * rows + ["2002-07-20"] * 3
    columns = {"time": days, "lat": 1.0, "lon": 2.0, "variable": "z", "value": 1.0}
    pd.DataFrame(columns).to_csv(path, index=False)
    return str(path)


def test_observed_values_are_counted_by_the_date_that_has_most(tmp_path):
    config = configured(tmp_path, observations=table_of(tmp_path, 7))
    assert asked_of(config, LOAD) == Asked(dates=2, values=7, all_values=10, together=7)


def test_fields_observe_all_their_cells_and_coarse_ones_their_degrees(tmp_path):
    config = configured(tmp_path, fields=[str(tmp_path / "noise.nc")])
    load = replace(LOAD, channels=1)
    assert asked_of(config, load).values == 8 * 16
    config = configured(tmp_path, coarse=[str(tmp_path / "noise.nc")], coarse_lmax=3)
    assert asked_of(config, load).values == 16


def test_files_of_what_is_given_are_counted_where_the_source_has_scenarios(tmp_path):
    path = str(tmp_path / "noise.nc")
    table = configured(tmp_path, fields=[path]).to_dict()
    table["sequence"], table["train"] = {"past": 0}, {"model": "gaussian:m-block"}
    table["source"].pop("paths")
    table["source"]["scenarios"] = [
        {"name": name, "paths": [path], "covariates": {"warming": level}}
        for name, level in (("control", 0.0), ("warmer", 4.0))
    ]
    load = replace(LOAD, channels=1)
    assert asked_of(RunConfig.from_dict(table), load).values == 8 * 16


def test_an_event_that_lasts_is_counted_by_its_days(tmp_path):
    event = {"variable": "z", "box": [0.0, 40.0, 0.0, 90.0], "above": 1.0, "days": 7}
    assert asked_of(configured(tmp_path, event=event), LOAD) == Asked(
        dates=7, values=1, together=1, window=7
    )


def test_days_of_gaps_are_those_that_are_named_and_a_window_has_those_beside_it(tmp_path):
    gaps = ["2001-03-01", "2001-03-10", "2001-05-01", "2001-05-02"]
    asked = asked_of(configured(tmp_path, gaps=gaps), LOAD)
    assert (asked.dates, asked.window) == (12, 14)


@pytest.mark.parametrize(
    ("few", "many"),
    [
        ({"gaps": ["2001-03-01", "2001-03-10"]}, {"gaps": ["2001-03-01", "2001-06-10"]}),
        (
            {"gaps": ["2001-03-01", "2001-03-10"]},
            {"gaps": ["2001-03-01", "2001-03-10"], "realizations": 64},
        ),
    ],
)
def test_longer_gaps_and_more_realizations_never_take_less(tmp_path, few, many):
    one, other = (
        conditioning(configured(tmp_path, **asked), LOAD, Machines(), prices())
        for asked in (few, many)
    )
    assert one is not None and other is not None
    for name in ("seconds", "bytes", "files", "memory", "memory_here"):
        assert getattr(other, name) >= getattr(one, name), name
    assert other.bytes > one.bytes
    assert other.seconds > one.seconds


def test_a_gap_of_ten_days_at_t31_fits_a_small_machine(tmp_path):
    """Of five variables: no covariance of all days is held."""
    config = configured(tmp_path, gaps=["2001-03-01", "2001-03-10"])
    found = conditioning(config, LOAD, Machines(), prices())
    assert found is not None
    assert 600 << 20 < found.memory < 3 << 30


def test_the_plan_of_a_run_has_the_stage_where_something_is_given(tmp_path):
    asked = {"gaps": ["2001-03-01", "2001-03-10"], "realizations": 4}
    assert [one.stage for one in estimate(configured(tmp_path, **asked))][-1] == "condition"
    assert "condition" not in [one.stage for one in estimate(configured(tmp_path))]
