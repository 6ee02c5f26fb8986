"""Working memory that is used again. Fresh pages cost as much as a small transform computes: the
kernel clears each when it is first touched, and the allocator gives large blocks back at once."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["KEPT_BYTES", "room"]

KEPT_BYTES = 1 << 27  # of one array; larger ones are allocated at each call


class _Rooms(threading.local):
    def __init__(self) -> None:
        self.bytes: dict[str, npt.NDArray[np.uint8]] = {}


_ROOMS = _Rooms()


def room(name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array with any content, the same memory for the same name at the next call of a thread.

    So it must not outlive the call that asked for it.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size > KEPT_BYTES:
        return np.empty(shape, dtype)
    kept = _ROOMS.bytes.get(name)
    if kept is None or kept.size < size:
        kept = _ROOMS.bytes[name] = np.empty(size, np.uint8)
    return kept[:size].view(dtype).reshape(shape)
