"""Runs by schedule: twice by themselves, the second with nothing to do, the third with new days."""

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun

from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout

from .conftest import Site, eventually, lines_of, runs_of

pytestmark = pytest.mark.deployments


def test_nights_do_what_is_new_and_nothing_else(site: Site, api: SyncPrefectClient) -> None:
    site.new_days(420)
    config = site.write_config("nights")
    said = site.command("deploy", str(config), "--nightly", "* * * * *").stdout
    assert "a scheduled run: happened after" in said

    def ended() -> list[FlowRun]:
        done = [run for run in runs_of(api, "spherescore/nights-nightly") if run.state.is_final()]
        print([(run.state_name, run.start_time, run.total_run_time) for run in done])
        # A busy machine may need more than a minute: the run after it is cancelled then.
        whole = [run for run in done if run.state_name != "Cancelled"]
        assert {run.state_name for run in whole} <= {"Completed"}
        return whole if len(whole) >= 2 else []

    first, second = eventually(ended, 400)[:2]
    layout = StoreLayout(str(config.parent / "run-nights"))
    fields = artifacts.published(layout, "fields")
    whitened = artifacts.published(layout, "whitened")
    assert fields is not None and whitened is not None
    assert first.auto_scheduled and first.name == "nights: ingest to preprocess"
    ingest = "ingest: check the source and write fields.zarr"
    assert any("published" in line and task == ingest for line, task in lines_of(api, first))

    def nothing_to_do() -> bool:  # lines come a little after the end
        return len([line for line, _ in lines_of(api, second) if "nothing to do" in line]) == 2

    eventually(nothing_to_do, 30, what="a second run with nothing to do")

    site.new_days(10)

    def grown() -> bool:
        found = artifacts.published(layout, "whitened")
        return found is not None and found.digest != whitened.digest

    eventually(grown, 240)
    site.command("deploy", str(config), "--nightly", "0 2 1 1 *")  # no more of them
    assert artifacts.open_published(layout, "fields").sizes["time"] == 430
    assert artifacts.find(layout, "fields", fields.key) == fields, "the old one stays readable"

    undisturbed = site.write_config("undisturbed")
    for stage in ("ingest", "preprocess"):
        site.command(stage, str(undisturbed))
    theirs = StoreLayout(str(config.parent / "run-undisturbed"))
    for kind in ("fields", "normals", "whitened"):
        ours, alike = artifacts.published(layout, kind), artifacts.published(theirs, kind)
        assert ours is not None and alike is not None
        assert ours.digest == alike.digest
