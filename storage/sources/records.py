"""The times of one variable in a row, with what belongs to each: file, member, bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np

__all__ = ["Records"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Records:
    """Rows that are taken together.

    Attributes:
        times: One date for each row.
        member: The number of its member.
        file: The number of its file among those of the source.
        piece: The number of the piece that has its values.
        place: Where they are in that piece.
        bounds: Shape (row, 2); None if a row has none.
    """

    times: Array
    member: Array
    file: Array
    piece: Array
    place: Array
    bounds: Array | None

    def __len__(self) -> int:
        return int(self.times.size)

    def take(self, rows: Array) -> Records:
        """Some rows, in the order of their numbers, or where a mask is true."""
        return Records(
            times=self.times[rows],
            member=self.member[rows],
            file=self.file[rows],
            piece=self.piece[rows],
            place=self.place[rows],
            bounds=None if self.bounds is None else self.bounds[rows],
        )

    def in_order(self) -> Records:
        """Sort the records by time, then by member."""
        rank = np.unique(self.times, return_inverse=True)[1]
        order = np.lexsort((self.member, rank))
        return self if np.array_equal(order, np.arange(order.size)) else self.take(order)

    def values(self, pieces: Sequence[da.Array]) -> da.Array:
        """The fields of all rows, lazily."""
        joined: Any = da
        whole = joined.concatenate(pieces) if len(pieces) > 1 else pieces[0]
        starts = np.cumsum([0, *(len(part) for part in pieces)])
        rows = starts[self.piece] + self.place
        if np.array_equal(rows, np.arange(len(whole))):
            return whole
        picked: da.Array = whole[rows]
        return picked

    def field(self, row: int, pieces: Sequence[da.Array]) -> Array:
        """The field of one row, computed.

        Not by the joined array: a place in many pieces costs a look at all of them.
        """
        return np.asarray(pieces[int(self.piece[row])][int(self.place[row])])
