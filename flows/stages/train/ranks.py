"""One training on several workers: a rank on each, all of them begun again when one is lost.

A group of ranks cannot go on without one of its members. It ends, and another group begins from the
newest state with the workers that are there: the batch, its draws and its order do not depend on
how many they are (pipeline.network.train), so what is learned is the same up to rounding.

On hosts where workers are not Dask's, `torchrun -m flows.stages.train.ranks CONFIG` is one such
group.
"""

import itertools
import logging
import os
import queue
import socket
import sys
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flows.cluster.map_units import STALL_SECONDS, UnitFailed
from flows.cluster.worker_setup import do_unit, installation
from flows.config.schema import RunConfig
from flows.errors import WorkersLost
from flows.processes.log_relay import lines_told
from flows.progress import Progress
from flows.stages.base import Receipt

if TYPE_CHECKING:
    from distributed import Client, Future

LOGGER = logging.getLogger("spherescore")

ATTEMPTS = 5  # groups, after which a training is given up
GATHER_SECONDS = 30.0  # to wait for as many workers as ranks are wanted; then with fewer


def train_on_workers(config: RunConfig, client: "Client", progress: Progress) -> Receipt:
    """Train with up to `train.ranks` ranks, in as many groups as it takes.

    Raises:
        WorkersLost: If ATTEMPTS groups were lost.
        UnitFailed: If the training itself failed, with its exit code.
    """
    topic = f"ranks-{uuid.uuid4().hex[:12]}"
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
    client.subscribe_topic(topic, lambda event: heard.put(event[1]))
    reason = ""
    try:
        for attempt in range(1, ATTEMPTS + 1):
            chosen = _gathered(client, config.train.ranks)
            LOGGER.info("train: %d ranks, on %s", len(chosen), ", ".join(chosen))
            _tell_of_the_open(chosen)
            try:
                ranks = _begin(config, client, chosen, topic, attempt)
                try:
                    return Receipt(**_ended(ranks, heard, progress))
                finally:
                    client.cancel(ranks)
            except _GroupLost as lost:
                reason = str(lost)
                LOGGER.warning("train: a rank was lost (%s); another group begins", reason)
    finally:
        client.unsubscribe_topic(topic)
    raise WorkersLost(
        f"{ATTEMPTS} groups of ranks lost a member each, the last one because: {reason}. What they "
        "have saved is safe. If memory was short, lower train.batch or raise cluster.memory or "
        "train.accumulate; then run again"
    )


def _tell_of_the_open(workers: Iterable[str]) -> None:
    """Say it where ranks talk over a network: nothing of PyTorch's encrypts what they say."""
    hosts = sorted({urlsplit(worker).hostname or worker for worker in workers})
    if len(hosts) > 1:
        LOGGER.warning(
            "train: ranks on %s exchange gradients and weights unencrypted; let nobody else reach "
            "that network, or train on one host (docs/clusters.md)",
            ", ".join(hosts),
        )


class _GroupLost(RuntimeError):
    """A rank ended without it being the training's fault."""


def _begin(
    config: RunConfig, client: "Client", chosen: Mapping[str, bool], topic: str, attempt: int
) -> "list[Future]":
    """The ranks of one group, each on its worker."""
    meeting = _on(client, next(iter(chosen)), False, _meeting_place, topic, f"{attempt}-meeting")
    try:
        address = meeting.result(timeout=60)
    except Exception as error:
        if getattr(error, "exit_code", None) is not None:
            raise
        raise _GroupLost(f"{type(error).__name__}: {error}") from error
    table = {"config": config.to_dict(), "size": len(chosen), "address": address, "topic": topic}
    return [
        _on(client, worker, gpu, _rank, {**table, "rank": rank}, f"{attempt}-{rank}")
        for rank, (worker, gpu) in enumerate(chosen.items())
    ]


