"""Timing in turns: ours, theirs, ours, theirs; the smallest time of each counts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

Call = Callable[[], float]  # does the work once and returns its seconds

SHORT = 0.02  # seconds: what takes less finds caches that the turn before it has filled


def timed(function: Callable[[], Any]) -> Call:
    """The seconds of one call of a function in this process; of a short one the least of several,
    made one after the other as in use."""

    def call() -> float:
        least, first = math.inf, time.perf_counter()
        while True:
            began = time.perf_counter()
            function()
            ended = time.perf_counter()
            least = min(least, ended - began)
            if ended - first >= SHORT:
                return least

    return call


def in_turns(
    *calls: Call, least: int = 3, seconds: float = 4.0, most: int = 60, quick: bool = False
) -> list[float]:
    """The smallest seconds of each call, after each was made once for nothing.

    Args:
        least: rounds that are made in any case, but for the third where rounds are long.
        seconds: rounds go on for so long, `most` at most.
        quick: one round.
    """
    least, most = (1, 1) if quick else (least, most)
    for call in calls:
        call()
    best = [math.inf] * len(calls)
    began = time.perf_counter()
    for number in range(most):
        best = [min(known, call()) for known, call in zip(best, calls, strict=True)]
        taken = time.perf_counter() - began
        enough = min(least, 2) if 0 < 2 * seconds < taken else least
        if number + 1 >= enough and taken > seconds:
            break
    return best
