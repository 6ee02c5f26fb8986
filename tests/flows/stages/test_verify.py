"""The last stage on a small world of its own: what it publishes, and for which dates."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from distributed import Client
from matplotlib.colors import to_rgb
from PIL import Image

from flows.cli.history import runs, table
from flows.config.schema import RunConfig
from flows.deployments.ui.pages import picture_of, rows_of
from flows.report.figures import COLOURS
from flows.report.maps import Raster
from flows.stages.base import STAGES, skipped
from flows.stages.content_keys import key_of
from flows.stages.generate import generate
from flows.stages.preprocess import preprocess
from flows.stages.train import train
from flows.stages.verify import pictures as pages
from flows.stages.verify import verify
from flows.stages.verify.candidates import held_out_times, memory_of, spacing
from pipeline.scores.arena import FLOOR
from pipeline.sphere.grid import RingGrid
from storage.artifacts import audit
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout

GRID = RingGrid.gaussian(12)
TIMES = xr.date_range("2000-01-01", "2002-12-31", freq="4D")
NAMES = {"ua850": "eastward_wind", "va850": "northward_wind", "pr": "precipitation_flux"}


def make_fields(times=TIMES) -> xr.Dataset:
    """Smooth noise with a season; rain with dry days."""
    generator = np.random.default_rng(0)
    noise = generator.standard_normal((len(NAMES), len(times), *GRID.shape))
    smooth = noise + np.roll(noise, 1, axis=3) + np.roll(noise, 1, axis=2)
    season = 5 * np.cos(2 * np.pi * np.arange(len(times)) / 91.3)[:, None, None]
    values = dict(zip(NAMES, smooth + season, strict=True))
    values["pr"] = 1e-5 * np.maximum(smooth[2], 0) ** 3
    return xr.Dataset(
        {
            name: (
                ("time", "lat", "lon"),
                values[name].astype("f4"),
                {
                    "standard_name": standard,
                    "long_name": standard.replace("_", " "),
                    "units": "kg m-2 s-1" if name == "pr" else "m s-1",
                },
            )
            for name, standard in NAMES.items()
        },
        coords={"time": times, "lat": np.asarray(GRID.latitudes), "lon": np.arange(24) * 15.0},
        attrs={"title": "A small world"},
    )


def publish_fields(layout: StoreLayout, fields: xr.Dataset) -> None:
    path, shards = layout.artifact("fields", "f" * 64), {"time": 32}
    artifacts.create(path, fields, chunks=shards, shards=shards)
    units = artifacts.plan_units({"time": fields.sizes["time"]}, shards)
    for unit in units:
        artifacts.write_unit(path, unit, fields.isel(time=unit.region["time"]))
    artifacts.publish(layout, "fields", "f" * 64, units, {})


def make_config(root, last_day="2002-12-31") -> RunConfig:
    return RunConfig.from_dict(
        {
            "run": {"root": str(root)},
            "source": {"paths": ["-"], "variables": list(NAMES), "transform": {"pr": "cbrt"}},
            "split": {
                "train": ["2000-01-01", "2001-12-31"],
                "validation": ["2002-01-01", "2002-06-30"],
                "test": ["2002-07-01", last_day],
            },
            "spectral": {"lmax": 7},
            "train": {"model": "gaussian:m-block"},
            "generate": {"realizations": 3, "times": ["2002-07-15"], "evaluations": 4},
            "verify": {"dates": 12, "realizations": 4},
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a Gaussian model, up to and with its report."""
    config = make_config(tmp_path_factory.mktemp("run"))
    layout = StoreLayout(config.run.root)
    publish_fields(layout, make_fields())
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as c:
        for stage in (preprocess, train, generate):
            stage.run(config, layout, c, lambda *_: None)
        receipt = verify.run(config, layout, c, lambda *_: None)
    return config, layout, receipt


def test_the_keys_of_a_finished_run_are_found_without_torch(run):
    """So that a run with nothing to do, and `status`, answer quickly."""
    config, _, receipt = run
    script = """
import json, sys
from flows.config.schema import RunConfig
from flows.run import stages_until
from flows.stages.content_keys import key_of
from storage.artifacts.layout import StoreLayout
config = RunConfig.from_dict(json.loads(sys.argv[1]))
names = [stage.name for stage in stages_until("verify") if stage.name != "ingest"]
keys = [key_of(name, config, StoreLayout(config.run.root)) for name in names]
slow = {"torch", "prefect", "distributed", "matplotlib", "scipy.stats"}
print(keys[-1], slow & set(sys.modules))
"""
    command = [sys.executable, "-c", script, json.dumps(config.to_dict())]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split() == [receipt.key, "set()"], done.stderr


def test_scores_and_page_are_published_under_the_stages_key(run):
    config, layout, receipt = run
    found = artifacts.find(layout, "report", key_of("verify", config, layout))
    assert found is not None and found.digest == receipt.digest
    scores = json.loads(layout.scores.read_text())
    assert scores["key"] == receipt.key
    assert "A small world" in layout.report.read_text()
    assert layout.report.stat().st_size < 3e6
    assert audit.check(layout) == []


