"""Training and drawing on a small world: the bytes of an ensemble and what they depend on."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import healpy
import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from distributed import Client

from flows.cluster.local import local_client
from flows.cluster.map_units import UnitFailed
from flows.config.schema import Cluster, ConfigError, RunConfig
from flows.stages.conditions import asked_times, covariate_variables
from flows.stages.generate import draws, generate, series
from flows.stages.generate.draws import whitened_draws
from flows.stages.preprocess import preprocess
from flows.stages.preprocess.normals import baseline_of
from flows.stages.train import session, train
from flows.stages.trained_model import Trained
from flows.stages.trained_model import trained as load_score
from flows.stages.verify.certificate import certificate
from pipeline.diffusion.noise import NoiseAddress
from pipeline.diffusion.score import GaussianScore
from pipeline.errors import UnusableData
from pipeline.fields.standardisation import Normals
from pipeline.fields.whitening import stack_variables
from pipeline.gaussian.spectra import power_spectrum
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import plan
from pipeline.sphere.named_grids import grid_named, grid_of
from storage.artifacts import audit
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from storage.training import checkpoints

GRID = RingGrid.gaussian(12)
DAYS = xr.date_range("2000-01-01T12:00", "2000-12-31T12:00", freq="2D")


def silent(*_: Any) -> None:
    pass


def publish_fields(layout: StoreLayout) -> None:
    """Two variables with a season; the second one positive and skewed, empty on a continent.

    With them comes an index that grows with time.
    """
    generator = np.random.default_rng(0)
    noise = generator.standard_normal((2, len(DAYS), *GRID.shape)).cumsum(axis=3)
    noise -= noise.mean(axis=3, keepdims=True)
    rain = np.maximum(noise[1], 0) ** 3 * 1e-6
    rain[:, 3:6, 2:7] = np.nan
    attrs = {"ta": ("air_temperature", "K"), "pr": ("precipitation_flux", "kg m-2 s-1")}
    season = 10 * np.cos(2 * np.pi * np.arange(len(DAYS)) / len(DAYS))[:, None, None]
    fields = xr.Dataset(
        {
            name: (
                ("time", "lat", "lon"),
                values.astype("f4"),
                {
                    "standard_name": attrs[name][0],
                    "units": attrs[name][1],
                    "cell_methods": "time: mean",
                },
            )
            for name, values in (("ta", 280 + season + noise[0]), ("pr", rain))
        },
        coords={
            "time": DAYS,
            "lat": np.asarray(GRID.latitudes),
            "lon": np.arange(24) * 15.0,
            "time_bnds": (
                ("time", "bnds"),
                DAYS.values[:, None] + np.array([-12, 12], "timedelta64[h]"),
            ),
        },
        attrs={"title": "A small world"},
    )
    fields["time"].attrs["bounds"] = "time_bnds"
    fields["index"] = ("time", 5 + np.linspace(0, 1, len(DAYS)))
    path, shards = layout.artifact("fields", "f" * 64), {"time": 64}
    artifacts.create(path, fields, chunks=shards, shards=shards)
    units = artifacts.plan_units({"time": len(DAYS)}, shards)
    for unit in units:
        block = fields.reset_coords("time_bnds", drop=True).isel(time=unit.region["time"])
        artifacts.write_unit(path, unit, block)
    artifacts.publish(layout, "fields", "f" * 64, units, {})


def make_config(root: Path, **changes: Any) -> RunConfig:
    table: dict[str, dict[str, Any]] = {
        "run": {"root": str(root), "seed": 3},
        "source": {
            "paths": ["-"],
            "variables": ["ta", "pr"],
            "transform": {"pr": "cbrt"},
            "fill": "harmonic",
        },
        "split": {
            "train": ["2000-01-01", "2000-08-31"],
            "validation": ["2000-09-01", "2000-10-31"],
            "test": ["2000-11-01", "2000-12-31"],
        },
        "spectral": {"lmax": 7},
        "train": {"steps": 4, "batch": 8, "width": 16},
        "generate": {
            "realizations": 5,
            "times": ["2000-01-15", "2000-07-15"],
            "integrator": "gme",
            "evaluations": 3,
        },
    }
    for key, value in changes.items():
        section, _, name = key.partition("_")
        table[section] |= {name: value} if name else value
    return RunConfig.from_dict(table)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, here: Client) -> Path:
    """The root of a run up to and with its training."""
    root = tmp_path_factory.mktemp("trained")
    config, layout = make_config(root), StoreLayout(str(root))
    publish_fields(layout)
    preprocess.run(config, layout, here, silent)
    train.run(config, layout, None, silent)
    return root


def drawn(trained: Path, root: Path, client: Client, **changes: Any) -> tuple[str, StoreLayout]:
    """Digest of the ensemble that a copy of the trained run gives."""
    if not root.exists():
        shutil.copytree(trained, root, symlinks=True)
    config = make_config(root, **changes)
    layout = StoreLayout(str(root))
    return generate.run(config, layout, client, silent).digest, layout


@pytest.fixture(scope="module")
def golden(trained: Path, here: Client, tmp_path_factory: pytest.TempPathFactory) -> str:
    return drawn(trained, tmp_path_factory.mktemp("golden") / "run", here)[0]


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_the_batch_does_not_change_the_bytes(trained, golden, here, tmp_path, batch):
    assert drawn(trained, tmp_path / "run", here, generate_batch=batch)[0] == golden


def test_two_worker_processes_give_the_bytes_of_one(trained, golden, here, tmp_path):
    """T-19."""
    config, layout = make_config(trained), StoreLayout(str(trained))
    with local_client(Cluster(workers=2), tmp_path / "scratch") as client:
        assert drawn(trained, tmp_path / "run", client, generate_batch=2)[0] == golden
        certified = certificate(config, layout, client, silent)
    assert certified == certificate(config, layout, here, silent)


def test_a_killed_run_is_resumed_with_the_missing_realizations_only(
    trained, golden, here, tmp_path, monkeypatch
):
    written: list[str] = []
    write = artifacts.write_unit

    def until_the_third(path, unit, dataset, **options):
        if len(written) == 3:
            raise OSError("killed")
        written.append(unit.name)
        return write(path, unit, dataset, **options)

    monkeypatch.setattr(artifacts, "write_unit", until_the_third)
    root = tmp_path / "run"
    with pytest.raises(UnitFailed, match="killed"):
        drawn(trained, root, here, generate_batch=1)
    layout = StoreLayout(str(root))
    assert artifacts.published(layout, "ensemble") is None

    def recorded(path, unit, dataset, **options):
        written.append(unit.name)
        return write(path, unit, dataset, **options)

    monkeypatch.setattr(artifacts, "write_unit", recorded)
    assert drawn(trained, root, here, generate_batch=1)[0] == golden
    # A unit that was in flight may be written by both runs; one that was finished is not.
    assert not set(written[:3]) & set(written[3:])
    assert len(set(written)) == 5


def test_a_worker_writes_one_unit_at_a_time(trained, golden, here, tmp_path, monkeypatch):
    """So that its death costs one."""
    writing, alone = threading.Lock(), list[bool]()
    write = artifacts.write_unit

    def slowly(*arguments, **options):
        alone.append(free := writing.acquire(blocking=False))
        time.sleep(0.1)
        if free:
            writing.release()
        return write(*arguments, **options)

    monkeypatch.setattr(artifacts, "write_unit", slowly)
    assert drawn(trained, tmp_path / "run", here, generate_batch=16)[0] == golden
    assert len(alone) > 2 and all(alone)


def test_one_unit_waits_for_the_disk_while_the_next_is_made_and_never_two(
    trained, golden, here, tmp_path, monkeypatch
):
    """However slow the disk is, a worker holds two units."""
    write, make, counts = artifacts.write_unit, draws.to_fields, {"made": 0, "written": 0}
    most = []

    def made(*arguments, **options):
        counts["made"] += 1
        most.append(counts["made"] - counts["written"])
        return make(*arguments, **options)

    def slowly(*arguments, **options):
        time.sleep(0.3)
        found = write(*arguments, **options)
        counts["written"] += 1
        return found

    monkeypatch.setattr(draws, "to_fields", made)
    monkeypatch.setattr(artifacts, "write_unit", slowly)
    assert drawn(trained, tmp_path / "run", here, generate_batch=16)[0] == golden
    assert counts["made"] > 3 and max(most) <= 2


def test_a_growing_ensemble_draws_only_the_new_realizations(trained, golden, here, tmp_path):
    root = tmp_path / "run"
    _, layout = drawn(trained, root, here, generate_realizations=2)
    small = artifacts.open_published(layout, "ensemble").load()
    digest, _ = drawn(trained, root, here)
    assert digest == golden
    found = artifacts.published(layout, "ensemble")
    assert found is not None and found.attrs["figures"]["units drawn"] == 3
    grown = artifacts.open_published(layout, "ensemble")
    xr.testing.assert_equal(grown.isel(realization=slice(0, 2)), small)


def test_another_seed_gives_other_fields_where_those_of_the_first_are(
    trained, golden, here, tmp_path
):
    root = tmp_path / "run"
    first, layout = drawn(trained, root, here)
    config = make_config(root)
    config = replace(config, run=replace(config.run, seed=4))
    assert first == golden != generate.run(config, layout, here, silent).digest


def test_the_ensemble_is_labelled_for_any_reader(trained, here, tmp_path):
    _, layout = drawn(trained, tmp_path / "run", here)
    ensemble = xr.open_zarr(layout.name("ensemble"))
    assert ensemble["ta"].dims == ("realization", "time", "lat", "lon")
    assert ensemble["ta"].attrs["standard_name"] == "air_temperature"
    assert ensemble["pr"].attrs["units"] == "kg m-2 s-1"
    assert list(ensemble["realization"].values) == [0, 1, 2, 3, 4]
    assert ensemble["realization"].attrs["standard_name"] == "realization"
    assert [str(time)[:16] for time in ensemble["time"].values] == [
        "2000-01-15T12:00",
        "2000-07-15T12:00",
    ]
    bounds = ensemble[ensemble["time"].attrs["bounds"]]
    assert str(bounds.values[0, 0])[:16] == "2000-01-15T00:00"
    assert ensemble.attrs["Conventions"].startswith("CF-1.13")
    checkpoint = artifacts.published(layout, "checkpoints")
    assert checkpoint is not None and ensemble.attrs["checkpoints_digest"] == checkpoint.digest
    assert ensemble.attrs["run_seed"] == 3


def test_the_root_says_where_the_ensemble_comes_from(trained, here, tmp_path):
    """And what only the user knows; both without drawing again."""
    said = {"institution": "An institute", "creator_name": "A. Person"}
    _, layout = drawn(trained, tmp_path / "run", here)
    _, layout = drawn(trained, tmp_path / "run", here, generate_attributes=said)
    found = artifacts.published(layout, "ensemble")
    assert found is not None and found.attrs["figures"]["units drawn"] == 0
    attrs = xr.open_zarr(layout.name("ensemble")).attrs
    assert said.items() <= attrs.items()
    digests = ("config", "source", "fields", "normals", "checkpoints", "code")
    for name in (*digests[:1], *digests[2:]):
        assert re.fullmatch("[0-9a-f]{64}", attrs[f"{name}_digest"]), name
    assert "source_digest" in attrs and "gme, 3 evaluations" in attrs["sampler"]
    assert "seed/realization/time/variable/step" in attrs["noise"]
    assert attrs["frequency"] == "2day" and attrs["time_coverage_duration"] == "P182D"
    assert json.loads(attrs["config"])["generate"]["realizations"] == 5
    highly = {"title", "summary", "keywords", "Conventions"}
    recommended = {
        *("id", "history", "source", "license", "processing_level", "standard_name_vocabulary"),
        *("date_created", "creator_name", "institution", "time_coverage_start"),
        *("time_coverage_end", "time_coverage_duration", "time_coverage_resolution"),
        *("geospatial_lat_min", "geospatial_lat_max", "geospatial_lon_min", "geospatial_lon_max"),
        *("geospatial_bounds", "geospatial_lat_units", "geospatial_lon_units"),
    }
    assert highly | recommended <= set(attrs)


def test_the_ensemble_can_be_written_as_netcdf(trained, here, tmp_path):
    _, layout = drawn(trained, tmp_path / "run", here)
    with xr.open_zarr(layout.name("ensemble")) as ensemble:
        ensemble.to_netcdf(tmp_path / "ensemble.nc")
        xr.testing.assert_identical(xr.open_dataset(tmp_path / "ensemble.nc"), ensemble.load())


def test_masked_cells_are_masked_and_rain_is_not_negative(trained, here, tmp_path):
    _, layout = drawn(trained, tmp_path / "run", here)
    ensemble = xr.open_zarr(layout.name("ensemble")).load()
    hole = np.zeros(GRID.shape, bool)
    hole[3:6, 2:7] = True
    assert (np.isnan(ensemble["pr"]) == hole).all()
    assert np.isfinite(ensemble["ta"]).all()
    assert (ensemble["pr"].values[..., ~hole] >= 0).all()


@pytest.mark.parametrize("name", ["healpix:8", "healpix:8:nested"])
def test_an_ensemble_on_healpix_is_labelled_as_cf_asks(name, trained, here, tmp_path):
    _, layout = drawn(trained, tmp_path / "run", here, generate_grid=name)
    ensemble = xr.open_zarr(layout.name("ensemble"), decode_coords="all").load()
    assert ensemble["ta"].dims == ("realization", "time", "cell")
    order = "nested" if name.endswith("nested") else "ring"
    mapping = {
        "grid_mapping_name": "healpix", "indexing_scheme": order, "refinement_level": 3
    }  # fmt: skip
    assert mapping.items() <= ensemble["crs"].attrs.items()
    assert ensemble["ta"].encoding["grid_mapping"] == "crs"
    assert ensemble["cell"].attrs["standard_name"] == "healpix_index"
    np.testing.assert_array_equal(ensemble["cell"], np.arange(768))
    lon, lat = healpy.pix2ang(8, np.arange(768), nest=order == "nested", lonlat=True)
    np.testing.assert_allclose(ensemble["lat"], lat, atol=1e-10)
    np.testing.assert_allclose(ensemble["lon"], lon, atol=1e-10)
    assert ensemble["lat"].attrs["standard_name"] == "latitude"
    assert "axis" not in ensemble["lat"].attrs
    assert not {"lat", "lon"} & set(ensemble.data_vars)
    hole = np.isnan(ensemble["pr"]).all(("realization", "time"))
    assert (np.isnan(ensemble["pr"]) == hole).all() and 0 < hole.mean() < 0.1
    assert np.isfinite(ensemble["ta"]).all()


@pytest.mark.parametrize("name", ["healpix:8", "healpix:8:nested"])
def test_xdggs_gives_the_right_cells(name, trained, here, tmp_path):
    xdggs = pytest.importorskip("xdggs", reason="`make test` installs it")
    _, layout = drawn(trained, tmp_path / "run", here, generate_grid=name)
    ensemble = xr.open_zarr(layout.name("ensemble"), decode_coords="all").load()
    decoded = xdggs.decode(ensemble, convention="cf")
    info = decoded.dggs.grid_info
    assert (info.level, info.indexing_scheme) == (3, name.partition(":8:")[2] or "ring")
    centres = decoded.dggs.cell_centers()
    np.testing.assert_allclose(centres["latitude"], ensemble["lat"], atol=1e-8)
    np.testing.assert_allclose(centres["longitude"] % 360, ensemble["lon"], atol=1e-8)


def test_other_grids_show_the_same_fields(trained, here, tmp_path):
    """Means of latitude bands within five standard errors of those on the source's grid."""
    root, many = tmp_path / "run", {"generate_realizations": 40, "train_model": "gaussian:m-block"}
    shutil.copytree(trained, root, symlinks=True)
    train.run(make_config(root, **many), StoreLayout(str(root)), None, silent)
    bands = np.linspace(-90, 90, 7)
    found = {}
    for name in ("source", "healpix:16", "latlon:37x72", "gaussian:T31"):
        _, layout = drawn(trained, root, here, generate_grid=name, **many)
        ensemble = artifacts.open_published(layout, "ensemble").load()
        grid = grid_of(ensemble)
        assert name == "source" or grid == grid_named(name)
        area = xr.DataArray(grid.area, dims=grid.dims)
        latitude = xr.DataArray(grid.coordinates[0], dims=grid.dims)
        for variable, values in ensemble.items():
            scaled = np.cbrt(values) if variable == "pr" else values
            spread = scaled.std("realization")
            for south, north in itertools.pairwise(bands):
                weight = area.where((latitude >= south) & (latitude < north) & spread.notnull(), 0)
                mean = scaled.weighted(weight).mean(grid.dims)
                at = found.setdefault((variable, south), {})
                at[name] = (
                    mean.mean("realization").values,
                    mean.std("realization").values / np.sqrt(40),
                    np.sqrt(np.square(spread).weighted(weight).mean(grid.dims)).values,
                )
    for at in found.values():
        mean, error, spread = at["source"]
        for name in set(at) - {"source"}:
            assert np.all(np.abs(at[name][0] - mean) < 5 * error)
            assert np.all(np.abs(at[name][2] / spread - 1) < 0.1), (name, at[name][2], spread)


