"""SIGINT and SIGTERM win: a run that gets one ends within seconds, whatever it is doing.

The first signal raises `Interrupted` in the main thread, so that contexts are left in order. But a
terminal, `timeout`, systemd and Slurm signal the whole process group: Prefect's embedded server
goes, too, its client waits for it, and raises an error of its own in the place of ours. So a run is
also `ending_within`: a thread hears every signal, whoever has taken the handler over, and ends the
process when its time is up. What the run has started is then ended by its watchdog.
"""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from flows.errors import Interrupted

__all__ = [
    "caught",
    "ending_within",
    "handlers_kept",
    "held_back",
    "hurry",
    "raise_if_caught",
    "take_over",
]

NUMBERS = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 20.0  # Slurm and Kubernetes leave 30 s between SIGTERM and SIGKILL
HURRY = 3.0  # to libraries that tell servers of the end
ECHO = 1.0  # `timeout` signals its child, and at once the group of its child

_TAKEN: list[bool] = []  # whether this process has taken signals over
_CAUGHT: list[int] = []  # of this process, the first one first
_DEADLINES: list[float] = []  # the earliest one counts
_HANDLED: list[float] = []  # when the main thread was told
_AGAIN: list[int] = []  # signals that are ours: the exception of the first one was lost


def take_over() -> None:
    """From now on SIGINT and SIGTERM raise `Interrupted` in the main thread.

    One that strikes a finalizer, where Python drops exceptions, is raised again.
    """
    for number in NUMBERS:
        signal.signal(number, _interrupt)
    if _TAKEN:
        return
    _TAKEN.append(True)
    before = sys.unraisablehook

    def raise_again(lost: "sys.UnraisableHookArgs") -> None:
        if not isinstance(lost.exc_value, Interrupted):
            before(lost)
            return
        number = lost.exc_value.args[0]
        _HANDLED.clear()
        _AGAIN.append(number)
        main = threading.main_thread().ident
        assert main is not None
        threading.Timer(0.05, signal.pthread_kill, [main, number]).start()

    sys.unraisablehook = raise_again


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Where `take_over` was called, signals raise `Interrupted` within the block, whoever else has
    put handlers in place since: Prefect does, for SIGTERM, while a flow runs."""
    main = threading.current_thread() is threading.main_thread()
    if not main or not _TAKEN:
        yield
        return
    theirs = {number: signal.signal(number, _interrupt) for number in NUMBERS}
    try:
        yield
    finally:
        for number, handler in theirs.items():
            signal.signal(number, handler)


def caught() -> int | None:
    """The first signal that this process was sent, if any."""
    return _CAUGHT[0] if _CAUGHT else None


def raise_if_caught(error: BaseException) -> None:
    """Raise the interruption that `error` came from or has hidden.

    Raises:
        Interrupted: If there was a signal.
    """
    if _CAUGHT:
        raise Interrupted(_CAUGHT[0]) from error


def hurry() -> None:
    """After a signal, once all that is ours is left in order: little time to what is not."""
    if _CAUGHT:
        _DEADLINES.append(time.monotonic() + HURRY)


@contextmanager
def ending_within(seconds: float, last_words: Callable[[int], object]) -> Iterator[None]:
    """Once a signal has come, this process ends after so many seconds at the latest.

    It ends at once when a second signal comes later than an echo of the first. To be entered in
    the main thread. The deadline holds after the block, too, until the interpreter has ended.

    Args:
        last_words: Called with the number of the signal before the process is ended in this way.
    """
    hearing, telling = os.pipe()
    os.set_blocking(telling, False)
    before = signal.set_wakeup_fd(telling, warn_on_full_buffer=False)
    listener = threading.Thread(target=_listen, args=(hearing, seconds, last_words), daemon=True)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(telling)  # the listener goes, but for one that counts the seconds


@contextmanager
def held_back() -> Iterator[None]:
    """Hold signals back until the block is left: what is half started cannot be closed.

    Threads and processes that are started meanwhile have SIGINT blocked for ever: Ctrl-C is for
    the process that has started them, and that ends them in order.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, frame: waiting.append(number))
        for number in NUMBERS
    }
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if waiting and callable(handler := handlers[signal.Signals(waiting[0])]):
            handler(waiting[0], None)
        elif waiting:
            signal.raise_signal(waiting[0])


def _interrupt(number: int, frame: object) -> None:
    _CAUGHT.append(number)
    _HANDLED.append(time.monotonic())
    if len(_HANDLED) == 1 or _HANDLED[-1] - _HANDLED[-2] > ECHO:
        raise Interrupted(number)


def _listen(hearing: int, seconds: float, last_words: Callable[[int], object]) -> None:
    """Wait for a signal, and then for the deadline or a second signal."""
    with suppress(OSError):
        while (number := _heard(hearing)) not in NUMBERS:
            if number == 0:
                os.close(hearing)
                return
    assert number is not None
    first = time.monotonic()
    _CAUGHT.append(number)
    _DEADLINES.append(first + seconds)
    told = True
    while (now := time.monotonic()) < min(_DEADLINES):
        if not told:
            time.sleep(0.1)
            continue
        if select.select([hearing], [], [], 0.1)[0]:
            again = _heard(hearing)
            told = again != 0
            if again in NUMBERS and _AGAIN:
                _AGAIN.pop()
            elif again in NUMBERS and now - first > ECHO:
                break
    last_words(number)
    os._exit(128 + number)


def _heard(hearing: int) -> int:
    """The number of a signal; 0 when nobody tells any more."""
    return next(iter(os.read(hearing, 1)), 0)