def test_every_candidate_has_every_score(run):
    scores = json.loads(run[1].scores.read_text())
    owners = {"model", "m-block", "channels", FLOOR, "band-limit"}
    assert set(scores["protocol"]["realizations"]) == owners
    assert set(scores["scores"]) == {*NAMES, "ws850"}
    for by_score in (*scores["scores"].values(), scores["joint"]):
        for entries in by_score.values():
            assert set(entries) == owners
            assert all(entry["value"] is not None for entry in entries.values())


def test_scores_in_parts_are_those_of_whole_ensembles(run):
    """Numbers of this world from when all fields of a candidate were in one process at once."""
    before = json.loads(Path(__file__).with_name("scores_of_a_small_world.json").read_text())
    card = json.loads(run[1].scores.read_text())
    tables = {**card["scores"], "joint": card["joint"]}
    compared = 0
    for name, by_score in {**before["scores"], "joint": before["joint"]}.items():
        for score, entries in by_score.items():
            near = 1e-6 if score == "spectrum" else 1e-12  # of fields cut to lmax it is rounding
            for owner, (value, error) in entries.items():
                found = tables[name][score][owner]
                assert found["value"] == pytest.approx(value, rel=1e-5, abs=near), (name, score)
                assert found["standard_error"] == pytest.approx(error, rel=1e-4, abs=near), name
                compared += 1
    assert compared > 150
    for name, entries in before["skill"].items():
        for owner, skill in entries.items():
            assert tables[name]["crps"][owner]["skill"] == pytest.approx(skill, abs=1e-5)
            sd = tables[name]["sd"][owner]["relative"]
            assert sd == pytest.approx(before["relative"][name][owner], rel=1e-5)
    for name, entries in before["ranks"].items():
        for owner, frequencies in entries.items():
            assert card["ranks"][name][owner] == pytest.approx(frequencies, abs=1e-6)
    for name, values in before["memorisation"].items():
        assert card["memorisation"][name] == pytest.approx(values, rel=1e-5)
    assert card["distances"]["model"] == {"realizations": 4, "dates": 12}


def test_a_gaussian_model_certifies_nothing_over_its_own_law(run):
    certificate = json.loads(run[1].scores.read_text())["certificate"]
    assert certificate["over"]["m-block"]["nats"] == pytest.approx(0, abs=1e-6)


def test_a_gaussian_law_does_not_replay_training_fields(run):
    memory = json.loads(run[1].scores.read_text())["memorisation"]
    middle = memory["levels"].index(0.5)
    assert memory["generated"][middle] == pytest.approx(memory["held_out"][middle], rel=0.2)


@pytest.mark.parametrize(
    ("model", "integrator", "imposed"),
    [("network", "z-ab2", True), ("network", "gme", False), ("gaussian:m-block", "z-ab2", False)],
)
def test_spectra_are_imposed_on_the_draws_of_matched_flows_alone(model, integrator, imposed):
    config = make_config("-")
    config = replace(
        config,
        train=replace(config.train, model=model, steps=1),
        generate=replace(config.generate, integrator=integrator),
    )
    assert verify.matched(config) is imposed


def test_the_readme_picture_is_drawn_from_the_run(run, tmp_path):
    path = tmp_path / "picture.png"
    pages.readme_picture(run[1], "ua850", str(path))
    assert 10_000 < path.stat().st_size < 400_000


def test_an_ensemble_on_another_grid_is_shown_beside_real_fields(run, tmp_path):
    config, layout, _ = run
    layout = StoreLayout(str(tmp_path / "run"))
    shutil.copytree(config.run.root, layout.path, symlinks=True)
    asked = replace(
        config,
        run=replace(config.run, root=str(layout.path)),
        generate=replace(config.generate, grid="healpix:8:nested"),
    )
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as c:
        generate.run(asked, layout, c, lambda *_: None)
    normals = artifacts.open_published(layout, "normals").load()
    real, generated, usual = pages.gallery(layout, normals)
    assert real["pr"].dims[-2:] == usual[0]["pr"].dims == ("lat", "lon")
    assert generated["ws850"].dims[-1:] == usual[1]["ws850"].dims == ("cell",)
    here, there = (Raster(each, width=100)(each["pr"]) for each in usual)
    assert np.nanstd(here - there) < 0.4 * np.nanstd(here)  # 1.4 if unrelated


def test_held_out_dates_lie_in_the_test_period_and_spread_over_it(tmp_path):
    dates = held_out_times(make_fields(), make_config(tmp_path))
    assert dates.size == 12
    assert str(dates.values[0]) >= "2002-07" and str(dates.values[-1]) >= "2002-12-2"
    assert spacing(dates) == pytest.approx(16, abs=1)


