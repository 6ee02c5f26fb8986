"""Content keys: the identity of an artifact before it is made.

A key is the sha256 of canonical JSON of everything that can change the result: the stage and its
schema version, the config subset it reads, the digests of its inputs, the digest of its code.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import date
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

_HOUSE = ("pipeline", "storage", "flows")
_FILE_NAME = re.compile(r"(?:[\w-]+/)*[\w-]+\.[\w.]+")
_BLOCKS = (ast.mod, ast.stmt, ast.excepthandler, ast.match_case)  # what holds statements, or is one
_PARSING = threading.Lock()


def canonical_json(value: object) -> str:
    """One text for one value: keys sorted, no blanks, shortest exact floats.

    Dataclasses read as mappings, tuples as lists, dates as ISO text.

    Raises:
        TypeError: For anything else than plain values, and for keys that are not text.
        ValueError: For floats that are not finite.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_key(
    *, stage: str, schema: int, config: object, inputs: Mapping[str, str], code: str
) -> str:
    """The content key of an artifact, 64 hex digits.

    Args:
        stage: Name of the stage that makes it.
        schema: Version of the artifact's schema.
        config: The subset of the configuration that the stage reads, and nothing else.
        inputs: Digest of every artifact or file that it reads, by name.
        code: `code_digest` of the modules that compute it.
    """
    subject = {
        "stage": stage,
        "schema": schema,
        "config": config,
        "inputs": dict(inputs),
        "code": code,
    }
    return hashlib.sha256(canonical_json(subject).encode()).hexdigest()


def code_digest(module_names: Iterable[str], beyond: Iterable[str] = ()) -> str:
    """Digest of the programs of the named modules and of all that they import of the house.

    What is hashed is the program: neither comments, docstrings and layout count, nor what a module
    is called and where it lies. A file beside a module that it names in a text of its own (a style
    sheet, a coastline) counts as it does.

    Args:
        module_names: Where to begin.
        beyond: Modules, or packages with all that is in them, that are not followed: what they do
            is no part of what is computed.
    """
    outside, known, pending = tuple(beyond), dict[str, _Module](), list(module_names)
    while pending:
        name = pending.pop()
        if name not in known and not _is_within(name, outside):
            known[name] = _read(name, _source(name).read_text(encoding="utf-8"))
            pending.extend(one.module for one in known[name].imports)
    programs = []
    for module in known.values():
        brought = sorted(
            f"{known[one.module].program if one.module in known else ''} {one.name} {one.bound}"
            for one in module.imports
        )
        digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in module.files]
        programs.append(canonical_json([module.program, brought, digests]))
    return hashlib.sha256(canonical_json(sorted(programs)).encode()).hexdigest()


@dataclass(frozen=True)
class _Import:
    """A name that a module has from the house: of a module (name "") or of something in it."""

    module: str
    name: str
    bound: str


def _is_within(name: str, packages: tuple[str, ...]) -> bool:
    return any(f"{name}.".startswith(f"{one}.") for one in packages)


@dataclass(frozen=True)
class _Module:
    """What a module takes from the house, the digest of its program, the files that it names."""

    imports: tuple[_Import, ...]
    program: str
    files: tuple[Path, ...]


@cache
def _read(name: str, text: str) -> _Module:
    tree = _parsed(text)
    nodes, file = list(ast.walk(tree)), _source(name)
    blocks = [node for node in nodes if isinstance(node, _BLOCKS)]
    for node in blocks:
        _drop_docstring(node)
    imports = tuple(_imports(blocks, name, file))
    files = tuple(_files_named(nodes, file.parent))
    for node in blocks:
        _drop_imports(node)
    return _Module(imports, hashlib.sha256(ast.unparse(tree).encode()).hexdigest(), files)


def _files_named(nodes: Iterable[ast.AST], directory: Path) -> Iterable[Path]:
    """Files beside a module that it names in a text which is no docstring."""
    texts = {
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value
    }
    for text in sorted(texts):
        if _FILE_NAME.fullmatch(text) and (directory / text).is_file():
            yield directory / text


def _drop_docstring(node: ast.AST) -> None:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        first = node.body[0] if node.body else None
        said = first.value if isinstance(first, ast.Expr) else None
        if isinstance(said, ast.Constant) and isinstance(said.value, str):
            node.body[0] = ast.Pass()
            said.value = ""


def _drop_imports(node: ast.AST) -> None:
    """Leave out imports of the house: they are told by what they bring."""
    for field in ("body", "orelse", "finalbody"):
        block = getattr(node, field, None)
        if isinstance(block, list) and any(map(_is_ours, block)):
            kept = [one for one in block if not _is_ours(one)]
            setattr(node, field, kept or ([ast.Pass()] if field == "body" else []))


def _is_ours(statement: ast.AST) -> bool:
    if isinstance(statement, ast.ImportFrom):
        return bool(statement.level) or (statement.module or "").split(".")[0] in _HOUSE
    return isinstance(statement, ast.Import) and statement.names[0].name.split(".")[0] in _HOUSE


def _parsed(text: str) -> ast.Module:
    """Parse again where `ast.parse` of Python 3.11 fails because another thread runs meanwhile."""
    with _PARSING:
        for _ in range(20):
            try:
                return ast.parse(text)
            except SystemError:
                continue
        return ast.parse(text)


def _plain(value: object) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, date):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        strangers = [key for key in value if not isinstance(key, str)]
        if strangers:
            raise TypeError(f"canonical JSON has text keys only; got {strangers[0]!r}")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    raise TypeError(f"no canonical JSON for {type(value).__name__}: {value!r}")


def _source(module: str) -> Path:
    spec = _spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"no source file for module {module!r}; cannot digest its code")
    return Path(spec.origin)


def _imports(nodes: Iterable[ast.AST], importer: str, file: Path) -> Iterable[_Import]:
    package = importer if file.name == "__init__.py" else importer.rpartition(".")[0]
    for node in nodes:
        if isinstance(node, ast.Import):
            brought = [_Import(one.name, "", one.asname or "") for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join(parents if node.level else [])
            origin = ".".join(part for part in (base, node.module or "") if part)
            brought = [
                _Import(inner, "", one.asname or one.name)
                if origin.split(".")[0] in _HOUSE and _is_module(inner := f"{origin}.{one.name}")
                else _Import(origin, one.name, one.asname or one.name)
                for one in node.names
            ]
        else:
            continue
        yield from (
            one for one in brought if one.module.split(".")[0] in _HOUSE and _is_module(one.module)
        )


def _is_module(name: str) -> bool:
    spec = _spec(name)
    return spec is not None and spec.origin is not None


def _spec(name: str) -> ModuleSpec | None:
    """As `find_spec`, which imports what a name is part of, be it a module slow to import."""
    parent, _, _ = name.rpartition(".")
    if not parent:
        return find_spec(name)
    above = _spec(parent)
    places = above.submodule_search_locations if above else None
    return PathFinder.find_spec(name, places) if places else None
