"""A whole run in a bucket of a real S3 server: the bytes of a local one, by the same protocol."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from obstore.store import S3Store
from zarr.storage import ObjectStore

from flows.cli import main as cli
from flows.config.schema import RunConfig
from flows.run import run_alone, run_stage, up_to_date
from flows.stages.base import STAGES
from storage.artifacts import audit
from storage.artifacts import publishing as artifacts
from storage.places.places import files_below
from tests import s3

KINDS = ("fields", "normals", "whitened", "checkpoints", "ensemble", "series")
ROOT = "s3://runs/a/run"


def small_world() -> xr.Dataset:
    """Smooth noise with a season on three coarse years."""
    times = xr.date_range("2000-01-01", "2002-12-31", freq="6D")
    noise = np.random.default_rng(0).standard_normal((len(times), 8, 16))
    season = 5 * np.cos(2 * np.pi * np.arange(len(times)) / 60.9)[:, None, None]
    values = noise + np.roll(noise, 1, axis=2) + np.roll(noise, 1, axis=1) + season
    return xr.Dataset(
        {"z": (("time", "lat", "lon"), values.astype("f4"), {"units": "m"})},
        coords={"time": times, "lat": 78.75 - 22.5 * np.arange(8), "lon": 22.5 * np.arange(16)},
    )


def tables(source: str, root: str, scratch: Path) -> dict[str, Any]:
    return {
        "run": {"root": root, "scratch": str(scratch)},
        "source": {"paths": [source], "variables": ["z"]},
        "split": {
            "train": ["2000-01-01", "2001-06-30"],
            "validation": ["2001-07-01", "2001-12-31"],
            "test": ["2002-01-01", "2002-12-31"],
        },
        "spectral": {"lmax": 4},
        "train": {"model": "gaussian:m-block"},
        "generate": {"realizations": 2, "times": ["2002-03-01", "2002-07-01"], "series": True},
        "verify": {"realizations": 2, "dates": 6},
        "cluster": {"workers": 1},
    }


@pytest.fixture(scope="module")
def environment(s3_server: str) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        for name, text in s3.environment(s3_server).items():
            patch.setenv(name, text)
        s3.make_bucket(s3_server, "runs")
        yield s3_server


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, environment: str, here: Any
) -> dict[str, RunConfig]:
    """The same run in a bucket, finished, and below a directory, up to the ensemble."""
    base = tmp_path_factory.mktemp("runs")
    small_world().to_netcdf(base / "source.nc")
    made = {}
    for place, root, stages in (("disk", str(base / "run"), STAGES[:-1]), ("bucket", ROOT, STAGES)):
        config = RunConfig.from_dict(tables(str(base / "source.nc"), root, base / place))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("flows.run.client_on_demand", lambda *_: nullcontext(here))
            for stage in stages:
                run_stage(stage, config, config.layout)
        made[place] = config
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_digests_are_those_of_a_local_run(runs: dict[str, RunConfig], kind: str) -> None:
    local, remote = (artifacts.published(runs[place].layout, kind) for place in runs)
    assert local is not None and remote is not None
    assert (remote.key, remote.digest) == (local.key, local.digest)


def test_nothing_is_to_be_done_again_and_every_byte_is_right(runs: dict[str, RunConfig]) -> None:
    config = runs["bucket"]
    assert len(up_to_date(config, config.layout)) == len(STAGES)
    assert audit.check(config.layout) == []


def test_only_logs_and_scratch_lie_on_this_machine(runs: dict[str, RunConfig]) -> None:
    config = runs["bucket"]
    here = config.layout.on_this_machine
    assert here == Path(str(config.run.scratch))
    assert not [path for path in here.rglob("*") if path.suffix in (".zarr", ".json")]
    assert not Path("s3:").exists()


def test_the_page_and_the_scores_lie_below_the_root(runs: dict[str, RunConfig]) -> None:
    layout = runs["bucket"].layout
    report = artifacts.published(layout, "report")
    assert report is not None
    assert json.loads(layout.scores.read_bytes())["key"] == report.key
    assert layout.report.read_bytes() == (report.path / "report.html").read_bytes()


def test_a_plain_reader_opens_what_status_prints(
    runs: dict[str, RunConfig], write_config: Callable[[dict[str, Any]], str], capfd: Any
) -> None:
    config = runs["bucket"]
    table = config.to_dict()
    assert cli.main(["status", write_config(table), "--json"]) == 0
    said = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert {stage["state"] for stage in said["stages"].values()} == {"up to date"}
    address = said["stages"]["generate"]["path"]
    assert address.startswith(f"{ROOT}/artifacts/ensemble-")
    store = S3Store.from_url(address, client_options={"allow_http": True})
    seen = xr.open_zarr(ObjectStore(store, read_only=True), decode_coords="all")
    local = artifacts.open_published(runs["disk"].layout, "ensemble")
    xr.testing.assert_equal(seen.load(), local.load())


def test_what_no_name_refers_to_is_cleaned_from_a_bucket(
    runs: dict[str, RunConfig], write_config: Callable[[dict[str, Any]], str], capfd: Any
) -> None:
    config = runs["bucket"]
    written = write_config(config.to_dict())
    artifacts.create(config.layout.artifact("fields", "7" * 64), small_world(), shards={"time": 64})
    assert cli.main(["clean", written, "--yes", "--json"]) == 0
    removed = json.loads(capfd.readouterr().out.splitlines()[-1])["paths"]
    assert {path.rpartition("/")[2].partition(".")[0] for path in removed} == {f"fields-{'7' * 16}"}
    assert len(up_to_date(config, config.layout)) == len(STAGES)
    assert audit.check(config.layout) == []


def test_no_secret_and_no_address_of_the_server_is_written(
    runs: dict[str, RunConfig], environment: str
) -> None:
    layout = runs["bucket"].layout
    contents = [file.read_bytes() for file in files_below(layout.path)]
    contents += [f.read_bytes() for f in layout.on_this_machine.rglob("*") if f.is_file()]
    assert len(contents) > 100
    for secret in (s3.KEY, s3.SECRET, environment):
        assert not [content for content in contents if secret.encode() in content]


def test_an_ensemble_is_exported_from_a_bucket(
    runs: dict[str, RunConfig], tmp_path: Path, here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.cli.export.client_on_demand", lambda *_: nullcontext(here))
    assert cli.main(["export", ROOT, "--to", str(tmp_path)]) == 0
    local = artifacts.open_published(runs["disk"].layout, "ensemble")
    seen = xr.open_dataset(tmp_path / "z" / "z_realization-1.nc")
    np.testing.assert_array_equal(seen["z"].values, local["z"].sel(realization=1).values)


def test_workers_make_their_own_clients_and_sources_may_lie_in_buckets(
    environment: str, tmp_path: Path
) -> None:
    s3.make_bucket(environment, "sources")
    store = S3Store("sources", prefix="world.zarr", client_options={"allow_http": True})
    small_world().to_zarr(ObjectStore(store), zarr_format=3, consolidated=True)
    table = tables("s3://sources/world.zarr", "s3://runs/b", tmp_path)
    config = RunConfig.from_dict(table)
    receipt = run_alone(config, "ingest")
    assert receipt.path.startswith("s3://runs/b/artifacts/fields-")
    fields = artifacts.open_published(config.layout, "fields")
    np.testing.assert_array_equal(fields["z"].values, small_world()["z"].values)


@pytest.mark.parametrize(
    ("changed", "code", "words"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, 31, "does not answer"),
        ({"AWS_ALLOW_HTTP": "false"}, 31, "AWS_ALLOW_HTTP=true"),
    ],
)
def test_storage_that_is_not_there_ends_with_one_line(
    environment: str,
    tmp_path: Path,
    write_config: Callable[[dict[str, Any]], str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: Any,
    changed: dict[str, str],
    code: int,
    words: str,
) -> None:
    small_world().to_netcdf(tmp_path / "source.nc")
    config = write_config(tables(str(tmp_path / "source.nc"), "s3://runs/c", tmp_path))
    monkeypatch.setattr("storage.places.buckets.PATIENCE", 0.5)
    for name, text in changed.items():
        monkeypatch.setenv(name, text)
    assert cli.main(["status", config]) == code
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("spherescore: s3://runs/c/") and words in line
