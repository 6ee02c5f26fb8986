"""Every key of a configuration, made of the schema: what it may be, its default and its sentence.

As a page, docs/configuration.md, and as the lines of `spherescore keys`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows.config.schema import RunConfig
from flows.config.strict import ConfigError, adapter, nearest

__all__ = ["Key", "Section", "lines", "page", "sections"]

HEAD = """# The configuration of a run

One TOML file, read strictly: an unknown key is refused with the nearest known one, a wrong value
with its key and what was expected. `spherescore init FILES` writes a first one. The same schema is
the form in Prefect's UI. A key without a default has to be written. Paths are relative to the
working directory, or begin with `~`.

This page is made of the schema (`make configuration`)."""

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Key:
    """A key: its name, what it may be, its default as TOML has it, and its sentence."""

    name: str
    kind: str
    default: str
    text: str


@dataclass(frozen=True)
class Section:
    """A table of the file: its dotted name, its head there, its sentence and its keys."""

    name: str
    head: str
    text: str
    keys: tuple[Key, ...]


def page() -> str:
    """The page, a table for each section."""
    parts = [HEAD]
    for section in sections():
        head = f"\n## `{section.head}`\n\n{section.text}\n"
        parts.append(f"{head}\n| key | value | default | |\n|---|---|---|---|")
        for key in section.keys:
            default = "none" if key.default == "none" else f"`{key.default}`" * bool(key.default)
            text = key.text.replace("|", "/")
            parts.append(f"| `{key.name}` | {key.kind} | {default} | {text} |")
    return "\n".join(parts) + "\n"


def lines(wanted: Sequence[str] = ()) -> Iterator[str]:
    """All keys for a terminal, or those of some sections or with some words in their names.

    Raises:
        ConfigError: If there is no such key.
    """
    found, names = False, []
    for section in sections():
        keys = [key for key in section.keys if _is_wanted(section, key, wanted)]
        names += [section.name, *(f"{section.name}.{key.name}" for key in section.keys)]
        if not keys:
            continue
        yield from ([""] if found else [])
        yield f"{section.head}  {section.text}"
        for key in keys:
            default = f", {key.default} by default" if key.default not in ("", "none") else ""
            needed = "" if key.default else ", needed"
            yield f"  {key.name:<14} {key.text}"
            yield f"  {'':<14} {key.kind.replace('`', '')}{default}{needed}"
        found = True
    if not found:
        raise ConfigError(f"there is no key {wanted[0]!r}{nearest(wanted[0], names)}")


def _is_wanted(section: Section, key: Key, wanted: Sequence[str]) -> bool:
    name = f"{section.name}.{key.name}"
    return not wanted or any(one in (section.name, key.name, name) for one in wanted)


def sections() -> Iterator[Section]:
    """The sections in their order, tables in a section after it."""
    schema = adapter(RunConfig).json_schema()
    for name, known in schema["properties"].items():
        yield from _section(name, _followed(known, schema), known["description"], schema)


def _section(
    name: str, section: Schema, text: str, schema: Schema, head: str = ""
) -> Iterator[Section]:
    tables: dict[str, tuple[Schema, bool]] = {}
    keys = []
    for key, known in section["properties"].items():
        for one in (known, known.get("items", {}), *known.get("anyOf", ())):
            if "$ref" in one:
                listed = known.get("type") == "array"
                tables[f"{name}.{key}"] = _followed(one, schema), listed
        default = _default(key, known, section)
        keys.append(Key(key, _kind(known), default, known["description"]))
    yield Section(name, head or f"[{name}]", text, tuple(keys))
    for key, (table, listed) in tables.items():
        title = f"[[{key}]]" if listed else f"[{key}]"
        yield from _section(key, table, table.get("description", ""), schema, title)


def _followed(known: Schema, schema: Schema) -> Schema:
    found: Schema = schema["$defs"][known["$ref"].rpartition("/")[2]]
    return found


def _default(key: str, known: Schema, section: Schema) -> str:
    if key in section.get("required", ()):
        return ""
    value = known.get("default")
    return "none" if value in (None, "", [], {}) else json.dumps(value)


def _kind(known: Schema) -> str:
    """What a value may be, in words; alternatives one after the other."""
    if "$ref" in known:
        return "a table"
    if "anyOf" in known:
        kinds = [_kind(one) for one in known["anyOf"] if one.get("type") != "null"]
        return ", or ".join(dict.fromkeys(kinds))
    if "enum" in known or "const" in known:
        return ", ".join(f'`"{choice}"`' for choice in known.get("enum", [known.get("const")]))
    if known["type"] == "array":
        return f"{'pair' if known.get('maxItems') == 2 else 'list'} of {_kind(known['items'])}"
    if known["type"] == "object":
        return f"by name, {_kind(known['additionalProperties'])}"
    return {"string": "text", "integer": "whole number", "number": "number"}.get(
        known["type"], "`true` or `false`"
    )
