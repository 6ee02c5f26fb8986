"""Days that follow each other: sequences of the linear law or of a learned one, as fields.

    states.zarr      x(realization, time, channel, coefficient) float32: whitened, up to lmax
    sequences.zarr   <variable>(realization, time, lat, lon | cell), as ensemble.zarr, its times one
                     after the other in the calendar of the source

States are drawn day after day, each given those before it (pipeline/gaussian/dynamics,
pipeline/diffusion/sequences); sequences are drawn beside each other. A learned law that begins with
a draw begins `SPIN_UP` days earlier, with the linear law; those days are dropped. Fields are made
of states in any order. The noise of a day is addressed by seed, realization and date, and what a
unit goes on from is the end of the unit before it, as it was published: the bytes depend neither on
workers nor on batches nor on interruptions, and a longer sequence begins as a shorter one does.
Beyond lmax the noise remembers, and needs no state (pipeline/gaussian/persistence).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
import zarr

from flows.cluster.map_units import map_units
from flows.config.schema import DRAW, VAR, ConfigError, DrawnSequence, RunConfig
from flows.progress import Progress
from flows.stages.base import published_input
from flows.stages.content_keys import sequence_key
from flows.stages.generate.draws import channels_of, labelled, placed_on, require_finite
from flows.stages.generate.sequence_times import (
    day_before,
    features_of_sequence,
    step_of,
    times_of_sequence,
)
from flows.stages.generate.templates import ensemble_template, provenance_of
from flows.stages.preprocess.normals import tail_of
from flows.stages.trained_model import (
    loaded_normals,
    loaded_sequence_law,
    loaded_sequences,
    sampler_of,
)
from pipeline.arrays import FloatArray
from pipeline.diffusion.noise import NoiseAddress
from pipeline.diffusion.sequences import NextDay
from pipeline.fields.whitening import to_fields
from pipeline.gaussian.dynamics import SequenceLaw
from pipeline.gaussian.persistence import persistent
from pipeline.sphere.coefficients import orders
from pipeline.sphere.named_grids import grid_named, grid_of
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from storage.conventions.labels import once
from storage.places.places import Place
from storage.places.zarr_stores import zarr_store

if TYPE_CHECKING:
    from distributed import Client

STATES, KIND = "states", "sequences"
UNIT_TIMES = 64  # of a unit, at most
CHUNK_TIMES = 8  # of the fields
UNIT_BYTES = 1 << 27  # of the float64 fields of a unit
CHAIN_UNITS = 16  # that one task draws, one after the other
SPIN_UP = 30  # days, from the linear law to the learned one


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What all tasks of some sequences know.

    Attributes:
        checkpoint: of the learned law.
        times: conditioned, of the whole sequence.
        step: between them.
        lead: days that are drawn before the first one, and dropped.
        features: of all days that are drawn, (lead + day, feature).
        begun: whitened days that they go on from, (day, channel, coefficient); none if the first
            day is drawn by itself.
    """

    config: RunConfig
    normals: artifacts.Published
    checkpoint: artifacts.Published
    times: xr.Dataset
    step: Any
    lead: int
    features: FloatArray
    begun: FloatArray

    def noise(self, realization: int, day: int) -> NoiseAddress:
        """The address of the noise of a day, counted from the first; earlier ones have noise, too.

        Sequences and single days of the same date share none.
        """
        first = self.times["time"].values[0]
        time = f"{first + day * self.step} in sequence"
        return NoiseAddress(seed=self.config.run.seed, realization=realization, time=time)


@dataclass(frozen=True)
class Chain:
    """Units of states that one task draws in the order of their times."""

    units: tuple[artifacts.Unit, ...]

    def __str__(self) -> str:
        return f"{self.units[0].name} to {self.units[-1].name}"


