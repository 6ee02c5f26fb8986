"""Draws of the learned law: whitened fields from addressed noise, and their way back to the grid.

Noise is addressed by seed, realization, time, variable and step, and draws pass the network in
microbatches whose members are fixed: the same draw has the same bytes in every plan.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from flows.config.schema import RunConfig
from flows.errors import ExitCode
from flows.stages.conditions import conditioned_as_observed, with_predictors
from flows.stages.preprocess.normals import baseline_of, tail_of
from flows.stages.trained_model import Trained, loaded, sampler_of
from pipeline.diffusion.noise import NoiseAddress
from pipeline.diffusion.score import GaussianScore
from pipeline.fields.climatology import season_phase
from pipeline.fields.other_grid import placed_normals
from pipeline.fields.standardisation import variables_of
from pipeline.fields.whitening import to_fields
from pipeline.gaussian.baselines import Baseline
from pipeline.gaussian.conditional_tail import GaussianTail
from pipeline.sphere.named_grids import grid_named, grid_of
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from storage.places.places import Place


class SampleNotFinite(RuntimeError):
    """The model gave a field that is not made of numbers."""

    exit_code = ExitCode.NOT_FINITE


@dataclass(frozen=True)
class Draw:
    """What one task makes: units of neighbouring realizations at the same times."""

    units: tuple[artifacts.Unit, ...]

    def __str__(self) -> str:
        return f"{self.units[0].name} to {self.units[-1].name}"


def draws_of(units: Sequence[artifacts.Unit], together: int) -> list[Draw]:
    """Missing units by their times and by aligned runs of `together` realizations."""
    groups: dict[tuple[int, int], list[artifacts.Unit]] = {}
    for unit in units:
        place = (unit.region["realization"].start // together, unit.region["time"].start)
        groups.setdefault(place, []).append(unit)
    return [Draw(tuple(group)) for _, group in sorted(groups.items())]


def draw_units(
    config: RunConfig,
    path: Place,
    grid: str,
    checkpoint: artifacts.Published,
    normals: artifacts.Published,
    times: xr.Dataset,
    draw: Draw,
) -> list[artifacts.Record]:
    """Draw the fields of some units on a grid and write each. Runs on a worker.

    Units that a worker wrote before it died, and this draw was given to another, are not repeated.
    """
    units = artifacts.missing_units(path, draw.units)
    if not units:
        return []
    torch.set_num_threads(1)
    model, constants = loaded(config, checkpoint, normals)
    placed = placed_on(normals, grid, constants)
    part = times.isel(time=units[0].region["time"])
    wanted = [unit.region["realization"].start for unit in units]
    x = whitened_draws(config, model, constants, wanted, part)
    extra = {"checkpoint": checkpoint.digest}
    written: list[Future[artifacts.Record]] = []
    # While one unit waits for the disk, the next is made. Never two: a worker that dies costs one.
    with ThreadPoolExecutor(1) as pool:
        for number, unit in enumerate(units):
            noise = white_remainder(config, placed, wanted[number : number + 1], part["time"])
            block = to_fields(x.isel(realization=[number]), placed, noise)
            require_finite(unit, block, placed)
            wait(written)
            written.append(pool.submit(artifacts.write_unit, path, unit, block, extra=extra))
    return [each.result() for each in written]


def whitened_draws(
    config: RunConfig,
    model: Trained,
    normals: xr.Dataset,
    realizations: Sequence[int],
    times: xr.Dataset,
) -> xr.DataArray:
    """Whitened draws (realization, time, channel, coefficient) of the model's law.

    A Gaussian law is drawn from in closed form: no integrator, and noise for one step only.
    The network sees aligned groups of `generate.microbatch` realizations at one time, whole even
    where only some of a group are wanted: the same draw has the same neighbours in every plan.
    """
    sampler, size = sampler_of(config), config.generate.microbatch
    score = model.drawn_by(sampler)
    channels, conditions = channels_of(normals), times["condition"].values
    lmax, device = int(normals.attrs["lmax"]), score.baseline.variance.device
    tail = tail_of(normals)
    shape = (
        len(realizations),
        times.sizes["time"],
        len(channels),
        ((tail.last if tail else lmax) + 1) ** 2,
    )
    result = np.empty(shape, np.float32)
    for column in range(times.sizes["time"]):
        condition = torch.from_numpy(np.tile(conditions[column], (size, 1))).to(device)
        for group in sorted({number // size for number in realizations}):
            members = range(group * size, (group + 1) * size)
            column_of = times["time"].isel(time=[column])
            addresses = [row for (row,) in _addresses(config, members, column_of)]

            def noise(step: int, addresses: list[NoiseAddress] = addresses) -> torch.Tensor:
                white = [address.white(step, channels, lmax) for address in addresses]
                return torch.from_numpy(np.stack(white)).to(device)

            if isinstance(score, GaussianScore):
                fields = score.baseline.color(noise(0))
            else:
                fields = sampler(score, noise, condition)
            drawn = fields.cpu().numpy()
            if tail is not None:
                drawn = _with_tail(drawn, tail, addresses, normals)
            for row, number in enumerate(realizations):
                if number in members:
                    result[row, column] = drawn[number - members.start]
    return labelled(result, times, normals)


def _with_tail(
    drawn: np.ndarray,
    tail: GaussianTail,
    addresses: Sequence[NoiseAddress],
    normals: xr.Dataset,
) -> np.ndarray:
    """Draws (draw, channel, coefficient) up to lmax, and beyond from their own noise."""
    white = [address.white(0, channels_of(normals), tail.last) for address in addresses]
    beyond = tail.draw(drawn, np.stack(white)[..., drawn.shape[-1] :])
    return np.concatenate([drawn, beyond], axis=-1)


def white_remainder(
    config: RunConfig, normals: xr.Dataset, realizations: Sequence[int], times: xr.DataArray
) -> xr.DataArray:
    """White noise on the grid, addressed as that of the coefficients is.

    On another grid than the source's: more coefficients of the noise that the draws begin with.
    """
    grid, channels = grid_of(normals), channels_of(normals)
    last = normals.attrs.get("noise_lmax")
    white = [
        [
            address.on_grid(channels, grid.shape)
            if last is None
            else address.white(0, channels, last)
            for address in row
        ]
        for row in _addresses(config, realizations, times)
    ]
    dims = grid.dims if last is None else ("noise_coefficient",)
    return xr.DataArray(
        np.array(white, dtype=np.float64), dims=("realization", "time", "channel", *dims)
    )


def gaussian_ensemble(
    config: RunConfig, layout: StoreLayout, name: str, times: xr.DataArray, realizations: int
) -> xr.Dataset:
    """The same number of fields at the same times from a Gaussian baseline alone, in memory."""
    normals = artifacts.open_published(layout, "normals").load()
    fields = artifacts.open_published(layout, "fields")
    conditions = conditioned_as_observed(times, fields, normals)
    law = baseline_of(normals, name)
    return gaussian_fields(config, normals, law, conditions, range(realizations))


def gaussian_fields(
    config: RunConfig,
    normals: xr.Dataset,
    law: Baseline,
    conditions: xr.Dataset,
    realizations: Sequence[int],
) -> xr.Dataset:
    """Fields (realization, time, *grid) from a Gaussian law alone, at conditioned times; these
    realizations, whatever others there are."""
    times, channels = conditions["time"], channels_of(normals)
    addresses = _addresses(config, realizations, times)
    white = np.array(
        [
            [address.white(0, channels, int(normals.attrs["lmax"])) for address in row]
            for row in addresses
        ]
    )
    x, tail = law.color(torch.from_numpy(white)).numpy(), tail_of(normals)
    if tail is not None:
        drawn = zip(x, addresses, strict=True)
        x = np.stack([_with_tail(part, tail, row, normals) for part, row in drawn])
    remainder = white_remainder(config, normals, realizations, times)
    return to_fields(labelled(x, conditions, normals), normals, remainder)


def labelled(x: np.ndarray, conditions: xr.Dataset, normals: xr.Dataset) -> xr.DataArray:
    draws = xr.DataArray(
        x,
        dims=("realization", "time", "channel", "coefficient"),
        coords={
            "time": conditions["time"],
            "phase": ("time", season_phase(conditions["time"])),
            "channel": channels_of(normals),
        },
    )
    return with_predictors(draws, conditions)


def channels_of(normals: xr.Dataset) -> list[str]:
    return [str(name) for name in normals["channel"].values]


def _addresses(
    config: RunConfig, realizations: Sequence[int], times: xr.DataArray
) -> list[list[NoiseAddress]]:
    """The address of each draw, by realization, then time."""
    return [
        [
            NoiseAddress(seed=config.run.seed, realization=number, time=str(time))
            for time in times.values
        ]
        for number in realizations
    ]


def require_finite(unit: artifacts.Unit, block: xr.Dataset, placed: xr.Dataset) -> None:
    for name, values in block.items():
        if not _finite_where_data_are(values, placed):
            raise SampleNotFinite(
                f"{unit.name}: {name} is not finite; nothing of this unit is written. Train "
                "longer or with a lower train.learning_rate, or sample with more evaluations"
            )


def _finite_where_data_are(values: xr.DataArray, normals: xr.Dataset) -> bool:
    place = variables_of(normals).index(str(values.name))
    missing = normals["mask"].isel(channel=place, drop=True).drop_vars("channel", errors="ignore")
    return bool((np.isfinite(values) | missing.astype(bool)).all())


# One per worker process; a new run brings new digests.
_PLACED: dict[tuple[str, str], xr.Dataset] = {}


def placed_on(normals: artifacts.Published, grid: str, constants: xr.Dataset) -> xr.Dataset:
    """The normals on the grid that is drawn on."""
    if grid == "source":
        return constants
    place = (normals.digest, grid)
    if place not in _PLACED:
        _PLACED.clear()
        _PLACED[place] = placed_normals(constants, grid_named(grid))
    return _PLACED[place]
