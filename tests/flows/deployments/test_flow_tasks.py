"""Stages as tasks of Prefect: named, tied by their receipts, tried again where that helps."""

from __future__ import annotations

import errno
from itertools import pairwise
from typing import Any

import pytest

from flows.config.schema import RunConfig
from flows.deployments.failures import REMEDIES, UNKNOWN, what_to_do, worth_retrying
from flows.errors import ExitCode, Relayed, Stalled, WorkersLost
from flows.stages.base import STAGES, Receipt, Stage
from storage.errors import SourceError
from tests.flows.test_run import prefect_harness  # noqa: F401


class Done:
    """A state that ended with an error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def result(self, raise_on_failure: bool) -> Exception:
        assert not raise_on_failure
        return self._error


PASSES = [
    WorkersLost("two died"),
    Stalled("a unit"),
    OSError(errno.ENOSPC, "no space left"),
    ConnectionError("the server has gone"),
    Relayed("a child met it", ExitCode.NO_SPACE),
]
STAYS = [SourceError("absent"), ValueError("a mistake of ours"), MemoryError()]


@pytest.mark.parametrize("error", [*PASSES, *STAYS], ids=lambda one: type(one).__name__)
def test_a_stage_is_tried_again_only_for_what_may_pass(error: Exception) -> None:
    assert worth_retrying(None, None, Done(error)) == any(error is one for one in PASSES)
    wrapped = RuntimeError("around it")
    wrapped.__cause__ = error
    assert worth_retrying(None, None, Done(wrapped)) == any(error is one for one in PASSES)


def test_each_failure_has_a_remedy_and_unforeseen_ones_lead_to_the_log() -> None:
    assert what_to_do(WorkersLost("two died")) == REMEDIES[ExitCode.WORKERS_LOST]
    assert what_to_do(Relayed("deep", ExitCode.NO_SPACE)) == REMEDIES[ExitCode.NO_SPACE]
    assert what_to_do(ValueError("a mistake of ours")) == UNKNOWN
    assert not any(one.endswith(".") for one in [*REMEDIES.values(), UNKNOWN])


@pytest.fixture
def deployed(prefect_harness: Any) -> Any:  # noqa: F811
    """The module of the flows: Prefect reads its settings when it is imported."""
    from flows.deployments import flows

    return flows


@pytest.fixture
def stages_pretend(deployed: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stages that do nothing but say their names."""
    done: list[str] = []

    def run_stage(stage: Stage, config: Any, layout: Any, *listeners: Any) -> Receipt:
        done.append(stage.name)
        if len(done) == FAILS_AT:
            raise WorkersLost("two died")
        kind = stage.kinds[-1]
        return Receipt(stage=stage.name, kind=kind, path="p", key="k", digest="d", seconds=0.0)

    monkeypatch.setattr(deployed, "run_stage", run_stage)
    monkeypatch.setattr(deployed, "show_run", lambda config, receipts: None)
    return done


FAILS_AT = 99


def test_receipts_flow_from_task_to_task(
    config: RunConfig, deployed: Any, stages_pretend: list[str]
) -> None:
    from prefect.client.orchestration import get_client

    state = deployed.pipeline(config, return_state=True)
    assert stages_pretend == [stage.name for stage in STAGES]
    with get_client(sync_client=True) as client:
        runs = {
            one.name.partition(":")[0]: one
            for one in client.read_task_runs()
            if one.flow_run_id == state.state_details.flow_run_id
        }
    assert set(runs) == set(stages_pretend)
    for before, after in pairwise(STAGES):
        leads = [one.id for one in runs[after.name].task_inputs["before"]]
        assert leads == [runs[before.name].id]


def test_a_failed_stage_is_told_with_its_remedy(
    config: RunConfig,
    deployed: Any,
    stages_pretend: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(globals(), "FAILS_AT", 2)
    state = deployed.pipeline(config, return_state=True)
    assert state.is_failed() and stages_pretend == ["ingest", "preprocess"]
    assert REMEDIES[ExitCode.WORKERS_LOST] in caplog.text and "two died" in caplog.text


def test_a_deployed_run_goes_on_after_workers_were_lost(
    config: RunConfig, deployed: Any, stages_pretend: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "a-deployment")
    monkeypatch.setattr(deployed, "RETRY_SECONDS", [0.0])
    monkeypatch.setitem(globals(), "FAILS_AT", 2)
    state = deployed.pipeline(config, return_state=True)
    assert state.is_completed()
    others = [stage.name for stage in STAGES[2:]]
    assert stages_pretend == ["ingest", "preprocess", "preprocess", *others]


def test_a_deployed_stage_has_assets_of_its_root_and_further_tries(
    config: RunConfig, deployed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.tasks import MaterializingTask

    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "a-deployment")
    preprocess = next(stage for stage in STAGES if stage.name == "preprocess")
    task = deployed._staged(preprocess, config)
    assert isinstance(task, MaterializingTask)
    keys = [one.key for one in task.assets]
    mark = deployed.key_of(config, "")
    assert keys == [f"spherescore://{kind}{mark}" for kind in ("normals", "whitened")]
    assert task.retries > 0 and task.retry_condition_fn is worth_retrying
    monkeypatch.delenv("PREFECT__RUNTIME__DEPLOYMENT__ID")
    alone = deployed._staged(preprocess, config)
    assert not isinstance(alone, MaterializingTask) and alone.retries == 0
