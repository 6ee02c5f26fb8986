"""Ranks, and threads of a rank, that train one model together: each takes a part of every batch.

A sum over ranks has the same bits on every rank, so ranks that begin alike stay alike. Threads take
their parts from the pictures to the gradients by themselves and meet once a step
(docs/decisions/0034).
"""

from __future__ import annotations

import datetime
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]

R = TypeVar("R")

WAIT_SECONDS = 120.0  # for the other ranks, at one sum; a validation lies between two
FEWEST = 8  # fields of a thread's part, below which its own overhead is felt


@dataclass(frozen=True)
class Group:
    """One rank of `size`; alone by default."""

    rank: int = 0
    size: int = 1

    def part(self, whole: int) -> slice:
        """The samples of `whole` that are this rank's."""
        return slice(self.rank * whole // self.size, (self.rank + 1) * whole // self.size)

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all ranks; they are of one type and one device."""
        if self.size == 1:
            return
        message = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(message)
        parts = torch.split(message, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


def divided(whole: int, parts: int) -> list[slice]:
    """The samples of `whole` in so many parts."""
    return [Group(rank, parts).part(whole) for rank in range(parts)]


class Threads:
    """Threads that take a part of a batch each, with their share of the cores.

    Operations that torch divides among cores end in a barrier each, and gradients of convolutions
    have barriers in which a core turns around until the last one is there. Where another program
    has one of the cores that is where a training spends its time.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._pool: ThreadPoolExecutor | None = None

    def parts(self, samples: slice) -> list[slice]:
        """Samples divided among the threads, at least `FEWEST` for each."""
        count, first = samples.stop - samples.start, samples.start
        each = divided(count, max(1, min(self.number, count // FEWEST)))
        return [slice(first + one.start, first + one.stop) for one in each]

    def map(self, work: Callable[[slice], R], parts: Sequence[slice]) -> list[R]:
        """What is made of each part, in their order."""
        if len(parts) == 1:
            return [work(parts[0])]
        return list(self._started(len(parts)).map(work, parts))

    def _started(self, parts: int) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(
                self.number, initializer=torch.set_num_threads, initargs=(self.number // parts,)
            )
        return self._pool


@contextmanager
def joined(
    rank: int, size: int, address: str, *, gpu: bool, wait: float = WAIT_SECONDS
) -> Iterator[Group]:
    """A group whose ranks meet at `address`, which rank 0 opens: host:port, or "env://".

    Nothing that they say is encrypted. Ranks that meet on loopback listen there and nowhere else.

    Raises:
        RuntimeError: If they do not all come in time; at a sum, if one of them is lost.
    """
    timeout = datetime.timedelta(seconds=wait)
    store = None
    if address != "env://":
        host, _, port = address.rpartition(":")
        _stay_on_loopback(host)
        store = TCPStore(
            host,
            int(port),
            size,
            is_master=rank == 0,
            timeout=timeout,
            wait_for_workers=False,
            # By itself it would listen on all networks of the host.
            master_listen_fd=_listening(host, int(port)) if rank == 0 else None,
        )
    dist.init_process_group(
        "nccl" if gpu else "gloo",
        init_method=address if store is None else None,
        store=store,
        rank=rank,
        world_size=size,
        timeout=timeout,
    )
    try:
        yield Group(rank, size)
    finally:
        dist.destroy_process_group()


def _listening(host: str, port: int) -> int:
    """The descriptor of a socket that listens on one address; who is given it closes it."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((host, port))
        one.listen()
        return one.detach()


def _stay_on_loopback(host: str) -> None:
    """Have gloo listen on loopback where the ranks meet there; else it takes the host's address."""
    if host in ("127.0.0.1", "::1"):
        names = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
        os.environ.setdefault("GLOO_SOCKET_IFNAME", names[0])
