"""Log lines of a process that nobody watches, handed to one that somebody does."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Tell = Callable[[logging.LogRecord], None]


@contextmanager
def lines_told(tell: Tell) -> Iterator[None]:
    """Tell all that this process logs meanwhile: our lines, and warnings of others."""
    logging.getLogger("spherescore").setLevel(logging.INFO)
    handler = _Teller(tell)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


class _Teller(logging.Handler):
    def __init__(self, tell: Tell) -> None:
        super().__init__(logging.INFO)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record)
