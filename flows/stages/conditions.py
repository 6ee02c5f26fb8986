"""What the fields of a time are conditioned on: its season, and the covariates of `[source]`.

A condition is a row of numbers: the phase of the year [rad], then each covariate less its mean over
the training period, in units of its standard deviation there; NaN where none is given.
"""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from flows.config.schema import RunConfig, Split
from flows.stages.base import published_input
from flows.stages.dates import at_dates, require_seen
from flows.stages.splits import part_of
from pipeline.arrays import FloatArray
from pipeline.errors import UnusableData
from pipeline.fields.climatology import season_phase
from pipeline.fields.seasons import Stretch, harmonics_of, in_stretches, spoken_stretches
from pipeline.fields.trend import NO_TREND, PREFIX, TIME, Trend, terms_of_day
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from storage.conventions.labels import at

Labelled = TypeVar("Labelled", xr.DataArray, xr.Dataset)


def covariate_variables(fields: xr.Dataset, names: tuple[str, ...], split: Split) -> xr.Dataset:
    """Mean and scale of each covariate, as variables of `normals`; none without covariates."""
    if not names:
        return xr.Dataset()
    known = np.stack([part_of(fields[name], split, "train").to_numpy() for name in names])
    mean, scale = known.mean(axis=1), known.std(axis=1)
    for name, spread, middle in zip(names, scale, mean, strict=True):
        if not spread > 1e-9 * max(1.0, abs(middle)):
            raise UnusableData(
                f"source.covariates: {name} is {middle:g} at all training times, "
                f"{split.spoken('train')}; nothing can be learned about it. Leave it "
                "out or train longer"
            )
    return xr.Dataset(
        {"covariate_mean": ("covariate", mean), "covariate_scale": ("covariate", scale)},
        coords={"covariate": np.asarray(names)},
    )


def trend_of(fields: xr.Dataset, config: RunConfig) -> Trend:
    """What the climatology follows besides the season: what `source.trend` says, and the time of
    day where days have several times."""
    asked = config.source.trend
    covariates = [name for name in asked if name != TIME]
    training = part_of(fields[["time", *covariates]], config.split, "train").load()
    harmonics = harmonics_of(season_phase(training["time"]), config.spectral.harmonics)
    names = (*asked, *terms_of_day(training, asked, harmonics))
    return Trend.fit(names, training) if names else NO_TREND


def standard_covariates(given: Mapping[str, Any], times: int, normals: xr.Dataset) -> FloatArray:
    """Covariates (time, covariate) in standard units; NaN for one that is not given.

    Args:
        given: physical values by name, each along time or one for all times.
    """
    rows = [
        (np.asarray(given[name]) - normals["covariate_mean"].values[i])
        / normals["covariate_scale"].values[i]
        if name in given
        else np.nan
        for i, name in enumerate(_names(normals))
    ]
    columns = [np.broadcast_to(np.asarray(row, dtype=np.float64), (times,)) for row in rows]
    return np.stack(columns, axis=1) if columns else np.empty((times, 0))


def conditioned(times: xr.DataArray, given: Mapping[str, Any], normals: xr.Dataset) -> xr.Dataset:
    """The condition (time, feature) of what is drawn at these times.

    Its coordinates tell the trend of the climatology, if it has one.

    Raises:
        UnusableData: If a covariate of the trend is not given.
    """
    covariates = standard_covariates(given, times.size, normals)
    rows = np.concatenate([season_phase(times)[:, None], covariates], axis=1)
    conditions = xr.Dataset({"condition": (("time", "feature"), rows)}, coords={"time": times})
    trend = Trend.of(normals)
    return conditions.assign_coords(trend.coordinates(trend.of_values(times, given)))


def with_predictors(x: Labelled, conditions: xr.Dataset) -> Labelled:
    """x, or fields, with the coordinates that tell the trend at their times, if there is one."""
    names = [name for name in map(str, conditions.coords) if name.startswith(PREFIX)]
    return x.assign_coords({name: ("time", conditions[name].values) for name in names})


def asked_times(
    config: RunConfig, layout: StoreLayout, covariates: Mapping[str, float] | None = None
) -> xr.Dataset:
    """The dates of the configuration as conditioned times of the source's calendar.

    The time of day is the one that the source has on that day, or would have.

    Args:
        covariates: Of a scenario that is drawn, instead of those of `generate.covariates`.

    Raises:
        ConfigError, UnusableData: If a date is none of the calendar, or of a season not learned.
    """
    published_input(layout, "fields")
    source = artifacts.open_published(layout, "fields")["time"]
    times = at_dates(config.generate.times, source)
    published_input(layout, "normals")
    normals = artifacts.open_published(layout, "normals")
    require_seen(times, unseen_of(normals))
    return conditioned(times, {**config.generate.covariates, **(covariates or {})}, normals)


def conditioned_as_observed(
    times: xr.DataArray, fields: xr.Dataset, normals: xr.Dataset
) -> xr.Dataset:
    """The condition of draws at times of the source, with the covariates that it has there.

    Args:
        times: With `member` beside them where each is that of one scenario.
    """
    names = {*_names(normals), *Trend.of(normals).covariates}
    truly = {name: at(fields[name], times).values for name in sorted(names)}
    return conditioned(times.reset_coords(drop=True), truly, normals)


def beyond_training(normals: xr.Dataset, times: xr.Dataset) -> str:
    """What trend and season are asked for outside of training, in words; empty if nothing."""
    trend = Trend.of(normals)
    said = trend.beyond(trend.standard(times)) if trend.names else []
    stretches = unseen_of(normals)
    if strange := int(in_stretches(times["time"], stretches).sum()):
        said.append(
            f"the season of {strange} of {times.sizes['time']} dates, which has no training data "
            f"({spoken_stretches(stretches)})"
        )
    return "; ".join(said)


def unseen_of(normals: xr.Dataset) -> tuple[Stretch, ...]:
    """The parts of the year that the training times have not seen."""
    return tuple((start, end) for start, end in json.loads(normals.attrs.get("unseen", "[]")))


def condition_of(whitened: xr.Dataset) -> FloatArray:
    """The condition (time, feature) of whitened fields."""
    parts = [whitened["phase"].values[:, None]]
    if "covariates" in whitened.coords:
        parts.append(whitened["covariates"].transpose("time", "covariate").values)
    return np.concatenate(parts, axis=1).astype(np.float64)


def _names(normals: xr.Dataset) -> list[str]:
    return [str(name) for name in normals["covariate"].values] if "covariate" in normals else []
