"""Seasonal climatology and scale of anomalies.

The climatology of every grid cell is a mean and harmonics of the calendar year, two where the times
determine them (seasons.py), and a trend (trend.py) if one is asked for, fitted by least squares
together; the scale is the standard deviation about it, which may change in time (scale.py). Both
come from `SeasonalMoments`, sums over time that are added in any order, so no process ever holds
the series.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import xarray as xr

from pipeline.arrays import FloatArray
from pipeline.errors import UnusableData
from pipeline.sphere.pairs import Pairs, in_pairs

__all__ = [
    "HARMONICS",
    "Climatology",
    "SeasonalMoments",
    "UnusableData",
    "design",
    "season_phase",
]

HARMONICS = 2  # at most
CONSTANT = 1e-10  # variance below this part of the mean square is rounding
FAINTEST_FILL = 0.05  # of the scale of the data: holes are amplified by 20 at most
SMALLEST_SCALE = 1e-3  # of the variable's root mean square scale


def season_phase(time: xr.DataArray) -> FloatArray:
    """2 pi times the elapsed fraction of the calendar year, in any calendar."""
    if time.dtype.kind == "M":
        return _gregorian_phase(time.to_numpy())
    moment = time.dt
    seconds = (moment.hour * 60.0 + moment.minute) * 60.0 + moment.second
    day = moment.dayofyear - 1 + seconds / 86400.0
    phase: FloatArray = (2.0 * np.pi * day / moment.days_in_year).to_numpy().astype(np.float64)
    return phase


def _gregorian_phase(time: npt.NDArray[np.datetime64]) -> FloatArray:
    """The same for numpy's own times, without the many passes of their labelled form."""
    year = time.astype("datetime64[Y]")
    start, end = year.astype("datetime64[D]"), (year + 1).astype("datetime64[D]")
    elapsed = (time - start).astype("timedelta64[s]").astype(np.int64)
    day = elapsed // 86400 + elapsed % 86400 / 86400.0
    phase: FloatArray = 2.0 * np.pi * day / (end - start).astype(np.float64)
    return phase


def design(phase: FloatArray, harmonics: int = HARMONICS) -> FloatArray:
    """Values of 1, cos, sin, cos 2, sin 2, ... at these phases, on a new last axis."""
    waves = [wave(k * phase) for k in range(1, harmonics + 1) for wave in (np.cos, np.sin)]
    return np.stack([np.ones_like(phase), *waves], axis=-1)


@dataclass(frozen=True, kw_only=True)
class Climatology:
    """Seasonal means and scale of every cell.

    Attributes:
        coefficients: Of `design` and of predictors, shape (term, channel, *grid).
        scale: Standard deviation of the anomalies, shape (channel, *grid); positive.
        mask: Cells without data, shape (channel, *grid); the coefficients are 0 there and the scale
            is that of what fills them.
    """

    coefficients: FloatArray
    scale: FloatArray
    mask: npt.NDArray[np.bool_]

    def with_winds(self, pairs: Pairs) -> Climatology:
        """The same with one scale for both components of a wind, which else would be no vector."""
        for pair in pairs:
            if (self.mask[pair[0]] != self.mask[pair[1]]).any():
                raise UnusableData(
                    "the components of a wind are missing in different cells; mask them alike in "
                    "the source, or declare source.winds = []"
                )
        return replace(self, scale=np.sqrt(in_pairs(np.square(self.scale), pairs)))

    def with_holes(self, variance: FloatArray) -> Climatology:
        """The same with the scale of masked cells set to the deviation of what fills them.

        A smooth fill varies less than data do. Gaussian laws that know latitudes but no coasts
        would take that for the variance of the data beside it.
        """
        filled = np.maximum(np.sqrt(variance), FAINTEST_FILL)
        return replace(self, scale=np.where(self.mask, filled, self.scale))


