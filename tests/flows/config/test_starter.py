"""`spherescore init`: what it writes is accepted as it is, and says what it left out and why."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from flows.cli.main import main
from flows.config.draft import starter
from flows.config.schema import RunConfig
from flows.stages.dates import require_dates
from flows.stages.ingest.ingest import how_to_open
from storage.errors import SourceError
from storage.sources.sources import open_source
from storage.sources.survey import Survey
from storage.sources.values import constant_zeros
from tests.storage.imitations import levelled, regular, write
from tests.storage.sources.test_forecasts import analysis_and_forecast
from tests.storage.sources.test_zarr import plain_store, rain

SHAPE = (4, 8)  # of `regular`
DEMO = "deploy/demo/jcm-t21-daily.nc"


def configured(*paths: str) -> RunConfig:
    """What is written for these files; every configuration is one that ingest takes."""
    config = RunConfig.from_dict(tomllib.loads(starter(paths, "runs/first")))
    fields, _ = open_source(paths, config.source.variables, **how_to_open(config.source))
    require_dates(config, fields["time"])
    assert fields["time"].sel(time=slice(*config.split.test)).size >= 2, "verify needs two"
    return config


def series(tmp_path: Path, days: pd.DatetimeIndex, **values: np.ndarray) -> str:
    """A file of fields of these names at these times."""
    source = regular(count=len(days)).drop_vars("ta").assign_coords(time=days)
    for name, each in values.items():
        source[name] = (("time", "lat", "lon"), each.astype("f4"), {"units": "1"})
    return write(tmp_path, source)


def test_the_demonstration_is_described_as_its_own_file_does() -> None:
    found, known = (
        configured(DEMO).source,
        tomllib.loads(Path("deploy/configs/demo.toml").read_text()),
    )
    assert list(found.variables) == known["source"]["variables"]
    assert list(found.static) == known["source"]["static"]
    assert found.transform == known["source"]["transform"]


def test_periods_follow_each_other_and_the_dates_asked_for_are_held_out() -> None:
    config = configured(DEMO)
    split, times = config.split, xr.open_dataset(DEMO)["time"]
    cuts = [day for period in (split.train, split.validation, split.test) for day in period]
    assert cuts == sorted(cuts) and cuts[0] == "2000-01-01" and cuts[-1] == "2002-12-31"
    assert times.sel(time=slice(*split.train)).size == 731, "two whole years of three"
    assert all(split.test[0] <= day <= split.test[1] for day in config.generate.times)


def test_many_years_are_split_between_years(tmp_path: Path) -> None:
    source = regular(count=10 * 12)
    source["time"] = xr.date_range("1990-01-01", periods=120, freq="MS")
    split = configured(write(tmp_path, source)).split
    assert split.train == ("1990-01-01", "1996-12-01")
    assert split.test[0].endswith("-01-01") and split.test[1] == "1999-12-01"


@pytest.mark.parametrize("calendar", ["360_day", "noleap"])
def test_other_calendars_few_times_and_gaps(tmp_path: Path, calendar: str) -> None:
    source = regular(count=36)
    source["time"] = xr.date_range(
        "0004-01-01", periods=36, freq="5D", calendar=calendar, use_cftime=True
    )
    source = source.isel(time=[*range(10), *range(20, 36)])
    path = write(tmp_path, source)
    config = configured(path)
    assert config.train.model == "gaussian:m-block"
    assert config.source.allow_gaps
    fields, _ = open_source(path, config.source.variables, allow_gaps=True)
    assert fields.sizes["time"] == 26


def test_several_times_of_a_day_stay_in_one_period(tmp_path: Path) -> None:
    source = regular(count=1001)
    source["time"] = xr.date_range("2000-01-01", periods=1001, freq="6h")
    split = configured(write(tmp_path, source)).split
    assert split.train[1] < split.validation[0] and split.validation[1] < split.test[0]


def test_of_many_levels_the_usual_ones_and_the_others_are_named(tmp_path: Path) -> None:
    source = levelled([100000, 85000, 70000, 50000, 25000, 1000])
    source = xr.concat(
        [source, source.assign_coords(time=source.time + np.timedelta64(6, "D"))], "time"
    )
    text = starter([write(tmp_path, source)], "r")
    assert tomllib.loads(text)["source"]["variables"] == ["ta@850", "ta@500", "ta@250"]
    assert "# there are also: ta@1000, ta@700, ta@10\n" in text


def test_variables_in_files_of_their_own_holes_and_rain(tmp_path: Path) -> None:
    warm, rain = regular(count=12), regular(count=12, name="pr", seed=1)
    warm["ta"] = warm["ta"].where(warm["lat"] < 60)
    rain["pr"] = (abs(rain["pr"] - 280) * 1e-5).assign_attrs(
        units="kg m-2 s-1", standard_name="precipitation_flux"
    )
    coarse = regular(count=12, name="other", lat=[-60.0, 0.0, 60.0])
    paths = [write(tmp_path, s, f"{n}.nc") for n, s in (("a", warm), ("b", rain), ("c", coarse))]
    text = starter(paths, "r")
    source = RunConfig.from_dict(tomllib.loads(text)).source
    assert source.variables == ("ta", "pr")
    assert source.transform == {"pr": "cbrt"} and source.fill == {"ta": "harmonic"}
    assert "skewed; too few fields for ranks" in text
    assert "# not other: on another grid, 3 x 8" in text


def test_a_file_without_a_global_field_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = write(tmp_path, regular(lat=[10.0, 12.0, 14.0]))
    with pytest.raises(SourceError, match=r"no field along time on a global grid; ta: .*regional"):
        starter([path], "r")
    with pytest.raises(SourceError, match="6 fields on 6 days are too few"):
        starter([write(tmp_path, regular())], "r")
    months = regular().rename(time="month").drop_vars("month")
    with pytest.raises(SourceError, match=r"ta has no time coordinate \(its dims are month of 6"):
        starter([write(tmp_path, months)], "r")
    series = regular().mean(("lat", "lon"))
    with pytest.raises(SourceError, match=r"global grid; it has ta\(time\)$"):
        starter([write(tmp_path, series)], "r")


def test_members_are_samples_and_what_has_none_is_left_out(tmp_path: Path) -> None:
    plain = regular(count=12)
    both = xr.concat(
        [plain, plain + 1], xr.Variable("number", [0, 1], {"standard_name": "realization"})
    )
    both["ta"] = both["ta"].assign_attrs(plain["ta"].attrs)
    both["ts"] = (plain["ta"].dims, plain["ta"].values, plain["ta"].attrs)
    both["ua"] = both["ta"]
    path = write(tmp_path, both)
    text = starter([path], "r")
    source = RunConfig.from_dict(tomllib.loads(text)).source
    assert (source.variables, source.samples) == (("ta", "ua"), "number")
    assert "# 2 members" in text and "# not ts: it has no members" in text
    dataset, _ = open_source([path], source.variables, samples=source.samples)
    assert dataset.sizes["time"] == 24


def test_what_files_say_of_themselves_stays_in_remarks(tmp_path: Path) -> None:
    source = regular(count=12)
    source["b\n[cluster]\nworkers = 99\n#"] = source["ta"]
    source["orog"] = source["ta"].isel(time=0, drop=True)
    source["ta"].attrs["long_name"] = 'warm"]\n[run]\nroot = "/elsewhere"'
    config = configured(write(tmp_path, source, "a.zarr"))
    assert (config.source.variables, config.source.static) == (("ta",), ("orog",))
    assert (config.cluster.workers, config.run.root) == (2, "runs/first")


def test_many_files_of_a_directory_become_its_pattern(tmp_path: Path) -> None:
    for month in range(1, 7):
        write(tmp_path, regular(start=f"2000-0{month}-01"), f"m{month}.nc")
    paths = sorted(str(path) for path in tmp_path.glob("*.nc"))
    assert configured(*paths).source.paths == (f"{tmp_path}/*.nc",)
    assert len(configured(*paths[:5]).source.paths) == 5


def test_the_command_writes_what_ingest_takes_and_never_over_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, root = tmp_path / "my.toml", str(tmp_path / "run")
    source = write(tmp_path, regular(count=400))
    assert main(["init", source, "--to", str(target), "--root", root]) == 0
    assert main(["init", source, "--to", str(target)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["plan", str(target)]) == 0
    assert main(["ingest", str(target), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["root"] == root


@pytest.mark.parametrize(
    ("years", "train", "test_days"),
    [
        (2, "2000-12-31", 183),
        (3, "2001-12-31", 183),
        (4, "2001-12-31", 365),
        (5, "2002-12-31", 365),
    ],
)
def test_training_covers_whole_years_and_tests_more_than_a_season(
    tmp_path: Path, years: int, train: str, test_days: int
) -> None:
    source = regular(count=1)
    days = pd.date_range("2000-01-01", f"{1999 + years}-12-31")
    whole = source.isel(time=np.zeros(len(days), int)).assign_coords(time=days)
    config = configured(write(tmp_path, whole))
    assert config.split.train == ("2000-01-01", train)
    first, last = (np.datetime64(day) for day in config.split.test)
    assert int((last - first) / np.timedelta64(1, "D")) + 1 == pytest.approx(test_days, abs=2)


def test_years_that_begin_in_autumn_are_whole_years_too(tmp_path: Path) -> None:
    days = pd.date_range("1999-10-01", "2003-09-30")
    whole = regular(count=1).isel(time=np.zeros(len(days), int)).assign_coords(time=days)
    split = configured(write(tmp_path, whole)).split
    assert split.train == ("1999-10-01", "2001-09-30")
    assert split.validation == ("2001-10-01", "2002-09-30")


def test_a_small_lake_is_no_share_of_nought(tmp_path: Path) -> None:
    source = regular(count=12, lat=np.arange(-82.5, 90, 15), lon=np.arange(0.0, 360, 15))
    source["ta"][:, 0, 0] = np.nan
    text = starter([write(tmp_path, source)], "r")
    assert "# 0.35% of the cells are missing" in text


def test_twelve_monthly_files_ask_for_what_was_learned_and_say_what_was_not(tmp_path: Path) -> None:
    for month in range(1, 13):
        days = pd.date_range(f"2001-{month:02d}-01", periods=28)
        part = regular(count=28).assign_coords(time=days)
        write(tmp_path, part, f"m{month:02d}.nc")
    paths = sorted(str(path) for path in tmp_path.glob("*.nc"))
    text = starter(paths, "r")
    config = configured(*paths)
    assert config.split.train[1] < config.generate.times[-1] or config.split.train[1] < "2001-10"
    assert all(day <= config.split.train[1] for day in config.generate.times)
    assert "# not learned: there are no training data from" in text
    assert "1 of 2 harmonics" in text


@pytest.mark.parametrize(("dates", "members"), [(4, 10), (6, 13), (4, 2)])
def test_members_are_counted_as_the_samples_that_they_are(
    tmp_path: Path, dates: int, members: int
) -> None:
    parts = [regular(count=dates, seed=k) for k in range(members)]
    days = pd.date_range("2000-01-01", periods=dates, freq="MS")
    whole = xr.concat(parts, pd.Index(range(1, members + 1), name="realization"))
    path = write(tmp_path, whole.assign_coords(time=days))
    config = configured(path)
    assert config.source.samples == "realization"
    assert f"({dates * members} fields)" in starter([path], "r")


def test_members_are_offered_by_name_where_their_dimension_has_another(tmp_path: Path) -> None:
    parts = [regular(count=12, seed=k) for k in range(3)]
    whole = xr.concat(parts, "m").assign_coords(realization=("m", [4, 5, 9]))
    assert configured(write(tmp_path, whole)).source.samples == "realization"


def test_amounts_get_ranks_where_there_are_fields_to_rank(tmp_path: Path) -> None:
    rain = regular(count=365, name="pr")
    rain["pr"] = (abs(rain["pr"] - 280) * 1e-5).assign_attrs(
        units="kg m-2 s-1", standard_name="precipitation_flux"
    )
    assert configured(write(tmp_path, rain)).source.transform == {"pr": "rank"}


def test_holes_that_move_are_said_and_no_fill_is_proposed_that_ingest_refuses(
    tmp_path: Path,
) -> None:
    source = regular(count=40)
    source["ta"] = source["ta"].where((source["time"] < source["time"][20]) | (source["lat"] < 60))
    source["ua"] = regular(count=40, name="ua")["ua"]
    path = write(tmp_path, source)
    text = starter([path], "r")
    assert "fill" not in tomllib.loads(text)["source"]
    assert "# ta is missing at some times in cells that have values at others" in text


def test_zeros_over_land_are_missing_and_a_unit_in_the_long_name_is_offered(
    tmp_path: Path,
) -> None:
    days = pd.date_range("1990-01-01", periods=48, freq="MS")
    anomaly = np.random.default_rng(0).standard_normal((48, *SHAPE))
    anomaly[:, :, :2] = 0.0
    path = series(tmp_path, days, ssta=anomaly)
    with xr.open_dataset(path) as known:
        source = known.load()
    source["ssta"].attrs["long_name"] = "anomaly of sea surface temperature degK"
    path = write(tmp_path, source)
    text = starter([path], "r")
    config = configured(path)
    assert config.source.missing == {"ssta": 0.0} and config.source.fill == {"ssta": "harmonic"}
    assert "25% of ssta" in text
    assert '# units = { ssta = "K" }  # the files say "1", the long name' in text


def test_zeros_that_are_the_least_amount_are_said_and_kept(tmp_path: Path) -> None:
    days = pd.date_range("1990-01-01", periods=48, freq="MS")
    ice = np.random.default_rng(0).random((48, *SHAPE))
    ice[:, 1:4] = 0.0
    path = series(tmp_path, days, ice=ice)
    text = starter([path], "r")
    assert "missing" not in tomllib.loads(text)["source"]
    assert "# ice is exactly 0 at all times in" in text


@pytest.mark.parametrize("shift", [0.0, 300.0])
def test_zeros_of_ingest_are_the_zeros_of_the_files(shift: float) -> None:
    values = np.random.default_rng(0).standard_normal((20, 4, 6)) + shift
    values[:, 1] = 0.0
    values[7:, 2] = 0.0  # in the second half only
    whole = Survey.of(values)
    halves = Survey.of(values[:7]) + Survey.from_json(Survey.of(values[7:]).to_json())
    for seen in (whole, halves):
        np.testing.assert_array_equal(seen.always_zero(), (values == 0).all(axis=0))
        assert seen.zeros_stand_out
        assert constant_zeros("ssta", seen).startswith("25% of the cells are exactly 0")
    assert not Survey.of(np.abs(values - shift)).zeros_stand_out
    assert constant_zeros("ssta", Survey.of(values[:, 2:])) == ""


def test_zeros_of_zarr_2_and_bands_of_latitude_are_declared(tmp_path: Path) -> None:
    band = rain(None, np.arange(-40.0, 41, 20))
    days = xr.concat([band.assign_coords(time=band.time + np.timedelta64(6 * k, "D"))
                      for k in range(8)], "time")  # fmt: skip
    source = configured(plain_store(tmp_path / "a.zarr", days)).source
    assert (source.zarr_fill, source.band) == ("value", True)
    assert source.fill == {"pr": "harmonic"}


def test_patterns_say_how_many_files_they_found(tmp_path: Path) -> None:
    for k, folder in enumerate(("a", "a/b", "a/b/c")):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, regular(6, f"2000-01-{1 + 6 * k:02d}"), f"{k}.nc")
    text = starter([f"{tmp_path}/**/*.nc"], "runs/first")
    assert f"# {tmp_path}/**/*.nc: 3 files" in text


def test_of_an_analysis_and_its_forecasts_one_lead_is_chosen(tmp_path: Path) -> None:
    paths = analysis_and_forecast(
        tmp_path, "forecast_period", {"standard_name": "forecast_reference_time"}, count=12
    )
    config = configured(*paths)
    assert dict(config.source.select) in ({"forecast_period": 0.0}, {"forecast_period": 48.0})
    text = starter(paths, "runs/first")
    assert "# of forecasts that overlap; or another of their leads" in text
