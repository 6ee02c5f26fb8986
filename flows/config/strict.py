"""Strict tables: plain TOML values into frozen dataclasses, by their annotations.

Nothing is guessed and nothing is dropped. An unknown key is refused with the nearest known one, a
value of the wrong kind with its key, its value and what was expected. Accepted annotations: bool,
int, float, str, Literal, `tuple[T, ...]`, `tuple[T, U]`, `Mapping[str, T]`, `T | U | None`, and a
dataclass of such fields.
"""

import dataclasses
import datetime
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from flows.errors import ExitCode

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration that cannot be read: one line with the key, the value and the remedy."""

    exit_code = ExitCode.BAD_CONFIG


def read_table(kind: type[T], table: object, key: str = "") -> T:
    """Build a frozen dataclass from a table of plain values.

    Args:
        kind: The dataclass; its defaults apply to keys that are absent.
        table: A mapping from field names to plain values.
        key: Dotted place of the table, for messages; "" is the document itself.
    Raises:
        ConfigError: If a key is unknown or missing, or a value is not of its field's kind.
    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"{key}: expected a table, got {table!r}")
    fields = {key_of(field): field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in table:
        if name not in fields:
            raise ConfigError(f"{_dotted(key, name)} is not a known key{nearest(name, fields)}")
    hints = typing.get_type_hints(kind)
    values = {}
    for name, field in fields.items():
        hint = hints[field.name]
        if name in table:
            values[field.name] = read_value(hint, table[name], _dotted(key, name))
        elif _has_default(field):
            continue
        elif dataclasses.is_dataclass(hint):
            table_of = typing.cast(type, hint)
            values[field.name] = read_table(table_of, {}, _dotted(key, name))
        else:
            raise ConfigError(f"{_dotted(key, name)} is missing; it has no default")
    return kind(**values)


def read_value(kind: Any, value: object, key: str) -> Any:
    """Accept one plain value as `kind`; an integer passes for a float, a TOML date for a string."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return read_table(typing.cast(type, kind), value, key)
    if origin is Literal:
        if value in arguments:
            return value
        choices = ", ".join(str(choice) for choice in arguments)
        raise ConfigError(f"{key}: expected one of {choices}, got {value!r}")
    if origin in (types.UnionType, typing.Union):
        return _read_union(arguments, value, key)
    if origin is tuple and isinstance(value, list | tuple):
        return _read_tuple(arguments, value, key)
    if origin is not None and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {
            str(name): read_value(arguments[1], item, _dotted(key, name))
            for name, item in value.items()
        }
    if kind is str and type(value) is datetime.date:
        return value.isoformat()
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
    elif kind in (str, int, bool) and type(value) is kind:
        return value
    raise ConfigError(f"{key}: expected {_spoken(kind)}, got {value!r}")


def key_of(field: "dataclasses.Field[Any]") -> str:
    """The key of a field in a file; one that Python keeps for itself has a line after it."""
    return field.name.removesuffix("_")


def nearest(name: object, known: Iterable[str]) -> str:
    """The end of a message: the known name that looks like this one, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(known)}" if known else ""


def plain(value: Any) -> Any:
    """The inverse of reading: dataclasses, tuples and mappings as dicts and lists, for JSON."""
    if dataclasses.is_dataclass(value):
        return {key_of(f): plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value


def _read_union(kinds: tuple[Any, ...], value: object, key: str) -> Any:
    refusals = []
    for kind in kinds:
        if kind is types.NoneType:
            continue
        try:
            return read_value(kind, value, key)
        except ConfigError as refusal:
            refusals.append(refusal)
    # A table was meant for the table among the alternatives: its message is the helpful one.
    raise refusals[-1] if isinstance(value, Mapping) else refusals[0]


def _read_tuple(kinds: tuple[Any, ...], value: Sequence[object], key: str) -> Any:
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise ConfigError(f"{key}: expected {len(kinds)} entries, got {len(value)}: {value!r}")
    return tuple(
        read_value(kind, item, f"{key}[{index}]")
        for index, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _spoken(kind: Any) -> str:
    if typing.get_origin(kind) is not None:
        return "a list" if typing.get_origin(kind) is tuple else "a table"
    return {str: "a string", int: "a whole number", float: "a finite number"}.get(
        kind, "true or false"
    )


def _has_default(field: "dataclasses.Field[Any]") -> bool:
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing


def _dotted(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)
