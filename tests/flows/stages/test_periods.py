"""A split of several periods: what is learned from may lie on both sides of what is held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from distributed import Client

from flows.config.schema import RunConfig
from flows.stages.dates import require_dates
from flows.stages.generate import generate
from flows.stages.preprocess import preprocess
from flows.stages.preprocess.sequence_law import sequence_law_of
from flows.stages.splits import part_of, rows_of, spans_of
from flows.stages.train import train
from flows.stages.verify import verify
from pipeline.errors import UnusableData
from pipeline.gaussian.dynamics_fit import choose_sequence, fit_sequence
from pipeline.gaussian.lags import LagMoments
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from tests.flows.stages.test_sequences import make_config, publish_fields, silent

FIRST, SECOND = ("2000-01-01", "2000-12-31"), ("2001-06-01", "2001-10-31")
HELD = ("2001-01-01", "2001-05-31")


def config_of(root: Path, **changes: Any) -> RunConfig:
    table = make_config(root).to_dict()
    table["split"] |= {"train": [*FIRST, *SECOND], "validation": list(HELD)}
    table["split"] |= {"test": ["2001-11-01", "2001-12-30"]} | changes
    table["spectral"] |= {"harmonics": 0}
    return RunConfig.from_dict(table)


def days(*places: tuple[str, str]) -> list[str]:
    return [
        str(day) for a, b in places for day in np.arange(a, np.datetime64(b) + 1, dtype="M8[D]")
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, here: Client) -> RunConfig:
    """A run whose training periods lie before and after its validation, up to its training."""
    root = tmp_path_factory.mktemp("apart")
    config, layout = config_of(root), StoreLayout(str(root))
    publish_fields(layout, xr.date_range("2000-01-01T12:00", periods=730, freq="D").values)
    preprocess.run(config, layout, here, silent)
    train.run(config, layout, None, silent)
    return config


def test_a_split_holds_the_days_of_all_its_periods_and_no_others(finished: RunConfig) -> None:
    whitened = artifacts.open_published(finished.layout, "whitened")
    found = part_of(whitened, finished.split, "train")
    assert [str(time)[:10] for time in found["time"].values] == days(FIRST, SECOND)
    assert spans_of(whitened, finished.split, "train") == [slice(0, 366), slice(517, 670)]
    assert rows_of(whitened, finished.split, "validation") == slice(366, 517)


def test_the_climatology_is_of_all_periods(finished: RunConfig) -> None:
    """Without harmonics it is their mean, about which the days of neither are centred alone."""
    x = artifacts.open_published(finished.layout, "whitened")["x"]
    own = part_of(x, finished.split, "train").mean("time")
    alone = x.sel(time=slice(*SECOND)).mean("time")
    np.testing.assert_allclose(own, 0.0, atol=1e-4)
    assert float(np.abs(alone).max()) > 0.1


def test_pairs_of_days_are_of_all_periods_and_of_no_day_between_them(finished: RunConfig) -> None:
    normals = artifacts.open_published(finished.layout, "normals").load()
    x = artifacts.open_published(finished.layout, "whitened")["x"].load()
    first, second, held = (
        LagMoments.of(x.sel(time=slice(*part)).values.astype(np.float64), 2)
        for part in (FIRST, SECOND, HELD)
    )
    choice = choose_sequence(first + second, held)
    expected, found = fit_sequence(first + second, choice), sequence_law_of(normals)
    test = x.sel(time=slice("2001-11-01", None)).values.astype(np.float64)
    np.testing.assert_allclose(found.log_density(test), expected.log_density(test), atol=0.02)


@pytest.mark.long
def test_such_a_run_ends_in_a_report_that_names_its_periods(
    finished: RunConfig, here: Client
) -> None:
    generate.run(finished, finished.layout, here, silent)
    verify.run(finished, finished.layout, here, silent)
    page = finished.layout.report.read_bytes().decode()
    assert "2000-01-01 to 2000-12-31 and 2001-06-01 to 2001-10-31" in page


def test_a_period_without_data_is_refused_though_others_have_some(finished: RunConfig) -> None:
    times = artifacts.open_published(finished.layout, "fields")["time"]
    asked = config_of(Path(finished.run.root), train=[*FIRST, "2004-01-01", "2004-12-31"])
    with pytest.raises(UnusableData, match="no times from 2004-01-01 to 2004-12-31; they run"):
        require_dates(asked, times)
