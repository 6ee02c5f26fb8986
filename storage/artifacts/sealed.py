"""JSON files: plain ones, and sealed ones, which hold the digest of the rest of themselves."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from storage.errors import CorruptFile
from storage.places.files import beside_of, write_file
from storage.places.places import BucketPath, Place

_SEAL = "sha256 of the rest"


def write_json(path: Place, value: object) -> None:
    write_file(path, json_bytes(value))


def read_json(path: Place) -> dict[str, Any]:
    """Raises ValueError if the file does not hold one JSON object."""
    value = json.loads(path.read_bytes())
    if not isinstance(value, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    return value


def json_bytes(value: object) -> bytes:
    """The bytes that `write_json` writes."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode()


def write_sealed(path: Place, value: Mapping[str, Any], *, durably: bool = True) -> None:
    """Replace a JSON file with a table and the digest of it; `read_sealed` knows its own bytes.

    Args:
        durably: False does not wait for the disk: after a crash the file may not be readable.
    """
    content = _sealed_bytes(value)
    if durably or isinstance(path, BucketPath):
        write_file(path, content)
    else:
        beside = beside_of(path)
        beside.write_bytes(content)
        os.replace(beside, path)


def read_sealed(path: Place) -> dict[str, Any]:
    """The table that `write_sealed` wrote.

    Raises:
        CorruptFile: If a single byte of the file is another.
    """
    content = path.read_bytes()
    try:
        value: dict[str, Any] = json.loads(content)
        value.pop(_SEAL)
        whole = _sealed_bytes(value) == content
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise CorruptFile(f"{path} is not what was written: its seal does not match")
    return value


def _sealed_bytes(value: Mapping[str, Any]) -> bytes:
    return json_bytes({**value, _SEAL: hashlib.sha256(json_bytes(value)).hexdigest()})