def _ended(
    ranks: "Sequence[Future]", heard: "queue.SimpleQueue[Any]", progress: Progress
) -> dict[str, Any]:
    """The receipt of the first rank, once all have ended; what they say is told on the way."""
    receipt: dict[str, Any] | None = None
    waiting = len(ranks)
    for rank in ranks:
        rank.add_done_callback(heard.put)
    while waiting:
        one = heard.get()
        if isinstance(one, dict):
            if "progress" in one:
                progress(*one["progress"])
            else:
                LOGGER.log(one["level"], "%s", one["text"])
            continue
        if one not in ranks:  # of a group before
            continue
        waiting -= 1
        if one.status != "finished":
            raise _failure(one)
        receipt = one.result() or receipt
    assert receipt is not None
    return receipt


def _on(
    client: "Client", worker: str, gpu: bool, function: Any, argument: Any, name: str
) -> "Future":
    """Have one worker, and no other, call a function."""
    return client.submit(
        do_unit,
        installation(),
        function,
        argument,
        workers=[worker],
        allow_other_workers=False,
        resources={"GPU": 1} if gpu else None,
        retries=0,
        pure=False,
        key=f"{uuid.uuid4().hex[:12]}-{name}",
    )


def _failure(future: "Future") -> Exception:
    error = future.exception() if future.status == "error" else None
    code = getattr(error, "exit_code", None)
    if error is None or code in (None, 1, WorkersLost.exit_code):
        return _GroupLost(str(error) if error is not None else "its worker is gone")
    return UnitFailed(f"training: {error}", code)


def _gathered(client: "Client", ranks: int) -> dict[str, bool]:
    """Workers for the ranks, and whether they have a GPU; those that have, where there are any."""
    deadline = time.monotonic() + GATHER_SECONDS
    while True:
        there = client.scheduler_info(n_workers=-1)["workers"]
        gpus = [name for name, worker in there.items() if worker["resources"].get("GPU")]
        found = sorted(gpus or there)[:ranks]
        if len(found) == ranks or (found and time.monotonic() > deadline):
            return dict.fromkeys(found, bool(gpus))
        if time.monotonic() > deadline + STALL_SECONDS:
            raise WorkersLost("no worker came for the ranks of the training; run again to go on")
        time.sleep(0.5)


def _meeting_place(topic: str) -> str:
    """A free port of this worker's host, on the network of its connections. Runs on a worker."""
    from distributed import get_worker

    host = get_worker().address.partition("://")[2].rpartition(":")[0].strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as one:
        one.bind((host, 0))
        return f"{host}:{one.getsockname()[1]}"


def _rank(arguments: dict[str, Any]) -> dict[str, Any] | None:
    """One rank, in a child of the worker that this runs on."""
    from distributed import get_worker

    from flows.processes.child import call

    worker, rank = get_worker(), arguments["rank"]

    def tell(done: int, total: int, text: str) -> None:
        if rank == 0:
            worker.log_event(arguments["topic"], {"progress": [done, total, text]})

    def aloud(record: logging.LogRecord) -> None:
        text = f"rank {rank} on {worker.address}: {record.getMessage()}"
        worker.log_event(arguments["topic"], {"level": record.levelno, "text": text})

    silence = 60 * RunConfig.from_dict(arguments["config"]).cluster.unit_minutes
    with lines_told(aloud):
        found: dict[str, Any] | None = call(
            "flows.stages.train.train:as_rank", arguments, tell, silence=silence
        )
    return found


def main(path: str) -> None:
    """One rank of torchrun's, which says which by the environment."""
    from flows.config.schema import read_config
    from flows.stages.train.train import as_rank

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    arguments = {
        "config": read_config(path).to_dict(),
        "rank": rank,
        "size": size,
        "address": "env://",
    }
    counted = itertools.count(1)

    def tell(done: int, total: int, text: str) -> None:
        if rank == 0 and (done >= total or next(counted) % 100 == 1):
            LOGGER.info("train %d/%d %s", done, total, text)

    receipt = as_rank(arguments, tell)
    if receipt is not None:
        LOGGER.info("train: published %s, digest %s", receipt["path"], receipt["digest"])


if __name__ == "__main__":
    main(sys.argv[1])
