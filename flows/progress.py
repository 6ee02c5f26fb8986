"""Progress of a stage: a bar in a terminal, greppable lines otherwise.

ingest 4/9 unit
train 1200/4000 loss 0.4120, J_G 231 ± 6 nats
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

Progress = Callable[[int, int, str], None]  # done, total, what is being done (or its figures)

LOGGER = logging.getLogger("spherescore")
SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def stage_progress(stage: str, *listeners: Progress) -> Iterator[Progress]:
    """A `progress` for one stage, shown on stderr and passed on to `listeners`."""
    with _bar(stage) if sys.stderr.isatty() else _lines(stage) as show:

        def progress(done: int, total: int, text: str) -> None:
            show(done, total, text)
            for listener in listeners:
                listener(done, total, text)

        yield progress


def at_intervals(seconds: float, tell: Progress) -> Progress:
    """Pass on the first report, the last one, and those in between not more often than this."""
    last = -float("inf")

    def progress(done: int, total: int, text: str) -> None:
        nonlocal last
        if done >= total or time.monotonic() - last >= seconds:
            last = time.monotonic()
            tell(done, total, text)

    return progress


@contextmanager
def _bar(stage: str) -> Iterator[Progress]:
    with tqdm(desc=stage, file=sys.stderr, dynamic_ncols=True, leave=True) as bar:

        def show(done: int, total: int, text: str) -> None:
            bar.total = total
            bar.set_postfix_str(text, refresh=False)
            bar.update(done - bar.n)

        yield show


@contextmanager
def _lines(stage: str) -> Iterator[Progress]:
    def show(done: int, total: int, text: str) -> None:
        LOGGER.info("%s %d/%d %s", stage, done, total, text)

    yield at_intervals(SECONDS_BETWEEN_LINES, show)
