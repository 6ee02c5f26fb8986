"""The times of sequences: one after the other, as far apart as those of the source."""

from typing import Any

import numpy as np
import xarray as xr

from flows.config.schema import DrawnSequence, RunConfig
from flows.stages.base import published_input
from flows.stages.conditions import conditioned, unseen_of
from flows.stages.dates import SEQUENCES, require_seen, step_in, times_from
from pipeline.arrays import FloatArray
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from storage.sources.covariates import read_covariate


def times_of_sequence(config: RunConfig, layout: StoreLayout, asked: DrawnSequence) -> xr.Dataset:
    """The times of a sequence in the calendar of the source, with their conditions.

    Raises:
        ConfigError, UnusableData: If its start is no date of that calendar, or times are of a
            season that was not learned.
    """
    times = times_from(asked, source_times(layout))
    published_input(layout, "normals")
    normals = artifacts.open_published(layout, "normals")
    require_seen(times, unseen_of(normals), SEQUENCES)
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
    times = times_from(asked, source_times(layout), lead)
    normals = artifacts.open_published(layout, "normals")
    given = given_along(config, asked, times, lead)
    features: FloatArray = conditioned(times, given, normals)["condition"].values
    return features


def step_of(layout: StoreLayout, key: str = SEQUENCES) -> Any:
    """The step of the source's times (flows/stages/dates.step_in)."""
    return step_in(source_times(layout), key)


def source_times(layout: StoreLayout) -> xr.DataArray:
    published_input(layout, "fields")
    return artifacts.open_published(layout, "fields")["time"]
