"""The run as Prefect flows: one task per stage, receipts across the borders, no arrays.

Prefect is the onlooker here. It caches no stage, because the store knows better what is done;
losing its database costs no work. A deployed run tries a stage again that failed for something that
passes.
"""

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, task
from prefect.assets import Asset, AssetProperties
from prefect.cache_policies import NO_CACHE
from prefect.runtime import deployment, flow_run
from prefect.tasks import MaterializingTask
from pydantic import AfterValidator, Field

from flows.config.forms import ConfigParameter, config_from
from flows.config.schema import RunConfig
from flows.deployments.failures import RETRY_SECONDS, tell_failure, worth_retrying
from flows.deployments.gpu_limit import gpu_slot
from flows.deployments.ui.artifacts import key_of, show_receipt, show_run, shown_progress
from flows.deployments.wanted import TAG
from flows.run import refuse_unready, run_stage
from flows.stages.base import LAST, ON_REQUEST, STAGES, Stage, stages_until
from storage.artifacts.lock import in_use

LOGGER = logging.getLogger("spherescore")
if LOGGER.level == logging.NOTSET:  # Prefect hands our lines on, but leaves the level at WARNING
    LOGGER.setLevel(logging.INFO)
# What stages raised, which Prefect may hide behind errors of its own; set by who wants to know.
stage_failures: ContextVar[list[Exception] | None] = ContextVar("stage_failures", default=None)
_STAGES = {stage.name: stage for stage in STAGES}
_ALONE = _STAGES | {stage.name: stage for stage in ON_REQUEST}


def _known(name: str) -> str:
    if name not in _STAGES:
        raise ValueError(f"{name!r} is no stage; the stages are {', '.join(_STAGES)}")
    return name


StageName = Annotated[str, Field(json_schema_extra={"enum": list(_STAGES)}), AfterValidator(_known)]


def _about() -> str:
    """The name of a flow run: which configuration, how far."""
    given = flow_run.parameters
    config = given.get("config")
    if isinstance(config, str):
        name = Path(config).stem
    else:
        root = config["run"]["root"] if isinstance(config, Mapping) else config.run.root
        name = Path(root).resolve().name
    until = given.get("until")
    last = until or flow_run.flow_name or ""
    return f"{name}: {STAGES[0].name} to {last}" if until else f"{name}: {last}"


@flow(
    name="spherescore",
    flow_run_name=_about,
    retries=0,
    persist_result=False,
    description="From raw fields to a verified ensemble; what the store has is skipped.",
    on_failure=[tell_failure],
)
def pipeline(config: ConfigParameter, until: StageName = LAST) -> list[dict[str, Any]]:
    """All stages up to `until`, as plain receipts.

    Args:
        config: The run's TOML file on the worker's machine, or its sections.
        until: The last stage.
    """
    read = config_from(config)
    receipts: list[dict[str, Any]] = []
    for stage in stages_until(until):
        before = receipts[-1] if receipts else None
        receipts.append(_staged(stage, read)(stage.name, read.to_dict(), before))
    show_run(read, receipts)
    return receipts


def _flow_of(stage: Stage) -> Any:
    """The flow of one stage alone. It is found by its name in this module."""

    def alone(config: ConfigParameter) -> dict[str, Any]:
        """One stage alone.

        Args:
            config: The run's TOML file on the worker's machine, or its sections.
        """
        return _alone(stage.name, config_from(config))

    alone.__name__ = alone.__qualname__ = stage.name
    return _as_flow(stage)(alone)


def _as_flow(stage: Stage) -> Any:
    return flow(
        name=stage.name,
        flow_run_name=_about,
        retries=0,
        persist_result=False,
        description=stage.summary,
        on_failure=[tell_failure],
    )


@_as_flow(_STAGES["generate"])
def generate(
    config: ConfigParameter, realizations: int | None = None, times: list[str] | None = None
) -> dict[str, Any]:
    """The ensemble alone, as configured or with what is asked for here.

    Args:
        config: The run's TOML file on the worker's machine, or its sections.
        realizations: Fields drawn for each date, if not as configured.
        times: Dates in order, such as 2002-07-15, if not as configured.
    """
    read = config_from(config)
    asked = read.to_dict()["generate"]
    asked |= {} if realizations is None else {"realizations": realizations}
    asked |= {} if times is None else {"times": times}
    return _alone("generate", RunConfig.from_dict(read.to_dict() | {"generate": asked}))


ingest, preprocess, train, verify, condition = (
    _flow_of(_ALONE[name]) for name in ("ingest", "preprocess", "train", "verify", "condition")
)


@task(retries=0, persist_result=False, cache_policy=NO_CACHE)
def run_one(
    name: str, config: dict[str, Any], before: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A stage of a configuration.

    Args:
        before: The receipt of the stage before it, from which Prefect draws the arrow.
    """
    read = RunConfig.from_dict(config)
    stage, layout = stages_until(name)[-1], read.layout
    with gpu_slot(name, read):
        try:
            with in_use(layout):
                receipt = run_stage(stage, read, layout, shown_progress(read, name))
        except Exception as error:
            if (known := stage_failures.get()) is not None:
                known.append(error)
            raise
    show_receipt(read, receipt)
    return receipt.to_dict()


def _alone(name: str, config: RunConfig) -> dict[str, Any]:
    refuse_unready(config, config.layout, name)
    receipt: dict[str, Any] = _staged(_ALONE[name], config)(name, config.to_dict())
    return receipt


def _staged(stage: Stage, config: RunConfig) -> Any:
    """The task of a stage. On a server it has assets, and further tries; a run on its own has
    neither, because whoever typed it is there."""
    named: dict[str, Any] = {"name": stage.name, "task_run_name": f"{stage.name}: {stage.summary}"}
    if deployment.id is None:
        return run_one.with_options(**named)
    return MaterializingTask(
        fn=run_one.fn,
        assets=[asset_of(config, kind) for kind in stage.kinds],
        materialized_by=TAG,
        retries=len(RETRY_SECONDS),
        retry_delay_seconds=RETRY_SECONDS,
        retry_condition_fn=worth_retrying,
        persist_result=False,
        cache_policy=NO_CACHE,
        **named,
    )


def asset_of(config: RunConfig, kind: str) -> Asset:
    """An artifact as Prefect's catalogue of assets has it: of its root alone."""
    about = AssetProperties(name=kind, description=f"{kind} below {config.run.root}")
    return Asset(key=f"{TAG}://{key_of(config, kind)}", properties=about)
