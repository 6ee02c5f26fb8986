"""Files of one model under several forcings: fields of each, of levels between, and pairs."""

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.special import ndtr

import spherescore
from flows.cli import commands
from flows.cli.export import drawn
from flows.config.schema import ConfigError, DrawnSequence, RunConfig
from flows.plan.plan import workload
from flows.stages.base import STAGES, Receipt, skipped
from flows.stages.conditions import conditioned_as_observed, covariate_variables
from flows.stages.content_keys import digest_of_source, ingest_key, key_of
from flows.stages.generate import generate
from flows.stages.generate.beginnings import beginning_of
from flows.stages.generate.sequence_times import given_along
from flows.stages.ingest.ingest import open_fields
from flows.stages.splits import course_of, in_courses, part_of
from flows.stages.verify.candidates import Places, held_out_times
from pipeline.gaussian.lags import contiguous
from pipeline.sphere.grid import RingGrid
from storage.artifacts import publishing as artifacts
from storage.conventions.axes import SourceError

GRID = RingGrid.gaussian(8)
LATITUDE = np.asarray(GRID.latitudes)
LEVELS = {"control": 0.0, "plus4": 4.0}
SEQUENCES = {"control": 0.0, "plus4": 4.0, "ramp": "ramp.csv"}
DAYS = 41
MEMORY, SPREAD = 0.7, 0.1  # of a day in the next one; of the logarithm of the deviation, per K
DRIER, HEAVIER = 0.05, 0.15  # per K: days without rain, the exponent of an exponential amount


def record(level: float, first: str = "2001-01-01", days: int = 1095, seed: int = 0) -> xr.Dataset:
    """Temperature that is warmer by the level at the equator, half as much at 60 degrees, whose
    deviation grows with the level, and of which 0.7 is there the day after; rain that is rarer and
    more often heavy."""
    generator = np.random.default_rng([seed, int(level)])
    noise = generator.standard_normal((days, 2, *GRID.shape))
    weather = noise + np.roll(noise, 1, axis=-1)
    for day in range(1, days):
        weather[day] = MEMORY * weather[day - 1] + np.sqrt(1 - MEMORY**2) * weather[day]
    smooth = np.exp(SPREAD * level) * weather[:, 0]
    pattern = level * np.cos(np.deg2rad(LATITUDE))[:, None]
    times = np.datetime64(first, "ns") + np.arange(days) * np.timedelta64(1, "D")
    attrs = {"units": "K", "standard_name": "air_temperature", "cell_methods": "time: mean"}
    dry, rarer = 0.3 + DRIER * level, ndtr(-weather[:, 1] / np.sqrt(2.0))
    amount = -np.log(np.minimum(rarer / (1.0 - dry), 1.0))  # of an exponential law
    rain = amount ** (1.0 + HEAVIER * level)
    of_rain = {"units": "mm day-1", "cell_methods": "time: mean"}
    return xr.Dataset(
        {
            "ta": (("time", "lat", "lon"), (280.0 + pattern + smooth).astype("f4"), attrs),
            "pr": (("time", "lat", "lon"), rain.astype("f4"), of_rain),
        },
        coords={
            "time": times,
            "lat": ("lat", LATITUDE, {"units": "degrees_north"}),
            "lon": ("lon", 22.5 * np.arange(16), {"units": "degrees_east"}),
        },
    )


