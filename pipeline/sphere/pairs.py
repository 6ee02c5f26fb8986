"""Pairs of channels that are one wind: their places, the names and variances of their parts.

How pairs are transformed stands in stacked.py; this module loads no transform.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.arrays import FloatArray

__all__ = ["Pairs", "channel_names", "in_pairs"]

Pairs = tuple[tuple[int, int], ...]  # places of the eastward and northward components
PARTS = ("divergent", "rotational")


def channel_names(variables: Sequence[str], pairs: Pairs) -> tuple[str, ...]:
    """What the coefficients of each place are called."""
    names = list(variables)
    for pair in pairs:
        both = ",".join(variables[place] for place in pair)
        for place, part in zip(pair, PARTS, strict=True):
            names[place] = f"{both}:{part}"
    return tuple(names)


def in_pairs(squares: FloatArray, pairs: Pairs) -> FloatArray:
    """Variances by channel (first axis), those of a pair replaced by their mean: a vector field has
    one variance in a cell, whatever the direction."""
    shared = squares.copy()
    for pair in pairs:
        shared[list(pair)] = squares[list(pair)].mean(axis=0)
    return shared
