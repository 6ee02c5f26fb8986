"""What the climatology depends on besides the season: covariates, calendar time, the time of day.

Of long series under changing forcing the mean of every cell is regressed on these predictors
together with its yearly cycle, on training times, and so is the log of its scale (scale.py). What
they explain is taken away and put back for the values asked for. Predictors are in standard units:
less their mean over the training times, in units of their standard deviation there.

Where days have several times, the time of day is a predictor without being asked for: two harmonics
of the day as far as the times tell them apart, and how these go with the season. Each cell has
coefficients of its own, so that the sun rises where it does. Without them a draw at noon would be
one of any hour.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from pipeline.arrays import FloatArray
from pipeline.errors import UnusableData
from pipeline.fields.climatology import HARMONICS, design, season_phase

__all__ = ["NO_TREND", "TIME", "Trend", "climatology_rows", "terms_of_day"]

TIME = "time"  # as a predictor: decimal years
DAY = {"day cos": (1, np.cos), "day sin": (1, np.sin)}  # by name, harmonic and wave
DAY |= {"half day cos": (2, np.cos), "half day sin": (2, np.sin)}
OF_YEAR: dict[str, Callable[[FloatArray], FloatArray]]
OF_YEAR = {"": np.ones_like, ", year cos": np.cos, ", year sin": np.sin}
TERMS_OF_DAY = tuple(day + year for year in OF_YEAR for day in DAY)
OF_TIMES = (TIME, *TERMS_OF_DAY)  # predictors that times alone tell
SEVERAL = 1.5  # times of a day, on the mean, from which on the time of day is looked at
NEW = 1e-3  # of the mean square of a term: less is left by what the others explain of it
PREFIX = "trend_"  # of coordinates along time
ARRAYS = ("mean", "scale", "low", "high")


@dataclass(frozen=True, kw_only=True, eq=False)
class Trend:
    """Names of the predictors; their mean, deviation and range over the training times, (K,)."""

    names: tuple[str, ...]
    mean: FloatArray
    scale: FloatArray
    low: FloatArray
    high: FloatArray

    @classmethod
    def fit(cls, names: tuple[str, ...], training: xr.Dataset) -> Trend:
        """Measure the predictors at training times; the dataset holds the covariates along time.

        Raises:
            UnusableData: If a predictor does not vary.
        """
        values = np.stack([_series(name, training) for name in names])
        trend = cls(
            names=names,
            mean=values.mean(axis=1),
            scale=values.std(axis=1),
            low=values.min(axis=1),
            high=values.max(axis=1),
        )
        for name, middle, spread in zip(names, trend.mean, trend.scale, strict=True):
            if not spread > 1e-9 * max(1.0, abs(middle)):
                raise UnusableData(
                    f"source.trend: {name} is {middle:g} at all training times; no trend can be "
                    "fitted to it. Leave it out or train longer"
                )
        return trend

    @property
    def covariates(self) -> tuple[str, ...]:
        """The predictors that have to be given: those that times do not tell."""
        return tuple(name for name in self.names if name not in OF_TIMES)

    @classmethod
    def of(cls, normals: xr.Dataset) -> Trend:
        """Read the predictors as `to_variables` stored them."""
        if "predictor" not in normals.dims:
            return NO_TREND
        names = tuple(map(str, normals["predictor"].to_numpy()))
        return cls(names=names, **{part: normals[f"trend_{part}"].to_numpy() for part in ARRAYS})

    def to_variables(self) -> xr.Dataset:
        """Variables trend_mean, _scale, _low and _high(predictor); none without predictors."""
        if not self.names:
            return xr.Dataset()
        return xr.Dataset(
            {f"trend_{part}": ("predictor", getattr(self, part)) for part in ARRAYS},
            coords={"predictor": np.asarray(self.names)},
        )

    def standard(self, dataset: xr.Dataset) -> FloatArray:
        """Predictors (time, predictor) at the times of a dataset, which holds them as coordinates
        (`coordinates`), or in their own units as variables along time."""
        if self.names and all(PREFIX + name in dataset.coords for name in self.asked):
            return self.given(dataset["time"])
        times = dataset.sizes["time"]
        columns = [_series(name, dataset) for name in self.names]
        values = np.stack(columns, axis=1) if columns else np.empty((times, 0))
        standard: FloatArray = (values - self.mean) / self.scale
        return standard

    def forcing(self, rows: FloatArray) -> FloatArray:
        """Covariates (..., covariate) in standard units, of rows (..., term) of a climatology or of
        predictors (..., predictor), with which these end."""
        first = rows.shape[-1] - len(self.names)
        return rows[..., [first + self.names.index(name) for name in self.covariates]]

    def coordinates(self, standard: FloatArray) -> dict[str, tuple[str, FloatArray]]:
        """Coordinates `trend_<name>`(time) of predictors (time, predictor) in standard units, but
        for the time of day, which times tell."""
        return {
            PREFIX + name: ("time", standard[:, place])
            for place, name in enumerate(self.names)
            if name in self.asked
        }

    def given(self, array: xr.DataArray) -> FloatArray:
        """Predictors (..., predictor) that an array has as coordinates; time tells that of day.

        Raises:
            ValueError: If it has not.
        """
        known = {str(name): array.coords[name] for name in array.coords}
        if "time" in known:
            known |= self._of_day(known["time"])
        if missing := [name for name in self.names if PREFIX + name not in known]:
            raise ValueError(
                f"the climatology depends on {', '.join(missing)}, which the coordinates "
                f"{', '.join(map(str, array.coords))} do not tell"
            )
        columns = [known[PREFIX + name].transpose(*array.dims) for name in self.names]
        if not columns:
            return np.empty((*array.shape, 0))
        return np.stack([column.to_numpy() for column in columns], axis=-1)

    @property
    def asked(self) -> tuple[str, ...]:
        """The predictors that were asked for: all but the time of day."""
        return tuple(name for name in self.names if name not in TERMS_OF_DAY)

    def _of_day(self, time: xr.DataArray) -> dict[str, xr.DataArray]:
        """The terms of the time of day, as coordinates would tell them."""
        return {
            PREFIX + name: time.copy(data=(_term_of_day(name, time) - middle) / size)
            for name, middle, size in zip(self.names, self.mean, self.scale, strict=True)
            if name in TERMS_OF_DAY
        }

    def of_values(self, times: xr.DataArray, given: Mapping[str, Any]) -> FloatArray:
        """Predictors (time, predictor) for covariates that are asked for.

        Raises:
            UnusableData: If one is not given.
        """
        for name in self.covariates:
            if name not in given:
                raise UnusableData(
                    f"source.trend takes what depends on {name} away, so its value is needed to "
                    f"put that back: give generate.covariates.{name}"
                )
        series = {
            name: ("time", np.broadcast_to(np.asarray(given[name], np.float64), times.shape))
            for name in self.covariates
        }
        return self.standard(xr.Dataset(series, coords={"time": times}))

    def beyond(self, standard: FloatArray) -> list[str]:
        """What is asked for outside the training times, in words; empty if nothing is."""
        values = standard * self.scale + self.mean
        slack = 1e-6 * self.scale
        return [
            f"{name} from {column.min():.6g} to {column.max():.6g}, trained on {low:.6g} to "
            f"{high:.6g}"
            for name, column, low, high, room in zip(
                self.names, values.T, self.low, self.high, slack, strict=True
            )
            if column.size and (column.min() < low - room or column.max() > high + room)
        ]


def terms_of_day(training: xr.Dataset, names: tuple[str, ...], harmonics: int) -> tuple[str, ...]:
    """The terms of the time of day that training times tell apart; none where days have one time.

    Args:
        training: its times, and covariates along them; `member` where there are several courses.
        names: of the predictors that were asked for, from which no term may follow.
        harmonics: of the year; without them terms do not go with the season.
    """
    time = training["time"]
    member = training["member"].to_numpy() if "member" in training.coords else np.zeros(time.size)
    day = np.stack([member, time.dt.year.to_numpy(), time.dt.dayofyear.to_numpy()])
    moments = np.unique(np.vstack([day, _of_day(time)]), axis=1)
    if not time.size or moments.shape[1] < SEVERAL * np.unique(day, axis=1).shape[1]:
        return ()
    known = [*design(season_phase(time), harmonics).T, *(_series(n, training) for n in names)]
    basis = np.linalg.qr(np.stack(known, axis=1))[0]
    found: list[str] = []
    for name in TERMS_OF_DAY if harmonics else tuple(DAY):
        values = _series(name, training)
        left = values - basis @ (basis.T @ values)
        if np.square(left).mean() > NEW * max(np.square(values).mean(), NEW):
            found.append(name)
            basis = np.column_stack([basis, left / np.linalg.norm(left)])
    return tuple(found)


NO_TREND = Trend(names=(), **{part: np.empty(0) for part in ARRAYS})


def climatology_rows(
    phase: FloatArray, predictors: FloatArray, harmonics: int = HARMONICS
) -> FloatArray:
    """Rows (..., term) of the regression: the seasonal terms, then the predictors."""
    waves = design(np.asarray(phase, np.float64), harmonics)
    return np.concatenate([waves, predictors], axis=-1)


def _of_day(time: xr.DataArray) -> FloatArray:
    """2 pi times the elapsed fraction of the day [rad]."""
    clock = time.dt
    seconds = (clock.hour * 60.0 + clock.minute) * 60.0 + clock.second
    return np.asarray(2.0 * np.pi * seconds.to_numpy() / 86400.0, np.float64)


def _term_of_day(name: str, time: xr.DataArray) -> FloatArray:
    day, year = next((day, year) for year in OF_YEAR for day in DAY if day + year == name)
    harmonic, wave = DAY[day]
    values = wave(harmonic * _of_day(time)) * OF_YEAR[year](season_phase(time))
    return np.asarray(values, np.float64)


def _series(name: str, dataset: xr.Dataset) -> FloatArray:
    if name in TERMS_OF_DAY:
        return _term_of_day(name, dataset["time"])
    if name == TIME:
        years = dataset["time"].dt.year.to_numpy() + season_phase(dataset["time"]) / (2.0 * np.pi)
        return np.asarray(years, np.float64)
    if name not in dataset.variables:
        raise UnusableData(
            f"source.trend: {name} is not known at these times; it must be one of "
            "source.covariates, or time"
        )
    return dataset[name].to_numpy().astype(np.float64)
