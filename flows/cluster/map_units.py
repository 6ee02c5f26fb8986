"""Units of work on a Dask cluster: functions of one unit that read, compute, write and return a
small record.

Lost workers are retried in one layer only, by the scheduler (`allowed-failures`); an exception
raised by the function itself is never retried, because units are deterministic.
"""

import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from flows.cluster.dask_settings import UNIT_SECONDS, dask_setting
from flows.cluster.worker_setup import do_unit_aloud, installation
from flows.errors import Relayed, Stalled, WorkersLost, exit_code_of
from flows.progress import Progress

if TYPE_CHECKING:
    from distributed import Client, Future

U = TypeVar("U")
R = TypeVar("R")
Lines = list[tuple[int, str]]  # levels, and what was logged

LOGGER = logging.getLogger("spherescore")
STALL_SECONDS = 1800.0  # of clusters that others set up: longer than any one unit
LOOK_SECONDS = 2.0  # between looks at how many workers there are
SENT_BYTES = (
    1 << 20
)  # of a function that goes along with each unit; a larger one is held by workers


class UnitFailed(Relayed):
    """A unit raised; the message names it, the exit code is that of its cause."""


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
    What a unit logs on its worker is logged here when it is done.

    At most two units per worker are in flight, so that a failure stops the rest and the scheduler
    stays small. Results should be small: they come back to this process. A function with large
    arguments is given to each worker once.

    Args:
        function: Importable by workers (a module's function, or a partial of one).
        progress: Told after units, with `done` (finished by an earlier run) counted in.
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
    flight = _Flight(client, partial(do_unit_aloud, installation(), function), units, label, crew)
    latest = time.monotonic()
    try:
        while len(flight.results) < len(units):
            ended = flight.advance()
            if ended:
                latest = time.monotonic()
            elif time.monotonic() - latest > crew.deadline:
                raise Stalled(
                    f"no {label} ended within {crew.deadline:.0f} s, {len(flight.results)} of "
                    f"{len(units)} are done and safe; run again to go on from there, and raise "
                    "cluster.unit_minutes if units take that long"
                )
            for lines in ended:
                for level, line in lines:
                    LOGGER.log(level, "%s", line)
            if ended:
                progress(done + len(flight.results), total, label)
    finally:
        flight.cancel()
    return [flight.results[index] for index in range(len(units))]


class _Flight(Generic[U, R]):
    """The units that are on their way to workers and back."""

    def __init__(
        self,
        client: "Client",
        call: Callable[[U], tuple[R, Lines]],
        units: Sequence[U],
        label: str,
        crew: "_Crew",
    ) -> None:
        self._client, self._call, self._units = client, call, units
        self._label, self._crew = label, crew
        self._waiting = deque(range(len(units)))
        self._held: Future | None = None  # by workers, if the call is large
        self._large, self._losses = _size(call) > SENT_BYTES, 0
        self._ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._running: dict[Future, int] = {}
        self.results: dict[int, R] = {}

    def advance(self) -> list[Lines]:
        """Send what there is room for, and take in what has ended; what was logged by each.

        Raises:
            WorkersLost: If the scheduler does not answer, or the workers of a unit died.
            UnitFailed: If a unit raised.
        """
        from distributed.client import ClosedClientError

        try:
            self._send()
            batch = [one for one in _those_that(self._ended) if one in self._running]
            if self._held is not None and self._held.cancelled():
                return self._start_over()
            running = [(one, f"{self._label} {self._units[self._running[one]]}") for one in batch]
            _refuse_failures(running)
            found = self._client.gather(batch) if batch else []
        except (OSError, CancelledError, ClosedClientError) as error:  # TimeoutError is an OSError
            if self._held is not None and isinstance(error, CancelledError):
                return self._start_over()
            raise WorkersLost(
                f"the scheduler does not answer any more ({error or type(error).__name__}); "
                f"{len(self.results)} of {len(self._units)} are done and safe; run again to go on"
            ) from error
        for future, (value, _) in zip(batch, found, strict=True):
            self.results[self._running.pop(future)] = value
        return [lines for _, lines in found]

    def _send(self) -> None:
        room = self._crew.look(len(self.results), len(self._units)) - len(self._running)
        there = self._crew.workers > 0 and room > 0 and len(self._waiting) > 0
        if self._large and self._held is None and there:
            self._held = self._client.scatter(self._call, broadcast=True, hash=False)
        for _ in range(min(room, len(self._waiting))):
            index = self._waiting.popleft()
            call = (self._call,) if self._held is None else (_called, self._held)
            future = self._client.submit(
                *call, self._units[index], pure=False, retries=0, resources=self._crew.resources
            )
            self._running[future] = index
            future.add_done_callback(self._ended.put)

    def _start_over(self) -> list[Lines]:
        """Send again what was on its way: all workers that held the function died, and what Dask
        was given it cannot make anew.

        Raises:
            WorkersLost: If that happens more often than a unit may lose its worker.
        """
        deaths = dask_setting("distributed.scheduler.allowed-failures")
        self._losses += 1
        if self._losses > deaths:
            raise WorkersLost(_died(self._label, deaths))
        self.cancel()
        self._waiting.extendleft(sorted(self._running.values(), reverse=True))
        self._running.clear()
        self._held = None
        return []

    def cancel(self) -> None:
        """Give up what is on its way."""
        if self._running:
            self._client.cancel(list(self._running))


class _Crew:
    """The workers of a client, looked at now and then, because they come and go."""

    def __init__(self, client: "Client", resource: str | None) -> None:
        from dask.utils import parse_timedelta

        self.client, self.workers = client, len(client.nthreads())
        # Settings are those of the cluster, which may have started just now.
        patience = dask_setting("distributed.scheduler.no-workers-timeout")
        self.patience = parse_timedelta(patience) if patience else float("inf")
        self.deadline = dask_setting(UNIT_SECONDS, STALL_SECONDS)
        self.resources: dict[str, int] | None = None
        self.looked = self.seen = time.monotonic()
        if resource is not None:
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


def _called(function: Callable[[U], R], unit: U) -> R:
    """Do a unit with a function that the worker holds."""
    return function(unit)


def _size(function: Callable[..., object]) -> int:
    """Bytes that it takes to send."""
    from distributed.protocol.serialize import serialize

    _, frames = serialize(function)
    return sum(memoryview(frame).nbytes for frame in frames)


def _died(name: str, deaths: int) -> str:
    return (
        f"{name}: its workers died {deaths + 1} times or none is left; finished units are "
        "safe. If memory was short, raise cluster.memory or lower cluster.workers; then "
        "run again"
    )


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
            deaths = dask_setting("distributed.scheduler.allowed-failures")
            raise WorkersLost(_died(name, deaths)) from error
        raise UnitFailed(f"{name}: {error}", exit_code_of(error)) from error