def publish_sequences(
    config: RunConfig,
    layout: StoreLayout,
    client: "Client",
    progress: Progress,
) -> artifacts.Published:
    """Draw and publish the sequences that the configuration asks for."""
    (asked,) = config.generate.sequences
    normals = published_input(layout, "normals")
    drawing = _drawing(config, layout, asked)
    digest = sha256(drawing.begun.tobytes()).hexdigest() if len(drawing.begun) else ""
    states = _publish_states(layout, client, progress, drawing, asked, digest)
    content, family = (
        sequence_key(config, layout, KIND, digest, family=part) for part in (False, True)
    )
    constants = artifacts.open_artifact(normals)
    name = config.generate.grid
    grid = grid_of(constants) if name == "source" else grid_named(name)
    template = ensemble_template(layout, constants, grid, drawing.times["time"], asked.realizations)
    times = _unit_times(grid.size * len(channels_of(constants)), asked.days)
    shards = {"realization": 1, "time": times}
    chunks = {"realization": 1, "time": CHUNK_TIMES}
    path = layout.artifact(KIND, content)
    artifacts.create(path, template, chunks=chunks, shards=shards, family=family)
    units = artifacts.plan_units({str(d): n for d, n in template.sizes.items()}, shards)
    there, missing = artifacts.adopt_units(path, units, artifacts.donors(layout, KIND, family))
    make = partial(write_fields, drawing, path, states.path, name)
    written = map_units(client, make, missing, progress, label=KIND, done=len(there))
    attrs = {
        **config.generate.attributes,
        **provenance_of(config, layout, family),
        "sampler": _sampler_words(config),
        "grid": grid.describe(),
        "grid_origin": "source" if name == "source" else "chosen",
        "past": config.sequence.past,
        "begins": asked.from_,
        "figures": {"realizations": asked.realizations, "times": asked.days},
        "states_digest": states.digest,
        "normals_digest": normals.digest,
    }
    return artifacts.publish(layout, KIND, content, units, attrs, [*there, *written])


def _drawing(config: RunConfig, layout: StoreLayout, asked: DrawnSequence) -> Drawing:
    begun = _begun(config, layout, asked)
    lead = 0 if config.train.model == VAR or len(begun) else SPIN_UP
    return Drawing(
        config=config,
        normals=published_input(layout, "normals"),
        checkpoint=published_input(layout, "checkpoints"),
        times=times_of_sequence(config, layout, asked),
        step=step_of(layout),
        lead=lead,
        features=features_of_sequence(config, layout, asked, lead),
        begun=begun,
    )


def _sampler_words(config: RunConfig) -> str:
    if config.train.model == VAR:
        return "exact draws of the Gaussian law of sequences"
    known = config.generate
    return f"{known.integrator}, {known.evaluations} evaluations a day given the days before it"


def _publish_states(
    layout: StoreLayout,
    client: "Client",
    progress: Progress,
    drawing: Drawing,
    asked: DrawnSequence,
    digest: str,
) -> artifacts.Published:
    config, constants = drawing.config, artifacts.open_artifact(drawing.normals)
    channels = channels_of(constants)
    size = (int(constants.attrs["lmax"]) + 1) ** 2
    empty = np.broadcast_to(np.float32(0), (asked.realizations, asked.days, len(channels), size))
    template = xr.Dataset(
        {"x": (("realization", "time", "channel", "coefficient"), empty)},
        coords={
            "realization": np.arange(asked.realizations, dtype=np.int32),
            "time": drawing.times["time"],
            "channel": np.asarray(channels),
        },
    )
    content, family = (
        sequence_key(config, layout, STATES, digest, family=part) for part in (False, True)
    )
    path = layout.artifact(STATES, content)
    shards = {"realization": 1, "time": min(UNIT_TIMES, asked.days)}
    artifacts.create(path, template, chunks=shards, shards=shards, compress=False, family=family)
    units = artifacts.plan_units({str(d): n for d, n in template.sizes.items()}, shards)
    there, missing = artifacts.adopt_units(path, units, artifacts.donors(layout, STATES, family))
    draw, records = partial(draw_states, drawing, path), [*there]
    resource = None if config.train.model == VAR else "GPU"
    for wave in _waves(missing, config.generate.microbatch):
        done = len(records)
        for found in map_units(
            client, draw, wave, progress, label=STATES, done=done, resource=resource
        ):
            records += found
    attrs = {"normals_digest": drawing.normals.digest, "past": config.sequence.past}
    return artifacts.publish(layout, STATES, content, units, attrs, records)


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
    law, channels = (
        loaded_sequence_law(drawing.normals),
        channels_of(loaded_normals(drawing.normals)),
    )
    lmax = law.layout.lmax
    size = len(past)

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


def write_fields(
    drawing: Drawing, path: Place, states: Place, grid: str, unit: artifacts.Unit
) -> artifacts.Record:
    """Make the fields of a unit of its states and write them. Runs on a worker."""
    torch.set_num_threads(1)
    constants = loaded_normals(drawing.normals)
    placed = placed_on(drawing.normals, grid, constants)
    number, region = unit.region["realization"].start, unit.region["time"]
    x = _stored(states)[number : number + 1, region]
    days, channels = range(region.start, region.stop), channels_of(constants)
    tail = tail_of(constants)
    if tail is not None:

        def beyond(day: int) -> np.ndarray:
            white = drawing.noise(number, day).white(0, channels, tail.last)
            return white[..., x.shape[-1] :]

        by_order = constants["sequence_tail_persistence"].values
        a = by_order[np.abs(orders(tail.last))[x.shape[-1] :]]
        drawn = tail.draw(x, persistent(beyond, days, a)[None])
        x = np.concatenate([x, drawn.astype(np.float32)], axis=-1)
    block = to_fields(
        labelled(x, drawing.times.isel(time=region), constants),
        placed,
        _remainder(drawing, placed, number, days),
    )
    require_finite(unit, block, placed)
    return artifacts.write_unit(path, unit, block)


