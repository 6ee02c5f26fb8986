"""GRIB files: how many fields they have, and whether every message is whole.

eccodes passes over a message that is cut.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

__all__ = ["require_whole_messages"]

_BEGIN, _END = b"GRIB", b"7777"
_HEAD, _PADDING = 16, 1 << 16
_SECTION, _DATA = 5, 7  # bytes that begin a section of GRIB 2; the number of the one with values
_LONG = 0x800000  # GRIB 1: the length is in another unit


def require_whole_messages(file: Path) -> int:
    """How many fields there are: a message of GRIB 2 may have several.

    Raises:
        ValueError: For a message that ends before it should.
    """
    length = file.stat().st_size
    with file.open("rb") as stream:
        at, number, fields = 0, 0, 0
        while at < length:
            stream.seek(at)
            between = stream.read(_PADDING)
            found = between.find(_BEGIN)
            if found < 0:
                if at + len(between) >= length:
                    return fields
                at += len(between) - len(_BEGIN) + 1
                continue
            at, number = at + found, number + 1
            stream.seek(at)
            head = stream.read(_HEAD)
            size = _size(head)
            if size is not None:
                stream.seek(at + max(size - len(_END), 0))
                if at + size > length or stream.read(len(_END)) != _END:
                    raise ValueError(
                        f"message {number} at byte {at} should have {size} bytes and does not end "
                        f"there; the file has {length}"
                    )
            fields += _fields(stream, at, size) if size is not None and head[7] == 2 else 1
            at += size or len(_BEGIN)
    return fields


def _fields(stream: BinaryIO, start: int, size: int) -> int:
    """The data sections of a message of GRIB 2, of which each is a field."""
    at, found = start + _HEAD, 0
    while at + _SECTION <= start + size:
        stream.seek(at)
        head = stream.read(_SECTION)
        if head[:4] == _END or len(head) < _SECTION:
            break
        found += head[4] == _DATA
        at += max(int.from_bytes(head[:4], "big"), _SECTION)
    return max(found, 1)


def _size(head: bytes) -> int | None:
    if len(head) < _HEAD:
        return 1 << 62
    if head[7] == 1:
        size = int.from_bytes(head[4:7], "big")
        return None if size & _LONG else max(size, 1)
    return max(int.from_bytes(head[8:16], "big"), 1)