def test_dates_hang_together_as_long_as_the_largest_scales_remember():
    generator, dates = np.random.default_rng(0), 90
    noise = generator.standard_normal((dates + 19, 2, 64))
    slow = np.stack([noise[day : day + 20].mean(axis=0) for day in range(dates)])

    def labelled(values):
        degree = ("coefficient", np.repeat(np.arange(8), 2 * np.arange(8) + 1))
        dims = ("time", "channel", "coefficient")
        return xr.DataArray(values, dims=dims, coords={"degree": degree})

    assert memory_of(labelled(noise[:dates])) <= 4
    assert memory_of(labelled(slow)) >= 20
    quick_beyond = np.where(np.arange(64) < 36, slow, noise[:dates])
    assert memory_of(labelled(quick_beyond)) == memory_of(labelled(slow))


def test_fewer_times_than_asked_for_are_all_taken(tmp_path):
    fields = make_fields().isel(time=slice(0, 240))
    dates = held_out_times(fields, make_config(tmp_path))
    assert np.unique(dates.values).size == dates.size


def test_held_out_dates_keep_the_calendar_of_the_source(tmp_path):
    times = xr.date_range("2000-01-01", "2002-12-30", freq="4D", calendar="360_day")
    dates = held_out_times(make_fields(times), make_config(tmp_path, "2002-12-30"))
    assert dates.dt.calendar == "360_day"
    assert spacing(dates) == pytest.approx(16, abs=1)


def test_the_history_tells_trainings_and_ensembles_and_what_came_of_them(run):
    _config, layout, receipt = run
    trained, drawn = runs(layout)
    assert (trained["kind"], drawn["kind"]) == ("checkpoints", "ensemble")
    assert trained["current"] and drawn["current"]
    assert drawn["checkpoint"] == trained["digest"]
    assert trained["scores"] == receipt.figures
    assert drawn["realizations"] == 3
    assert trained["changed"] == drawn["changed"] == {}
    lines = table([trained, drawn]).splitlines()
    assert trained["key"][:12] in lines[1] and "J_G over m-block" in lines[2]
    assert table([]) == "nothing is published"


def test_the_history_tells_what_differed(run, tmp_path):
    config, layout, _ = run
    root = shutil.copytree(layout.path, tmp_path / "run", symlinks=True)
    again = replace(
        config,
        run=replace(config.run, root=str(root)),
        generate=replace(config.generate, realizations=5, evaluations=6),
    )
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as c:
        generate.run(again, again.layout, c, lambda *_: None)
    rows = [row for row in runs(again.layout) if row["kind"] == "ensemble"]
    assert [row["current"] for row in rows] == [False, True]
    changed = {"generate.realizations": [3, 5], "generate.evaluations": [4, 6]}
    assert rows[1]["changed"] == changed
    assert "generate.evaluations 4 -> 6" in table(rows)


def test_the_model_card_tells_data_scores_and_origin(run):
    _config, layout, _ = run
    card, scores = layout.card.read_text(), json.loads(layout.scores.read_text())
    assert card.startswith("# Generated global fields: A small world: model card\n")
    assert "Nothing was trained: the model is the Gaussian law of the data." in card
    for name, digest in scores["provenance"]["digests"].items():
        assert f"| {name} | `{digest}` |" in card
    for name, part in scores["certificate"]["over"].items():
        assert f"| {name} | {part['nats']:.1f} | [{part['low']:.1f}, {part['high']:.1f}] |" in card
    ratio = scores["scores"]["pr"]["sd"]["model"]["ratio"]["value"]
    assert f"{ratio:.2f} |" in card
    assert "| pr | precipitation flux | kg m-2 s-1 |" in card


def test_what_prefect_shows_of_a_stage_is_what_it_made(run):
    config, layout, _receipt = run
    receipts = {
        stage.name: skipped(stage, key_of(stage.name, config, layout), layout)
        for stage in STAGES
        if stage.name != "ingest"  # the fields were published by hand
    }
    rows = {name: rows_of(one, layout) for name, one in receipts.items()}
    told = {
        name: {r["what"]: r["value"] for r in rows[name]} for name in ("preprocess", "generate")
    }
    assert told["preprocess"]["days"] == len(TIMES) and told["preprocess"]["channels"] == 3
    assert told["generate"]["realizations"] == 3
    assert rows["train"] == [{"model": "gaussian:m-block", "steps": 0}]
    scores = json.loads(layout.scores.read_text())
    certified = [row for row in rows["verify"] if row["score"].startswith("J_G over")]
    assert len(certified) == len(scores["certificate"]["over"])
    for table_of in rows.values():
        assert len({tuple(row) for row in table_of}) == 1, "every row has the same columns"
    assert picture_of(receipts["train"], layout) is None
    for name in ("generate", "verify"):
        page = picture_of(receipts[name], layout)
        assert "](data:image/png;base64," in page
        assert 5_000 < len(page) < 400_000
    data = re.search(r"base64,([^)]*)", page)[1]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), float)
    for name in ("model", "m-block", "channels", "band-limit"):
        apart = np.abs(pixels - 255 * np.array(to_rgb(COLOURS[name]))).max(axis=-1)
        assert apart.min() < 24, f"the line of {name} has lost its colour"
