"""What is compared, made on the workers a few fields at a time and kept until it is scored.

    verification-<label>.zarr
      x(realization, time, channel, coefficient)     whitened coefficients
      power(realization, time, channel, degree)      mean squares of the scaled anomalies
      <variable>(realization, time, *grid)           where the fields stand nowhere else

of `m-block`, `channels` and `band-limit`, with their fields; of `model` and `noise-floor`, whose
fields are those of `verification` and of `fields`; and of `held-out`, whose fields here are the
seasonal climatology at the held-out dates. What the candidates are: flows/stages/verify/candidates.

A unit is some realizations at a few dates. What is in memory is a few fields of all variables,
however many dates and realizations there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from flows.cluster.map_units import map_units
from flows.progress import Progress
from flows.stages.conditions import with_predictors
from flows.stages.content_keys import code_of
from flows.stages.generate.chunks import TIMES_PER_CHUNK
from flows.stages.generate.draws import gaussian_fields
from flows.stages.generate.templates import ensemble_template
from flows.stages.preprocess.normals import baseline_of
from flows.stages.trained_model import loaded_normals
from flows.stages.verify.candidates import BAND_LIMIT, HELD_OUT, MODEL, Inputs, Known
from pipeline.arrays import FloatArray
from pipeline.fields.climatology import season_phase
from pipeline.fields.standardisation import factor_of, variables_of
from pipeline.fields.whitening import to_fields, to_whitened
from pipeline.gaussian.baselines import Baseline
from pipeline.gaussian.channel_covariance import mix_channels
from pipeline.scores.arena import FLOOR
from pipeline.scores.by_degree import power
from pipeline.sphere.named_grids import grid_of
from storage.artifacts import publishing as artifacts
from storage.artifacts.in_units import StoreInUnits, lay_out
from storage.artifacts.keys import content_key
from storage.artifacts.layout import StoreLayout
from storage.artifacts.published import Published
from storage.places.places import Place

if TYPE_CHECKING:
    from distributed import Client

KIND, SCHEMA = "verification", 1
GAUSSIAN = ("m-block", "channels")  # baselines whose draws are scored beside the model's
WITH_FIELDS = (*GAUSSIAN, BAND_LIMIT, HELD_OUT)
UNIT_BYTES = 1 << 27  # of a unit of several realizations
VALUES = 1 << 24  # of the fields that are made at once, unless one has more
COEFFICIENTS = 4096  # in a chunk of x: distances read few degrees of all fields


@dataclass(frozen=True)
class Piece:
    """A unit of one of the stores."""

    label: str
    path: Place
    unit: artifacts.Unit

    def __str__(self) -> str:
        return f"{self.unit.name} of {self.label}"


def compared(
    inputs: Inputs, layout: StoreLayout, client: Client, progress: Progress
) -> dict[str, Published]:
    """Make what is missing of all stores and publish them; by label."""
    known = inputs.known
    stores = {label: _laid_out(inputs, layout, label) for label in _labels(known)}
    pieces = [
        Piece(label, store.path, unit) for label, store in stores.items() for unit in store.missing
    ]
    done = sum(len(store.there) for store in stores.values())
    make = partial(write_piece, inputs)
    written = map_units(client, make, pieces, progress, label="what is compared", done=done)
    found = list(zip(pieces, written, strict=True))
    return {
        label: store.publish(
            {"compared": label}, [record for piece, record in found if piece.label == label]
        )
        for label, store in stores.items()
    }


def _labels(known: Known) -> tuple[str, ...]:
    others = (FLOOR, BAND_LIMIT) if known.floor else ()
    return (HELD_OUT, MODEL, *GAUSSIAN, *others)


def _laid_out(inputs: Inputs, layout: StoreLayout, label: str) -> StoreInUnits:
    known = inputs.known
    normals, size = known.normals, known.normals.sizes["coefficient"]
    realizations = _realizations(inputs, label)
    dates = known.dates.reset_coords(drop=True)
    template = ensemble_template(layout, normals, grid_of(normals), dates, realizations)
    if label not in WITH_FIELDS:
        template = template.drop_vars(list(template.data_vars))
    channels, lmax = normals.sizes["channel"], int(normals.attrs["lmax"])
    lead = (realizations, known.dates.size, channels)
    dims = ("realization", "time", "channel")
    template = template.assign(
        x=((*dims, "coefficient"), np.broadcast_to(np.float32(0), (*lead, size))),
        power=((*dims, "degree"), np.broadcast_to(np.float64(0), (*lead, lmax + 1))),
    )
    times = min(TIMES_PER_CHUNK, known.dates.size)
    one = sum(variable.nbytes for variable in template.data_vars.values())
    together = UNIT_BYTES * realizations * known.dates.size // (one * times)
    made_of = [inputs.fields, inputs.normals, inputs.whitened]
    key = content_key(
        stage=f"verify {label}",
        schema=SCHEMA,
        config=inputs.config.subset("run.seed", "split", "verify"),
        inputs={one.kind: one.digest for one in [*made_of, *([inputs.drawn] * (label == MODEL))]},
        code=code_of(__name__),
    )
    return lay_out(
        layout,
        KIND,
        key,
        key,
        template,
        shards={"realization": max(1, min(realizations, together)), "time": times},
        chunks={"realization": 1, "time": 1, "coefficient": min(COEFFICIENTS, size)},
        label=label,
    )


def _realizations(inputs: Inputs, label: str) -> int:
    if label == HELD_OUT:
        return 1
    if label in (FLOOR, BAND_LIMIT):
        floor = inputs.known.of_whitened.floor
        assert floor is not None
        return len(floor.rows)
    return inputs.config.verify.realizations


def write_piece(inputs: Inputs, piece: Piece) -> artifacts.Record:
    """Make and write one unit. Runs on a worker."""
    torch.set_num_threads(1)
    known, region = inputs.known, piece.unit.region
    normals = known.normals
    values = normals.sizes["channel"] * grid_of(normals).size
    step = max(1, VALUES // values)
    times = region["time"]
    rows = [
        xr.concat(
            [
                _made(known, piece.label, number, slice(start, min(start + step, times.stop)))
                for start in range(times.start, times.stop, step)
            ],
            "time",
            join="override",
        )
        for number in range(region["realization"].start, region["realization"].stop)
    ]
    return artifacts.write_unit(piece.path, piece.unit, xr.concat(rows, "realization"))


def _made(known: Known, label: str, number: int, dates: slice) -> xr.Dataset:
    """One realization at a few dates: (time, ...) of all that its store holds."""
    conditions = known.conditions.isel(time=dates)
    fields = None
    if label in (HELD_OUT, FLOOR, BAND_LIMIT):
        floor = known.of_whitened.floor
        rows = known.of_whitened.truth if label == HELD_OUT else floor.rows[number]  # type: ignore[union-attr]
        x = known.whitened.isel(time=rows[dates]).values
        if label == HELD_OUT:
            fields = _of_whitened(np.zeros_like(x), conditions, known.normals)
        elif label == BAND_LIMIT:
            fields = _of_whitened(x, conditions, known.normals)
            x = whitened_of(fields, conditions, known.normals)
    else:
        fields = _drawn(known, label, number, dates)
        x = whitened_of(fields, conditions, known.normals)
    found = with_power(x, known.normals)
    if label in WITH_FIELDS:
        assert fields is not None
        found = found.assign({name: fields[name].variable for name in variables_of(known.normals)})
    return found


def _drawn(known: Known, label: str, number: int, dates: slice) -> xr.Dataset:
    """Fields (time, *grid) of the model, or of a Gaussian law."""
    if label == MODEL:
        drawn = artifacts.open_artifact(known.inputs.drawn)[list(variables_of(known.normals))]
        return drawn.isel(realization=number, time=dates, drop=True).load()
    conditions = known.conditions.isel(time=dates)
    law = _law(known.inputs.normals, label)
    fields = gaussian_fields(known.inputs.config, known.normals, law, conditions, [number])
    return fields.isel(realization=0, drop=True)


@lru_cache(maxsize=1)
def _law(normals: Published, name: str) -> Baseline:
    return baseline_of(loaded_normals(normals), name)


def _of_whitened(x: FloatArray, conditions: xr.Dataset, normals: xr.Dataset) -> xr.Dataset:
    """Fields (time, *grid) without a remainder."""
    labelled = xr.DataArray(
        x,
        dims=("time", "channel", "coefficient"),
        coords={
            "time": conditions["time"],
            "phase": ("time", season_phase(conditions["time"])),
        },
    )
    return to_fields(with_predictors(labelled, conditions), normals)


def whitened_of(fields: xr.Dataset, conditions: xr.Dataset, normals: xr.Dataset) -> FloatArray:
    return to_whitened(with_predictors(fields, conditions), normals)["x"].values


def with_power(x: FloatArray, normals: xr.Dataset) -> xr.Dataset:
    scaled = mix_channels(factor_of(normals), x.astype(np.float64))
    return xr.Dataset(
        {
            "x": (("time", "channel", "coefficient"), x),
            "power": (("time", "channel", "degree"), power(scaled)),
        }
    )
