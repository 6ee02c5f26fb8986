"""Who is at work in a root: any number of runs, or alone one that removes garbage.

On a disk both hold a lock that the system frees when they die; no clock is asked.

A bucket has no locks. There each puts an object of its own below `.in-use/`, renews it, and takes
it away at its end. One that has not been renewed for `LEASE` seconds, by the server's clock, is of
a process that died. Each puts its own before it looks for those of others, so of two that come at
once at least one sees the other, and is refused.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from storage.artifacts.layout import StoreLayout
from storage.places import buckets
from storage.places.places import BucketPath

LOGGER = logging.getLogger("spherescore")

LEASE = 900.0  # seconds
RENEWALS = 6  # in that time: a server that does not answer for minutes ends nobody's lease


class RootInUse(RuntimeError):
    """A run works in the root, or somebody cleans it."""

    exit_code = 31


@contextmanager
def in_use(layout: StoreLayout, *, alone: bool = False) -> Iterator[None]:
    """While the root is used: by any number of runs, or `alone` by who removes garbage.

    Raises:
        RootInUse: If others use it in the other way.
    """
    with ExitStack() as held:
        held.enter_context(_locked(layout, alone))
        if isinstance(layout.path, BucketPath):
            held.enter_context(_leased(layout.path, alone))
        yield


@contextmanager
def _locked(layout: StoreLayout, alone: bool) -> Iterator[None]:
    layout.lock.parent.mkdir(parents=True, exist_ok=True)
    with layout.lock.open("ab") as stream:
        try:
            fcntl.flock(stream, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError as error:
            who = "a run is at work" if alone else "`spherescore clean` is at work"
            raise RootInUse(f"{who} in {layout.root}; wait for its end, then try again") from error
        yield


@contextmanager
def _leased(root: BucketPath, alone: bool) -> Iterator[None]:
    own = root / ".in-use" / f"{'clean' if alone else 'run'}-{secrets.token_hex(8)}"
    said = f"process {os.getpid()} of {socket.gethostname()}".encode()
    over = threading.Event()
    renewal = threading.Thread(target=_renew, args=(own, said, over), daemon=True)
    buckets.put(own.bucket, own.key, said)
    try:
        _refuse_others(root, own, alone)
        renewal.start()
        yield
    finally:
        over.set()
        if renewal.ident is not None:
            renewal.join()
        try:
            buckets.delete(own.bucket, [own.key])
        except buckets.StorageUnavailable as error:
            LOGGER.warning("%s stays for %.0f s: %s", own, LEASE, error)


def _renew(own: BucketPath, said: bytes, over: threading.Event) -> None:
    while not over.wait(LEASE / RENEWALS):
        try:
            buckets.put(own.bucket, own.key, said)
        except buckets.StorageUnavailable as error:
            LOGGER.warning("%s could not be renewed: %s", own, error)


def _refuse_others(root: BucketPath, own: BucketPath, alone: bool) -> None:
    """Look who else is there, and take away what the dead have left."""
    times = buckets.times(own.bucket, own.parent.key)
    ages = {key: (times[own.key] - time).total_seconds() for key, time in times.items()}
    dead = [key for key, age in ages.items() if age > LEASE]
    buckets.delete(own.bucket, dead)
    for key in sorted({*ages} - {*dead, own.key}):
        kind = key.rpartition("/")[2].partition("-")[0]
        if alone or kind == "clean":
            who = "a run" if kind == "run" else "`spherescore clean`"
            raise RootInUse(
                f"{who} is at work in {root}, and gave its last sign {max(ages[key], 0):.0f} s "
                f"ago; wait for its end, then try again. If it was killed, that is {LEASE:.0f} s "
                "after its last sign"
            )
