"""Stages that compute on a GPU wait for a slot of the Prefect limit `gpu`, if Prefect placed them.

Asked strictly: without the limit Prefect would let all of them through and say nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from flows.cluster.local import client_on_demand
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

    if stage not in COMPUTING or deployment.id is None or not on_gpu(stage, config):
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


def on_gpu(stage: str, config: RunConfig) -> bool:
    """Whether a stage computes on a GPU: of this machine, or of the workers that do its units."""
    device, cluster = config.train.device, config.cluster
    if device != "auto":
        return device == "cuda"
    if cluster.kind == "local" or (stage == "train" and config.train.ranks == 1):
        from flows.stages.trained_model import device_of

        return device_of(config).type == "cuda"
    if cluster.kind != "address":
        return cluster.gpus > 0  # its workers are not there before the stage is
    with client_on_demand(cluster, config.layout.scratch) as client:
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        return any(one["resources"].get("GPU") for one in workers) or any(
            client.run(_sees_a_gpu).values()
        )


def _sees_a_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
