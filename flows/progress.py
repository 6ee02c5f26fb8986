"""Progress of a stage: on the display of a terminal if there is one, greppable lines otherwise.

ingest 4/9 unit
train 1200/4000 loss 0.4120, J_G 231 ± 6 nats
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

Progress = Callable[[int, int, str], None]  # done, total, what is being done (or its figures)

LOGGER = logging.getLogger("spherescore")
SECONDS_BETWEEN_LINES = 10.0
SHARE_BETWEEN_LINES = 0.2  # of the time that a stage has taken: long ones speak more rarely
DETAIL = {"detail": True}  # `extra` of lines that files keep, and people see with --verbose


def for_people(record: logging.LogRecord) -> bool:
    """Whether people see a line who have not asked for all: a filter of handlers."""
    return not getattr(record, "detail", False)


class Display(Protocol):
    """Who is told of the stages of a run, such as a terminal (flows.cli.console)."""

    def expects(self, seconds: Mapping[str, float | None]) -> None:
        """The stages that are to be run, and what each will take as far as that is known."""

    def begins(self, stage: str) -> None: ...

    def shows(self, stage: str, done: int, total: int, text: str) -> None: ...

    def ends(self, stage: str, figures: Mapping[str, Any], *, skipped: bool) -> None: ...


_display: ContextVar[Display | None] = ContextVar("display", default=None)


def display() -> Display | None:
    """The display that is shown now, if any."""
    return _display.get()


@contextmanager
def shown_on(one: Display) -> Iterator[None]:
    """Show stages that run meanwhile on a display, in the place of lines."""
    token = _display.set(one)
    try:
        yield
    finally:
        _display.reset(token)


@contextmanager
def stage_progress(stage: str, *listeners: Progress) -> Iterator[Progress]:
    """A `progress` for one stage, shown to who watches and passed on to `listeners`."""
    watching = display()
    show = _line(stage)
    if watching is not None:
        watching.begins(stage)

    def progress(done: int, total: int, text: str) -> None:
        if watching is None:
            show(done, total, text)
        else:
            watching.shows(stage, done, total, text)
        for listener in listeners:
            listener(done, total, text)

    yield progress


def at_intervals(seconds: float, tell: Progress, *, share: float = 0.0) -> Progress:
    """Pass on the first report, the last one, and those in between not more often than this.

    Args:
        share: Of the time since the first report, which has to pass as well between two.
    """
    began, last = time.monotonic(), -float("inf")

    def progress(done: int, total: int, text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if done >= total or now - last >= max(seconds, share * (now - began)):
            last = now
            tell(done, total, text)

    return progress


def _line(stage: str) -> Progress:
    def show(done: int, total: int, text: str) -> None:
        LOGGER.info("%s %d/%d %s", stage, done, total, text)

    return at_intervals(SECONDS_BETWEEN_LINES, show, share=SHARE_BETWEEN_LINES)
