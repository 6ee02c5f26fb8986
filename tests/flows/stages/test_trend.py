"""A long series under forcing: its trend is taken away and put back for the values asked for."""

import json

import numpy as np
import pytest
import xarray as xr

from flows.config.schema import ConfigError, RunConfig
from flows.stages.generate import generate
from flows.stages.preprocess import preprocess
from flows.stages.train import train
from flows.stages.verify import verify
from pipeline.sphere.grid import RingGrid
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout

GRID, LMAX = RingGrid.gaussian(8), 5
TIMES = xr.date_range("1990-01-01", "2014-12-31", freq="15D")
TRAIN = ["1990-01-01", "2009-12-31"]
WARMING = 0.05  # K per ppm at the equator


def make_fields():
    """Temperature that follows co2, most at the equator, with a season and noise of 1 K."""
    generator = np.random.default_rng(0)
    co2 = 300.0 + 4.0 * np.arange(len(TIMES)) / 24.3 + 3.0 * generator.standard_normal(len(TIMES))
    latitude = np.deg2rad(np.asarray(GRID.latitudes))[:, None]
    pattern = np.cos(latitude) * np.ones((1, 16))
    season = 2.0 * np.pi * np.arange(len(TIMES))[:, None, None] / 24.35
    noise = generator.standard_normal((len(TIMES), *GRID.shape))
    smooth = (noise + np.roll(noise, 1, axis=2)) / np.sqrt(2.0)
    values = 280.0 + WARMING * (co2 - 300.0)[:, None, None] * pattern
    values = values + 5.0 * np.sin(latitude) * np.cos(season) + smooth
    return xr.Dataset(
        {
            "ta": (
                ("time", "lat", "lon"),
                values.astype("f4"),
                {"units": "K", "standard_name": "air_temperature"},
            ),
            "co2": ("time", co2),
        },
        coords={"time": TIMES, "lat": np.asarray(GRID.latitudes), "lon": np.arange(16) * 22.5},
        attrs={"title": "A warming world"},
    )


def configure(root, trend=("co2",), given=None, realizations=64):
    return RunConfig.from_dict(
        {
            "run": {"root": str(root)},
            "source": {
                "paths": ["-"],
                "variables": ["ta"],
                "covariates": {"co2": "co2.csv"},
                "trend": list(trend),
            },
            "split": {
                "train": TRAIN,
                "validation": ["2010-01-01", "2011-12-31"],
                "test": ["2012-01-01", "2014-12-31"],
            },
            "spectral": {"lmax": LMAX},
            "train": {"model": "gaussian:m-block"},
            "generate": {
                "realizations": realizations,
                "times": ["2005-04-01", "2050-04-01"],
                "covariates": {"co2": 350.0} if given is None else given,
            },
            "verify": {"dates": 8, "realizations": 2},
        }
    )


def publish_fields(root, fields=None):
    layout, shards = StoreLayout(str(root)), {"time": 128}
    fields = make_fields() if fields is None else fields
    path = layout.artifact("fields", "f" * 64)
    artifacts.create(path, fields, chunks=shards, shards=shards)
    units = artifacts.plan_units({"time": fields.sizes["time"]}, shards)
    for unit in units:
        artifacts.write_unit(path, unit, fields.isel(time=unit.region["time"]))
    artifacts.publish(layout, "fields", "f" * 64, units, {})
    return layout


def quiet(*told):
    pass


