"""What `deploy` makes on a server, what it leaves as somebody made it, and what `--check` finds."""

import itertools
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.events.schemas.events import Event, RelatedResource, Resource

from .conftest import Site, eventually, runs_of

pytestmark = pytest.mark.deployments


def found(site: Site, *words: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code of `spherescore deploy WORDS`, and its findings by what they are about."""
    done = site.command("deploy", *words, "--json", check=False)
    result = json.loads(done.stdout.splitlines()[-1])
    return done.returncode, {one["what"]: one for one in result.get("findings", [result])}


def test_a_schedule_that_was_paused_by_hand_stays_paused_and_is_told(
    site: Site, api: SyncPrefectClient
) -> None:
    config, name = str(site.write_config("paused")), "spherescore/paused-nightly"
    site.command("deploy", config)
    night = api.read_deployment_by_name(name)
    api.update_deployment_schedule(night.id, night.schedules[0].id, active=False)
    code, looked = found(site, config, "--check")
    assert (code, looked[f"deployment {name}"]["ok"]) == (46, False)
    assert "paused" in looked[f"deployment {name}"]["text"]

    code, made = found(site, config, "--nightly", "0 3 * * *")
    (schedule,) = api.read_deployment_by_name(name).schedules
    assert (schedule.active, schedule.schedule.cron) == (False, "0 3 * * *")
    assert code == 0 and "paused" in made[f"deployment {name}"]["text"]


def test_a_deployment_that_was_paused_by_hand_stays_paused(
    site: Site, api: SyncPrefectClient
) -> None:
    config, name = str(site.write_config("whole")), "spherescore/whole-weekly"
    site.command("deploy", config)
    api.pause_deployment(api.read_deployment_by_name(name).id)
    site.command("deploy", config)
    assert api.read_deployment_by_name(name).paused
    code, looked = found(site, config, "--check")
    assert (code, looked[f"deployment {name}"]["ok"]) == (46, False)


def test_a_night_without_its_schedule_is_not_ok(site: Site, api: SyncPrefectClient) -> None:
    config, name = str(site.write_config("bare")), "spherescore/bare-nightly"
    site.command("deploy", config)
    night = api.read_deployment_by_name(name)
    api.delete_deployment_schedule(night.id, night.schedules[0].id)
    code, looked = found(site, config, "--check")
    assert (code, looked[f"deployment {name}"]["ok"]) == (46, False)
    site.command("deploy", config)
    assert api.read_deployment_by_name(name).schedules[0].active


def test_a_limit_that_is_switched_off_is_not_ok(site: Site, api: SyncPrefectClient) -> None:
    from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate

    config = str(site.write_config("limit"))
    site.command("deploy", config)
    api.update_global_concurrency_limit("gpu", GlobalConcurrencyLimitUpdate(active=False))
    try:
        for words in ((config, "--check"), (config, "--gpus", "2"), (config, "--gpus", "1")):
            code, looked = found(site, *words)
            assert (code, looked["concurrency limit gpu"]["ok"]) == (46, False), words
            assert "--enable" in looked["concurrency limit gpu"]["text"]
    finally:
        api.update_global_concurrency_limit("gpu", GlobalConcurrencyLimitUpdate(active=True))


def test_two_configurations_of_one_file_name_keep_their_deployments(
    site: Site, api: SyncPrefectClient
) -> None:
    first, second = site.write_config("twin"), site.directory / "other" / "twin.toml"
    second.parent.mkdir()
    second.write_text(first.read_text().replace("run-twin", "other-twin"))
    site.command("deploy", str(first))
    refused = site.command("deploy", str(second), check=False)
    assert refused.returncode == 46
    assert str(first) in refused.stderr and "--name" in refused.stderr
    assert api.read_deployment_by_name("spherescore/twin").parameters["config"] == str(first)

    code, looked = found(site, str(second), "--check")
    assert code == 46 and "another root" in looked["deployment spherescore/twin"]["text"]

    site.command("deploy", str(second), "--name", "other-twin")
    ours = api.read_deployment_by_name("spherescore/other-twin-nightly")
    assert ours.parameters["config"] == str(second)
    assert api.read_deployment_by_name("spherescore/twin").parameters["config"] == str(first)
    assert found(site, str(second), "--name", "other-twin", "--check")[0] == 0


def test_a_configuration_that_moved_keeps_its_deployments(
    site: Site, api: SyncPrefectClient
) -> None:
    first = site.write_config("moving")
    site.command("deploy", str(first))
    second = site.directory / "elsewhere" / "moving.toml"
    second.parent.mkdir()
    first.rename(second)
    site.command("deploy", str(second))
    assert api.read_deployment_by_name("spherescore/moving").parameters["config"] == str(second)


def test_runs_of_one_root_happen_one_after_the_other(site: Site, api: SyncPrefectClient) -> None:
    site.new_days(420)
    config = site.write_config("alone")
    site.command("deploy", str(config))
    names = ("spherescore/alone-nightly", "ingest/alone-ingest", "preprocess/alone-preprocess")
    asked = [
        api.create_flow_run_from_deployment(api.read_deployment_by_name(name).id) for name in names
    ]

    def ended() -> list[FlowRun]:
        runs = [api.read_flow_run(one.id) for one in asked]
        return runs if all(run.state.is_final() for run in runs) else []

    runs = sorted(eventually(ended, 400), key=lambda run: run.start_time)
    assert {run.state_name for run in runs} == {"Completed"}
    for one, after in itertools.pairwise(runs):
        assert one.end_time <= after.start_time, "two runs of one root at once"
    assert [run.auto_scheduled for run in runs_of(api, names[0])].count(False) == 1


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
def test_containers_get_neither_a_directory_nor_a_file_of_this_machine(
    site: Site, api: SyncPrefectClient, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.config.schema import ConfigError
    from flows.deployments.register import register
    from flows.deployments.wanted import Wanted

    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING"):
        monkeypatch.setenv(name, site.environment[name])
    from prefect.settings import temporary_settings

    name = f"of-{kind}"
    config = site.write_config(name)
    wanted = Wanted(config=config, kind=kind, pool=f"pool-{kind}")
    with temporary_settings():
        register(api, wanted)
    made = api.read_deployment_by_name(f"spherescore/{name}")
    assert made.pull_steps in (None, []) and made.path is None
    assert made.parameters["config"]["run"]["root"] == str(site.directory / f"run-{name}")
    assert str(Path.cwd()) not in made.model_dump_json()

    relative = site.write_config(f"relative-{kind}", run={"root": "runs/here"})
    with pytest.raises(ConfigError, match=r"run\.root is relative \(runs/here\)"):
        Wanted(config=relative, kind=kind).parameter()
    there = Wanted(config=relative, kind=kind, directory=Path("/data"))
    assert there.root == "/data/runs/here" and isinstance(there.parameter(), dict)


def test_a_silent_run_of_another_team_is_left_alone(
    site: Site, api: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs say that they live, once, and then nothing: ours is crashed, theirs is not."""
    from flows.deployments.automations import automations

    short, _ = automations(timedelta(seconds=10))
    made = api.create_automation(short.model_copy(update={"name": "short"}))
    try:
        flow = api.create_flow_from_name("nothing")
        ours, theirs = (
            _running(api, flow, tags) for tags in (["spherescore", "run"], ["their-team"])
        )
        for run in (ours, theirs):
            _say_alive(api, run)
        eventually(lambda: api.read_flow_run(ours.id).state_name == "Crashed", 60, what="Crashed")
        assert "No heartbeat for 10 s" in str(api.read_flow_run(ours.id).state.message)
        assert api.read_flow_run(theirs.id).state_name == "Running"
    finally:
        api.delete_automation(made)


def _running(api: SyncPrefectClient, flow: uuid.UUID, tags: list[str]) -> FlowRun:
    from prefect.client.schemas.actions import FlowRunCreate
    from prefect.states import Running

    asked = FlowRunCreate(flow_id=flow, tags=tags, state=None, parameters={})
    made = api.request("POST", "/flow_runs/", json=asked.model_dump(mode="json"))
    run = FlowRun.model_validate(made.json())
    api.set_flow_run_state(run.id, Running(), force=True)
    return run


def _say_alive(api: SyncPrefectClient, run: FlowRun) -> None:
    from prefect.events.related import tags_as_related_resources

    event = Event(
        occurred=datetime.now(UTC),
        event="prefect.flow-run.heartbeat",
        resource=Resource({"prefect.resource.id": f"prefect.flow-run.{run.id}"}),
        related=[RelatedResource(one) for one in _plain(tags_as_related_resources(set(run.tags)))],
        id=uuid.uuid4(),
    )
    api.request("POST", "/events", json=[event.model_dump(mode="json")])


def _plain(resources: Any) -> Iterator[dict[str, str]]:
    for one in resources:
        yield dict(one.root)


def test_an_address_with_a_password_is_not_printed(site: Site) -> None:
    nowhere = {"PREFECT_API_URL": "http://me:very-secret@127.0.0.1:9/api"}
    done = site.command("deploy", str(site.write_config("masked")), check=False, given=nowhere)
    assert done.returncode == 45
    assert "127.0.0.1:9" in done.stderr
    assert "very-secret" not in done.stdout + done.stderr
