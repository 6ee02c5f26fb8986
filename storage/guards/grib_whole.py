"""GRIB files: whether every message is whole. eccodes passes over one that is cut."""

from __future__ import annotations

from pathlib import Path

__all__ = ["require_whole_messages"]

_BEGIN, _END = b"GRIB", b"7777"
_HEAD, _PADDING = 16, 1 << 16
_LONG = 0x800000  # GRIB 1: the length is in another unit


def require_whole_messages(file: Path) -> None:
    """Raises ValueError for a message that ends before it should."""
    length = file.stat().st_size
    with file.open("rb") as stream:
        at, number = 0, 0
        while at < length:
            stream.seek(at)
            between = stream.read(_PADDING)
            found = between.find(_BEGIN)
            if found < 0:
                if at + len(between) >= length:
                    return
                at += len(between) - len(_BEGIN) + 1
                continue
            at, number = at + found, number + 1
            stream.seek(at)
            size = _size(stream.read(_HEAD))
            if size is not None:
                stream.seek(at + max(size - len(_END), 0))
                if at + size > length or stream.read(len(_END)) != _END:
                    raise ValueError(
                        f"message {number} at byte {at} should have {size} bytes and does not end "
                        f"there; the file has {length}"
                    )
            at += size or len(_BEGIN)


def _size(head: bytes) -> int | None:
    if len(head) < _HEAD:
        return 1 << 62
    if head[7] == 1:
        size = int.from_bytes(head[4:7], "big")
        return None if size & _LONG else max(size, 1)
    return max(int.from_bytes(head[8:16], "big"), 1)