def table(**source: Any) -> dict[str, Any]:
    """A configuration whose paths and root are relative."""
    scenarios = [
        {"name": name, "paths": [f"data/{name}.nc"], "covariates": {"warming": level}}
        for name, level in LEVELS.items()
    ]
    levels = {"plus2": 2.0, "plus4": 4.0, "plus8": 8.0}
    return {
        "run": {"root": "runs/forced"},
        "source": {
            "variables": ["ta", "pr"],
            "transform": {"pr": "rank"},
            "scenarios": scenarios,
            "trend": ["warming"],
            **source,
        },
        "split": {
            "train": ["2001-01-01", "2002-12-31"],
            "validation": ["2003-01-01", "2003-06-30"],
            "test": ["2003-07-01", "2003-12-31"],
        },
        "spectral": {"lmax": 5},
        "sequence": {"past": 1},
        "train": {"model": "gaussian:var"},
        "generate": {
            "realizations": 24,
            "times": ["2005-04-01", "2005-10-01"],
            "covariates": {"warming": 0.0},
            "scenarios": [{"name": n, "covariates": {"warming": w}} for n, w in levels.items()],
            "sequences": [
                {"name": name, "start": "2004-01-01", "days": DAYS, "realizations": 8}
                | {"covariates": {"warming": given}}
                for name, given in SEQUENCES.items()
            ],
        },
        "verify": {"dates": 9, "realizations": 3},
        "cluster": {"workers": 1},
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with the files of both scenarios."""
    before, directory = Path.cwd(), tmp_path_factory.mktemp("forced")
    (directory / "data").mkdir()
    for name, level in LEVELS.items():
        record(level).to_netcdf(directory / "data" / f"{name}.nc")
    (directory / "ramp.csv").write_text("time,warming\n2004-01-01,0\n2004-02-10,4\n")
    os.chdir(directory)
    yield directory
    os.chdir(before)


@pytest.fixture(scope="module")
def finished(home: Path, here: Any) -> RunConfig:
    """Both scenarios run to their ensembles and the report."""
    config = RunConfig.from_dict(table())
    for stage in STAGES:
        stage.module().run(config, config.layout, here, quiet)
    return config


def quiet(*told: object) -> None:
    pass


def again(config: RunConfig) -> list[Receipt | None]:
    """What a second run finds done, stage by stage."""
    return [
        skipped(stage, key_of(stage.name, config, config.layout), config.layout) for stage in STAGES
    ]


def published(config: RunConfig, name: str) -> artifacts.Published:
    found = artifacts.published(config.layout, "ensemble", name)
    assert found is not None
    return found


def test_each_row_has_the_covariates_of_its_own_scenario(home: Path) -> None:
    fields = open_fields(RunConfig.from_dict(table()).source)[0].load()
    assert fields["member"].attrs["flag_meanings"] == "control plus4"
    assert fields.sizes["time"] == 2 * 1095
    np.testing.assert_array_equal(fields["warming"], 4.0 * fields["member"])
    for number, (name, level) in enumerate(LEVELS.items()):
        own = fields["ta"].isel(time=np.flatnonzero(fields["member"] == number))
        np.testing.assert_array_equal(own.values, record(level)["ta"].values, err_msg=name)


def test_a_level_has_its_mean_at_what_was_seen_and_between(finished: RunConfig) -> None:
    """Regression on two levels is a straight line; in standard errors of the draws."""
    normals = artifacts.open_published(finished.layout, "normals")
    slope = float(normals.attrs["samples"]) ** -0.5
    for name, level in {"": 0.0, "plus2": 2.0, "plus4": 4.0}.items():
        ensemble = spherescore.open_ensemble("runs/forced", name)["ta"].load()
        found = ensemble.mean(("realization", "time", "lon")).values
        error = np.exp(SPREAD * level) * (np.sqrt(2.0 / (48 * 8)) + 6.0 * slope)
        away = found - 280.0 - level * np.cos(np.deg2rad(LATITUDE))
        assert np.abs(away).max() < 4.0 * error, (name, away)


def test_a_level_has_its_deviation_at_what_was_seen_and_between(finished: RunConfig) -> None:
    """The logarithm of the deviation is a straight line, too."""
    for name, level in {"": 0.0, "plus2": 2.0, "plus4": 4.0}.items():
        ensemble = spherescore.open_ensemble("runs/forced", name)["ta"].load()
        found = np.sqrt(ensemble.var("realization").mean().item() / 2.0)
        assert found == pytest.approx(np.exp(SPREAD * level), rel=0.06), name


def test_rain_responds_as_its_quantiles_do_and_not_as_the_mean_of_its_scores(
    finished: RunConfig,
) -> None:
    """Ranked together, the control was dry on 0.335 of its days where 0.3 have no rain."""
    found, within = {}, {}
    for name, level in {"": 0.0, "plus4": 4.0}.items():
        drawn = spherescore.open_ensemble("runs/forced", name)["pr"].load()
        real = record(level)["pr"].isel(time=slice(730))
        found[name] = float(drawn.mean()), float(real.mean()), float((drawn == 0).mean())
        within[name] = float(drawn.std()) / np.sqrt(drawn.size / 4)
        assert found[name][2] == pytest.approx(0.3 + DRIER * level, abs=0.03)
    drawn, real = (found["plus4"][k] - found[""][k] for k in (0, 1))
    assert abs(drawn - real) < 3.0 * np.hypot(*within.values()), found


def test_levels_of_one_date_and_realization_are_paired(finished: RunConfig) -> None:
    low, high = (spherescore.open_ensemble("runs/forced", n)["ta"].load() for n in ("", "plus4"))
    paired = (high - low).var("realization").mean().item()
    others = high - low.roll(realization=1)
    assert paired < 0.1 * others.var("realization").mean().item()
    again = spherescore.open_ensemble("runs/forced", "plus4")["ta"].isel(realization=0).load()
    assert not np.array_equal(again.isel(time=0), again.isel(time=1)), "dates have their own noise"


def test_a_level_beyond_those_of_training_is_said(finished: RunConfig) -> None:
    beyond = {
        name: published(finished, name).attrs["figures"] for name in ("plus2", "plus4", "plus8")
    }
    said = {name: figures.get("beyond training", "") for name, figures in beyond.items()}
    assert said["plus2"] == said["plus4"] == ""
    assert said["plus8"].startswith("warming from 8 to 8, trained on 0 to 4")
    of_all = published(finished, "").attrs["figures"]
    assert of_all["beyond training"] == f"plus8: {said['plus8']}", "as the receipt says"
    card = json.loads(Path("runs/forced/scores.json").read_text())
    assert any("plus8: warming from 8" in caveat for caveat in card["caveats"])


def test_a_second_run_draws_nothing_and_one_more_level_draws_itself_alone(
    finished: RunConfig, here: Any
) -> None:
    assert all(again(finished))
    more = table()
    more["generate"]["scenarios"].append({"name": "plus3", "covariates": {"warming": 3.0}})
    asked = RunConfig.from_dict(more)
    assert again(asked)[3] is None
    receipt = generate.run(asked, asked.layout, here, quiet)
    assert receipt.figures["units drawn"] == 0, "those of before are taken"
    plus3 = published(finished, "plus3")
    assert plus3.attrs["figures"]["units drawn"] == 24
    name = finished.layout.path / "ensemble-plus4.zarr"
    assert isinstance(name, Path)
    target = os.readlink(name)
    name.unlink()
    assert again(finished)[3] is not None
    assert os.readlink(name) == target, "the name is given back"


def test_the_ensemble_of_every_level_is_among_what_a_run_has_made(finished: RunConfig) -> None:
    arguments = argparse.Namespace(stage="generate", config="my.toml")
    made = commands.result(arguments, finished, [], 0.0)["artifacts"]
    names = {f"ensemble-{one.name}" for one in finished.generate.scenarios}
    assert names and names < set(made)


def test_a_level_is_found_by_its_name_in_every_command(finished: RunConfig) -> None:
    assert drawn(finished.layout, "ensemble-plus2").kind == "ensemble"
    with pytest.raises(artifacts.IncompleteArtifact, match=r"scenarios first; there are .*-plus2"):
        drawn(finished.layout, "ensemble-plus7")
    assert spherescore.open_ensemble("runs/forced/ensemble-plus2.zarr").sizes["realization"] == 24
    assert xr.open_dataset("runs/forced/ensemble-plus2.zarr", engine="spherescore")["ta"].ndim == 4
    assert workload(finished).ensemble == (4 * 24, 2)
    assert workload(finished).times == 2 * 1095


def test_held_out_dates_are_of_the_scenarios_by_turns_with_their_covariates(home: Path) -> None:
    config = RunConfig.from_dict(table())
    fields = open_fields(config.source)[0].load()
    normals = covariate_variables(fields, ("warming",), config.split)
    dates = held_out_times(fields, config)
    assert dates["member"].values.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    conditions = conditioned_as_observed(dates, fields, normals)
    warming = conditions["condition"].values[:, 1] * normals["covariate_scale"].item()
    np.testing.assert_allclose(warming + normals["covariate_mean"].item(), 4.0 * dates["member"])
    places = Places.of(fields, config, dates)
    for rows in (places.truth[None], *(one.rows for one in (places.floor, places.window) if one)):
        expected = np.broadcast_to(dates["member"].values, rows.shape)
        np.testing.assert_array_equal(fields["member"].values[rows], expected)
    assert places.floor is not None and len(places.floor.rows) == 2, "both years of training"
    np.testing.assert_array_equal(fields["time"].values[places.truth], dates.values)


def test_a_scenario_is_the_same_whatever_directory_its_files_lie_in(
    home: Path, tmp_path: Path
) -> None:
    finished = RunConfig.from_dict(table())
    digest = digest_of_source(finished.source)
    one, other = finished.source.scenarios
    exchanged = (replace(one, paths=other.paths), replace(other, paths=one.paths))
    swapped = replace(finished, source=replace(finished.source, scenarios=exchanged))
    assert digest_of_source(swapped.source) != digest
    (tmp_path / "data").symlink_to(Path("data").absolute())
    moved = tuple(
        replace(each, paths=(f"{tmp_path}/{each.paths[0]}",)) for each in finished.source.scenarios
    )
    elsewhere = replace(finished, source=replace(finished.source, scenarios=moved))
    assert digest_of_source(elsewhere.source) == digest
    assert ingest_key(elsewhere, digest) == ingest_key(finished, digest)
    warmer = replace(other, covariates={"warming": 3.0})
    changed = replace(finished, source=replace(finished.source, scenarios=(one, warmer)))
    assert ingest_key(changed, digest) != ingest_key(finished, digest)


def test_periods_of_scenarios_may_differ_and_covariates_be_series(home: Path) -> None:
    """A past and a future, with decades between them that nobody has simulated."""
    record(0.0, "1990-01-01", 30).to_netcdf(home / "data" / "past.nc")
    record(1.0, "2050-01-01", 30).to_netcdf(home / "data" / "future.nc")
    (home / "co2.csv").write_text("time,co2\n1980-01-01,300\n2080-01-01,600\n")
    given = {"past": "co2.csv", "future": 500}
    scenarios = [
        {"name": name, "paths": [f"data/{name}.nc"], "covariates": {"co2": value}}
        for name, value in given.items()
    ]
    config = table(scenarios=scenarios, trend=[])
    config["generate"] |= {"covariates": {}, "scenarios": [], "sequences": []}
    source = RunConfig.from_dict(config).source
    fields, report = open_fields(source)
    assert report.gaps == ()
    co2 = fields["co2"].values
    assert 329.9 < co2[0] < co2[29] < 330.4 and (co2[30:] == 500.0).all()
    assert "co2.csv" in source.covariate_files


def test_a_gap_in_one_scenario_is_refused_though_another_has_the_days(home: Path) -> None:
    whole = record(0.0, "1990-01-01", 30)
    whole.to_netcdf(home / "data" / "whole.nc")
    whole.isel(time=[*range(10), *range(15, 30)]).to_netcdf(home / "data" / "holed.nc")
    scenarios = [
        {"name": name, "paths": [f"data/{name}.nc"], "covariates": {"warming": number}}
        for number, name in enumerate(("whole", "holed"))
    ]
    source = RunConfig.from_dict(table(scenarios=scenarios)).source
    with pytest.raises(SourceError, match=r"1 gap in time: holed: "):
        open_fields(source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("lacks", r"the scenario plus4 has no ua, .* such as data/plus4/a.nc, holds it"),
        ("shares", r"data/control/a.nc is a file of the scenarios control and plus4, .* the same"),
        ("calendar", r"plus4/a.nc: its calendar noleap differs from .*, that of control/a.nc"),
    ],
)
def test_files_of_a_scenario_are_told_from_those_of_others(
    home: Path, change: str, message: str
) -> None:
    fields = record(0.0, "1990-01-01", 30)
    fields = fields.assign(ua=fields["ta"])
    for name in LEVELS:
        (home / "data" / name).mkdir(exist_ok=True)
        fields.to_netcdf(home / "data" / name / "a.nc")
    other = fields.drop_vars("ua") if change == "lacks" else fields
    if change == "calendar":
        other = fields.convert_calendar("noleap", use_cftime=True)
    other.to_netcdf(home / "data" / "plus4" / "a.nc")
    scenarios = [
        {
            "name": name,
            "paths": [f"data/{'control' if change == 'shares' else name}/a.nc"],
            "covariates": {"warming": level},
        }
        for name, level in LEVELS.items()
    ]
    source = RunConfig.from_dict(table(scenarios=scenarios, variables=["ta", "pr", "ua"])).source
    with pytest.raises(SourceError, match=message):
        open_fields(source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"paths": ["a.nc"]}, r"source\.paths: .*nothing beside source\.scenarios"),
        ({"covariates": {"warming": "w.csv"}}, r"source\.covariates: .*nothing beside"),
        ({"samples": "number"}, r"source\.samples: .*one course of the weather"),
        ({"scenarios": []}, r"source\.trend: warming"),
        ({"trend": ["warmth"]}, r"source\.trend: warmth .*did you mean 'warming'"),
    ],
)
def test_what_does_not_fit_beside_scenarios_is_refused(
    change: dict[str, Any], message: str
) -> None:
    wrong = table(**change)
    if "scenarios" in change:
        wrong["source"]["paths"] = ["a.nc"]
    with pytest.raises(ConfigError, match=message):
        RunConfig.from_dict(wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "control"}, r"source\.scenarios\.name: expected each name once"),
        ({"name": "4 K"}, r"source\.scenarios\.name: expected letters, digits and hyphens"),
        ({"paths": []}, r"source\.scenarios\.plus4\.paths: expected at least one file"),
        ({"covariates": {"co2": 1}}, r"plus4\.covariates: expected the names that control has"),
        ({"covariates": {}}, r"plus4\.covariates: expected what tells it from the others"),
        ({"covariates": {"warming": True}}, r"warming"),
    ],
)
def test_a_scenario_that_is_unlike_the_others_is_refused(
    change: dict[str, Any], message: str
) -> None:
    wrong = table()
    wrong["source"]["scenarios"][1] |= change
    with pytest.raises(ConfigError, match=message):
        RunConfig.from_dict(wrong)


def test_levels_are_refused_that_nobody_can_draw() -> None:
    wrong = table()
    wrong["generate"]["scenarios"][0]["covariates"] = {"warmth": 2.0}
    with pytest.raises(ConfigError, match=r"generate\.scenarios\.plus2\.covariates\.warmth is not"):
        RunConfig.from_dict(wrong)
    free = table()
    free["generate"] |= {"covariates": {}, "scenarios": [], "sequences": []}
    with pytest.raises(ConfigError, match=r"give generate\.covariates\.warming"):
        RunConfig.from_dict(free)


def test_training_days_of_a_split_are_those_of_all_scenarios(home: Path) -> None:
    config = RunConfig.from_dict(table())
    part = part_of(open_fields(config.source)[0]["time"], config.split, "train")
    assert np.bincount(part["member"].values).tolist() == [730, 730]


def test_a_sequence_has_its_own_covariates_before_those_of_all(home: Path) -> None:
    config = RunConfig.from_dict(table())
    times = xr.date_range("2004-01-01", periods=DAYS)
    time = xr.DataArray(times, dims="time", coords={"time": times})
    control, plus4, ramp = (
        given_along(config, one, time)["warming"] for one in config.generate.sequences
    )
    assert (control, plus4) == (0.0, 4.0)
    np.testing.assert_allclose(ramp, np.linspace(0.0, 4.0, DAYS), atol=1e-9)
    before = xr.date_range("2003-12-29", periods=DAYS + 3)
    longer = xr.DataArray(before, dims="time", coords={"time": before})
    led = given_along(config, config.generate.sequences[2], longer, lead=3)["warming"]
    np.testing.assert_allclose(led, np.r_[0.0, 0.0, 0.0, ramp], atol=1e-9)


def test_days_of_a_scenario_follow_each_other_and_no_other(finished: RunConfig) -> None:
    """Days of two scenarios share their dates: pairs of them would know nothing of each other."""
    for name in SEQUENCES:
        states = artifacts.published(finished.layout, "states", name)
        assert states is not None
        x = artifacts.open_artifact(states)["x"].values
        kept = (x[:, :-1] * x[:, 1:]).mean() / np.square(x[:, :-1]).mean()
        assert kept == pytest.approx(MEMORY, abs=0.04), name


def test_covariates_go_along_with_the_days_of_a_sequence(finished: RunConfig) -> None:
    """Sequences share their noise, so the difference of two is what the covariate does."""
    names = ("control", "plus4", "ramp")
    low, high, ramp = (spherescore.open_sequences("runs/forced", n)["ta"].load() for n in names)
    assert low.sizes["time"] == DAYS
    np.testing.assert_allclose(ramp.isel(time=0), low.isel(time=0), atol=1e-3)
    np.testing.assert_allclose(ramp.isel(time=-1), high.isel(time=-1), atol=1e-3)
    half = (ramp - low).isel(time=DAYS // 2).mean(("realization", "lon"))
    np.testing.assert_allclose(half, 2.0 * np.cos(np.deg2rad(LATITUDE)), atol=0.5)


def test_a_sequence_goes_on_from_the_scenario_that_has_its_covariates(
    finished: RunConfig,
) -> None:
    whitened = artifacts.open_published(finished.layout, "whitened")["x"].load()
    day = np.datetime64("2003-07-01")

    def begun(level: float) -> np.ndarray[Any, Any]:
        asked = DrawnSequence(
            start="2003-07-02", days=3, from_="2003-07-01", covariates={"warming": level}
        )
        return np.asarray(beginning_of(finished, finished.layout, asked).days)

    for number, level in enumerate(LEVELS.values()):
        mine = (whitened["time"].values == day) & (whitened["member"].values == number)
        np.testing.assert_array_equal(begun(level), whitened.values[mine])
    with pytest.raises(ConfigError, match=r"the scenarios have warming = 0; warming = 4"):
        begun(2.0)


def test_the_report_tells_the_response_beside_its_floor(finished: RunConfig) -> None:
    card = json.loads(Path("runs/forced/scores.json").read_text())
    told = card["response"]
    assert told["first"] == "control" and set(told["responses"]) == {"plus4"}
    assert told["days"] == {"control": 184, "plus4": 184}
    assert told["dates"] == {"control": 5, "plus4": 4}
    found = told["responses"]["plus4"]["ta"]
    assert found["global"]["truth"] == pytest.approx(4.0 * np.pi / 4.0, abs=0.15)
    assert found["global"]["model"] == pytest.approx(4.0 * np.pi / 4.0, abs=0.3)
    assert found["mean"]["size"] == pytest.approx(4.0 * np.sqrt(2.0 / 3.0), rel=0.1)
    deviation = np.sqrt(2.0) * (np.exp(SPREAD * 4.0) - 1.0)
    assert found["deviation"]["size"] == pytest.approx(deviation, rel=0.2)
    assert 0.0 < found["mean"]["floor"] < found["mean"]["size"]
    page = Path("runs/forced/report.html").read_text()
    assert "Response to forcing" in page and "plus4 less control" in page


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_a_scenario_that_begins_where_another_ends_does_not_follow_it(calendar: str) -> None:
    known = {"calendar": calendar, "use_cftime": calendar != "standard"}
    times = xr.date_range("2001-01-01", periods=6, **known)

    def along(places: list[int], member: list[int]) -> xr.DataArray:
        chosen = times[places]
        return xr.DataArray(
            chosen, dims="time", coords={"time": chosen, "member": ("time", member)}
        )

    one = along([0, 1, 2, 3, 4, 5], [0, 0, 0, 1, 1, 1])
    assert contiguous(course_of(in_courses(one))) == [slice(0, 3), slice(3, 6)]
    shared = in_courses(along([0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1]))
    assert shared["member"].values.tolist() == [0, 0, 0, 1, 1, 1]
    assert contiguous(course_of(shared)) == [slice(0, 3), slice(3, 6)]
    alone = one.drop_vars("member")
    np.testing.assert_array_equal(course_of(in_courses(alone)), alone.values)
