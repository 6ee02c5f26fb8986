"""The stages in order: what the store has is skipped, the rest is run, each gives a receipt.

A run decides from the store alone whether there is work. Only then the stages are executed: here,
or as a flow of Prefect around the same `run_stage` (flows.deployments.embedded), as the caller
chooses; and a cluster is started by a stage with units to do.
"""

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from flows.cluster.local import client_on_demand
from flows.config.schema import RunConfig
from flows.errors import is_full_disk
from flows.plan.plan import no_space_left, preflight
from flows.processes.child import call
from flows.processes.signals import handlers_kept, hurry
from flows.processes.transform_cache import share_tables
from flows.progress import DETAIL, Progress, display, stage_progress
from flows.stages.base import LAST, STAGES, Receipt, Stage, skipped, stages_until
from flows.stages.content_keys import key_of
from storage.artifacts.layout import StoreLayout
from storage.artifacts.lock import in_use
from storage.errors import IncompleteArtifact
from storage.places.places import Place

if TYPE_CHECKING:
    from distributed import Client

LOGGER = logging.getLogger("spherescore")

Executor = Callable[[RunConfig, str], list[Receipt]]  # does the stages up to one


def run(config: RunConfig, *, until: str = LAST, execute: Executor | None = None) -> list[Receipt]:
    """Bring all stages up to `until` up to date; nothing is started if they are.

    Args:
        execute: What does the stages if there is work; by default `run_stages`.
    Raises:
        Whatever a stage raises; what it has finished by then is safe and not done again.
    """
    layout = config.layout
    with in_use(layout):
        receipts = up_to_date(config, layout, until)
        if not receipts or receipts[-1].stage != until:
            waiting = [stage.name for stage in stages_until(until)[len(receipts) :]]
            expected = preflight(config, layout, waiting)
            if (watching := display()) is not None:
                watching.expects({one.stage: one.seconds for one in expected})
            receipts = (execute or run_stages)(config, until)
    return receipts


def run_stages(config: RunConfig, until: str = LAST) -> list[Receipt]:
    """Each stage up to `until`, in this process and its cluster."""
    return [run_stage(stage, config, config.layout) for stage in stages_until(until)]


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
    until: str = LAST,
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
        _show(receipt)
        LOGGER.info("%s: nothing to do, %s is up to date", stage.name, layout.name(receipt.kind))
        return receipt
    LOGGER.info("%s: starts", stage.name)
    share_tables()
    began = time.monotonic()
    with ExitStack() as stack:
        stack.callback(hurry)  # the last: what is open still is Prefect's
        stack.enter_context(handlers_kept())
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
    tell(receipt, layout.name(receipt.kind), time.monotonic() - began)
    return receipt


def tell(receipt: Receipt, name: Place, seconds: float) -> None:
    """Log what a stage has found, and what it has published."""
    _show(receipt)
    plain = {name: value for name, value in receipt.figures.items() if not isinstance(value, dict)}
    for name_of_table, table in receipt.figures.items():
        for subject, sentence in table.items() if isinstance(table, dict) else ():
            LOGGER.info(
                "%s: %s, %s: %s", receipt.stage, name_of_table, subject, sentence, extra=DETAIL
            )
    figures = ", ".join(f"{name} {value}" for name, value in plain.items())
    ending = f" ({figures})" if figures else ""
    LOGGER.info("%s: published %s in %.1f s%s", receipt.stage, name, seconds, ending)


def _show(receipt: Receipt) -> None:
    if (watching := display()) is not None:
        watching.ends(receipt.stage, receipt.figures, skipped=receipt.skipped)


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
