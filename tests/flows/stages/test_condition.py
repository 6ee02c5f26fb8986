"""The stage `condition`, on small runs with a Gaussian law and with a network."""

import json
import re
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import spherescore
from flows.cli.main import main
from flows.config.schema import RunConfig
from flows.stages.base import ON_REQUEST, skipped
from flows.stages.condition import condition
from flows.stages.condition.observed import functionals_of, refuse_masked
from flows.stages.content_keys import key_of
from flows.stages.generate import generate
from flows.stages.ingest import ingest
from flows.stages.preprocess import preprocess
from flows.stages.train import train
from pipeline.errors import UnusableData
from pipeline.fields.standardisation import Normals
from storage.artifacts import publishing as artifacts
from storage.errors import SourceError
from tests.small import small_table

PAGE = Path(__file__).parents[3] / "docs" / "recipes.md"


def run_in_process(table: dict[str, Any], client: Any) -> None:
    """The stages up to `train`, with units in this process."""
    config = RunConfig.from_dict(table)
    for stage in (ingest, preprocess):
        stage.run(config, config.layout, client, lambda *_: None)
    train.run(config, config.layout, None, lambda *_: None)


@pytest.fixture(scope="module")
def gaussian(tmp_path_factory: pytest.TempPathFactory, here: Any) -> dict[str, Any]:
    """The tables of a small run whose model is Gaussian, up to `train`."""
    table = small_table(tmp_path_factory.mktemp("gaussian"))
    table["train"] = {"model": "gaussian:m-block"}
    run_in_process(table, here)
    return table


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, here: Any) -> dict[str, Any]:
    """The same with a network of two steps."""
    table = small_table(tmp_path_factory.mktemp("learned"))
    table["train"] |= {"width": 8, "blocks": 1}
    run_in_process(table, here)
    return table


@pytest.fixture
def conditioned(here: Any) -> Callable[..., xr.Dataset]:
    """Run the stage in this process, and open what it has made."""

    def run(table: dict[str, Any], client: Any = here, **asked: Any) -> xr.Dataset:
        config = RunConfig.from_dict(table | {"condition": {"realizations": 4} | asked})
        condition.run(config, config.layout, client, lambda *_: None)
        return artifacts.open_published(config.layout, "conditioned").load()

    return run


def stations(place: Path, **columns: Any) -> str:
    """A table of six observations at two dates."""
    table = pd.DataFrame(
        {
            "time": ["2002-07-04", "2002-07-20"] * 3,
            "lat": [40.0, 40.0, -10.0, -10.0, 78.75, 78.75],
            "lon": [10.0, 10.0, -170.0, -170.0, 22.5, 22.5],
            "variable": "z",
            "value": [1.0, -1.0, 0.5, 0.2, -0.7, 1.2],
            "error": 0.1,
        }
    )
    for name, values in columns.items():
        table[name] = values
    path = place / "stations.csv"
    table.to_csv(path, index=False)
    return str(path)


def card(table: dict[str, Any]) -> dict[str, Any]:
    root = Path(table["run"]["root"])
    assert "<html" in (root / "conditioned.html").read_text()
    return json.loads((root / "findings" / "conditioned.json").read_text())


def test_draws_agree_with_stations_within_their_errors(conditioned, gaussian, tmp_path):
    path = stations(tmp_path, error=1e-3)
    drawn = conditioned(gaussian, observations=path, realizations=8)
    assert drawn.sizes["realization"] == 8
    assert [str(time)[:10] for time in drawn["time"].values] == ["2002-07-04", "2002-07-20"]
    at = drawn["z"].sel(lat=78.75, lon=22.5)  # a point of the grid
    np.testing.assert_allclose(at.mean("realization"), [-0.7, 1.2], atol=2e-3)
    assert at.std("realization").max() < 5e-3
    assert drawn["z"].std("realization").mean() > 0.5
    found = card(gaussian)
    assert found["observed"]["number"] == 6
    assert found["log_evidence"] == found["log_evidence_gaussian"]


def test_more_realizations_leave_those_that_there_are(conditioned, gaussian, tmp_path):
    path = stations(tmp_path)
    few = conditioned(gaussian, observations=path, realizations=2)
    more = conditioned(gaussian, observations=path, realizations=5)
    np.testing.assert_array_equal(more["z"][:2], few["z"])


