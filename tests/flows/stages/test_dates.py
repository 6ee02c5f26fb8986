"""Dates that a configuration speaks of: what the data cannot answer is refused at the start."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from flows import run as runs
from flows.cli.main import main
from flows.config.schema import ConfigError, RunConfig
from flows.plan.plan import workload
from flows.stages.base import published_input
from flows.stages.dates import at_dates, require_dates
from pipeline.errors import UnusableData
from pipeline.fields.whitening import to_whitened
from storage.artifacts import publishing as artifacts
from tests.small import small_table

EIGHT_MONTHS = {
    "train": ["2000-01-01", "2000-08-31"],
    "validation": ["2000-09-01", "2000-10-31"],
    "test": ["2000-11-01", "2000-12-31"],
}


def times_of(start: str, end: str, calendar: str = "standard") -> xr.DataArray:
    days = xr.date_range(start, end, freq="D", calendar=calendar, use_cftime=calendar != "standard")
    return xr.DataArray(days, dims="time", coords={"time": days})


def config_of(directory: Path, **sections: dict[str, Any]) -> RunConfig:
    table = small_table(directory)
    for name, values in sections.items():
        table[name] = table.get(name, {}) | values
    return RunConfig.from_dict(table)


def run_all(config: RunConfig) -> None:
    for stage in ("ingest", "preprocess", "train", "generate", "verify"):
        runs.run_alone(config, stage)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_period_without_data_is_refused_at_ingest_and_before(tmp_path: Path, split: str) -> None:
    other = {name: {"train": 2000, "validation": 2001, "test": 2002}[name] for name in EIGHT_MONTHS}
    periods = {name: [f"{year}-01-01", f"{year}-12-31"] for name, year in other.items()}
    periods[split] = ["2010-01-01", "2010-12-31"]
    config = config_of(tmp_path, split=periods, generate={"times": ["2001-07-01"]})
    message = f"split.{split}: the data have no times from 2010-01-01 to 2010-12-31; they run from"
    with pytest.raises(UnusableData, match=message):
        runs.run_alone(config, "ingest")
    with pytest.raises(UnusableData, match=message):
        workload(config)
    assert artifacts.published(config.layout, "fields") is None


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"start": "2002-02-30"}, r"sequences\.start: 2002-02-30 is no date"),
        ({"from": "2002-06-29"}, r"2002-07-01 does not follow 2002-06-29; the time before"),
        ({"start": "2003-01-02", "from": "2003-01-01"}, "source has no day 2003-01-01; it has"),
        ({"days": 92}, r"sequences: 2002-09-17, .* no data within half a month of that season"),
    ],
)
def test_a_sequence_that_cannot_be_drawn_is_refused_before_a_training(
    tmp_path: Path, asked: dict[str, Any], message: str
) -> None:
    config = config_of(
        tmp_path,
        split=EIGHT_MONTHS,
        sequence={"past": 1},
        generate={
            "times": ["2002-07-01"],
            "sequences": [{"start": "2002-07-01", "days": 3, **asked}],
        },
    )
    with pytest.raises((ConfigError, UnusableData), match=message):
        require_dates(config, times_of("2000-01-01", "2002-12-31"))


def test_sequences_of_months_are_refused_in_days(tmp_path: Path) -> None:
    sequences = [{"start": "2002-01-01", "days": 3}]
    config = config_of(
        tmp_path, sequence={"past": 1}, generate={"times": ["2002-01-01"], "sequences": sequences}
    )
    months = xr.date_range("2000-01-01", "2002-12-01", freq="MS")
    times = xr.DataArray(months, dims="time", coords={"time": months})
    with pytest.raises(UnusableData, match=r"not equally far apart: 28 days to 31 days; take"):
        require_dates(config, times)


@pytest.mark.parametrize(
    ("calendar", "day"),
    [("standard", "2001-02-30"), ("noleap", "2004-02-29"), ("360_day", "2001-01-31")],
)
def test_a_date_that_the_calendar_of_the_data_lacks_is_refused(calendar: str, day: str) -> None:
    times = times_of("2000-01-01", "2001-12-30", calendar)
    with pytest.raises(ConfigError, match=rf"generate\.times: {day} is no date of the calendar"):
        at_dates([day], times)


def test_such_a_date_is_refused_before_the_first_stage(tmp_path: Path) -> None:
    config = config_of(tmp_path, generate={"times": ["2001-02-30"]})
    with pytest.raises(ConfigError, match=r"generate\.times: 2001-02-30 is no date"):
        runs.run(config)
    assert artifacts.published(config.layout, "fields") is None


def test_asked_dates_of_a_season_that_was_not_seen_are_refused_at_the_start(tmp_path: Path) -> None:
    config = config_of(tmp_path, split=EIGHT_MONTHS, generate={"times": ["2000-11-15"]})
    words = r"generate\.times: 2000-11-15: split\.train has no data .*13 September to 16 December"
    with pytest.raises(UnusableData, match=words):
        runs.run_alone(config, "ingest")


@pytest.mark.long
def test_what_a_part_of_the_year_determines_is_fitted_and_said_in_log_card_and_report(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of(tmp_path, split=EIGHT_MONTHS, generate={"times": ["2000-03-15"]})
    with caplog.at_level("INFO", "spherescore"):
        run_all(config)
    layout = config.layout
    normals = artifacts.open_published(layout, "normals")
    assert normals.sizes["season"] == 3
    assert "yearly cycle: 1 of 2 harmonics are fitted" in caplog.text
    assert "no training data from 13 September to 16 December" in caplog.text
    report = Path(str(published_input(layout, "report").path))
    for name in ("report.html", "model-card.md", "scores.json"):
        text = (report / name).read_text()
        assert "1 of 2 harmonics are fitted" in text, name
        assert "the season of " in text and "13 September to 16 December" in text, name


@pytest.mark.long
def test_a_record_of_one_season_is_learned_with_a_mean_alone(tmp_path: Path) -> None:
    summer = {
        "train": ["2000-06-01", "2000-08-31"],
        "validation": ["2001-06-01", "2001-08-31"],
        "test": ["2002-06-01", "2002-08-31"],
    }
    for spectral in ({"lmax": 5}, {"lmax": 5, "harmonics": 0}):
        config = config_of(
            tmp_path, split=summer, spectral=spectral, generate={"times": ["2002-07-01"]}
        )
        for stage in ("ingest", "preprocess"):
            runs.run_alone(config, stage)
        normals = artifacts.open_published(config.layout, "normals").load()
        assert normals.sizes["season"] == 1
        fields = artifacts.open_published(config.layout, "fields").load()
        training = fields["z"].sel(time=slice("2000-06-01", "2000-08-31"))
        np.testing.assert_allclose(normals["climatology"][0, 0], training.mean("time"), atol=1e-6)
        whitened = artifacts.open_published(config.layout, "whitened")["x"]
        again = to_whitened(fields, normals)["x"]
        np.testing.assert_allclose(again, whitened, atol=1e-5)


def test_more_harmonics_than_the_training_times_determine_are_refused(tmp_path: Path) -> None:
    config = config_of(
        tmp_path,
        split=EIGHT_MONTHS,
        spectral={"harmonics": 2},
        generate={"times": ["2000-03-15"]},
    )
    with pytest.raises(UnusableData, match=r"spectral\.harmonics: expected at most 1, got 2"):
        runs.run_alone(config, "ingest")


def test_whole_years_are_fitted_as_ever(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    require_dates(config, times_of("2000-01-01", "2002-12-31"))
    for stage in ("ingest", "preprocess"):
        runs.run_alone(config, stage)
    normals = artifacts.open_published(config.layout, "normals")
    assert (normals.sizes["season"], normals.attrs["unseen"]) == (5, "[]")
    assert "seasons" not in published_input(config.layout, "normals").attrs["figures"]


def test_status_of_a_date_that_is_none_says_so_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], write_config: Any
) -> None:
    table = small_table(tmp_path)
    table["train"] = {"model": "gaussian:m-block"}
    for stage in ("ingest", "preprocess", "train"):
        runs.run_alone(RunConfig.from_dict(table), stage)
    table["generate"]["times"] = ["2001-02-30"]
    assert main(["status", write_config(table)]) == 2
    assert "generate.times: 2001-02-30 is no date" in capsys.readouterr().err
