"""What a worker process keeps for its next unit, one of a kind: a new run brings new digests."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """The last thing that was made, with what tells it from others."""

    def __init__(self) -> None:
        self._known: dict[Hashable, T] = {}

    def __call__(self, place: Hashable, make: Callable[[], T]) -> T:
        """What is kept of this place; else it is made, once the one before is let go."""
        if place not in self._known:
            self._known.clear()
            self._known[place] = make()
        return self._known[place]
