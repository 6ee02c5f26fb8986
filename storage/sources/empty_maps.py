"""Maps without any value: no missing values that something could stand for, but times that lack.

A file ends before its axis of time does, a chunk is lost, a month was never written. Nothing fills
such a map; its time is left out, if the configuration says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from storage.conventions.axes import SourceError
from storage.conventions.levels import split_name
from storage.conventions.times import iso, said_time, usual_step
from storage.guards.holes import lost_chunks

__all__ = ["as_ranges", "require_values_at_all_times"]

Array = np.ndarray[Any, Any]

MOST = 6  # ranges that are written into a message


def require_values_at_all_times(
    times: xr.DataArray,
    empty: Mapping[str, Array],
    files: Sequence[str],
    origins: Mapping[str, Array],
    group: str,
) -> None:
    """Raise SourceError if a variable has no value anywhere at some of the times.

    Args:
        times: Those of the source.
        empty: Their places, by variable.
        files, origins: The files of the source, and the number of that of each time.
        group: In which the variables are.
    """
    for name, places in empty.items():
        dates = times.values[places]
        size = f"1 map of {times.size} is" if places.size == 1 else f"{places.size} maps are"
        span = f"at {said_time(dates[0])}"
        if places.size > 1:
            span = f"from {said_time(dates[0])} to {said_time(dates[-1])}"
        found = dict.fromkeys(files[number] for number in origins[name][places].tolist())
        where = ", ".join(Path(file).name for file in list(found)[:3])
        raise SourceError(
            f"{name}: {size} empty, {span} ({where}){_lost(list(found), name, group)}; no number "
            f"stands for a whole map. Complete the files, or {_remedy(times.values, places)}"
        )


def as_ranges(times: Array, places: Array) -> list[str]:
    """The times at these places as `source.drop` names them: one by one, or first and last."""
    text = iso(times)
    if usual_step(times) >= 86400 and len({day[:10] for day in text}) == len(set(text)):
        text = text.astype("U10")
    names, runs = [], np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
    for run in runs:
        first, last = text[run[0]], text[run[-1]]
        names.append(str(first) if first == last else f"{first}/{last}")
    return names


def _remedy(times: Array, places: Array) -> str:
    kept = np.setdiff1d(np.arange(times.size), places)
    day = iso(times).astype("U10")
    outer = kept[-1] - kept[0] + 1 == kept.size
    if outer and not set(day[kept]) & set(day[places]):
        return f'take the times that have values: [source] period = ["{day[kept[0]]}", ' + (
            f'"{day[kept[-1]]}"]'
        )
    ranges = as_ranges(times, places)
    listed = ", ".join(f'"{one}"' for one in ranges) if len(ranges) <= MOST else '"empty"'
    return f"leave these times out: [source] drop = [{listed}]"


def _lost(files: Sequence[str], name: str, group: str) -> str:
    base = split_name(name)[0]
    for file in files:
        if chunks := lost_chunks(Path(file, group), base):
            more = f" and {len(chunks) - 3} more" if len(chunks) > 3 else ""
            return f", where chunks {', '.join(chunks[:3])}{more} are not in the store"
    return ""