def test_the_command_names_the_page_and_nothing_of_other_stages(
    conditioned, gaussian, tmp_path, write_config, capsys
):
    table = gaussian | {"condition": {"realizations": 4, "observations": stations(tmp_path)}}
    conditioned(gaussian, observations=stations(tmp_path))
    assert main(["condition", write_config(table)]) == 0
    root = Path(gaussian["run"]["root"])
    said = dict(line.split() for line in capsys.readouterr().out.splitlines() if line)
    assert said.pop("page") == str(root / "conditioned.html")
    assert set(said) == {"findings", "conditioned"}


def test_what_is_done_is_not_done_again(conditioned, gaussian, tmp_path):
    path = stations(tmp_path)
    first = conditioned(gaussian, observations=path)
    config = RunConfig.from_dict(
        gaussian | {"condition": {"realizations": 4, "observations": path}}
    )
    (stage,) = ON_REQUEST
    assert skipped(stage, key_of("condition", config, config.layout), config.layout)
    xr.testing.assert_identical(spherescore.condition(config).load(), first)
    stations(tmp_path, value=0.0)
    assert not skipped(stage, key_of("condition", config, config.layout), config.layout)
    assert not np.array_equal(conditioned(gaussian, observations=path)["z"], first["z"])


def test_particles_agree_with_stations_and_tell_their_weights(conditioned, learned, tmp_path):
    path = stations(tmp_path, error=1e-3)
    drawn = conditioned(
        learned, observations=path, realizations=3, particles=4, evaluations=4, withheld=0.3
    )
    found = card(learned)
    assert found["observed"]["number"] + found["withheld"]["number"] == 6
    assert 0.0 < found["effective"] <= 1.0
    assert np.isfinite(drawn["log_evidence"]).all()
    assert {"crps", "coverage"} <= set(found["kriging"])


def test_two_workers_draw_the_bytes_of_this_process(conditioned, learned, client, tmp_path):
    path = stations(tmp_path)
    asked = {"observations": path, "realizations": 3, "particles": 2, "evaluations": 2}
    other = json.loads(json.dumps(learned))
    other["run"]["root"] = str(tmp_path / "other")
    shutil.copytree(learned["run"]["root"], other["run"]["root"], symlinks=True)
    one = conditioned(learned, **asked)
    two = conditioned(other, client, **asked)
    for name in one.data_vars:
        np.testing.assert_array_equal(one[name], two[name])


def with_holes(table: dict[str, Any], place: Path) -> tuple[str, xr.DataArray]:
    """Two days of the source, a third of whose cells are missing, and the whole days."""
    source = xr.open_dataset(table["source"]["paths"][0]).isel(time=[-3, -2]).load()
    missing = np.random.default_rng(3).random(source["z"].shape) < 0.3
    path = place / "holes.nc"
    source.assign(z=source["z"].where(~missing)).to_netcdf(path)
    return str(path), source["z"]


def test_fields_with_holes_keep_what_they_have(conditioned, gaussian, tmp_path):
    path, truth = with_holes(gaussian, tmp_path)
    drawn = conditioned(gaussian, fields=[path], error={"z": 0.0})
    gap = abs(drawn["z"] - truth.values).max("realization")
    holes = np.isnan(xr.open_dataset(path)["z"].values)
    assert gap.values[~holes].max() < 1e-4
    assert gap.values[holes].mean() > 0.3


def test_draws_agree_with_the_coarse_field_that_they_are_given(conditioned, gaussian, tmp_path):
    from pipeline.sphere.grid import RingGrid
    from pipeline.sphere.interpolation import synthesis
    from pipeline.sphere.stacked import analysis

    source = xr.open_dataset(gaussian["source"]["paths"][0]).isel(time=[-2]).load()
    fine = RingGrid.from_coordinates(source["lat"].values, source["lon"].values)
    coarse = RingGrid.gaussian(6, 12)
    low = analysis(fine, 3, (), source["z"].values[:, None].astype(float))[:, 0]
    values = synthesis(coarse, low)
    path = tmp_path / "coarse.nc"
    xr.Dataset(
        {"z": (("time", "lat", "lon"), values, source["z"].attrs)},
        coords={
            "time": source["time"],
            "lat": ("lat", np.asarray(coarse.latitudes), {"units": "degrees_north"}),
            "lon": ("lon", np.arange(12) * 30.0, {"units": "degrees_east"}),
        },
    ).to_netcdf(path)
    drawn = conditioned(gaussian, coarse=[str(path)])
    found = analysis(fine, 3, (), drawn["z"].values.astype(float))
    np.testing.assert_allclose(found[:, 0], np.tile(low, (4, 1)), atol=2e-5)


