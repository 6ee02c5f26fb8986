"""Who is at work in a root: any number of runs and readers, or alone one that removes garbage.

On a disk all hold a lock that the system frees when they die; no clock is asked.

A bucket has no locks, nor have some disks (Lustre without `flock`, many FUSE mounts). There each
puts a lease of its own below `.in-use/`, renews it, and takes it away at its end. One that has not
been renewed for `LEASE` seconds, by the clock of who keeps the files, is of a process that died.
Each puts its own before it looks for those of others, so of two that come at once at least one sees
the other, and is refused.

Readers of a root in which they may not write hold the lock all the same; where only a lease would
do, they go without one.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from storage.artifacts.layout import StoreLayout
from storage.errors import RootInUse
from storage.places import buckets
from storage.places.files import LACKING
from storage.places.places import BucketPath, Place

LOGGER = logging.getLogger("spherescore")

LEASE = 900.0  # seconds
RENEWALS = 6  # in that time: a server that does not answer for minutes ends nobody's lease


@contextmanager
def in_use(layout: StoreLayout, *, alone: bool = False, reading: bool = False) -> Iterator[None]:
    """While the root is used: by any number of runs and readers, or `alone` to remove garbage.

    Args:
        reading: nothing is written in the root if that is not allowed.
    Raises:
        RootInUse: If others use it in the other way.
    """
    who = "clean" if alone else "read" if reading else "run"
    root = layout.path
    with ExitStack() as held:
        if isinstance(root, BucketPath) or not held.enter_context(_locked(layout, who)):
            held.enter_context(_leased(root, who))
        yield


@contextmanager
def _locked(layout: StoreLayout, who: str) -> Iterator[bool]:
    """While the lock is held; False where the disk has no locks."""
    try:
        stream = _opened(layout.lock, who)
    except OSError:
        if who != "read":
            raise
        yield True  # nobody has worked there since it was copied, and we may not write
        return
    with stream:
        yield _lock(stream, layout, who)


def _opened(lock: Path, who: str) -> IO[bytes]:
    """The file that is locked: readers make it only where they may."""
    if who == "read" and lock.exists():
        return lock.open("rb")
    if who != "read":
        lock.parent.mkdir(parents=True, exist_ok=True)
    return lock.open("ab")


def _lock(stream: IO[bytes], layout: StoreLayout, who: str) -> bool:
    try:
        fcntl.flock(stream, (fcntl.LOCK_EX if who == "clean" else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        other = (
            "a run is at work, or `export` or `check` reads,"
            if who == "clean"
            else "`spherescore clean` is at work"
        )
        raise RootInUse(f"{other} in {layout.root}; wait for its end, then try again") from error
    except OSError as error:
        if error.errno not in LACKING:
            raise
        LOGGER.debug("%s: the disk has no locks (%s), leases stand in", layout.lock, error)
        return False
    return True


@contextmanager
def _leased(root: Place, who: str) -> Iterator[None]:
    own = root / ".in-use" / f"{who}-{secrets.token_hex(8)}"
    said = f"process {os.getpid()} of {socket.gethostname()}".encode()
    over = threading.Event()
    renewal = threading.Thread(target=_renew, args=(own, said, over), daemon=True)
    try:
        _sign(own, said)
    except (OSError, buckets.StorageUnavailable) as error:
        if who != "read":
            raise
        LOGGER.info("%s is read without a lease, `clean` will not see it: %s", root, error)
        yield
        return
    try:
        _refuse_others(root, own, who)
        renewal.start()
        yield
    finally:
        over.set()
        if renewal.ident is not None:
            renewal.join()
        try:
            _take_away([own])
        except (OSError, buckets.StorageUnavailable) as error:
            LOGGER.warning("%s stays for %.0f s: %s", own, LEASE, error)


def _renew(own: Place, said: bytes, over: threading.Event) -> None:
    while not over.wait(LEASE / RENEWALS):
        try:
            _sign(own, said)
        except (OSError, buckets.StorageUnavailable) as error:
            LOGGER.warning("%s could not be renewed: %s", own, error)


def _refuse_others(root: Place, own: Place, who: str) -> None:
    """Look who else is there, and take away what the dead have left."""
    signs = _signs(own.parent)
    ages = {place: signs[own] - time for place, time in signs.items()}
    dead = [place for place, age in ages.items() if age > LEASE]
    _take_away(dead)
    for place in sorted({*ages} - {*dead, own}, key=str):
        kind = place.name.partition("-")[0]
        if "clean" in (who, kind):
            other = {"run": "a run", "read": "`export` or `check`"}.get(kind, "`spherescore clean`")
            raise RootInUse(
                f"{other} is at work in {root}, and gave its last sign {max(ages[place], 0):.0f} s "
                f"ago; wait for its end, then try again. If it was killed, that is {LEASE:.0f} s "
                "after its last sign"
            )


def _sign(own: Place, said: bytes) -> None:
    """Give a sign of life, which has the time of who keeps it."""
    if isinstance(own, BucketPath):
        buckets.put(own.bucket, own.key, said)
        return
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_bytes(said)


def _signs(directory: Place) -> dict[Place, float]:
    """When the signs were given [s]."""
    found: dict[Place, float] = {}
    if isinstance(directory, BucketPath):
        for key, time in buckets.times(directory.bucket, directory.key).items():
            found[BucketPath(directory.bucket, key)] = time.timestamp()
        return found
    for path in directory.iterdir():
        with suppress(FileNotFoundError):  # another has come to its end
            found[path] = path.stat().st_mtime
    return found


def _take_away(places: Iterable[Place]) -> None:
    for place in places:
        if isinstance(place, BucketPath):
            buckets.delete(place.bucket, [place.key])
        else:
            place.unlink(missing_ok=True)