@pytest.mark.parametrize("name", ["source", "healpix:8"])
def test_a_copy_for_series_holds_the_same_in_other_chunks(
    name, trained, here, tmp_path, monkeypatch
):
    monkeypatch.setattr(series, "CHUNK_BYTES", 4 * 2 * 60)
    monkeypatch.setattr(series, "SHARD_BYTES", 4 * 2 * 200)
    root, asked = tmp_path / "run", {"generate_grid": name, "generate_series": True}
    _, layout = drawn(trained, root, here, **asked, generate_realizations=1)
    _, layout = drawn(trained, root, here, **asked)
    ensemble, copy = (xr.open_zarr(layout.name(kind)) for kind in ("ensemble", "series"))
    xr.testing.assert_identical(copy.load().drop_attrs(), ensemble.load().drop_attrs())
    chunks = zarr.open_array(layout.name("series") / "ta", mode="r").chunks
    assert chunks[:2] == (1, 2) and np.prod(chunks[2:]) <= 60
    assert audit.check(layout) == []
    found = artifacts.published(layout, "series")
    both = artifacts.published(layout, "ensemble")
    assert found is not None and both is not None
    assert found.attrs["checkpoints_digest"] == both.attrs["checkpoints_digest"]


def test_an_ensemble_is_not_there_without_the_copy_that_was_asked_for(
    trained, here, tmp_path, monkeypatch
):
    def fails(*_: Any) -> None:
        raise OSError("killed")

    root = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(series, "copy_unit", fails)
        with pytest.raises(UnitFailed, match="killed"):
            drawn(trained, root, here, generate_series=True)
    assert artifacts.published(StoreLayout(str(root)), "ensemble") is None
    _, layout = drawn(trained, root, here, generate_series=True)
    found = artifacts.published(layout, "ensemble")
    assert found is not None and found.attrs["figures"]["units drawn"] == 0
    assert artifacts.published(layout, "series") is not None


