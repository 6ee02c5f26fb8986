"""Which fields belong to a split: those of its period, and of its members where these are named.

Members of one time are samples of it. A record of many dates is split by periods, so that what is
scored lies at dates that nothing was learned from. A record of few dates and many members can be
split by members (`split.train_members` and its kin): no member is then in two splits, whatever
their periods are, and the fields of a split stand member after member, each in order of time. A
stretch of them, which training leaves out in its turn, holds whole members that way.
"""

from typing import Literal, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from flows.config.schema import Split, within
from pipeline.errors import UnusableData
from pipeline.scores.intervals import Witnesses
from storage.conventions.labels import member_numbers, member_word

__all__ = [
    "SPLITS",
    "Name",
    "course_of",
    "in_courses",
    "members_of",
    "part_of",
    "rows_of",
    "spans_of",
    "witnesses",
]

Name = Literal["train", "validation", "test"]
SPLITS: tuple[Name, ...] = ("train", "validation", "test")

Labelled = TypeVar("Labelled", xr.DataArray, xr.Dataset)


def part_of(labelled: Labelled, split: Split, name: Name) -> Labelled:
    """The fields of a split, of a dataset or an array along `time`.

    Raises:
        UnusableData: If a member that the configuration names is not in the record.
    """
    return labelled.isel(time=rows_of(labelled, split, name))


def rows_of(
    labelled: xr.Dataset | xr.DataArray, split: Split, name: Name
) -> slice | NDArray[np.intp]:
    """Where the fields of a split stand along `time`: a slice if it is of one period, else places,
    member after member where members are split."""
    spans = spans_of(labelled, split, name)
    numbers = members_of(labelled, split, name)
    if len(spans) == 1 and not numbers:
        return spans[0]
    places = np.concatenate([np.arange(span.start, span.stop) for span in spans])
    if not numbers:
        return places
    member = labelled["member"].to_numpy()[places]
    return np.concatenate([places[member == number] for number in numbers])


def in_courses(part: Labelled) -> Labelled:
    """Fields of a record of scenarios, scenario after scenario and each in order of time; others
    as they are."""
    if "member" not in part.coords:
        return part
    return part.isel(time=np.argsort(part["member"].to_numpy(), kind="stable"))


def course_of(part: xr.Dataset | xr.DataArray) -> NDArray[np.generic]:
    """An axis that says which fields follow each other: their times, where the record is one.

    Args:
        part: as `in_courses` orders it.
    Returns:
        Of several scenarios seconds from the first time, and between scenarios a gap that is longer
        than all of them, so that no field follows one of another scenario.
    """
    times: NDArray[np.generic] = part["time"].to_numpy()
    if "member" not in part.coords or not times.size:
        return times
    elapsed = times - times.min()
    if elapsed.dtype.kind == "m":
        seconds = elapsed / np.timedelta64(1, "s")
    else:
        seconds = np.array([one.total_seconds() for one in elapsed])
    apart: NDArray[np.generic] = part["member"].to_numpy() * (4.0 * seconds.max() + 1.0) + seconds
    return apart


def spans_of(labelled: xr.Dataset | xr.DataArray, split: Split, name: Name) -> list[slice]:
    """Where each period of a split stands along `time`: first place and the one after the last.

    All members are in it, whatever their split.
    """
    index = labelled.indexes["time"]
    known = [within(period) for period in split.periods(name)]
    found = [index.slice_indexer(days.start, days.stop) for days in known]
    return [slice(*one.indices(labelled.sizes["time"])[:2]) for one in found]


def members_of(labelled: xr.Dataset | xr.DataArray, split: Split, name: Name) -> tuple[int, ...]:
    """The numbers that the members of a split have in the record; none if it has all.

    Raises:
        UnusableData: If a label is that of no member.
    """
    labels = split.members(name)
    if not labels:
        return ()
    known = member_numbers(labelled["member"]) if "member" in labelled.coords else {}
    for label in labels:
        if member_word(label) not in known:
            there = ", ".join(list(known)[:20]) or "none, or one alone"
            raise UnusableData(
                f"split.{name}_members: the record has no member {label!r}; its members are {there}"
            )
    return tuple(sorted(known[member_word(label)] for label in labels))


def witnesses(part: xr.Dataset | xr.DataArray, split: Split) -> Witnesses:
    """What the fields of a split are independent witnesses by, for intervals of their means.

    It is their times; or their members, where members are split: these have the dates of what was
    learned, so another such record differs in its members alone.
    """
    if split.by_members:
        return Witnesses(of=part["member"].to_numpy(), exchangeable=True)
    return Witnesses(of=part["time"].to_numpy())
