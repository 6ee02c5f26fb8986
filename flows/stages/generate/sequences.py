"""Days that follow each other: sequences of the linear law or of a learned one, as fields.

    states.zarr      x(realization, time, channel, coefficient) float32: whitened, up to lmax
    sequences.zarr   <variable>(realization, time, lat, lon | cell), as ensemble.zarr, its times one
                     after the other in the calendar of the source

Of several in one run each but one has a name: states-NAME.zarr and sequences-NAME.zarr. States are
drawn day after day (flows/stages/generate/sequence_days); sequences are drawn beside each other. A
learned law that begins with a draw begins `SPIN_UP` days earlier, with the linear law; those days
are dropped. Fields are made of states in any order. The bytes depend neither on workers nor on
batches nor on interruptions, and a longer sequence begins as a shorter one does. With
`generate.series` each has a copy for series, series-sequences.zarr or series-sequences-NAME.zarr.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from flows.cluster.map_units import map_units
from flows.config.schema import DRAW, DrawnSequence, RunConfig
from flows.progress import Progress
from flows.stages.base import published_input
from flows.stages.conditions import beyond_training
from flows.stages.content_keys import sequence_key
from flows.stages.generate.beginnings import STATES, beginning_of
from flows.stages.generate.chunks import TIMES_PER_CHUNK, UNIT_TIMES, times_of_unit
from flows.stages.generate.draws import channels_of
from flows.stages.generate.sequence_days import Chain, Drawing, draw_states
from flows.stages.generate.sequence_fields import write_fields
from flows.stages.generate.sequence_times import (
    features_of_sequence,
    step_of,
    times_of_sequence,
)
from flows.stages.generate.series import publish_series
from flows.stages.generate.templates import ensemble_template, provenance_of
from pipeline.sphere.named_grids import grid_named, grid_of
from storage.artifacts import publishing as artifacts
from storage.artifacts.in_units import lay_out
from storage.artifacts.layout import StoreLayout, labelled

if TYPE_CHECKING:
    from distributed import Client

KIND = "sequences"
CHAIN_UNITS = 16  # that one task draws, one after the other
SPIN_UP = 30  # days, from the linear law to the learned one

Beside = dict[str, dict[str, str]]  # by kind and label, the key of what was published


def publish_sequences(
    config: RunConfig, layout: StoreLayout, client: "Client", progress: Progress
) -> Beside:
    """Draw and publish all sequences that the configuration asks for, in its order."""
    made: Beside = {}
    for asked in config.generate.sequences:
        drawing = _drawing(config, layout, asked)
        states = _publish_states(layout, client, progress, drawing, asked)
        fields = _publish_fields(layout, client, progress, drawing, asked, states)
        for one in (states, fields):
            made.setdefault(one.kind, {})[asked.name] = one.key
    return made


def _publish_fields(
    layout: StoreLayout,
    client: "Client",
    progress: Progress,
    drawing: Drawing,
    asked: DrawnSequence,
    states: artifacts.Published,
) -> artifacts.Published:
    """Make and publish the fields of drawn states, and their copy for series."""
    config = drawing.config
    constants, name = artifacts.open_artifact(drawing.normals), config.generate.grid
    grid = grid_of(constants) if name == "source" else grid_named(name)
    template = ensemble_template(layout, constants, grid, drawing.times["time"], asked.realizations)
    times = times_of_unit(grid.size * len(channels_of(constants)), asked.days, UNIT_TIMES)
    keys = _keys(config, layout, asked, KIND, drawing)
    store = lay_out(
        layout,
        KIND,
        *keys,
        template,
        chunks={"realization": 1, "time": TIMES_PER_CHUNK},
        shards={"realization": 1, "time": times},
        label=asked.name,
    )
    make, done = partial(write_fields, drawing, store.path, states.path, name), len(store.there)
    written = map_units(client, make, store.missing, progress, label=KIND, done=done)
    said = beyond_training(constants, drawing.times)
    beyond = {"beyond training": said} if said else {}
    attrs = {
        **_words(config, asked, template),
        **config.generate.attributes,
        **provenance_of(config, layout, keys[1]),
        "sampler": _sampler_words(config),
        "grid": grid.describe(),
        "grid_origin": "source" if name == "source" else "chosen",
        "past": config.sequence.past,
        "begins": f"{asked.from_} of {asked.of}" if asked.of else asked.from_,
        "figures": {"realizations": asked.realizations, "times": asked.days, **beyond},
        "states_digest": states.digest,
        "normals_digest": drawing.normals.digest,
        "checkpoints_digest": drawing.checkpoint.digest,
    }
    if config.generate.series:
        label = labelled(KIND, asked.name)
        publish_series(layout, client, progress, store.path, keys, template, attrs, label)
    return store.publish(attrs, written)


def _words(config: RunConfig, asked: DrawnSequence, template: xr.Dataset) -> dict[str, str]:
    """What a catalogue says of sequences, whose times are no draws of single days."""
    names = ", ".join(str(one.attrs.get("long_name", k)) for k, one in template.data_vars.items())
    begins = f"All begin with {asked.from_} of {asked.of or 'the source'}."
    if asked.from_ == DRAW:
        begins = "They begin with draws of the climate and are no forecasts."
    return {
        "title": f"Generated sequences of {asked.days} times, {asked.realizations} realizations",
        "summary": f"Global fields that follow each other: {names}. Each time is drawn given the "
        f"{config.sequence.past} before it; realizations share no noise. {begins} "
        f"{template.attrs['source'].removeprefix('spherescore, ').capitalize()}.",
    }


def _keys(
    config: RunConfig, layout: StoreLayout, asked: DrawnSequence, kind: str, drawing: Drawing
) -> tuple[str, str]:
    """The content key of some sequences, and that of their family."""
    begun = drawing.beginning.digest
    content = sequence_key(config, layout, asked, kind, begun)
    return content, sequence_key(config, layout, asked, kind, begun, family=True)


def _drawing(config: RunConfig, layout: StoreLayout, asked: DrawnSequence) -> Drawing:
    beginning = beginning_of(config, layout, asked)
    lead = SPIN_UP if config.learns_sequences and not len(beginning.days) else 0
    return Drawing(
        config=config,
        normals=published_input(layout, "normals"),
        checkpoint=published_input(layout, "checkpoints"),
        times=times_of_sequence(config, layout, asked),
        step=step_of(layout),
        lead=lead,
        features=features_of_sequence(config, layout, asked, lead),
        beginning=beginning,
    )


def _sampler_words(config: RunConfig) -> str:
    if not config.learns_sequences:
        return "exact draws of the Gaussian law of sequences"
    known = config.generate
    return f"{known.integrator}, {known.evaluations} evaluations a day given the days before it"


def _publish_states(
    layout: StoreLayout,
    client: "Client",
    progress: Progress,
    drawing: Drawing,
    asked: DrawnSequence,
) -> artifacts.Published:
    """Draw and publish the states of some sequences."""
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
    store = lay_out(
        layout,
        STATES,
        *_keys(config, layout, asked, STATES, drawing),
        template,
        shards={"realization": 1, "time": min(UNIT_TIMES, asked.days)},
        compress=False,
        label=asked.name,
    )
    draw, written = partial(draw_states, drawing, store.path), list[artifacts.Record]()
    resource = "GPU" if config.learns_sequences else None
    for wave in _waves(store.missing, config.generate.microbatch):
        done = len(store.there) + len(written)
        for found in map_units(
            client, draw, wave, progress, label=STATES, done=done, resource=resource
        ):
            written += found
    attrs = {
        "normals_digest": drawing.normals.digest,
        "past": config.sequence.past,
        "stream": drawing.beginning.stream(config.run.seed),
    }
    return store.publish(attrs, written)


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
