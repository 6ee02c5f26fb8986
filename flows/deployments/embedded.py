"""A run on its own as a flow of Prefect, with a server that begins and ends with it.

Prefect is the onlooker: where it fails and no stage did, the run goes on without it. What a stage
raised, an interruption, and a fault of this house are raised, whatever Prefect makes of them.
"""

import logging
import traceback

from flows.config.schema import RunConfig
from flows.deployments.prefect_settings import set_prefect_environment
from flows.errors import HOUSE, ExitCode, exit_code_of, one_line
from flows.processes.signals import raise_if_caught
from flows.run import run_stages
from flows.stages.base import Receipt

LOGGER = logging.getLogger("spherescore")


def run_shown(config: RunConfig, until: str) -> list[Receipt]:
    """The stages up to `until` as a flow; see flows.run.Executor."""
    set_prefect_environment(config.layout)
    from flows.deployments.flows import pipeline, stage_failures

    failed: list[Exception] = []
    token = stage_failures.set(failed)
    try:
        return [Receipt(**receipt) for receipt in pipeline(config, until)]
    except Exception as error:
        raise_if_caught(error)
        if failed:
            raise failed[0] from None
        if hasattr(error, "exit_code") or _is_ours(error):
            raise
        LOGGER.warning(
            "Prefect does not answer any more (%s); the run goes on without it",
            one_line(error)[:200],
        )
    finally:
        stage_failures.reset(token)
    return run_stages(config, until)


def _is_ours(error: Exception) -> bool:
    """Whether this house raised it, and not Prefect: whose function is the innermost.

    Outside of stages nothing but Prefect is connected to.
    """
    if exit_code_of(error) == ExitCode.NO_CONNECTION:
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    packages = [str(frame.f_globals.get("__name__", "")).partition(".")[0] for frame in frames]
    known = [package for package in packages if package in (*HOUSE, "prefect")]
    return bool(known) and known[-1] in HOUSE
