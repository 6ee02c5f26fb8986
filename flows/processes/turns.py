"""One run after the other in a root, of those that nobody watches.

Two runs of a root do no harm to each other, but the same work twice.
"""

import fcntl
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from storage.artifacts.layout import StoreLayout

LOGGER = logging.getLogger("spherescore")
LOOK_SECONDS = 2.0


@contextmanager
def turn(layout: StoreLayout) -> Iterator[None]:
    """Wait for the end of every other run that holds this turn; the system ends that of a dead one.

    On a file system without locks, and between machines that share a bucket only, nobody waits.
    """
    file = layout.lock.with_name(".turn")
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as stream:
        told = False
        while not _taken(stream.fileno()):
            if not told:
                LOGGER.info("another run is at work in %s; this one waits for its end", layout.root)
                told = True
            time.sleep(LOOK_SECONDS)
        yield


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        LOGGER.warning("runs of one root may overlap: its disk has no locks (%s)", error)
    return True
