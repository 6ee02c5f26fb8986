"""How a run ends before its time: exit codes, a full disk however deep, errors that another process
met, signals."""

import errno
import socket
import traceback
from collections.abc import Iterator
from enum import IntEnum
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT)
HOUSE = ("flows", "pipeline", "storage")
UNREACHED = (
    *(errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.ENETDOWN, errno.ENETUNREACH),
    *(errno.EHOSTUNREACH, errno.ETIMEDOUT),
)


class ExitCode(IntEnum):
    """The numbers with which runs end; docs/reliability.md says what to do about each.

    Those of errors that files and stores raise are in storage/errors, or stand at their classes.
    """

    UNFORESEEN = 1
    BAD_CONFIG = 2
    INPUT_INVALID = 10
    INPUT_CHANGED = 11
    CORRUPT = 20
    INCOMPLETE = 21
    NAME_CONFLICT = 22
    NO_SPACE = 30
    NO_STORAGE = 31
    OUTCOME_UNKNOWN = 32
    NO_CONNECTION = 33
    WORKERS_LOST = 40
    NO_MEMORY = 41
    OTHER_CODE = 42
    STALLED = 43
    SERVICE_FAILED = 44
    NO_SERVER = 45
    NOT_DEPLOYED = 46
    DIVERGED = 50
    NOT_FINITE = 51
    REFUSED = 60
    INTERRUPTED = 130
    OUTPUT_CLOSED = 141
    TERMINATED = 143


class Relayed(RuntimeError):
    """An error of another process: what it said, and the exit code of its cause."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.exit_code)


class WorkersLost(RuntimeError):
    """Workers died, more often than is retried, or never came."""

    exit_code = ExitCode.WORKERS_LOST


class Stalled(RuntimeError):
    """Nothing was heard of a unit or of a child within its deadline."""

    exit_code = ExitCode.STALLED


class OutputClosed(RuntimeError):
    """The program that read our output has ended, as `head` does; nobody is left to be told."""

    exit_code = ExitCode.OUTPUT_CLOSED


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM: contexts are left in order, so workers and servers end with us."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def exit_code_of(error: BaseException) -> int:
    """Its own `exit_code`; of errors of the system that of what failed; else 1."""
    code = getattr(error, "exit_code", None)
    if code is not None:
        return int(code)
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return ExitCode.NO_MEMORY
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
        return ExitCode.NO_CONNECTION
    if isinstance(error, OSError):
        if error.errno in UNREACHED:
            return ExitCode.NO_CONNECTION
        return ExitCode.NO_SPACE if error.errno in FULL else ExitCode.NO_STORAGE
    return ExitCode.UNFORESEEN


def is_full_disk(error: BaseException) -> bool:
    """Whether it, or what it came from, says that there is no space."""
    return any(exit_code_of(one) == ExitCode.NO_SPACE for one in _origins(error))


def _origins(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()  # an error raised again out of what it caused comes back to itself
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def one_line(error: BaseException) -> str:
    """An error as a line that is never empty: without words of its own, where it happened."""
    text = "".join(
        c if c.isprintable() else f"\\x{ord(c):02x}" for c in " ".join(str(error).split())
    )
    if not text:
        what = "something took too long" if isinstance(error, TimeoutError) else "it says no more"
        text = f"{what}, in {_where(error)}; what is finished is safe, run again to go on"
        return f"{type(error).__name__}: {text}"
    named = hasattr(error, "exit_code") or isinstance(error, OSError)
    return text if named else f"{type(error).__name__}: {text}"


def _where(error: BaseException) -> str:
    """The innermost function of this house that it passed."""
    place = "an unknown place"
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] in HOUSE:
            place = f"{module}, {frame.f_code.co_name} (line {line})"
    return place
