"""The Dask cluster of a run: processes of one thread, with deadlines; by default a few local ones,
on loopback. Those of other kinds are in flows/remote.

Dask sees units: functions of one unit that read, compute, write and return a small record. Lost
workers are retried in one layer only, by the scheduler (`allowed-failures`); an exception raised
by the function itself is never retried, because units are deterministic.

`distributed` is imported where it is used: commands that only look need none of it.
"""

import itertools
import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flows.config import Cluster
from flows.failures import exit_code_of
from flows.stage import Progress
from flows.workers import do_unit, installation

if TYPE_CHECKING:
    from distributed import Client, Future

U = TypeVar("U")
R = TypeVar("R")

LOOPBACK = "127.0.0.1"
DEADLINE = "spherescore.unit-seconds"  # in Dask's settings while a cluster of ours is up
STALL_SECONDS = 1800.0  # of clusters that others set up: longer than any one unit
LOOK_SECONDS = 2.0  # between looks at how many workers there are
CONTAINER_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory.high"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)

# Dask trims the heap after 64 KiB by default, so that every task faults its buffers in again:
# 1.4 to 1.5 times slower on arrays of tens of MB. Memory then returns to the system later.
WORKER_ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(1 << 26),
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
}

DASK_CONFIG: dict[str, Any] = {
    "distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT,
    "distributed.scheduler.no-workers-timeout": "60s",  # by default it waits for ever
    "distributed.scheduler.allowed-failures": 3,
    "distributed.scheduler.worker-ttl": "2 minutes",
    # Asking a dead worker for a result takes as long as a connection may, each time.
    "distributed.comm.timeouts.connect": "5s",
    "distributed.comm.timeouts.tcp": "30s",
    "distributed.comm.retry.count": 0,
    "distributed.worker.profile.enabled": False,
    "distributed.diagnostics.nvml": False,
}


class WorkersLost(RuntimeError):
    """Workers died, more often than is retried, or never came."""

    exit_code = 40


class Stalled(RuntimeError):
    """No unit ended within the deadline."""

    exit_code = 43


class UnitFailed(RuntimeError):
    """A unit raised; the message names it, the exit code is that of its cause."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.exit_code)


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

    scratch.mkdir(parents=True, exist_ok=True)
    share = memory_share(cluster.workers)
    with ExitStack() as stack:
        # Dask puts the workers' environment into ours and leaves it there: torch, imported for
        # the training, would take one thread of it.
        stack.callback(_restore, {name: os.environ.get(name) for name in WORKER_ENVIRONMENT})
        settings = DASK_CONFIG | {DEADLINE: 60 * cluster.unit_minutes}
        stack.enter_context(dask.config.set(settings))
        spill = stack.enter_context(
            TemporaryDirectory(dir=scratch, prefix="dask-", ignore_cleanup_errors=True)
        )
        try:
            with _signals_wait():
                local = LocalCluster(
                    n_workers=cluster.workers,
                    threads_per_worker=1,
                    processes=True,
                    host=LOOPBACK,
                    dashboard_address=f"{LOOPBACK}:0",
                    worker_dashboard_address=f"{LOOPBACK}:0",
                    memory_limit=share if cluster.memory == "auto" else cluster.memory,
                    local_directory=spill,
                    silence_logs=logging.CRITICAL,
                )
                stack.callback(local.close, timeout=10)
            client = stack.enter_context(Client(local, set_as_default=False, timeout=30))
            client.wait_for_workers(cluster.workers, timeout=60)
        except (TimeoutError, OSError) as error:
            raise WorkersLost(
                f"{cluster.workers} local Dask workers did not start within 60 s ({error}); "
                "nothing was written; run again, or lower cluster.workers"
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
        from flows.remote import placed, refuse_unsafe, remote_client

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


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back: a cluster that is half started cannot be closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, frame: caught.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if caught:
            signal.raise_signal(caught[0])


def _restore(environment: Mapping[str, str | None]) -> None:
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def memory_share(workers: int) -> int:
    """Memory of one of `workers` processes [bytes]; a tenth is left to the rest of the machine."""
    return int(0.9 * machine_memory() / workers)


def machine_memory() -> int:
    """Memory of the machine, or of the container if that may use less [bytes]."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in CONTAINER_LIMITS:
        if limit.exists() and (text := limit.read_text().strip()).isdigit():
            sizes.append(int(text))
    return min(sizes)


