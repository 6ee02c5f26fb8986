"""What sections ask of their values at birth, refused in one kind of sentence."""

import os
import re

from flows.config.strict import ConfigError

__all__ = ["expanded", "require", "require_day", "set_values"]


def set_values(made: object, **values: object) -> None:
    """Values in their normal form, at birth."""
    for name, value in values.items():
        object.__setattr__(made, name, value)


def require(condition: bool, key: str, value: object, expected: str) -> None:
    if not condition:
        raise ConfigError(f"{key}: expected {expected}, got {value!r}")


def require_day(day: str, key: str) -> None:
    # Not datetime.date: calendars of 360 days have a 30 February.
    match = re.fullmatch(r"\d{4}-(\d{2})-(\d{2})", day)
    valid = match is not None and 1 <= int(match[1]) <= 12 and 1 <= int(match[2]) <= 31
    require(valid, key, day, 'a date like "2002-07-15"')


def expanded(path: str, key: str) -> str:
    """A path with `~` in the place of a home directory expanded; all others as they are.

    Raises:
        ConfigError: If there is no such home directory.
    """
    found = os.path.expanduser(path)
    if found.startswith("~"):
        raise ConfigError(
            f"{key}: {path.partition('/')[0]} is no home directory of this machine; write the path "
            f"in full, or ./{path} for a directory of that name"
        )
    return found
