"""Which seasons a record has seen, and how fine a yearly cycle they determine.

A cycle of h harmonics is determined by its values at phases of the year whose largest gap is below
pi / h: then no such cycle is small where data are and large in the gap. Beyond that least squares
still have a solution, of small residuals and of any size in the gap.

References:
    Gröchenig (1992), Mathematics of Computation 59, doi:10.1090/S0025-5718-1992-1134729-0
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr

from pipeline.arrays import FloatArray
from pipeline.errors import UnusableData
from pipeline.fields.climatology import HARMONICS, season_phase

__all__ = [
    "Stretch",
    "determined_harmonics",
    "harmonics_of",
    "in_stretches",
    "largest_gap",
    "season_notes",
    "spoken_stretches",
    "unseen_stretches",
]

Stretch = tuple[float, float]  # phases [rad]; the end may lie beyond the turn of the year

YEAR = 2.0 * np.pi
NEAR = YEAR * 16.0 / 365.25  # a season is seen if a time lies within half a month of it


def largest_gap(phase: FloatArray) -> float:
    """Largest distance [rad] between neighbouring phases of the year."""
    _, widths = _gaps(phase)
    return float(widths.max())


def determined_harmonics(phase: FloatArray) -> int:
    """How many harmonics of the yearly cycle times at these phases determine, `HARMONICS` at most.

    Args:
        phase: Of the training times [rad].
    """
    gap = largest_gap(phase)
    return max(h for h in range(HARMONICS + 1) if h * gap < np.pi)


def harmonics_of(phase: FloatArray, asked: int | None) -> int:
    """The harmonics that are fitted: those asked for, or all that the phases determine.

    Raises:
        UnusableData: If more are asked for than the phases determine.
    """
    determined = determined_harmonics(phase)
    if asked is None or asked <= determined:
        return determined if asked is None else asked
    raise UnusableData(
        f"spectral.harmonics: expected at most {determined}, got {asked}: the training times leave "
        f"{_days(largest_gap(phase)):.0f} days of the year without data, over which a cycle of "
        f"{asked} harmonics would be extrapolated. Train on whole years, or set spectral.harmonics "
        f"= {determined}"
    )


def unseen_stretches(phase: FloatArray) -> tuple[Stretch, ...]:
    """The parts of the year in which no time lies within half a month, in order."""
    starts, widths = _gaps(phase)
    wide = widths > 2.0 * NEAR
    return tuple(
        (float(start + NEAR), float(start + width - NEAR))
        for start, width in zip(starts[wide], widths[wide], strict=True)
    )


def in_stretches(time: xr.DataArray, stretches: Sequence[Stretch]) -> npt.NDArray[np.bool_]:
    """Which times lie in one of these parts of the year."""
    phase = season_phase(time)
    found = np.zeros(phase.shape, dtype=bool)
    for start, end in stretches:
        found |= np.mod(phase - start, YEAR) < end - start
    return found


def spoken_stretches(stretches: Sequence[Stretch]) -> str:
    """Parts of the year as days of a calendar: "16 September to 15 December"."""
    return " and ".join(f"{_spoken(start)} to {_spoken(end)}" for start, end in stretches)


def season_notes(phase: FloatArray, harmonics: int) -> dict[str, str]:
    """What of the year the training times leave open, as sentences; nothing if they leave none."""
    said = {}
    if harmonics < HARMONICS:
        said["yearly cycle"] = (
            f"{harmonics} of {HARMONICS} harmonics are fitted; the longest part of the year "
            f"without training data has {_days(largest_gap(phase)):.0f} days"
        )
    if stretches := unseen_stretches(phase):
        said["not learned"] = (
            f"there are no training data from {spoken_stretches(stretches)}; what is drawn or "
            "scored there is extrapolated"
        )
    return said


def _gaps(phase: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Each phase that is there, in order, and the distance to the next one around the year."""
    known = np.unique(np.mod(np.asarray(phase, np.float64), YEAR))
    return known, np.diff(known, append=known[0] + YEAR)


def _days(phase: float) -> float:
    return phase / YEAR * 365.25


def _spoken(phase: float) -> str:
    day = np.datetime64("2001-01-01") + round(float(np.mod(phase, YEAR)) / YEAR * 365.0)
    return f"{day.item():%-d %B}"
