"""Classic NetCDF files (CDF-1, 2 and 5): whether all bytes that their header promises are there.

The library reads what a truncated file lacks as zeros.
"""

from __future__ import annotations

import os
from math import prod
from pathlib import Path
from typing import BinaryIO

__all__ = ["require_whole"]

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}  # of types
_DIMENSIONS, _VARIABLES, _ATTRIBUTES = 10, 11, 12
_MOST = 1 << 16  # dimensions, variables or attributes in one list


def require_whole(file: Path) -> None:
    """Raises ValueError if the file is a classic one that is shorter than it says, or no sense."""
    with file.open("rb") as stream:
        magic = stream.read(4)
        if magic[:3] == b"CDF" and magic[3:] in (b"\x01", b"\x02", b"\x05"):
            _Header(stream, magic[3]).require_whole()


class _Header:
    def __init__(self, stream: BinaryIO, version: int) -> None:
        self.stream = stream
        self.length = os.fstat(stream.fileno()).st_size
        self.wide, self.offset = (8 if version == 5 else 4), (4 if version == 1 else 8)

    def require_whole(self) -> None:
        streaming = (1 << 8 * self.wide) - 1
        records = self._number()
        sizes = []
        for _ in range(self._list(_DIMENSIONS)):
            self._name()
            sizes.append(self._number())
        self._skip_attributes()
        ends, record, single = [0], 0, 0
        starts = []
        for _ in range(self._list(_VARIABLES)):
            name = self._name()
            dims = [self._number() for _ in range(self._counted())]
            if any(dim >= len(sizes) for dim in dims):
                raise ValueError(f"{name} has a dimension that is not there")
            self._skip_attributes()
            kind = self._number(4)
            if kind not in _SIZES:
                raise ValueError(f"{name} has the unknown type {kind}")
            self._number()  # its size, which may have overflowed
            begin = self._number(self.offset)
            along = bool(dims) and sizes[dims[0]] == 0
            size = prod(sizes[dim] for dim in dims[along:]) * _SIZES[kind]
            if along:
                starts.append((begin, size))
                record, single = record + -(-size // 4) * 4, single + 1
            else:
                ends.append(begin + size)
        if starts and records and records != streaming:
            step = starts[0][1] if single == 1 else record
            ends += [begin + (records - 1) * step + size for begin, size in starts]
        if max(ends) > self.length:
            raise ValueError(f"it has {self.length} bytes, its header promises {max(ends)}")

    def _number(self, width: int | None = None) -> int:
        width = width or self.wide
        read = self.stream.read(width)
        if len(read) < width:
            raise ValueError("it ends within its header")
        return int.from_bytes(read, "big")

    def _counted(self) -> int:
        count = self._number()
        if count > _MOST:
            raise ValueError(f"its header has a list of {count} entries")
        return count

    def _list(self, expected: int) -> int:
        tag, count = self._number(4), self._counted()
        if tag not in (0, expected) or (tag == 0 and count):
            raise ValueError(f"its header has the tag {tag} in place of {expected}")
        return count

    def _name(self) -> str:
        length = self._counted()
        text = self.stream.read(-(-length // 4) * 4)[:length]
        if len(text) < length:
            raise ValueError("it ends within its header")
        return text.decode("utf-8")

    def _skip_attributes(self) -> None:
        for _ in range(self._list(_ATTRIBUTES)):
            name, kind, count = self._name(), self._number(4), self._number()
            if kind not in _SIZES:
                raise ValueError(f"the attribute {name} has the unknown type {kind}")
            size = -(-count * _SIZES[kind] // 4) * 4
            if self.stream.tell() + size > self.length:
                raise ValueError("it ends within its header")
            self.stream.seek(size, os.SEEK_CUR)
