"""Which days a first configuration learns from, chooses on, scores on and draws.

Training covers whole years where there are two or more; the periods go by days, so a split of days
that have members keeps all members of a day together. Few days with many members are split by
members: days that could be held out would be too few to say anything.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import xarray as xr

from pipeline.fields.climatology import season_phase
from pipeline.fields.seasons import (
    determined_harmonics,
    in_stretches,
    season_notes,
    unseen_stretches,
)
from storage.conventions.labels import member_numbers, once
from storage.errors import SourceError

__all__ = ["Periods", "periods_of"]

FEW_DAYS = 12  # with fewer, and members, these are split
FEWEST_MEMBERS = 4  # one to learn from, one to choose on, two to score on
FEWEST_DAYS = 4  # one to learn from, one to choose on, two to score on
FEWEST_SAMPLES = 8
SHARES = (0.7, 0.15)  # of the years or days: training, validation
YEARS_APART = 4  # from so many on validation and test cover whole years, too
OVER_A_YEAR = 1.25  # with so many years one of them is learned from
NEAR_A_YEAR = 0.0015  # half a day: calendars have leap years


Days = npt.NDArray[np.str_]


@dataclass(frozen=True, kw_only=True)
class Periods:
    """First and last day of each period; fields that are learned from; days to draw.

    Attributes:
        members: Labels of the members of each split; none where the periods split.
        notes: What of the year the training days leave open, as sentences.
        held_out: Whether the days to draw are among those that are scored.
    """

    train: tuple[str, str]
    validation: tuple[str, str]
    test: tuple[str, str]
    samples: int
    asked: tuple[str, ...]
    held_out: bool
    notes: tuple[str, ...]
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def periods_of(time: xr.DataArray) -> Periods:
    """Periods of the times of a source, which members of an ensemble share.

    Raises:
        SourceError: If they are too few for three periods.
    """
    labels = np.array([str(each)[:10] for each in time.values])
    days, first, counts = np.unique(labels, return_index=True, return_counts=True)
    members = member_numbers(time["member"]) if "member" in time.coords else {}
    by_members = 2 <= len(days) < FEW_DAYS and len(members) >= FEWEST_MEMBERS
    if not (by_members or len(days) >= FEWEST_DAYS) or len(labels) < FEWEST_SAMPLES:
        raise SourceError(
            f"{len(labels)} fields on {len(days)} days are too few: a split takes "
            f"{FEWEST_DAYS} days at least (one to learn from, one to choose on, two to score on), "
            f"or two days and {FEWEST_MEMBERS} members, and {FEWEST_SAMPLES} fields; give more "
            "files"
        )
    if by_members:
        return _of_members(time, days, members)
    dates = time.isel(time=first)
    start, stop = _edges(dates)
    parts = [days[:start], days[start:stop], days[stop:]]
    phase = season_phase(dates[:start])
    unseen = unseen_stretches(phase)
    candidates = days[[stop, (stop + len(days)) // 2]]
    held_out = not in_stretches(dates[[stop, (stop + len(days)) // 2]], unseen).any()
    if not held_out:
        candidates = days[[0, start // 2]]
    train, validation, test = ((str(part[0]), str(part[-1])) for part in parts)
    return Periods(
        train=train,
        validation=validation,
        test=test,
        samples=int(counts[:start].sum()),
        asked=tuple(sorted({str(day) for day in candidates})),
        held_out=held_out,
        notes=tuple(_sentences(season_notes(phase, determined_harmonics(phase)))),
    )


def _of_members(time: xr.DataArray, days: Days, members: Mapping[str, int]) -> Periods:
    """All days in every split, and members that are in one each."""
    labels, count = [*members], len(members)
    stop = min(round(sum(SHARES) * count), count - 2)
    start = max(1, min(round(SHARES[0] * count), stop - 1))
    learned = np.isin(time["member"].to_numpy(), [members[label] for label in labels[:start]])
    phase = season_phase(once(time.isel(time=learned)))
    whole = (str(days[0]), str(days[-1]))
    return Periods(
        train=whole,
        validation=whole,
        test=whole,
        samples=int(learned.sum()),
        asked=tuple(sorted({str(days[0]), str(days[len(days) // 2])})),
        held_out=False,
        notes=(
            f"split by members: days held out of {len(days)} would say little; scores and "
            "certificate are then of other members at these days, not of other days",
            *_sentences(season_notes(phase, determined_harmonics(phase))),
        ),
        members={
            "train": tuple(labels[:start]),
            "validation": tuple(labels[start:stop]),
            "test": tuple(labels[stop:]),
        },
    )


def _edges(dates: xr.DataArray) -> tuple[int, int]:
    """How many of the days stand before validation, and before the test."""
    count, years = len(dates), _years(dates)
    whole = int(years[-1] + _step(years) + NEAR_A_YEAR)
    elapsed = np.floor(years + NEAR_A_YEAR)
    if whole >= YEARS_APART:
        test = min(round(sum(SHARES) * whole), whole - 1)
        train = min(round(SHARES[0] * whole), test - 1)
        start, stop = (int(np.searchsorted(elapsed, edge)) for edge in (train, test))
    elif whole >= 2 or years[-1] > OVER_A_YEAR:
        start = int(np.searchsorted(elapsed, max(1, whole - 1)))
        stop = (start + count) // 2
    else:
        start, stop = (round(sum(SHARES[:k]) * count) for k in (1, 2))
    stop = min(stop, count - 2)
    return max(1, min(start, stop - 1)), stop


def _years(dates: xr.DataArray) -> npt.NDArray[np.float64]:
    """Years since the first day."""
    decimal = dates.dt.year.to_numpy() + season_phase(dates) / (2.0 * np.pi)
    return np.asarray(decimal - decimal[0], np.float64)


def _step(years: npt.NDArray[np.float64]) -> float:
    return float(np.median(np.diff(years)))


def _sentences(notes: dict[str, str]) -> Iterator[str]:
    for name, text in notes.items():
        yield f"{name}: {text}"
