"""The stages in order: what the store has is skipped, the rest is run, each gives a receipt.

`spherescore run` decides from the store alone whether there is work; only then a flow run of
Prefect (flows.deployments.flows) is started around the same `run_stage`, and a cluster by a stage
with units to do.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from flows.cluster.local import client_on_demand
from flows.config.schema import RunConfig
from flows.errors import is_full_disk
from flows.plan.plan import no_space_left, preflight
from flows.processes.child import call
from flows.processes.network_boundary import require_guarded_prefect
from flows.processes.signals import hurry, raise_if_caught
from flows.processes.transform_cache import share_tables
from flows.progress import Progress, stage_progress
from flows.stages.base import STAGES, Receipt, Stage, skipped
from flows.stages.content_keys import key_of
from storage.artifacts.layout import StoreLayout
from storage.artifacts.lock import in_use
from storage.artifacts.publishing import IncompleteArtifact

if TYPE_CHECKING:
    from distributed import Client

LOGGER = logging.getLogger("spherescore")

PREFECT_ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # Stages speak for themselves on stderr; Prefect's view of them is in its database.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_CLI_COLORS": "false",
    "PREFECT_CLIENT_MAX_RETRIES": "3",  # 14 s; a server that has died keeps nobody longer
}


def run(config: RunConfig, *, until: str = STAGES[-1].name) -> list[Receipt]:
    """Bring all stages up to `until` up to date; nothing is started if they are.

    Raises:
        Whatever a stage raises; what it has finished by then is safe and not done again.
    """
    layout = config.layout
    with in_use(layout):
        receipts = up_to_date(config, layout, until)
        if not receipts or receipts[-1].stage != until:
            waiting = [stage.name for stage in stages_until(until)[len(receipts) :]]
            preflight(config, layout, waiting)
            set_prefect_environment(layout)
            receipts = _run_shown(config, layout, until)
    return receipts


def _run_shown(config: RunConfig, layout: StoreLayout, until: str) -> list[Receipt]:
    """Run as a flow of Prefect; where Prefect fails and no stage did, without it."""
    from flows.deployments.flows import FAILED, pipeline
    from flows.deployments.ui_artifacts import SILENT

    FAILED.clear()
    SILENT.clear()
    flow: Callable[..., list[dict[str, Any]]] = pipeline
    try:
        return [Receipt(**receipt) for receipt in flow(config.to_dict(), until)]
    except Exception as error:
        raise_if_caught(error)
        if FAILED:
            raise FAILED[0] from None
        LOGGER.warning(
            "Prefect does not answer any more (%s: %s); the run goes on without it",
            type(error).__name__,
            " ".join(str(error).split())[:200],
        )
    return [run_stage(stage, config, layout) for stage in stages_until(until)]


def run_alone(config: RunConfig, name: str) -> Receipt:
    """Run one stage, without Prefect.

    Raises:
        IncompleteArtifact: If a stage before it is not up to date with this configuration.
    """
    layout = config.layout
    with in_use(layout):
        refuse_unready(config, layout, name)
        return run_stage(stages_until(name)[-1], config, layout)


def refuse_unready(config: RunConfig, layout: StoreLayout, name: str) -> None:
    """Refuse a stage whose inputs are not those of this configuration.

    Raises:
        IncompleteArtifact: If a stage before it is not up to date with this configuration.
    """
    before = stages_until(name)[:-1]
    done = up_to_date(config, layout, before[-1].name) if before else []
    if len(done) < len(before):
        missing = before[len(done)].name
        raise IncompleteArtifact(
            f"{name} needs {missing}, which is not published in {config.run.root} for this "
            f"configuration; run `spherescore {missing}` or `spherescore run` first"
        )


def up_to_date(
    config: RunConfig,
    layout: StoreLayout,
    until: str = STAGES[-1].name,
    *,
    point_names: bool = True,
) -> list[Receipt]:
    """Receipts of the leading stages that the store already holds for this configuration."""
    receipts: list[Receipt] = []
    for stage in stages_until(until):
        key = key_of(stage.name, config, layout)
        receipt = skipped(stage, key, layout, point_names=point_names)
        if receipt is None:
            break
        receipts.append(receipt)
    return receipts


def current_keys(config: RunConfig, layout: StoreLayout) -> list[str]:
    """Content keys of the leading stages whose inputs are published, and of the next one."""
    keys: list[str] = []
    for stage in STAGES:
        with suppress(IncompleteArtifact):
            keys.append(key_of(stage.name, config, layout))
    return keys


def run_stage(
    stage: Stage, config: RunConfig, layout: StoreLayout, *listeners: Progress
) -> Receipt:
    """Skip a stage that is published, else run it, with a cluster of its own if it needs one.

    The cluster starts with the first unit of work and ends with the stage, so that torch trains
    with no worker beside it.
    """
    receipt = skipped(stage, key_of(stage.name, config, layout), layout)
    if receipt is not None:
        LOGGER.info("%s: nothing to do, %s is up to date", stage.name, layout.name(receipt.kind))
        return receipt
    LOGGER.info("%s: starts", stage.name)
    share_tables()
    began = time.monotonic()
    with ExitStack() as stack:
        stack.callback(hurry)  # the last: what is open still is Prefect's
        client = None
        if stage.on_cluster or (stage.in_child and config.train.ranks > 1):
            client = stack.enter_context(client_on_demand(config.cluster, layout.scratch))
        progress = stack.enter_context(stage_progress(stage.name, *listeners))
        try:
            receipt = _receipt(stage, config, layout, client, progress)
        except Exception as error:
            if is_full_disk(error):
                raise no_space_left(config, layout, stage.name) from error
            raise
    said = {k: v for k, v in receipt.figures.items() if isinstance(v, dict)}
    figures = ", ".join(f"{k} {v}" for k, v in receipt.figures.items() if k not in said)
    for name, sentences in said.items():
        for subject, sentence in sentences.items():
            LOGGER.info("%s: %s, %s: %s", stage.name, name, subject, sentence)
    LOGGER.info(
        "%s: published %s in %.1f s%s",
        stage.name,
        layout.name(receipt.kind),
        time.monotonic() - began,
        f" ({figures})" if figures else "",
    )
    return receipt


def _receipt(
    stage: Stage, config: RunConfig, layout: StoreLayout, client: "Client | None", told: Progress
) -> Receipt:
    if not stage.in_child:
        return stage.module().run(config, layout, client, told)
    if client is not None and config.train.model == "network":
        from flows.stages.train.ranks import train_on_workers

        return train_on_workers(config, client, told)
    table, silence = {"config": config.to_dict()}, 60 * config.cluster.unit_minutes
    return Receipt(**call(f"{stage.module_name}:in_child", table, told, silence=silence))


def stages_until(name: str) -> Sequence[Stage]:
    names = [stage.name for stage in STAGES]
    return STAGES[: names.index(name) + 1]


def set_prefect_environment(layout: StoreLayout) -> None:
    """Prefect's settings for a run on its own: an embedded server, state below the root.

    Settings that the user has made in the environment stand. To be called before Prefect is
    imported, which reads them once.

    Raises:
        Refused: If Prefect's settings, wherever they come from (the environment, `.env`,
            `prefect.toml`, `pyproject.toml`, a profile), name a server beyond loopback and no key
            for it.
    """
    for name, value in PREFECT_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "PREFECT_HOME" not in os.environ:
        home = layout.prefect.absolute()
        home.mkdir(parents=True, exist_ok=True)
        os.environ["PREFECT_HOME"] = str(home)
    require_guarded_prefect(_resolved_settings())


def _resolved_settings() -> dict[str, str]:
    """All settings of Prefect by the names of their variables, as Prefect itself has read them."""
    from prefect.settings import get_current_settings

    return get_current_settings().to_environment_variables(include_secrets=True)
