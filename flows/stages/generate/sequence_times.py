"""The times of sequences: one after the other, as far apart as those of the source."""

from typing import Any

import numpy as np
import xarray as xr

from flows.config.schema import ConfigError, DrawnSequence, RunConfig
from flows.stages.base import published_input
from flows.stages.conditions import conditioned, unseen_of
from flows.stages.dates import at_dates, require_seen
from flows.stages.splits import course_of, in_courses
from pipeline.arrays import FloatArray
from pipeline.errors import UnusableData
from pipeline.gaussian.lags import contiguous
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from storage.sources.covariates import read_covariate

KEY = "generate.sequences"


def times_of_sequence(config: RunConfig, layout: StoreLayout, asked: DrawnSequence) -> xr.Dataset:
    """The times of a sequence in the calendar of the source, with their conditions.

    Raises:
        ConfigError, UnusableData: If its start is no date of that calendar, or times are of a
            season that was not learned.
    """
    step, source = step_of(layout), _source_times(layout)
    (first,) = at_dates((asked.start,), source, f"{KEY}.start").values
    values = np.array([first + step * day for day in range(asked.days)])
    times = xr.DataArray(values, dims="time", coords={"time": values}, name="time")
    published_input(layout, "normals")
    normals = artifacts.open_published(layout, "normals")
    require_seen(times, unseen_of(normals), KEY)
    return conditioned(times, given_along(config, asked, times), normals)


def given_along(
    config: RunConfig, asked: DrawnSequence, times: xr.DataArray, lead: int = 0
) -> dict[str, Any]:
    """The covariates of a sequence: a number, or values along its times.

    Args:
        lead: so many times before the first have the values of the first.
    Raises:
        SourceError: If a series does not cover the times.
    """
    given: dict[str, Any] = {**config.generate.covariates, **asked.covariates}
    for name, value in given.items():
        if isinstance(value, str):
            known = read_covariate(value, name, times.isel(time=slice(lead, None))).values
            given[name] = np.concatenate([np.repeat(known[:1], lead), known])
    return given


def features_of_sequence(
    config: RunConfig, layout: StoreLayout, asked: DrawnSequence, lead: int
) -> FloatArray:
    """Season and covariates of the times of a sequence and of `lead` times before it."""
    step, source = step_of(layout), _source_times(layout)
    (first,) = at_dates((asked.start,), source, f"{KEY}.start").values
    values = np.array([first + step * day for day in range(-lead, asked.days)])
    times = xr.DataArray(values, dims="time", coords={"time": values}, name="time")
    normals = artifacts.open_published(layout, "normals")
    given = given_along(config, asked, times, lead)
    features: FloatArray = conditioned(times, given, normals)["condition"].values
    return features


def step_of(layout: StoreLayout, key: str = KEY) -> Any:
    """The step of the source's times.

    Args:
        key: what asks for it in the configuration.
    Raises:
        UnusableData: If they are not equally far apart, as months are not.
    """
    along = in_courses(_source_times(layout))
    times = along.values
    steps = np.concatenate([np.diff(times[part]) for part in contiguous(course_of(along))])
    if not steps.size or (steps != steps[0]).any():
        raise UnusableData(
            f"{key}: the times of the source are not equally far apart: "
            f"{f'{steps.min()} to {steps.max()}' if steps.size else 'there is one'}; take a source "
            "whose times are"
        )
    return steps[0]


def day_before(layout: StoreLayout, asked: DrawnSequence) -> Any:
    """The time of the source after which a sequence that goes on from it begins.

    Raises:
        ConfigError: If the sequence does not begin one step after the date it goes on from.
    """
    (start,) = at_dates((asked.start,), _source_times(layout), f"{KEY}.start").values
    last = start - step_of(layout)
    if str(last)[:10] != asked.from_:
        raise ConfigError(
            f"{KEY}.from: {asked.start} does not follow {asked.from_}; the time before it is "
            f"{str(last)[:16]}"
        )
    return last


def _source_times(layout: StoreLayout) -> xr.DataArray:
    published_input(layout, "fields")
    return artifacts.open_published(layout, "fields")["time"]
