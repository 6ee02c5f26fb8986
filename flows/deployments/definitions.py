"""The deployments of one configuration, as Prefect objects.

The whole run is one flow; `until` says how far it goes. What the store has is skipped, so a night
with no new files ends after a look. Each stage is a flow of its own beside it, for hands-on work.
They are found by their modules, so an installed package is all that a worker needs.
"""

import os
from importlib.metadata import version
from typing import Any

from prefect import Flow
from prefect.deployments.runner import RunnerDeployment
from prefect.runner.storage import LocalStorage
from prefect.schedules import Cron, Schedule
from prefect.types.entrypoint import EntrypointType

from flows.deployments import flows
from flows.deployments.prefect_settings import QUIET, RUN
from flows.deployments.probe import probe
from flows.deployments.wanted import TAG, Wanted
from flows.stages.base import LAST, ON_REQUEST, STAGES

PLAIN_VERSION: Any = "prefect:simple"  # the package's, not that of a repository around it


def definitions(wanted: Wanted) -> list[RunnerDeployment]:
    """All that is deployed for a configuration, the probe among it."""
    looking = _definition(
        wanted, probe, "probe", "probe", "Does nothing; `spherescore deploy` waits for it."
    )
    if wanted.config is None:
        return [looking]
    return [*_whole_runs(wanted), *_single_stages(wanted), looking]


def _whole_runs(wanted: Wanted) -> list[RunnerDeployment]:
    name, config = wanted.called, wanted.parameter()
    return [
        _definition(
            wanted,
            flows.pipeline,
            f"{name}-nightly",
            "scheduled",
            "New days are taken in and whitened; nothing is done when there are none.",
            {"config": config, "until": "preprocess"},
            Cron(wanted.nightly, timezone=wanted.timezone),
        ),
        _definition(
            wanted,
            flows.pipeline,
            f"{name}-weekly",
            "scheduled",
            "The model is trained on what the nights have brought.",
            {"config": config, "until": "train"},
            Cron(wanted.weekly, timezone=wanted.timezone),
        ),
        _definition(
            wanted,
            flows.pipeline,
            name,
            "run",
            "The whole run, from raw files to a verified ensemble. On request.",
            {"config": config, "until": LAST},
        ),
    ]


def _single_stages(wanted: Wanted) -> list[RunnerDeployment]:
    return [
        _definition(
            wanted,
            getattr(flows, stage.name),
            f"{wanted.called}-{stage.name}",
            "stage",
            f"{stage.summary[0].upper()}{stage.summary[1:]}.",
            {"config": wanted.parameter()},
        )
        for stage in (*STAGES, *ON_REQUEST)
    ]


def _definition(
    wanted: Wanted,
    flow: "Flow[Any, Any]",
    name: str,
    tag: str,
    description: str,
    parameters: dict[str, Any] | None = None,
    schedule: Schedule | None = None,
) -> RunnerDeployment:
    settings = QUIET | {name: os.environ.get(name, value) for name, value in RUN.items()}
    made = flow.to_deployment(
        name,
        description=description,
        tags=[TAG, tag],
        parameters=parameters or {},
        schedules=[schedule] if schedule else [],
        version=version("spherescore"),
        version_type=PLAIN_VERSION,
        work_pool_name=wanted.pool,
        work_queue_name=wanted.queue if parameters else None,
        job_variables={"env": settings},
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert isinstance(made, RunnerDeployment)  # not the coroutine that it is within a loop
    if wanted.start is not None:
        made.storage = LocalStorage(str(wanted.start))
    return made
