"""The Dask cluster of a run: processes of one thread, with deadlines; by default a few local ones,
on loopback. Those of other kinds are in flows/cluster/remote.

`distributed` is imported where it is used: commands that only look need none of it.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

from flows.cluster.dask_settings import DASK_CONFIG, UNIT_SECONDS, WORKER_ENVIRONMENT
from flows.config.schema import Cluster
from flows.errors import WorkersLost, one_line
from flows.processes.machine import memory_share
from flows.processes.network_boundary import LOOPBACK
from flows.processes.signals import held_back

if TYPE_CHECKING:
    from distributed import Client

LOGGER = logging.getLogger("spherescore")
CLOSING_SECONDS = 10.0
UNSTARTED = "Cluster failed to start"  # how Dask says that its own processes did not connect


@contextmanager
def local_client(cluster: Cluster, scratch: Path) -> Iterator["Client"]:
    """A client of fresh local workers; all of them are gone when the block is left.

    Args:
        cluster: How many workers, and the memory limit of each.
        scratch: Directory for what workers spill; made if need be.
    Raises:
        WorkersLost: If the workers did not start within a minute.
    """
    import dask
    from distributed import Client, LocalCluster
    from distributed.security import Security

    scratch.mkdir(parents=True, exist_ok=True)
    share = memory_share(cluster.workers)
    with ExitStack() as stack:
        # Dask puts the workers' environment into ours and leaves it there: torch, imported for
        # the training, would take one thread of it.
        stack.callback(_restore, {name: os.environ.get(name) for name in WORKER_ENVIRONMENT})
        settings = DASK_CONFIG | {
            UNIT_SECONDS: 60 * cluster.unit_minutes,
            # A worker that is starting again when this is over is given up, and none takes its
            # place: by default one that died twice, 15 seconds apart.
            "distributed.deploy.lost-worker-timeout": "30 days",
        }
        stack.enter_context(dask.config.set(settings))
        spill = stack.enter_context(
            TemporaryDirectory(dir=scratch, prefix="dask-", ignore_cleanup_errors=True)
        )
        try:
            with held_back():
                local = LocalCluster(
                    n_workers=cluster.workers,
                    threads_per_worker=1,
                    processes=True,
                    host=LOOPBACK,
                    # Every user of this machine reaches loopback, and who reaches a scheduler
                    # runs code as us: certificates that this process alone has.
                    security=Security.temporary(),
                    dashboard_address=f"{LOOPBACK}:0",
                    worker_dashboard_address=f"{LOOPBACK}:0",
                    memory_limit=share if cluster.memory == "auto" else cluster.memory,
                    local_directory=spill,
                    silence_logs=logging.CRITICAL,
                )
                stack.callback(_close, local)
            client = Client(local, set_as_default=False, timeout=30)
            stack.callback(_close, client)
            client.wait_for_workers(cluster.workers, timeout=60)
        except (TimeoutError, OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not str(error).startswith(UNSTARTED):
                raise
            raise WorkersLost(
                f"{cluster.workers} local Dask workers did not start in time "
                f"({one_line(error)}); finished units are safe; run again when this machine is "
                "less busy, or lower cluster.workers"
            ) from error
        yield client


@contextmanager
def client_on_demand(cluster: Cluster, scratch: Path) -> Iterator["Client"]:
    """A client of the configured cluster, which is started or met when it is first used, or never.

    Raises:
        ConfigError: If nothing says where it is.
        Refused: If the cluster could be used only without encryption over a network.
    """
    start = local_client
    if cluster.kind != "local":
        from flows.cluster.remote import placed, refuse_unsafe, remote_client

        cluster = placed(cluster)
        refuse_unsafe(cluster)
        start = remote_client
    with ExitStack() as stack:
        yield cast("Client", _OnDemand(lambda: stack.enter_context(start(cluster, scratch))))


class _OnDemand:
    """Has the attributes of what `start` returns, which is called for the first of them."""

    def __init__(self, start: Callable[[], Any]) -> None:
        self._start, self._started = start, None

    def __getattr__(self, name: str) -> Any:
        if self._started is None:
            self._started = self._start()
        return getattr(self._started, name)


def _close(one: Any) -> None:
    """Close a client or a cluster; what does not end in time fails no stage that is published."""
    try:
        one.close(timeout=CLOSING_SECONDS)
    except TimeoutError:
        LOGGER.warning(
            "%s was not closed within %.0f s, on a machine that is busy; what is left of it ends "
            "with the run",
            type(one).__name__,
            CLOSING_SECONDS,
        )


def _restore(environment: Mapping[str, str | None]) -> None:
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
