"""Which stored numbers are no measurements, by what the file itself says.

valid_min, valid_max, valid_range     what lies beyond is missing (NetCDF User Guide, CF 2.5.1)
a fill value of 0 in Zarr 2           is a default that nobody chose: zeros may be values
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from storage.conventions.axes import SourceError, toml_key
from storage.conventions.stored import Stored

__all__ = ["ZERO_FILL", "as_stated", "explained", "stated_range"]

Array = np.ndarray[Any, Any]

_SAID = "are missing, as the file's valid range says"
ZERO_FILL = "zarr_zero"  # in the encoding of a variable: what a stored 0 becomes


@dataclass(frozen=True)
class Range:
    """Lowest and highest valid value of unpacked numbers, with room for their rounding."""

    low: float
    high: float
    room: float

    def __str__(self) -> str:
        if np.isinf(self.low):
            return f"above {self.high:g}"
        if np.isinf(self.high):
            return f"below {self.low:g}"
        return f"beyond {self.low:g} to {self.high:g}"


def as_stated(values: da.Array, variable: xr.Variable, stored: Stored) -> da.Array:
    """Values with NaN where the file says that they are none.

    Reading them raises SourceError if there are zeros of which nobody says what they are.
    """
    name, declared = stored.name, stored.declared
    if ZERO_FILL in variable.encoding:
        zero = float(variable.encoding[ZERO_FILL])
        refuse = partial(_without_zeros, zero=zero, name=stored.key, where=stored.where)
        values = _blockwise(refuse, values, values.dtype)
    valid = stated_range(variable)
    if valid is None or name in declared.valid_range:
        return values
    stored.notes.append(f"{name}: values {valid} {_SAID}")
    mask = partial(_within, valid=valid, kept=declared.missing.get(name))
    return _blockwise(mask, values, np.result_type(values.dtype, np.float32))


def _blockwise(function: Callable[[Array], Array], values: da.Array, dtype: Any) -> da.Array:
    mapped: Any = da
    meta = np.empty((0,) * values.ndim, dtype)
    found: da.Array = mapped.map_blocks(function, values, dtype=dtype, meta=meta)
    return found


@contextmanager
def explained(notes: Sequence[str]) -> Iterator[None]:
    """Refusals for what is missing say so if the file's own valid range made it missing."""
    try:
        yield
    except SourceError as error:
        name = str(error).partition(":")[0]
        for note in notes:
            if note.startswith(f"{name}: ") and note.endswith(_SAID):
                raise SourceError(
                    f"{error}. {note.removeprefix(f'{name}: ').capitalize()}; if they are right "
                    f"after all: [source] valid_range = {{ {toml_key(name)} = [-1e15, 1e15] }}, "
                    "or a narrower one"
                ) from error
        raise


def stated_range(variable: xr.Variable) -> Range | None:
    """The valid range by the attributes of an unpacked variable; None without any.

    They are about the packed numbers if they are of their type, else about the unpacked ones.
    """
    low, high = _stated(variable.attrs)
    if low is None and high is None:
        return None
    scale = float(variable.encoding.get("scale_factor", 1.0))
    offset = float(variable.encoding.get("add_offset", 0.0))
    room = 1e-6 * max(abs(float(one)) for one in (low, high) if one is not None)
    if {"scale_factor", "add_offset"} & set(variable.encoding):
        room = abs(scale) / 2
        low, high = (_unpacked(one, variable.encoding, scale, offset) for one in (low, high))
    ends = [
        -np.inf if low is None else float(low),
        np.inf if high is None else float(high),
    ]
    if scale < 0 and ends[0] > ends[1]:
        ends = ends[::-1]
    return Range(ends[0], ends[1], room) if ends[0] < ends[1] else None


def _stated(attrs: Mapping[str, Any]) -> tuple[Any, Any]:
    both = np.atleast_1d(np.asarray(attrs.get("valid_range", ())))
    if both.size == 2 and both.dtype.kind in "iuf":
        return both[0], both[1]
    ends = [np.atleast_1d(np.asarray(attrs.get(key, ()))) for key in ("valid_min", "valid_max")]
    low, high = (one[0] if one.size == 1 and one.dtype.kind in "iuf" else None for one in ends)
    return low, high


def _unpacked(bound: Any, encoding: Mapping[Any, Any], scale: float, offset: float) -> Any:
    packed = np.dtype(encoding.get("dtype", "f8"))
    number = np.asarray(bound)
    whole = packed.kind in "iu"
    if bound is None or (whole and number.dtype.kind == "f"):
        return bound
    if not whole and number.dtype.itemsize > packed.itemsize:
        return bound
    value = float(number)
    if whole and value < 0 and (packed.kind == "u" or encoding.get("_Unsigned") == "true"):
        value += 2.0 ** (8 * packed.itemsize)  # said as a signed number
    return value * scale + offset


def _within(block: Array, *, valid: Range, kept: float | None) -> Array:
    good = (block >= valid.low - valid.room) & (block <= valid.high + valid.room)
    if kept is not None:  # is declared to be missing, and looked for
        good |= block == np.float32(kept)
    return block if good.all() else np.where(good, block, np.float32(np.nan))


def _without_zeros(block: Array, *, zero: float, name: str, where: str) -> Array:
    count = int((block == block.dtype.type(zero)).sum())
    if count:
        raise SourceError(
            f"{where}: {name} has {count} or more zeros, and its Zarr 2 array says that 0 stands "
            "for missing, which is what zarr writes if nobody says anything else. If they are "
            'values: [source] zarr_fill = "value"; if they are missing: zarr_fill = "missing"'
        )
    return block
