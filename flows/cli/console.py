"""What a person at a terminal sees of a run: a line for each stage, which fills.

 ✓ ingest      ━━━━━━━━━━━━━━━━━━━━━━━━  times 1096, variables 5              5 s
 ▸ train       ━━━━━━━━━╸                212 of 709, loss 0.41          1.8 of about 6 min
 · generate                                                              about 6 s

Marks differ in shape, not in colour alone. Lines of the log are printed above; NO_COLOR and
TERM=dumb are heard.
"""

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flows.plan.plan import duration
from flows.progress import for_people, shown_on

WIDTH = 24  # of a bar
REFRESHED = 4  # times in a second
MARKS = {"waits": "·", "works": "▸", "done": "✓", "up to date": "="}


@dataclass
class _Line:
    """One stage.

    Attributes:
        state: One of `MARKS`.
        share: Done of it, in [0, 1].
        words: What is being done, or what came of it.
        expected: Seconds that it will take, if that is known.
        began, took: Seconds of a clock; that the stage took.
    """

    state: str = "waits"
    share: float = 0.0
    words: str = ""
    expected: float | None = None
    began: float = 0.0
    took: float | None = None


class Terminal:
    """The display of a run (flows.progress.Display)."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}

    def expects(self, seconds: Mapping[str, float | None]) -> None:
        for stage, one in seconds.items():
            self._line(stage).expected = one

    def begins(self, stage: str) -> None:
        line = self._line(stage)
        line.state, line.began = "works", time.monotonic()

    def shows(self, stage: str, done: int, total: int, text: str) -> None:
        line = self._line(stage)
        line.share = done / max(total, 1)
        line.words = text if done >= total else f"{done} of {total}, {text}"

    def ends(self, stage: str, figures: Mapping[str, Any], *, skipped: bool) -> None:
        line = self._line(stage)
        line.state, line.share = ("up to date" if skipped else "done"), 1.0
        line.took = None if skipped else time.monotonic() - line.began
        line.words = ", ".join(
            f"{name} {value}" for name, value in figures.items() if not isinstance(value, dict)
        )

    def __rich__(self) -> Table:
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, min_width=10)
        table.add_column(width=WIDTH)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column(no_wrap=True, justify="right")
        for stage, line in self._lines.items():
            style = {"waits": "dim", "works": "bold"}.get(line.state, "")
            table.add_row(
                Text(f" {MARKS[line.state]}", "green" if line.state == "done" else style),
                Text(stage, style),
                "" if line.state == "waits" else ProgressBar(1.0, line.share, width=WIDTH),
                Text(line.words),
                Text(_time_of(line), style),
            )
        return table

    def _line(self, stage: str) -> _Line:
        return self._lines.setdefault(stage, _Line())


def _time_of(line: _Line) -> str:
    if line.state == "up to date":
        return "up to date"
    if line.took is not None:
        return duration(line.took)
    about = "" if line.expected is None else f"about {duration(line.expected)}"
    if line.state == "waits":
        return about
    spent = duration(time.monotonic() - line.began)
    return f"{spent} of {about}" if about else spent


@contextmanager
def shown(logger: logging.Logger) -> Iterator[None]:
    """Show the stages of a run on the terminal of stderr, and warnings above them.

    Lines of less weight go to the files of `logger` alone. Where stderr is no terminal, or one
    that cannot move its cursor, nothing is changed.
    """
    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        yield
        return
    terminal = Terminal()
    handler = _Above(console)
    kept = logger.handlers
    logger.handlers = [handler, *(one for one in kept if not _is_stream(one))]
    try:
        with (
            Live(terminal, console=console, refresh_per_second=REFRESHED, redirect_stdout=False),
            shown_on(terminal),
        ):
            console.show_cursor(True)  # whoever ends us at once has it
            yield
    finally:
        logger.handlers = kept


@contextmanager
def lines(logger: logging.Logger) -> Iterator[None]:
    """Write the lines that people get to stderr: for notebooks, where nothing else is seen."""
    handler, level = logging.StreamHandler(), logger.level
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    handler.addFilter(for_people)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Above(logging.Handler):
    """Prints warnings above what is shown."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(Text(self.format(record)), highlight=False)


def _is_stream(handler: logging.Handler) -> bool:
    return type(handler) is logging.StreamHandler and handler.stream is sys.stderr
