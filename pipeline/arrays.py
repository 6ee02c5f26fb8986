"""The type of arrays of real numbers, in whichever of the two precisions they came, and sums of
what was counted in parts."""

from collections.abc import Hashable, Iterable
from dataclasses import fields
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
K = TypeVar("K", bound=Hashable)
A = TypeVar("A", bound=Any)  # what can be added


class Sums:
    """What is summed over parts of the data: their sums add up, attribute by attribute.

    For dataclasses.
    """

    def __add__(self, other: Self) -> Self:
        names = [one.name for one in fields(self)]  # type: ignore[arg-type]
        return type(self)(**{name: getattr(self, name) + getattr(other, name) for name in names})


def summed(keys: Iterable[K], parts: Iterable[A]) -> dict[K, A]:
    """By key, the sum of the parts that have it, in their order."""
    total: dict[K, A] = {}
    for key, part in zip(keys, parts, strict=True):
        total[key] = total[key] + part if key in total else part
    return total