EVENT = {"variable": "z", "box": [-60.0, 60.0, 0.0, 180.0], "above": 0.6}


def box_mean(drawn: xr.Dataset) -> xr.DataArray:
    """Of the event's box, with nearly the weights that the stage gives to rings."""
    box = drawn["z"].sel(lat=slice(60, -60), lon=slice(0, 180))
    return box.weighted(np.cos(np.deg2rad(drawn["lat"]))).mean(("lat", "lon"))


def test_draws_given_an_event_have_it_and_its_probability_is_exact(conditioned, gaussian):
    drawn = conditioned(gaussian, event=EVENT)
    assert box_mean(drawn).min() > 0.5
    (one,) = card(gaussian)["event"]["dates"].values()
    assert one["probability"] == pytest.approx(one["gaussian"], rel=1e-4)
    assert one["standard_error"] < 1e-6
    assert one["return_period"] == pytest.approx(1.0 / one["probability"])


def test_particles_estimate_how_often_plain_draws_of_the_chain_have_the_event(
    conditioned, learned, here
):
    conditioned(learned, event=EVENT | {"above": 0.15}, particles=16, evaluations=4)
    (one,) = card(learned)["event"]["dates"].values()
    assert 0.0 < one["standard_error"] < one["probability"]
    plain = {"realizations": 400, "batch": 200, "microbatch": 200, "integrator": "gme"}
    plain = learned["generate"] | plain | {"evaluations": 4}
    config = RunConfig.from_dict(learned | {"generate": plain})
    generate.run(config, config.layout, here, lambda *_: None)
    drawn = artifacts.open_published(config.layout, "ensemble").load()
    have = box_mean(drawn) > 0.15
    error = np.hypot(one["standard_error"], have.std() / np.sqrt(have.size))
    assert abs(float(have.mean()) - one["probability"]) < 3.5 * error


def test_two_worlds_that_are_alike_are_equally_likely_without_error(conditioned, here, tmp_path):
    """They share all noise, particle by particle."""
    table = small_table(tmp_path)
    table["train"] |= {"width": 8, "blocks": 1}
    path = tmp_path / "warming.csv"
    path.write_text("time,warming\n2000-01-01,0.0\n2000-07-01,3.0\n2003-01-01,1.0\n")
    table["source"]["covariates"] = {"warming": str(path)}
    table["generate"]["covariates"] = {"warming": 1.0}
    run_in_process(table, here)
    event = EVENT | {"above": 0.15, "against": {"warming": 1.0}}
    asked = {"particles": 4, "evaluations": 2, "realizations": 32}
    drawn = conditioned(table, event=event, **asked)
    np.testing.assert_array_equal(drawn["log_evidence_against"], drawn["log_evidence"])
    (one,) = card(table)["event"]["dates"].values()
    assert one["standard_error"] > 0.0
    assert one["ratio"]["paired"]
    assert one["ratio"]["probability"] == 1.0
    assert one["ratio"]["log_error"] == pytest.approx(0.0, abs=1e-12)


SENTENCES = {
    "outside the sphere": ({"lat": 95.0}, SourceError, "row 1 .* outside the sphere"),
    "another unit": ({"unit": "kg"}, SourceError, "is in 'kg', the model has z in 'm'"),
    "unknown variable": ({"variable": "zz"}, SourceError, "no variable 'zz' .is it 'z'"),
    "error 0 twice": (
        {"error": 0.0, "time": "2002-07-04"}, SourceError, "has error 0, and so has row 1"
    ),
    "far outside": ({"value": 1e4}, UnusableData, "standard deviations from the mean"),
    "no error": ({"error": None}, SourceError, r"give a column `error` .* condition\.error\.z"),
    "negative error": ({"error": -1.0}, SourceError, "a standard deviation is 0 or more"),
    "no number": ({"value": "warm"}, SourceError, "'warm' for value, which is no number"),
    "no such date": ({"time": "2002-02-30"}, SourceError, "2002-02-30"),
    "no date": ({"time": "tomorrow"}, SourceError, "tomorrow"),
}  # fmt: skip


@pytest.mark.parametrize("name", SENTENCES)
def test_a_bad_observation_is_refused_in_one_sentence(name, conditioned, gaussian, tmp_path):
    columns, kind, words = SENTENCES[name]
    with pytest.raises(kind, match=words):
        conditioned(gaussian, observations=stations(tmp_path, **columns))


