"""docs/configuration.md, made of the schema: each key, what it may be, its default and text."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from flows.config.schema import RunConfig
from flows.config.strict import adapter

__all__ = ["page"]

HEAD = """# The configuration of a run

One TOML file, read strictly: an unknown key is refused with the nearest known one, a wrong value
with its key and what was expected. `spherescore init FILES` writes a first one. The same schema is
the form in Prefect's UI. A key without a default has to be written. Paths are relative to the
working directory, or begin with `~`.

This page is made of the schema (`make configuration`)."""

Schema = Mapping[str, Any]


def page() -> str:
    """The page, a table for each section."""
    schema = adapter(RunConfig).json_schema()
    parts = [HEAD]
    for name, known in schema["properties"].items():
        parts += _section(name, _followed(known, schema), known["description"], schema)
    return "\n".join(parts) + "\n"


def _section(
    name: str, section: Schema, text: str, schema: Schema, head: str = ""
) -> Iterator[str]:
    head = head or f"[{name}]"
    yield f"\n## `{head}`\n\n{text}\n\n| key | value | default | |\n|---|---|---|---|"
    tables: dict[str, tuple[Schema, bool]] = {}
    for key, known in section["properties"].items():
        for one in (known, known.get("items", {}), *known.get("anyOf", ())):
            if "$ref" in one:
                listed = known.get("type") == "array"
                tables[f"{name}.{key}"] = _followed(one, schema), listed
        default = _default(key, known, section)
        yield f"| `{key}` | {_kind(known)} | {default} | {known['description'].replace('|', '/')} |"
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
    return "none" if value in (None, "", [], {}) else f"`{json.dumps(value)}`"


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