@pytest.fixture(scope="module")
def made(here, tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    config, layout = configure(root), publish_fields(root)
    for stage in (preprocess, train):
        stage.run(config, layout, here, quiet)
    return config, layout, generate.run(config, layout, here, quiet)


def drift(layout):
    """Mean of degree 0 in the last third of the training times less that in the first, in standard
    errors."""
    x = artifacts.open_published(layout, "whitened")["x"].sel(time=slice(*TRAIN)).values[:, 0, 0]
    third = len(x) // 3
    first, last = x[:third], x[-third:]
    return (last.mean() - first.mean()) / np.sqrt((first.var() + last.var()) / third)


def test_whitened_fields_are_stationary_once_the_trend_is_away(made, here, tmp_path):
    _, layout, _ = made
    assert abs(drift(layout)) < 4.0
    without = publish_fields(tmp_path)
    preprocess.run(configure(tmp_path, trend=()), without, here, quiet)
    assert drift(without) > 10.0


def test_the_slope_of_every_cell_is_known(made):
    _, layout, _ = made
    normals = artifacts.open_published(layout, "normals").load()
    slope = normals.climatology.isel(channel=0, season=5) / normals.trend_scale.item()
    expected = WARMING * np.cos(np.deg2rad(normals.lat))
    error = 1.0 / (normals.trend_scale.item() * np.sqrt(normals.attrs["samples"]))
    assert float(np.abs((slope - expected) / error).max()) < 4.5


def test_an_ensemble_has_the_mean_of_the_covariate_that_is_asked_for(made):
    """In standard errors of the draws, with that of the fitted slope."""
    _, layout, _ = made
    ensemble = artifacts.open_published(layout, "ensemble").load()
    latitude = np.deg2rad(ensemble.lat)
    expected = 280.0 + WARMING * 50.0 * np.cos(latitude)
    spring = 5.0 * np.sin(latitude) * np.cos(2.0 * np.pi * 90.0 / 365.25)
    found = ensemble.ta.mean(("realization", "time", "lon"))
    cells = ensemble.sizes["lon"] * ensemble.sizes["realization"] * 2
    assert float(np.abs(found - expected - spring).max()) < 5.0 / np.sqrt(cells / 4.0) + 0.1
    np.testing.assert_allclose(
        ensemble.ta.isel(time=0).mean(), ensemble.ta.isel(time=1).mean(), atol=0.1
    )


def test_what_lies_beyond_the_training_times_is_said(made, here):
    config, layout, receipt = made
    assert "beyond training" not in receipt.figures
    warm = configure(config.run.root, given={"co2": 560.0}, realizations=2)
    receipt = generate.run(warm, layout, here, quiet)
    assert receipt.figures["beyond training"].startswith("co2 from 560 to 560, trained on 29")
    ensemble = artifacts.open_published(layout, "ensemble")
    assert "co2 from 560" in json.dumps(ensemble.attrs["figures"])
    anyway = ensemble.ta.mean().item()
    assert anyway > 285.0


def test_what_a_trend_takes_away_has_to_be_given_before_anything_is_trained() -> None:
    with pytest.raises(ConfigError, match=r"give generate\.covariates\.co2"):
        configure("-", given={})


def test_calendar_time_is_a_predictor_too_and_the_report_is_made(here, tmp_path):
    layout = publish_fields(tmp_path)
    config = configure(tmp_path, trend=("time",), given={}, realizations=3)
    for stage in (preprocess, train):
        stage.run(config, layout, here, quiet)
    receipt = generate.run(config, layout, here, quiet)
    assert "time from 2005.2" in receipt.figures["beyond training"]
    assert abs(drift(layout)) < 4.0
    drawn = artifacts.open_published(layout, "ensemble").ta.mean(("realization", "lon"))
    mean = drawn.weighted(np.cos(np.deg2rad(drawn.lat))).mean("lat")
    rise = float(mean[1] - mean[0])
    assert rise == pytest.approx(45 * 4.0 * WARMING * np.pi / 4.0, rel=0.2)
    verify.run(config, layout, here, quiet)
    assert layout.report.stat().st_size > 10_000


def test_a_trend_needs_a_covariate(tmp_path):
    with pytest.raises(ConfigError, match=r'source\.trend: co3 is neither "time" nor .*co2'):
        configure(tmp_path, trend=("co3",))


def test_fields_of_an_hour_have_the_mean_of_that_hour(here, tmp_path):
    """The sun rises at each longitude at its own time, and higher in July; noise is of 1 K. In
    standard errors of the draws, with those of a cell's mean of that hour in training."""
    times = xr.date_range("2000-01-01", "2002-12-31T18", freq="6h")
    longitude = np.deg2rad(22.5 * np.arange(16))
    day = 2.0 * np.pi * times.hour.to_numpy()[:, None, None] / 24.0
    year = 2.0 * np.pi * times.day_of_year.to_numpy()[:, None, None] / 365.25
    sun = (5.0 - 3.0 * np.cos(year)) * np.cos(day + longitude) * np.ones((1, 8, 1))
    noise = np.random.default_rng(2).standard_normal((len(times), *GRID.shape))
    fields = xr.Dataset(
        {"ta": (("time", "lat", "lon"), (280.0 - sun + noise).astype("f4"), {"units": "K"})},
        coords={"time": times, "lat": np.asarray(GRID.latitudes), "lon": np.arange(16) * 22.5},
    )
    layout = publish_fields(tmp_path, fields)
    table = configure(tmp_path, trend=(), given={}).to_dict()
    table["source"] |= {"covariates": {}}
    table["split"] = {
        "train": ["2000-01-01", "2001-12-31"],
        "validation": ["2002-01-01", "2002-06-30"],
        "test": ["2002-07-01", "2002-12-31"],
    }
    table["sequence"] = {"past": 1}
    table["train"] |= {"model": "gaussian:var"}
    days = {"start": "2002-07-01", "days": 8, "realizations": 100}
    table["generate"] |= {"times": ["2002-07-01"], "sequences": [days]}
    config = RunConfig.from_dict(table)
    for stage in (preprocess, train, generate):
        stage.run(config, layout, here, quiet)
    drawn = artifacts.open_published(layout, "sequences").load().ta
    expected = 280.0 - sun[np.isin(times, drawn.time)]
    away = drawn.mean(("realization", "lat")).values - expected.mean(axis=1)
    assert np.abs(away).max() < 5.0 * np.sqrt(1.0 / 800.0 + 1.0 / 1000.0)
