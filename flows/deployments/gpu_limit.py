"""Stages that compute on a GPU wait for a slot of the Prefect limit `gpu`, if Prefect placed them.

Asked strictly: without the limit Prefect would let all of them through and say nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from flows.config.schema import RunConfig
from flows.errors import ExitCode

LIMIT = "gpu"
COMPUTING = ("train", "generate", "verify")


class NoSuchLimit(RuntimeError):
    """The server has no limit of this name."""

    exit_code = ExitCode.NOT_DEPLOYED


@contextmanager
def gpu_slot(stage: str, config: RunConfig) -> Iterator[None]:
    """Hold a slot while a deployed run computes on a GPU; a run on its own needs none.

    Raises:
        NoSuchLimit: If nobody has made the limit.
    """
    from prefect.runtime import deployment

    if stage not in COMPUTING or deployment.id is None or not _on_gpu(config):
        yield
        return
    with slot(LIMIT):
        yield


@contextmanager
def slot(limit: str) -> Iterator[None]:
    """Hold a slot of a global concurrency limit of Prefect.

    A server that is away for a while does not end the work: the slot is then its loss, not ours.

    Raises:
        NoSuchLimit: If nobody has made the limit.
    """
    from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
    from prefect.concurrency.sync import concurrency

    entered = False
    try:
        with concurrency(limit, occupy=1, strict=True, raise_on_lease_renewal_failure=False):
            entered = True
            yield
    except ConcurrencySlotAcquisitionError as error:
        if entered:
            raise
        raise NoSuchLimit(
            f"the Prefect server has no concurrency limit {limit!r}, so nothing would keep stages "
            f"from sharing a GPU ({error}); run `spherescore deploy` or "
            f"`prefect gcl create {limit} --limit 1`"
        ) from error


def _on_gpu(config: RunConfig) -> bool:
    if config.train.device == "cpu":
        return False
    from flows.stages.trained_model import device_of

    return device_of(config).type == "cuda"