def map_units(
    client: "Client",
    function: Callable[[U], R],
    units: Sequence[U],
    progress: Progress,
    *,
    label: str = "unit",
    done: int = 0,
    resource: str | None = None,
) -> list[R]:
    """Apply `function` to every unit on the cluster; the results come in the order of `units`.

    At most two units per worker are in flight, so that a failure stops the rest and the scheduler
    stays small. Results should be small: they come back to this process.

    Args:
        function: Importable by workers (a module's function, or a partial of one).
        progress: Told after every unit, with `done` (finished by an earlier run) counted in.
        label: What a unit is called in messages.
        resource: Of Dask, e.g. "GPU": only workers that have it do units, if any worker has it.
    Raises:
        UnitFailed: If the function raised for a unit.
        WorkersLost: If the workers of a unit died again and again, or none is left.
        Stalled: If no unit ended within the deadline, `cluster.unit_minutes`.
    """
    total = done + len(units)
    progress(done, total, label)
    if not units:
        return []
    crew = _Crew(client, resource)
    call = partial(do_unit, installation(), function)
    deadline = dask_setting(DEADLINE, STALL_SECONDS)
    waiting = iter(enumerate(units))
    ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
    running: dict[Future, int] = {}
    results: dict[int, R] = {}
    latest = time.monotonic()
    try:
        while len(results) < len(units):
            try:
                room = crew.look(len(results), len(units)) - len(running)
                for index, unit in itertools.islice(waiting, max(0, room)):
                    future = client.submit(
                        call, unit, pure=False, retries=0, resources=crew.resources
                    )
                    running[future] = index
                    future.add_done_callback(ended.put)
                batch = _those_that(ended)
                _refuse_failures([(f, f"{label} {units[running[f]]}") for f in batch])
                values = client.gather(batch) if batch else []
            except (OSError, RuntimeError, CancelledError, TimeoutError) as error:
                if hasattr(error, "exit_code"):
                    raise
                raise WorkersLost(
                    f"the scheduler does not answer any more ({error or type(error).__name__}); "
                    f"{len(results)} of {len(units)} are done and safe; run again to go on"
                ) from error
            if not batch and time.monotonic() - latest > deadline:
                raise Stalled(
                    f"no {label} ended within {deadline:.0f} s, {len(results)} of "
                    f"{len(units)} are done and safe; run again to go on from there, and raise "
                    "cluster.unit_minutes if units take that long"
                )
            for future, value in zip(batch, values, strict=True):
                latest = time.monotonic()
                results[running.pop(future)] = value
                progress(done + len(results), total, label)
    finally:
        if running:
            client.cancel(list(running))
    return [results[index] for index in range(len(units))]


class _Crew:
    """The workers of a client, looked at now and then, because they come and go."""

    def __init__(self, client: "Client", resource: str | None) -> None:
        from dask.utils import parse_timedelta

        patience = dask_setting("distributed.scheduler.no-workers-timeout")
        self.patience = parse_timedelta(patience) if patience else float("inf")
        self.client, self.workers = client, 0
        self.resources: dict[str, int] | None = None
        self.looked, self.seen = -float("inf"), time.monotonic()
        if resource is not None:
            self.look(0, 0)
            workers = client.scheduler_info(n_workers=-1)["workers"].values()
            if any(worker["resources"].get(resource) for worker in workers):
                self.resources = {resource: 1}

    def look(self, done: int, units: int) -> int:
        """How many units may be in flight."""
        now = time.monotonic()
        if now - self.looked > LOOK_SECONDS:
            self.workers, self.looked = len(self.client.nthreads()), now
            if self.workers:
                self.seen = now
            elif now - self.seen > self.patience:
                raise WorkersLost(
                    f"there has been no worker for {self.patience:.0f} s; {done} of {units} units "
                    "are done and safe; see why workers do not come, then run again"
                )
        return 2 * max(1, self.workers)


def dask_setting(name: str, otherwise: Any = None) -> Any:
    import dask.config

    return dask.config.get(name, otherwise)


def _those_that(ended: "queue.SimpleQueue[Future]") -> "list[Future]":
    """All that have ended, after waiting a little for one."""
    batch = []
    with suppress(queue.Empty):
        batch.append(ended.get(timeout=LOOK_SECONDS))
        while True:
            batch.append(ended.get_nowait())
    return batch


def _refuse_failures(ended: "Sequence[tuple[Future, str]]") -> None:
    from distributed import KilledWorker
    from distributed.scheduler import NoValidWorkerError

    for future, name in ended:
        if future.status == "finished":
            continue
        error = future.exception() if future.status == "error" else None
        if error is None or isinstance(error, KilledWorker | NoValidWorkerError):
            deaths = dask_setting("distributed.scheduler.allowed-failures") + 1
            raise WorkersLost(
                f"{name}: its workers died {deaths} times or none is left; finished units are "
                "safe. If memory was short, raise cluster.memory or lower cluster.workers; then "
                "run again"
            ) from error
        raise UnitFailed(f"{name}: {error}", exit_code_of(error)) from error
