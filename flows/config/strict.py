"""Strict tables: plain TOML values into frozen pydantic dataclasses, refused in whole sentences.

Nothing is guessed and nothing is dropped. An unknown key is refused with the nearest known one, a
value of the wrong kind with its key, its value and what was expected.
"""

import datetime
import difflib
import functools
import json
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, fields, is_dataclass
from typing import Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails

from flows.errors import ExitCode

T = TypeVar("T")
UNKNOWN = "unexpected_keyword_argument"
Path = tuple[int | str, ...]  # of a value in the tables

TABLE = ConfigDict(
    extra="forbid",
    strict=True,
    allow_inf_nan=False,
    use_attribute_docstrings=True,
    alias_generator=lambda name: _key_of(name),
    validate_by_name=True,
    validate_by_alias=True,
    field_title_generator=lambda name, _: _key_of(name),
)
KINDS = {
    "int": "a whole number",
    "float": "a finite number",
    "finite": "a finite number",
    "string": "a string",
    "bool": "true or false",
    "tuple": "a list",
    "dict": "a table",
    "dataclass": "a table",
}  # by how pydantic's types of errors begin


class ConfigError(ValueError):
    """A configuration that cannot be read: one line with the key, the value and the remedy."""

    exit_code = ExitCode.BAD_CONFIG


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def section(kind: type[T]) -> type[T]:
    """A frozen table of keys, each with its sentence below it; made by keywords or from a file."""
    made: Any = dataclass(frozen=True, kw_only=True, config=TABLE)(kind)
    checked = made.__init__

    @functools.wraps(checked)
    def __init__(self: Any, **values: Any) -> None:
        try:
            checked(self, **values)
        except ValidationError as error:
            raise _refusal(error, values, kind) from None

    made.__init__ = __init__
    return typing.cast(type[T], made)


def read_table(kind: type[T], table: object) -> T:
    """Build a section from a table of plain values, such as TOML or JSON have.

    Raises:
        ConfigError: If a key is unknown or missing, or a value is not of its kind.
    """
    try:
        read: T = adapter(typing.cast(Any, kind)).validate_json(
            json.dumps(table, default=_plain_date)
        )
        return read
    except ValidationError as error:
        raise _refusal(error, table, kind) from None


@functools.cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """How pydantic reads and describes a section."""
    return TypeAdapter(kind)


def nearest(name: object, known: Iterable[str]) -> str:
    """The end of a message: the known name that looks like this one, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(known)}" if known else ""


def plain(value: Any) -> Any:
    """The inverse of reading: sections, tuples and mappings as dicts and lists, for JSON."""
    if is_dataclass(value):
        return {_key_of(each.name): plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value


def _key_of(name: str) -> str:
    """The key of a field in a file; one that Python keeps for itself has a line after it."""
    return name.removesuffix("_")


def _plain_date(value: object) -> object:
    """TOML's dates are text; what else JSON does not have is no value of any key."""
    if type(value) is datetime.date:
        return value.isoformat()
    return dict(value) if isinstance(value, Mapping) else {"": repr(value)}


def _refusal(error: ValidationError, table: object, kind: type) -> ConfigError:
    """The first thing that is wrong, in the words of a configuration."""
    errors = _of_what_was_meant(error.errors(include_url=False), table)
    first = next((one for one in errors if one["type"] == UNKNOWN), errors[0])
    path, value = _place(first["loc"], table)
    if first["type"] == "value_error":
        return ConfigError(str(first["ctx"]["error"]))
    if first["type"] == UNKNOWN:
        known = nearest(path[-1], _keys(kind, path[:-1]))
        return ConfigError(f"{_dotted(path)} is not a known key{known}")
    if first["type"] == "missing" and isinstance(first["loc"][-1], str):
        return ConfigError(f"{_dotted((*path, first['loc'][-1]))} is missing; it has no default")
    if first["type"] in ("missing", "too_long"):
        words = f"{first.get('ctx', {}).get('max_length', 2)} entries, got {len(value)}:"
        return ConfigError(f"{_dotted(path)}: expected {words} {value!r}")
    if first["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", first["ctx"]["expected"])
        return ConfigError(f"{_dotted(path)}: expected one of {', '.join(choices)}, got {value!r}")
    expected = KINDS[first["type"].partition("_")[0]]
    return ConfigError(f"{_dotted(path)}: expected {expected}, got {value!r}")


def _of_what_was_meant(errors: Sequence[ErrorDetails], table: object) -> Sequence[ErrorDetails]:
    """Where a value has alternatives, what is wrong with the one that was meant: for a table with
    the table among them, for all else with the first."""
    loc = errors[0]["loc"]
    shared = next((n for n, part in enumerate(loc) if not _leads(part, _at(table, loc[:n]))), None)
    if shared is None or (shared == len(loc) - 1 and errors[0]["type"] in ("missing", UNKNOWN)):
        return errors
    others = [one for one in errors if one["loc"][:shared] == loc[:shared]]
    if not isinstance(_at(table, loc[:shared]), Mapping):
        return others[:1]
    return [one for one in others if one["loc"][shared] == others[-1]["loc"][shared]]


def _place(loc: Path, table: Any) -> tuple[Path, Any]:
    """The place of an error, and the value there, without names of types between the keys."""
    path: list[int | str] = []
    for part in loc:
        if _leads(part, table):
            path, table = [*path, part], table[part]
    return tuple(path), table


def _at(table: Any, path: Path) -> Any:
    return functools.reduce(lambda value, part: value[part], path, table)


def _leads(part: int | str, table: object) -> bool:
    if isinstance(part, int):
        return isinstance(table, list | tuple) and part < len(table)
    return isinstance(table, Mapping) and part in table


def _keys(kind: Any, path: Path) -> list[str]:
    """The keys that the section at a place may have."""
    for part in path:
        if isinstance(part, str):
            hint = typing.get_type_hints(kind)[part]
            kind = next(one for one in (hint, *typing.get_args(hint)) if is_dataclass(one))
    return [_key_of(each.name) for each in fields(kind)]


def _dotted(path: Path) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")