def test_an_observation_of_masked_cells_is_refused_and_one_beside_them_sees_the_others(gaussian):
    layout = RunConfig.from_dict(gaussian).layout
    known = Normals.of(artifacts.open_published(layout, "normals").load())
    mask = known.mask.copy()
    mask[:, :4, :8] = True
    columns = {"lat": [60.0, 5.0], "lon": [100.0, 100.0], "variable": [0, 0]}
    columns |= {"kind": [0, 0], "place": [-1, -1]}
    rows = xr.Dataset({name: ("observation", np.array(v)) for name, v in columns.items()})
    functionals = functionals_of(rows, replace(known, mask=mask), 0)
    weight = functionals.weights.toarray()
    assert weight[1].sum() == 0.0 or weight[1, mask[0].ravel()].sum() == 0.0
    with pytest.raises(UnusableData, match="row 0 lies where the model has no data"):
        refuse_masked(functionals, "row {}".format)


def test_an_unknown_column_is_refused_with_those_that_are_needed(conditioned, gaussian, tmp_path):
    path = tmp_path / "odd.csv"
    path.write_text("time,latitude\n2002-07-04,3\n")
    with pytest.raises(SourceError, match="no column lat, lon, variable, value"):
        conditioned(gaussian, observations=str(path))


def test_a_unit_that_converts_is_converted(conditioned, gaussian, tmp_path):
    path = stations(tmp_path, unit="km", value=1e-3, error=1e-6)
    drawn = conditioned(gaussian, observations=path)
    np.testing.assert_allclose(drawn["z"].sel(lat=78.75, lon=22.5), 1.0, atol=0.01)


def test_tables_of_netcdf_say_the_same_as_csv(conditioned, gaussian, tmp_path):
    path = stations(tmp_path)
    first = conditioned(gaussian, observations=path)
    table = pd.read_csv(path).rename_axis("row").to_xarray().drop_vars("row")
    other = tmp_path / "stations.nc"
    table.to_netcdf(other)
    np.testing.assert_array_equal(conditioned(gaussian, observations=str(other))["z"], first["z"])


def test_nothing_given_is_refused(conditioned, gaussian):
    with pytest.raises(UnusableData, match="nothing is given"):
        conditioned(gaussian)


@pytest.fixture(scope="module")
def temperatures(tmp_path_factory: pytest.TempPathFactory, here: Any) -> dict[str, Any]:
    """The tables of a run of the variable that the recipes speak of."""
    place = tmp_path_factory.mktemp("recipes")
    table = small_table(place)
    noise = xr.open_dataset(place / "noise.nc").load()
    attrs = {"standard_name": "air_temperature", "units": "K", "cell_methods": "time: mean"}
    tas = (285.0 + 8.0 * noise["z"]).astype("f4").assign_attrs(attrs)
    noise.drop_vars("z").assign(tas=tas).to_netcdf(place / "tas.nc")
    table["source"] = {"paths": [str(place / "tas.nc")], "variables": ["tas"]}
    table["train"] = {"model": "gaussian:m-block"}
    run_in_process(table, here)
    days = noise.drop_vars("z").assign(tas=tas).isel(time=[-3, -2])
    holes = np.random.default_rng(3).random(days["tas"].shape) < 0.3
    days.assign(tas=days["tas"].where(~holes)).to_netcdf(place / "reanalysis-with-holes.nc")
    coarse = days.coarsen(lat=2, lon=2).mean()
    coarse["tas"].attrs = attrs
    coarse["lat"].attrs["units"], coarse["lon"].attrs["units"] = "degrees_north", "degrees_east"
    coarse.to_netcdf(place / "gcm.nc")
    return table | {"place": place}


@pytest.mark.parametrize("title", ["stations", "a record with holes", "a coarse field", "an event"])
def test_the_recipe_runs_as_it_stands(conditioned, temperatures, title, monkeypatch):
    _, _, rest = PAGE.read_text().partition(f"## Given {title}\n")
    section = rest.partition("\n## ")[0]
    monkeypatch.chdir(temperatures["place"])
    if table := re.search(r"```csv\n(.*?)```", section, re.S):
        Path("stations.csv").write_text(table[1])
    (recipe,) = re.findall(r"```toml\n(.*?)```", section, re.S)
    assert len(recipe.splitlines()) <= 10
    asked = tomllib.loads(recipe)["condition"]
    tables = {name: part for name, part in temperatures.items() if name != "place"}
    drawn = conditioned(tables, **asked)
    assert drawn.sizes["realization"] == 4
    assert np.isfinite(drawn["tas"]).all()
