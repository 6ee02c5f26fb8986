"""A deployed run whose root is a bucket and whose workers are those of `spherescore up`."""

from pathlib import Path

import pytest

from flows.deployments.up import Ports, machine
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from tests import s3

from .conftest import client_of, eventually, lines_of, site_of

pytestmark = pytest.mark.deployments
STAGES = ("ingest", "preprocess", "train", "generate")
KINDS = ("fields", "normals", "whitened", "checkpoints", "ensemble")


def test_a_deployed_run_in_a_bucket_has_the_bytes_of_one_on_a_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, free = tmp_path / "machine", Ports(server=0, scheduler=0, dashboard=0)
    with s3.server() as address:
        for name, text in s3.environment(address).items():
            monkeypatch.setenv(name, text)
        s3.make_bucket(address, "runs")
        with machine(state, ports=free, workers=1) as running:
            site = site_of(running, tmp_path)
            site.new_days(420)
            there = {"root": "s3://runs/a/run", "scratch": str(tmp_path / "scratch")}
            config = site.write_config("bucket", run=there, cluster={"kind": "address"})
            site.command("deploy", str(config))
            with client_of(running) as api:
                deployment = api.read_deployment_by_name("spherescore/bucket")
                asked = api.create_flow_run_from_deployment(
                    deployment.id, parameters={"until": "generate"}
                )
                eventually(lambda: api.read_flow_run(asked.id).state.is_final(), 300)
                run = api.read_flow_run(asked.id)
                assert run.state_name == "Completed", lines_of(api, run)
            local = site.write_config("local")
            for stage in STAGES:
                site.command(stage, str(local))
            ours, theirs = StoreLayout("s3://runs/a/run"), StoreLayout(str(tmp_path / "run-local"))
            for kind in KINDS:
                mine, alike = artifacts.published(ours, kind), artifacts.published(theirs, kind)
                assert mine is not None and alike is not None
                assert (mine.key, mine.digest) == (alike.key, alike.digest), kind
    kept = [path for path in state.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in kept)
    for path in kept:
        assert s3.SECRET.encode() not in path.read_bytes(), f"{path} has the bucket's secret"
