"""The fields of sequences, made of their states in any order. Runs on workers.

Beyond lmax the noise remembers, and needs no state (pipeline/gaussian/persistence).
"""

import numpy as np
import torch
import xarray as xr

from flows.stages.generate.draws import channels_of, labelled, placed_on, require_finite
from flows.stages.generate.sequence_days import Drawing, stored_states
from flows.stages.preprocess.normals import tail_of
from flows.stages.trained_model import loaded_normals
from pipeline.fields.whitening import to_fields
from pipeline.gaussian.persistence import persistent
from pipeline.sphere.coefficients import orders
from pipeline.sphere.named_grids import grid_of
from storage.artifacts import publishing as artifacts
from storage.places.places import Place


def write_fields(
    drawing: Drawing, path: Place, states: Place, grid: str, unit: artifacts.Unit
) -> artifacts.Record:
    """Make the fields of a unit of its states and write them. Runs on a worker."""
    torch.set_num_threads(1)
    constants = loaded_normals(drawing.normals)
    placed = placed_on(drawing.normals, grid, constants)
    number, region = unit.region["realization"].start, unit.region["time"]
    x = stored_states(states)[number : number + 1, region]
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
