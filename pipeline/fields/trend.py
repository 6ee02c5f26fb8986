"""What the climatology depends on besides the season: covariates, or calendar time itself.

Of long series under changing forcing the mean of every cell is regressed on these predictors
together with its yearly cycle, on training times, and so is the log of its scale (scale.py). What
they explain is taken away and put back for the values asked for. Predictors are in standard units:
less their mean over the training times, in units of their standard deviation there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from pipeline.arrays import FloatArray
from pipeline.errors import UnusableData
from pipeline.fields.climatology import HARMONICS, design, season_phase

__all__ = ["NO_TREND", "TIME", "Trend", "climatology_rows"]

TIME = "time"  # as a predictor: decimal years
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
        if self.names and all(PREFIX + name in dataset.coords for name in self.names):
            return self.given(dataset["time"])
        times = dataset.sizes["time"]
        columns = [_series(name, dataset) for name in self.names]
        values = np.stack(columns, axis=1) if columns else np.empty((times, 0))
        standard: FloatArray = (values - self.mean) / self.scale
        return standard

    def coordinates(self, standard: FloatArray) -> dict[str, tuple[str, FloatArray]]:
        """Coordinates `trend_<name>`(time) of predictors (time, predictor) in standard units."""
        return {
            PREFIX + name: ("time", standard[:, place]) for place, name in enumerate(self.names)
        }

    def given(self, array: xr.DataArray) -> FloatArray:
        """Predictors (..., predictor) that an array has as coordinates.

        Raises:
            ValueError: If it has not.
        """
        if missing := [name for name in self.names if PREFIX + name not in array.coords]:
            raise ValueError(
                f"the climatology depends on {', '.join(missing)}, which the coordinates "
                f"{', '.join(map(str, array.coords))} do not tell"
            )
        columns = [array.coords[PREFIX + name].transpose(*array.dims) for name in self.names]
        if not columns:
            return np.empty((*array.shape, 0))
        return np.stack([column.to_numpy() for column in columns], axis=-1)

    def of_values(self, times: xr.DataArray, given: Mapping[str, Any]) -> FloatArray:
        """Predictors (time, predictor) for covariates that are asked for.

        Raises:
            UnusableData: If one is not given.
        """
        for name in self.names:
            if name != TIME and name not in given:
                raise UnusableData(
                    f"source.trend takes what depends on {name} away, so its value is needed to "
                    f"put that back: give generate.covariates.{name}"
                )
        series = {
            name: ("time", np.broadcast_to(np.asarray(given[name], np.float64), times.shape))
            for name in self.names
            if name != TIME
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


NO_TREND = Trend(names=(), **{part: np.empty(0) for part in ARRAYS})


def climatology_rows(
    phase: FloatArray, predictors: FloatArray, harmonics: int = HARMONICS
) -> FloatArray:
    """Rows (..., term) of the regression: the seasonal terms, then the predictors."""
    waves = design(np.asarray(phase, np.float64), harmonics)
    return np.concatenate([waves, predictors], axis=-1)


def _series(name: str, dataset: xr.Dataset) -> FloatArray:
    if name == TIME:
        years = dataset["time"].dt.year.to_numpy() + season_phase(dataset["time"]) / (2.0 * np.pi)
        return np.asarray(years, np.float64)
    if name not in dataset.variables:
        raise UnusableData(
            f"source.trend: {name} is not known at these times; it must be one of "
            "source.covariates, or time"
        )
    return dataset[name].to_numpy().astype(np.float64)