def test_verification_is_drawn_on_the_grid_of_the_source(trained, here, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(trained, root, symlinks=True)
    layout, times = StoreLayout(str(root)), asked_times(make_config(root), StoreLayout(str(root)))
    keys, digests = set(), set()
    for name in ("source", "latlon:9x16"):
        config = make_config(root, generate_grid=name, generate_realizations=1)
        drawn = generate.generate_ensemble(config, layout, here, silent, "verification", times, 1)
        keys.add(drawn.key)
        digests.add(drawn.digest)
    assert len(keys) == len(digests) == 1


def test_the_same_training_gives_the_same_checkpoint(trained, here, tmp_path):
    root = tmp_path / "again"
    config, layout = make_config(root), StoreLayout(str(root))
    publish_fields(layout)
    preprocess.run(config, layout, here, silent)
    digest = train.run(config, layout, None, silent).digest
    first = artifacts.published(StoreLayout(str(trained)), "checkpoints")
    assert first is not None and digest == first.digest


def test_a_killed_training_ends_with_the_same_weights(trained, tmp_path, monkeypatch):
    root = tmp_path / "run"
    shutil.copytree(trained, root, symlinks=True)
    config, layout = make_config(root), StoreLayout(str(root))
    first = artifacts.published(layout, "checkpoints")
    assert first is not None
    shutil.rmtree(first.path)
    shutil.rmtree(layout.records("checkpoints", first.key))
    layout.name("checkpoints").unlink()
    monkeypatch.setattr(session, "SECONDS_BETWEEN_STATES", 0.0)

    def dies(done: int, total: int, text: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.run(config, layout, None, dies)
    state = checkpoints.load_latest(layout.artifact("checkpoints", first.key))
    assert state is not None and state.step == 2
    assert train.run(config, layout, None, silent).digest == first.digest


def test_the_certificate_splits_add_up(trained, here):
    config, layout = make_config(trained), StoreLayout(str(trained))
    certified = certificate(config, layout, here, silent)
    over = certified["over"][certified["baseline"]]
    own = over["nats"]
    assert sum(certified["per_degree"]) == pytest.approx(own, abs=1e-6)
    assert sum(certified["per_variable"].values()) == pytest.approx(own, abs=1e-6)
    assert sum(certified["per_time"]) == pytest.approx(own, abs=1e-6)
    assert over["low"] <= own <= over["high"]


def test_the_certificate_of_parts_is_that_of_the_whole(trained, here, monkeypatch):
    config, layout = make_config(trained), StoreLayout(str(trained))
    parts = certificate(config, layout, here, silent)
    monkeypatch.setattr("flows.stages.verify.certificate.TOGETHER", 1000)
    whole = certificate(config, layout, here, silent)
    assert parts["bounds"] == pytest.approx(whole["bounds"], rel=1e-6)
    for name, ours in parts["over"].items():
        assert ours == pytest.approx(whole["over"][name], rel=1e-5, abs=1e-4), name
        theirs = whole["likelihood"]["over"][name]
        assert parts["likelihood"]["over"][name] == pytest.approx(theirs, rel=1e-6), name
    for key in ("per_degree", "per_time", "per_degree_error"):
        assert parts[key] == pytest.approx(whole[key], rel=1e-5, abs=1e-4), key


def test_a_gaussian_model_is_a_finished_generator(trained, here, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(trained, root, symlinks=True)
    config, layout = make_config(root, train_model="gaussian:m-block"), StoreLayout(str(root))
    train.run(config, layout, None, silent)
    generate.run(config, layout, here, silent)
    assert certificate(config, layout, here, silent)["over"]["m-block"]["nats"] == 0.0
    assert np.isfinite(artifacts.open_published(layout, "ensemble")["ta"].values).all()


def test_a_gaussian_model_is_drawn_from_in_closed_form(trained, monkeypatch):
    """Unit vectors as noise give the columns of a root of the covariance."""
    size, steps = 2 * 64, set()

    def unit(self: NoiseAddress, step: int, channels: Any, lmax: int) -> np.ndarray:
        steps.add(step)
        return np.eye(size, dtype=np.float32)[self.realization].reshape(2, 64)

    monkeypatch.setattr(NoiseAddress, "white", unit)
    config, layout = make_config(trained, train_model="gaussian:m-block"), StoreLayout(str(trained))
    normals = artifacts.open_published(layout, "normals").load()
    law = baseline_of(normals, "m-block")
    model = Trained(GaussianScore(law), GaussianScore(law))
    times = asked_times(config, layout).isel(time=[0])
    x = whitened_draws(config, model, normals, range(size), times).values.reshape(size, size)
    white = torch.eye(size, dtype=torch.float64).reshape(size, 2, 64)
    covariance = law.unrotate(law.variance * law.rotate(white)).reshape(size, size).numpy()
    assert np.ptp(np.diagonal(covariance)) > 0.1
    np.testing.assert_allclose(x.T.astype(np.float64) @ x, covariance, atol=1e-5)
    assert steps == {0}


def test_degrees_beyond_lmax_have_the_power_of_the_data(here, tmp_path):
    """The learned block is bit for bit that of a run without tail; five standard errors beyond."""
    learned = []
    for name, spectral in (("without", {"lmax": 7}), ("with", {"lmax": 7, "tail": 11})):
        config = make_config(
            tmp_path / name,
            spectral=spectral,
            train_model="gaussian:m-block",
            generate_realizations=40,
        )
        layout = StoreLayout(config.run.root)
        publish_fields(layout)
        preprocess.run(config, layout, here, silent)
        train.run(config, layout, None, silent)
        assert artifacts.open_published(layout, "whitened").sizes["coefficient"] == 64
        normals = artifacts.open_published(layout, "normals").load()
        checkpoint = artifacts.published(layout, "checkpoints")
        assert checkpoint is not None
        score, times = load_score(config, checkpoint, normals), asked_times(config, layout)
        x = whitened_draws(config, score, normals, range(4), times)
        learned.append(x.values[..., :64])
    np.testing.assert_array_equal(*learned)
    generate.run(config, layout, here, silent)
    ensemble, known = artifacts.open_published(layout, "ensemble").load(), Normals.of(normals)
    transforms = dict(zip(known.channels, known.transforms, strict=True))
    scaled = [
        known.anomalies(stack_variables(part, transforms), known.rows(part))[:, 0]
        for part in (ensemble.isel(realization=r, drop=True) for r in range(40))
    ]
    power = power_spectrum(plan(GRID, 11, "float64").analysis(np.concatenate(scaled))).mean(axis=0)
    expected, degree = np.square(normals["tail_factor"].values[:, 0, 0]), np.arange(8, 12)
    error = expected * np.sqrt(2 / (80 * (2 * degree + 1)))
    assert np.all(np.abs(power[8:] - expected) < 5 * error)
    assert normals["tail_degree"].values.tolist() == degree.tolist()


def test_a_tail_beyond_the_grid_is_refused(here, tmp_path):
    config = make_config(tmp_path / "run", spectral={"lmax": 7, "tail": 12})
    publish_fields(StoreLayout(config.run.root))
    with pytest.raises(ConfigError, match=r"spectral\.tail: expected 7 .* to 11"):
        preprocess.run(config, StoreLayout(config.run.root), here, silent)


def test_an_ensemble_is_conditioned_on_the_covariates_that_are_given(here, tmp_path):
    """Also on none: the network was trained with and without them."""
    config = make_config(tmp_path / "run", source_covariates={"index": "-"}, train_steps=24)
    layout = StoreLayout(config.run.root)
    publish_fields(layout)
    preprocess.run(config, layout, here, silent)
    whitened = artifacts.open_published(layout, "whitened").load()
    learned = whitened["covariates"].sel(time=slice(*config.split.train))
    np.testing.assert_allclose([learned.mean(), learned.std()], [0, 1], atol=1e-12)
    train.run(config, layout, None, silent)
    drawn = []
    for given in ({}, {"index": 5.5}, {"index": 9.0}):
        asked = replace(config, generate=replace(config.generate, covariates=given))
        generate.run(asked, layout, here, silent)
        drawn.append(artifacts.open_published(layout, "ensemble")["ta"].load())
    assert all(np.isfinite(each).all() for each in drawn)
    assert not drawn[0].equals(drawn[1]) and not drawn[1].equals(drawn[2])


def test_a_covariate_that_does_not_vary_is_refused(here, tmp_path):
    config = make_config(
        tmp_path / "run", source_covariates={"index": "-"}, split_train=["2000-01-01", "2000-01-01"]
    )
    publish_fields(StoreLayout(config.run.root))
    with pytest.raises(UnusableData, match="index is 5 at all training times"):
        covariate_variables(
            artifacts.open_published(StoreLayout(config.run.root), "fields"),
            ("index",),
            config.split,
        )