@dataclass(frozen=True, kw_only=True)
class SeasonalMoments:
    """Sums over times of the regression of every cell on the season; add them to join blocks."""

    channels: tuple[str, ...]
    count: int
    gram: FloatArray  # (term, term): those of the season, then those of a trend
    cross: FloatArray  # (term, channel, *grid)
    square: FloatArray  # (channel, *grid)
    mask: npt.NDArray[np.bool_]  # (channel, *grid), True where data are missing
    harmonics: int = HARMONICS

    @classmethod
    def of(
        cls,
        values: FloatArray,
        rows: FloatArray,
        channels: tuple[str, ...],
        harmonics: int = HARMONICS,
    ) -> SeasonalMoments:
        """Sums over one block of times.

        Args:
            values: Transformed variables, shape (time, channel, *grid); NaN where masked.
            rows: Season of each time [rad], or rows (time, term) of its regression.
            channels: Names, for messages.
            harmonics: Of the yearly cycle.
        """
        missing = np.isnan(values)
        mask = missing[0]
        _refuse_moving_mask(channels, (missing != mask).any(axis=0))
        given = np.asarray(rows, np.float64)
        waves = design(given, harmonics) if given.ndim == 1 else given
        filled = np.where(mask, 0.0, values).astype(np.float64)
        return cls(
            channels=channels,
            count=len(values),
            gram=waves.T @ waves,
            cross=np.tensordot(waves, filled, axes=(0, 0)),
            square=np.einsum("t...,t...->...", filled, filled),
            mask=mask,
            harmonics=harmonics,
        )

    def __add__(self, other: SeasonalMoments) -> SeasonalMoments:
        _refuse_moving_mask(self.channels, self.mask != other.mask)
        return replace(
            self,
            count=self.count + other.count,
            gram=self.gram + other.gram,
            cross=self.cross + other.cross,
            square=self.square + other.square,
        )

    def of_channels(self, places: Sequence[int]) -> SeasonalMoments:
        """The moments of some of the channels."""
        chosen = list(places)
        return replace(
            self,
            channels=tuple(self.channels[place] for place in chosen),
            cross=self.cross[:, chosen],
            square=self.square[chosen],
            mask=self.mask[chosen],
        )

    @classmethod
    def beside(cls, parts: Sequence[SeasonalMoments]) -> SeasonalMoments:
        """The channels of all parts together, sums over the same times."""
        return replace(
            parts[0],
            channels=tuple(name for part in parts for name in part.channels),
            cross=np.concatenate([part.cross for part in parts], axis=1),
            square=np.concatenate([part.square for part in parts]),
            mask=np.concatenate([part.mask for part in parts]),
        )

    def fit(self) -> Climatology:
        """Least-squares climatology and the scale about it.

        Cells that never vary get the smallest scale, a thousandth of their variable's.

        Raises:
            UnusableData: If the times do not tell the seasons apart, or a variable is constant.
        """
        if self.count < len(self.gram) or np.linalg.cond(self.gram) > 1e6:
            trends = len(self.gram) - 1 - 2 * self.harmonics
            raise UnusableData(
                f"{self.count} training times do not determine a yearly cycle of {self.harmonics} "
                f"harmonics{f' and {trends} trends' * (trends > 0)}; the training period must "
                f"cover all seasons{', and no trend may follow from the others' * (trends > 0)}, "
                "or spectral.harmonics be smaller, 0 for a record of one season"
            )
        coefficients = np.tensordot(np.linalg.inv(self.gram), self.cross, axes=(1, 0))
        explained = np.einsum("s...,s...->...", coefficients, self.cross)
        variance = (self.square - explained) / self.count
        variance = np.where(variance > CONSTANT * self.square / self.count, variance, 0.0)
        scale = np.sqrt(variance)
        for channel, cells, masked in zip(self.channels, scale, self.mask, strict=True):
            present = cells[~masked]
            typical = float(np.sqrt(np.mean(present**2))) if present.size else 0.0
            if typical == 0.0:
                state = "constant" if present.size else "missing"
                raise UnusableData(
                    f"{channel} is {state} in all cells at all training times; leave it out"
                )
            cells[...] = np.where(masked, 1.0, np.maximum(cells, SMALLEST_SCALE * typical))
        return Climatology(coefficients=coefficients, scale=scale, mask=self.mask)


def _refuse_moving_mask(channels: tuple[str, ...], changing: npt.NDArray[np.bool_]) -> None:
    for channel, cells in zip(channels, changing, strict=True):
        if cells.any():
            raise UnusableData(
                f"{channel} is missing at some times and present at others in {int(cells.sum())} "
                "cells; fill these gaps in the source, or mask the cells at all times"
            )
