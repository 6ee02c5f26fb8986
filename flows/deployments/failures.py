"""What a deployed run does about a stage that failed: try again what may have passed, say the rest.

The store keeps what is finished, so another try costs what was not, and no more.
"""

import logging
from collections.abc import Iterator
from typing import Any

from flows.errors import ExitCode, exit_code_of, one_line

LOGGER = logging.getLogger("spherescore")
RETRY_SECONDS = [60.0, 600.0]  # before each further try of a stage
PASSING = {  # what may be over after a while, without anybody having done a thing
    ExitCode.WORKERS_LOST,
    ExitCode.STALLED,
    ExitCode.NO_SPACE,
    ExitCode.NO_CONNECTION,
}
REMEDIES = {
    ExitCode.BAD_CONFIG: "correct the configuration; `spherescore plan` reads it as a run does",
    ExitCode.INPUT_INVALID: "change the files, or [source] of the configuration",
    ExitCode.INPUT_CHANGED: "see what writes the files while they are read, then run again",
    ExitCode.CORRUPT: "`spherescore check` names what is broken; remove it and run again",
    ExitCode.INCOMPLETE: "run the stages before it first",
    ExitCode.NO_SPACE: "make room on the disk of run.root (`spherescore clean` helps), run again",
    ExitCode.NO_STORAGE: "see whether the disk or the bucket of run.root is there and writable",
    ExitCode.NO_CONNECTION: "see whether the network and what the run connects to are there",
    ExitCode.WORKERS_LOST: "see whether the Dask workers are there, and what their logs say last",
    ExitCode.NO_MEMORY: "lower cluster.workers or generate.batch, or give more memory",
    ExitCode.STALLED: "see what the unit waits for; cluster.unit_minutes is how long it may",
    ExitCode.DIVERGED: "lower train.learning_rate",
}
UNKNOWN = "read the log of the task that failed; then run it again"


def worth_retrying(task: Any, task_run: Any, state: Any) -> bool:
    """Whether a stage failed for something that passes (Prefect's `retry_condition_fn`)."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, Exception) and any(
        exit_code_of(one) in PASSING for one in _origins(error)
    )


def what_to_do(error: BaseException) -> str:
    """The remedy of an error that a stage raised, as a sentence without its full stop."""
    return {int(code): text for code, text in REMEDIES.items()}.get(exit_code_of(error), UNKNOWN)


def tell_failure(flow: Any, flow_run: Any, state: Any) -> None:
    """Say in the log of a run, and on a page of it, what failed and what to do."""
    from prefect.artifacts import create_markdown_artifact

    from flows.deployments.ui.artifacts import harmless

    error = state.result(raise_on_failure=False)
    if not isinstance(error, BaseException):
        return
    words, remedy = one_line(error), what_to_do(error)
    LOGGER.error("%s failed: %s. What to do: %s", flow_run.name, words, remedy)
    page = (
        f"## {flow_run.name} failed\n\n{words}\n\n**What to do:** {remedy}. What is finished is "
        "safe, and a further run goes on from there."
    )
    harmless(create_markdown_artifact)(page, description="What failed, and what to do")


def _origins(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
