"""How a run ends before its time: exit codes, a full disk however deep, errors that another process
met, signals."""

import errno
from collections.abc import Iterator
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT)
NO_SPACE, NO_STORAGE, NO_MEMORY = 30, 31, 41


class Relayed(RuntimeError):
    """An error of another process: what it said, and the exit code of its cause."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.exit_code)


class WorkersLost(RuntimeError):
    """Workers died, more often than is retried, or never came."""

    exit_code = 40


class Stalled(RuntimeError):
    """Nothing was heard of a unit or of a child within its deadline."""

    exit_code = 43


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM: contexts are left in order, so workers and servers end with us."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def exit_code_of(error: BaseException) -> int:
    """Its own `exit_code`; that of a full or failing disk or of a lack of memory; else 1."""
    code = getattr(error, "exit_code", None)
    if code is not None:
        return int(code)
    if isinstance(error, OSError):
        return NO_SPACE if error.errno in FULL else NO_STORAGE
    return NO_MEMORY if isinstance(error, MemoryError) else 1


def is_full_disk(error: BaseException) -> bool:
    """Whether it, or what it came from, says that there is no space."""
    return any(exit_code_of(one) == NO_SPACE for one in _origins(error))


def _origins(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()  # an error raised again out of what it caused comes back to itself
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
