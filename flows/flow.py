"""The run as a Prefect flow: one task per stage, receipts across the borders, no arrays.

Prefect is the onlooker here. It neither retries nor caches data stages, because the store knows
better what is done; losing its database costs no work.
"""

import logging
from typing import Any
from uuid import UUID

from prefect import flow, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE

from flows.config import RunConfig
from flows.progress import at_intervals
from flows.run import run_stage, stages_until
from flows.stage import STAGES, Progress, Receipt
from storage.layout import StoreLayout

LOGGER = logging.getLogger("spherescore")
FAILED: list[Exception] = []  # what stages raised, which Prefect may hide behind its own errors
SILENT: list[Exception] = []  # why Prefect is no more told of the progress


@flow(
    name="spherescore",
    retries=0,
    persist_result=False,
    validate_parameters=False,
    description="From raw fields to a verified ensemble.",
)
def pipeline(config: dict[str, Any], until: str = STAGES[-1].name) -> list[dict[str, Any]]:
    """All stages up to `until`, as plain receipts.

    Args:
        config: `RunConfig.to_dict()`.
    """
    receipts = []
    for stage in stages_until(until):
        receipts.append(run_one.with_options(name=stage.name)(stage.name, config))
    _tell(receipts)
    return receipts


@task(retries=0, persist_result=False, cache_policy=NO_CACHE, task_run_name="{name}")
def run_one(name: str, config: dict[str, Any]) -> dict[str, Any]:
    read = RunConfig.from_dict(config)
    stage, layout = stages_until(name)[-1], StoreLayout(read.run.root)
    try:
        return run_stage(stage, read, layout, _shown_in_prefect(name)).to_dict()
    except Exception as error:
        FAILED.append(error)
        raise


def _shown_in_prefect(name: str) -> Progress:
    """Progress as a Prefect artifact. What is only shown must not stop what is computed.

    A server that has gone is asked once: each further question would take as long as its retries.
    """
    artifact: UUID | None = None

    def show(done: int, total: int, text: str) -> None:
        nonlocal artifact
        if SILENT:
            return
        percent = 100.0 * done / max(total, 1)
        try:
            if artifact is None:
                made = create_progress_artifact(percent, key=name, description=f"{name}: {text}")
                artifact = made if isinstance(made, UUID) else None
            else:
                update_progress_artifact(artifact, percent, description=f"{name}: {text}")
        except Exception as error:
            SILENT.append(error)
            LOGGER.warning("Prefect does not show the progress any more (%s)", error)

    return at_intervals(10.0, show)


def _tell(receipts: list[dict[str, Any]]) -> None:
    try:
        create_markdown_artifact(summary([Receipt(**receipt) for receipt in receipts]), key="run")
    except Exception as error:
        LOGGER.debug("Prefect does not show the summary: %s", error)


def summary(receipts: list[Receipt]) -> str:
    """A Markdown table of what each stage made."""
    rows = ["| stage | artifact | digest | seconds | figures |", "|---|---|---|---|---|"]
    for receipt in receipts:
        figures = ", ".join(f"{name} {value}" for name, value in receipt.figures.items())
        seconds = "skipped" if receipt.skipped else f"{receipt.seconds:.1f}"
        rows.append(
            f"| {receipt.stage} | {receipt.path} | {receipt.digest[:16]} | {seconds} | {figures} |"
        )
    return "\n".join(rows)