def _remainder(drawing: Drawing, placed: xr.Dataset, number: int, days: range) -> xr.DataArray:
    """White noise for the remainder of some days of a sequence, that remembers the days before."""
    grid, channels, last = grid_of(placed), channels_of(placed), placed.attrs.get("noise_lmax")

    def white(day: int) -> np.ndarray:
        address = drawing.noise(number, day)
        return (
            address.on_grid(channels, grid.shape)
            if last is None
            else address.white(0, channels, last)
        )

    dims = grid.dims if last is None else ("noise_coefficient",)
    a = placed["sequence_remainder_persistence"].values.reshape(-1, *(1 for _ in dims))
    noise = persistent(white, days, a)[None]
    return xr.DataArray(noise, dims=("realization", "time", "channel", *dims))


def _begun(config: RunConfig, layout: StoreLayout, asked: DrawnSequence) -> FloatArray:
    """The whitened days that a sequence goes on from, the last one last.

    Raises:
        ConfigError: If the source does not have that day, or the sequence does not follow it.
    """
    whitened = once(artifacts.open_published(layout, "whitened")["x"])
    if asked.from_ == DRAW:
        return np.empty((0, *whitened.shape[1:]), np.float32)
    step, last = step_of(layout), day_before(layout, asked)
    times = whitened["time"].values
    found = np.flatnonzero(times == last)
    if not found.size:
        raise ConfigError(
            f"generate.sequences.from: the source has no day {asked.from_}; it has "
            f"{str(times[0])[:10]} to {str(times[-1])[:10]}"
        )
    place, known = int(found[0]), 1
    while known < config.sequence.past and place >= known:
        if times[place - known] != last - known * step:
            break
        known += 1
    days: FloatArray = whitened.isel(time=slice(place + 1 - known, place + 1)).values
    return days


def _before(drawing: Drawing, path: Place, number: int, day: int) -> FloatArray:
    """The days before a day of a sequence, as published: of its own, or those it goes on from."""
    past = drawing.config.sequence.past
    if day == 0:
        return drawing.begun
    own: FloatArray = _stored(path)[number, max(0, day - past) : day]
    return np.concatenate([drawing.begun, own])[-past:]


def _stored(path: Place) -> Any:
    return zarr.open_array(zarr_store(path / "x"), mode="r")


def _waves(units: Sequence[artifacts.Unit], size: int) -> list[list[Chain]]:
    """Missing units as chains of a microbatch each, and no chain before those that it goes on from.

    A chain is short enough that a task ends within its time.
    """
    groups: dict[tuple[int, int], list[artifacts.Unit]] = {}
    for unit in units:
        wave = unit.region["time"].start // (UNIT_TIMES * CHAIN_UNITS)
        groups.setdefault((wave, unit.region["realization"].start // size), []).append(unit)
    return [
        [Chain(tuple(group)) for (at, _), group in sorted(groups.items()) if at == wave]
        for wave in sorted({wave for wave, _ in groups})
    ]


def _by_time(units: Sequence[artifacts.Unit]) -> list[list[artifacts.Unit]]:
    """Units by the time at which they begin, the earliest first."""
    starts = sorted({unit.region["time"].start for unit in units})
    return [[unit for unit in units if unit.region["time"].start == start] for start in starts]


def _unit_times(values: int, days: int) -> int:
    """Times of a unit of fields: whole chunks, as many as fit."""
    chunks = UNIT_BYTES // (8 * CHUNK_TIMES * values)
    needed = -(-days // CHUNK_TIMES)
    return CHUNK_TIMES * max(1, min(UNIT_TIMES // CHUNK_TIMES, chunks, needed))


def _shape(law: SequenceLaw) -> tuple[int, int]:
    return law.layout.channels, (law.layout.lmax + 1) ** 2


def _learned(drawing: Drawing) -> NextDay | None:
    """The learned law of the next day; None if it is linear."""
    model = loaded_sequences(drawing.config, drawing.checkpoint, drawing.normals)
    if model is None:
        return None
    sampler, law = sampler_of(drawing.config), loaded_sequence_law(drawing.normals)
    return NextDay(law=law, score=model.drawn_by(sampler), sampler=sampler)
