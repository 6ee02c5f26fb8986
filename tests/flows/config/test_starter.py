"""`spherescore init`: what it writes is accepted as it is, and says what it left out and why."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from flows.cli.main import main
from flows.config.draft import starter
from flows.config.schema import RunConfig
from storage.conventions.axes import SourceError
from storage.sources.sources import open_source
from tests.storage.imitations import levelled, regular, write

DEMO = "deploy/demo/jcm-t21-daily.nc"


def configured(*paths: str) -> RunConfig:
    return RunConfig.from_dict(tomllib.loads(starter(paths, "runs/first")))


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
    in_train = times.sel(time=slice(*split.train)).size / times.size
    assert in_train == pytest.approx(0.7, abs=0.01)
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
    assert "# not other: on another grid, 3 x 8" in text


def test_a_file_without_a_global_field_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = write(tmp_path, regular(lat=[10.0, 12.0, 14.0]))
    with pytest.raises(SourceError, match=r"no field along time on a global grid; ta: .*regional"):
        starter([path], "r")
    with pytest.raises(SourceError, match="6 times are too few"):
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
