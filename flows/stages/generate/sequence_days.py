"""Days of sequences as states, one after the other. Runs on workers.

Each day is drawn given those before it (pipeline/gaussian/dynamics, pipeline/diffusion/sequences).
What a unit goes on from is the end of the unit before it as it was published, or what the sequences
begin with; the noise of a day is addressed by seed, realization and date.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
import zarr

from flows.config.schema import RunConfig
from flows.stages.generate.beginnings import Beginning
from flows.stages.generate.draws import channels_of
from flows.stages.trained_model import (
    loaded_normals,
    loaded_sequence_law,
    loaded_sequences,
    sampler_of,
)
from pipeline.arrays import FloatArray
from pipeline.diffusion.noise import NoiseAddress
from pipeline.diffusion.sequences import NextDay
from pipeline.gaussian.dynamics import SequenceLaw
from storage.artifacts import publishing as artifacts
from storage.places.places import Place
from storage.places.zarr_stores import zarr_store


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What all tasks of some sequences know.

    Attributes:
        checkpoint: of the learned law.
        times: conditioned, of the whole sequence.
        step: between them.
        lead: days that are drawn before the first one, and dropped.
        features: of all days that are drawn, (lead + day, feature).
        beginning: what they begin with.
    """

    config: RunConfig
    normals: artifacts.Published
    checkpoint: artifacts.Published
    times: xr.Dataset
    step: Any
    lead: int
    features: FloatArray
    beginning: Beginning

    def noise(self, realization: int, day: int) -> NoiseAddress:
        """The address of the noise of a day, counted from the first; earlier ones have noise, too.

        Sequences and single days of the same date share none.
        """
        date = self.times["time"].values[0] + day * self.step
        seed, words = self.config.run.seed, self.beginning.words
        for stream in self.beginning.streams:
            if day <= stream.last:
                seed, realization, words = stream.seed, stream.realization, stream.words
                break
        return NoiseAddress(seed=seed, realization=realization, time=f"{date} {words}")


@dataclass(frozen=True)
class Chain:
    """Units of states that one task draws in the order of their times."""

    units: tuple[artifacts.Unit, ...]

    def __str__(self) -> str:
        return f"{self.units[0].name} to {self.units[-1].name}"


def draw_states(drawing: Drawing, path: Place, chain: Chain) -> list[artifacts.Record]:
    """Draw and write some units, one time after the other. Runs on a worker.

    Units that a worker wrote before it died, and this chain was given to another, are not repeated.
    Members of a microbatch have a row of their own whether the others are drawn or not: what a row
    becomes depends on the shape of the batch and not on what is in the others.
    """
    torch.set_num_threads(1)
    law = loaded_sequence_law(drawing.normals)
    size, written = drawing.config.generate.microbatch, []
    for together in _by_time(artifacts.missing_units(path, chain.units)):
        region = together[0].region["time"]
        days = range(region.start, region.stop)
        numbers = [unit.region["realization"].start for unit in together]
        past = np.zeros((size, law.past, *_shape(law)))
        known = 0
        for number in numbers:
            before = _before(drawing, path, number, days.start)[-law.past :]
            known = len(before)
            past[number % size, law.past - known :] = before
        drawn = np.empty((size, len(days), *_shape(law)), np.float32)
        for day in range(days.start or -drawing.lead, days.stop):
            new = _next(drawing, past[:, law.past - known :], numbers, day).astype(np.float32)
            if day >= days.start:
                drawn[:, day - days.start] = new
            past = np.concatenate([past[:, 1:], new[:, None]], axis=1)
            known = min(known + 1, law.past)
        for unit, number in zip(together, numbers, strict=True):
            row = number % size
            dims = ("realization", "time", "channel", "coefficient")
            block = xr.Dataset({"x": (dims, drawn[row : row + 1])})
            written.append(artifacts.write_unit(path, unit, block))
    return written


def _next(drawing: Drawing, past: FloatArray, numbers: Sequence[int], day: int) -> FloatArray:
    """The next day of a microbatch, (member, channel, coefficient): by the learned law where one
    was learned and all the days that it asks for are known, by the linear one else."""
    law = loaded_sequence_law(drawing.normals)
    channels = channels_of(loaded_normals(drawing.normals))
    lmax, size = law.layout.lmax, len(past)

    def white(step: int) -> torch.Tensor:
        rows = np.zeros((size, *_shape(law)), np.float32)
        for number in numbers:
            rows[number % size] = drawing.noise(number, day).white(step, channels, lmax)
        return torch.from_numpy(rows)

    learned = _learned(drawing)
    if learned is None or past.shape[1] < law.past:
        return law.next(past, white(0).numpy())
    device = learned.score.baseline.variance.device
    features = np.tile(drawing.features[drawing.lead + day], (size, 1))
    return learned(past, lambda step: white(step).to(device), torch.from_numpy(features).to(device))


def _before(drawing: Drawing, path: Place, number: int, day: int) -> FloatArray:
    """The days before a day of a sequence, as published: of its own, or those it goes on from."""
    past = drawing.config.sequence.past
    if day == 0:
        return drawing.beginning.days
    own: FloatArray = stored_states(path)[number, max(0, day - past) : day]
    return np.concatenate([drawing.beginning.days, own])[-past:]


def stored_states(path: Place) -> Any:
    return zarr.open_array(zarr_store(path / "x"), mode="r")


def _by_time(units: Sequence[artifacts.Unit]) -> list[list[artifacts.Unit]]:
    """Units by the time at which they begin, the earliest first."""
    starts = sorted({unit.region["time"].start for unit in units})
    return [[unit for unit in units if unit.region["time"].start == start] for start in starts]


def _shape(law: SequenceLaw) -> tuple[int, int]:
    return law.layout.channels, (law.layout.lmax + 1) ** 2


def _learned(drawing: Drawing) -> NextDay | None:
    """The learned law of the next day; None if it is linear."""
    model = loaded_sequences(drawing.config, drawing.checkpoint, drawing.normals)
    if model is None:
        return None
    return model.following(loaded_sequence_law(drawing.normals), sampler_of(drawing.config))
