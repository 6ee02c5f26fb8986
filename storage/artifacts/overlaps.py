"""What a selection has in common with the blocks that an array is stored in."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Overlap", "Slices", "overlaps"]

Slices = tuple[slice, ...]


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """A block that a selection touches.

    Attributes:
        place: Its number along each dimension.
        inside: The part that is selected, counted from the begin of the block.
        target: The same part, counted from the begin of the selection.
    """

    place: tuple[int, ...]
    inside: Slices
    target: Slices


def overlaps(selection: Sequence[slice], block: Sequence[int]) -> Iterator[Overlap]:
    """All blocks that a selection touches, in C order.

    Args:
        selection: From start to stop along each dimension.
        block: The size of a block along each of them.
    """
    sides = [list(_along(part, size)) for part, size in zip(selection, block, strict=True)]
    for each in itertools.product(*sides):
        place, inside, target = zip(*each, strict=True) if each else ((), (), ())
        yield Overlap(place=place, inside=inside, target=target)


def _along(part: slice, size: int) -> Iterator[tuple[int, slice, slice]]:
    for number in range(part.start // size, -(-part.stop // size)):
        start, stop = max(number * size, part.start), min((number + 1) * size, part.stop)
        inside = slice(start - number * size, stop - number * size)
        yield number, inside, slice(start - part.start, stop - part.start)
