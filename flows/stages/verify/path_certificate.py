"""By how many nats a day the learned law of sequences is closer to the data than the linear law.

    past, fields, draws, block   days that a day is given; held-out days, steps drawn for each, and
                                 the days that are taken together for the intervals
    nats, low, high              J_G per day over VAR(past), with its 95 % interval
    per_degree, per_degree_error, per_variable, per_variable_error (by name), per_time, times
    statement                    in words

What is new in a day is certified given the days before it, whatever law those come from: the sum
over the days of a sequence bounds by how much its whole path is likelier (docs/mathematics.md, 10).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import xarray as xr

from flows.cluster.map_units import map_units
from flows.config.schema import RunConfig
from flows.progress import Progress
from flows.stages.base import published_input
from flows.stages.conditions import condition_of
from flows.stages.preprocess.block_sums import opened
from flows.stages.splits import course_of, in_courses, part_of
from flows.stages.trained_model import (
    certified_sampler,
    device_of,
    loaded_sequence_law,
    loaded_sequences,
    taken,
)
from pipeline.arrays import FloatArray
from pipeline.certificate.path_bound import Certificate, certify
from pipeline.gaussian.given_past import Innovations, days_with_past
from pipeline.scores.intervals import mean_interval, of_times, standard_errors
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout

if TYPE_CHECKING:
    from distributed import Client

EVALUATIONS = 2000  # of the network, but one for each day
TOGETHER = 16  # days that one task certifies


@dataclass(frozen=True)
class Part:
    """A run of the held-out days that one task certifies; `of` are there in all."""

    start: int
    stop: int
    of: int
    draws: int

    def __str__(self) -> str:
        return f"of days {self.start} to {self.stop}"


@dataclass(frozen=True, kw_only=True)
class PathCertificate:
    """What the held-out days say.

    Attributes:
        summary: see the module.
        nats: J_G of each day over VAR(past), (day,).
    """

    summary: dict[str, Any]
    nats: FloatArray


def path_certificate(
    config: RunConfig, layout: StoreLayout, client: "Client", progress: Progress
) -> PathCertificate | None:
    """J_G per day over the linear law, measured on the workers; None if no law was learned."""
    if not config.learns_sequences:
        return None
    checkpoint, normals, whitened = (
        published_input(layout, kind) for kind in ("checkpoints", "normals", "whitened")
    )
    held_out = in_courses(part_of(artifacts.open_artifact(whitened), config.split, "test"))
    days = days_with_past(course_of(held_out), config.sequence.past)
    steps = len(certified_sampler(config).times) - 1
    draws = min(max(1, EVALUATIONS // len(days)), steps)
    parts = [
        Part(start, min(start + TOGETHER, len(days)), len(days), draws)
        for start in range(0, len(days), TOGETHER)
    ]
    measure = partial(certified, config, checkpoint, normals, whitened)
    found = map_units(client, measure, parts, progress, label="path certificate", resource="GPU")
    return _assembled(config, held_out.isel(time=days), sum(found[1:], start=found[0]))


def certified(
    config: RunConfig,
    checkpoint: artifacts.Published,
    normals: artifacts.Published,
    whitened: artifacts.Published,
    part: Part,
) -> Certificate:
    """What a part of the held-out days says of the model. Runs on a worker."""
    torch.set_num_threads(1)
    model = loaded_sequences(config, checkpoint, normals)
    assert model is not None
    held_out = in_courses(part_of(opened(whitened), config.split, "test"))
    law = loaded_sequence_law(normals)
    days = days_with_past(course_of(held_out), law.past)[part.start : part.stop]
    device = device_of(config)
    innovations = Innovations(held_out["x"], days, law)[:]
    x_0, condition = taken(innovations, condition_of(held_out)[days], device)
    return certify(
        model.score,
        x_0,
        condition,
        certified_sampler(config).times,
        torch.Generator().manual_seed(config.run.seed),
        part.draws,
        batch=config.generate.microbatch,
        first=part.start,
        of=part.of,
    )


def _assembled(config: RunConfig, held_out: xr.Dataset, result: Certificate) -> PathCertificate:
    channels = [str(name) for name in held_out["channel"].values]
    days, season = held_out["time"].values, held_out["phase"].values
    interval = mean_interval(result.per_field, days, season)
    errors = [
        standard_errors(of_times(result.by_field_alone.sum(axis), days), interval.block)
        for axis in (1, 2)
    ]
    summary = {
        "past": config.sequence.past,
        "fields": len(days),
        "draws": result.visits.shape[1],
        "block": interval.block,
        "nats": interval.value,
        "low": interval.low,
        "high": interval.high,
        "per_degree": result.spectrum.sum(axis=(0, 1)).tolist(),
        "per_degree_error": errors[0].tolist(),
        "per_variable": _named(channels, result.spectrum.sum(axis=(0, 2))),
        "per_variable_error": _named(channels, errors[1]),
        "per_time": result.spectrum.sum(axis=(1, 2)).tolist(),
        "times": certified_sampler(config).times.tolist(),
    }
    return PathCertificate(
        summary={"statement": statement(summary), **summary}, nats=result.per_field
    )


def statement(found: dict[str, Any]) -> str:
    """What may be said of a path, and of which sampler."""
    law = f"VAR({found['past']})"
    value = f"estimate {found['nats']:.1f}, 95 %: {found['low']:.1f} to {found['high']:.1f}"
    if found["low"] <= 0:
        return f"No improvement of the learned law of sequences over {law} is certified ({value})."
    return (
        f"On {found['fields']} held-out days, each given the {found['past']} before it, the "
        "Kullback-Leibler divergence of the data's sequences from those of the GME chain is with "
        f"95 % confidence smaller than that from {law} by at least {found['low']:.1f} nats per day "
        f"({value}). This is about days given real pasts; what sequences do that "
        "go on from their own days is said beside it."
    )


def _named(channels: Sequence[str], values: FloatArray) -> dict[str, float]:
    return dict(zip(channels, values.tolist(), strict=True))
