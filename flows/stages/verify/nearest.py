"""Whether the model copies: the distance of its draws to their nearest training fields.

The training fields are divided among the workers; each block of them meets all that is looked for,
a few fields at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flows.cluster.map_units import map_units
from flows.progress import Progress
from flows.stages.splits import part_of
from flows.stages.verify.candidates import MODEL, Lineup
from pipeline.arrays import FloatArray
from pipeline.scores.proper_scores import ROWS, memorisation, nearest

if TYPE_CHECKING:
    from distributed import Client

NEAREST = 512  # draws, and held-out fields, that are looked for at most


@dataclass(frozen=True)
class Block:
    """A run of the training fields."""

    start: int
    stop: int

    def __str__(self) -> str:
        return f"{self.start} to {self.stop}"


def nearest_training_fields(lineup: Lineup, client: Client, progress: Progress) -> dict[str, Any]:
    """Quantiles of the distances, generated beside held-out; see `memorisation`."""
    arena, known = lineup.arena, lineup.inputs.known
    fields = part_of(known.whitened, lineup.inputs.config.split, "train").sizes["time"]
    blocks = [Block(start, min(start + ROWS, fields)) for start in range(0, fields, ROWS)]
    found = map_units(
        client, partial(nearest_in, lineup), blocks, progress, label="training fields"
    )
    least = np.min(found, axis=0)
    drawn = len(_queries(arena.candidates[MODEL].x))
    size = arena.truth.x[0, 0].size
    return memorisation(least[:drawn], least[drawn:], size) | {
        "fields": {"generated": drawn, "held_out": len(least) - drawn}
    }


def nearest_in(lineup: Lineup, block: Block) -> FloatArray:
    """Distance of each draw, then of each held-out field, to the nearest of a block of training
    fields. Runs on a worker."""
    arena, known = lineup.arena, lineup.inputs.known
    train = part_of(known.whitened, lineup.inputs.config.split, "train")
    bank = train.isel(time=slice(block.start, block.stop))
    model, truth = arena.candidates[MODEL].x, arena.truth.x
    return nearest(Rows([(x, _queries(x)) for x in (model, truth)]), bank)


def _queries(x: xr.DataArray) -> list[tuple[int, int]]:
    """Realization and date of `NEAREST` fields at most, evenly spread over all of them."""
    realizations, dates = x.shape[:2]
    number = min(NEAREST, realizations * dates)
    chosen = np.linspace(0, realizations * dates - 1, number).astype(int)
    return [divmod(int(place), dates) for place in chosen]


class Rows:
    """Chosen fields of several arrays (realization, time, ...), read when they are asked for."""

    def __init__(self, parts: Sequence[tuple[xr.DataArray, Sequence[tuple[int, int]]]]) -> None:
        self.places = [(x, place) for x, places in parts for place in places]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, fields: slice) -> FloatArray:
        return np.stack([x[place].values for x, place in self.places[fields]])
