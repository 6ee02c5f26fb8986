"""Stage 4: realizations of the learned law on the dates asked for.

Reads `checkpoints` and `normals`; publishes `ensemble` (and, for verify, `verification`):

    ensemble.zarr
      <variable>(realization, time, lat, lon | cell)   float32, names and units of the source
      realization, time, time_bnds, lat, lon           CF-1.13; provenance in the attributes

A chunk is one realization at a few times on the whole sphere, and a unit is one such chunk. Noise
is addressed by realization and time, and draws pass the network in microbatches whose members are
fixed, so the bytes depend neither on batches nor on workers nor on order; an ensemble that grows
takes over the realizations it has.
"""

import time as clock
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from flows.cluster import map_units
from flows.config import RunConfig
from flows.model import baseline_of, published_input, sampler_of, trained
from flows.stage import Progress, Receipt
from pipeline.climatology import season_phase
from pipeline.sample import NoiseAddress
from pipeline.score import Score
from pipeline.transform import grid_of, to_fields
from storage import artifacts
from storage.labels import label_ensemble
from storage.layout import StoreLayout

if TYPE_CHECKING:
    from distributed import Client

STAGE = "generate"
SCHEMA = 1
KIND = "ensemble"

TIMES_PER_CHUNK = 8


class SampleNotFinite(RuntimeError):
    """The model gave a field that is not made of numbers."""

    exit_code = 51


@dataclass(frozen=True)
class Draw:
    """What one task makes: units of neighbouring realizations at the same times."""

    units: tuple[artifacts.Unit, ...]

    def __str__(self) -> str:
        return f"{self.units[0].name} to {self.units[-1].name}"


def key(config: RunConfig, layout: StoreLayout) -> str:
    times = [str(time) for time in asked_times(config, layout).values]
    return ensemble_key(config, layout, KIND, times, config.generate.realizations)


def run(config: RunConfig, layout: StoreLayout, client: "Client", progress: Progress) -> Receipt:
    """Draw and publish the ensemble that the configuration asks for."""
    began = clock.monotonic()
    times = asked_times(config, layout)
    realizations = config.generate.realizations
    published = generate_ensemble(config, layout, client, progress, KIND, times, realizations)
    return Receipt(
        stage=STAGE,
        kind=KIND,
        path=str(published.path),
        key=published.key,
        digest=published.digest,
        seconds=clock.monotonic() - began,
        figures=published.attrs["figures"],
    )


def ensemble_key(
    config: RunConfig,
    layout: StoreLayout,
    kind: str,
    times: Sequence[str],
    realizations: int | None,
) -> str:
    """Content key of an ensemble; without realizations that of its family, of any number."""
    return artifacts.content_key(
        stage=f"{STAGE} {kind}",
        schema=SCHEMA,
        config=config.subset("run.seed", "generate.steps", "generate.microbatch")
        | {"times": list(times), "realizations": realizations},
        inputs={
            "checkpoints": published_input(layout, "checkpoints", "train").digest,
            "normals": published_input(layout, "normals", "preprocess").digest,
        },
        code=artifacts.code_digest([__name__, "flows.model"]),
    )


def generate_ensemble(
    config: RunConfig,
    layout: StoreLayout,
    client: "Client",
    progress: Progress,
    kind: str,
    times: xr.DataArray,
    realizations: int,
) -> artifacts.Published:
    """Draw `realizations` fields at each of `times` (in the source's calendar) and publish them."""
    began = clock.monotonic()
    checkpoint = published_input(layout, "checkpoints", "train")
    normals = published_input(layout, "normals", "preprocess")
    names = [str(time) for time in times.values]
    content = ensemble_key(config, layout, kind, names, realizations)
    family = ensemble_key(config, layout, kind, names, None)
    path = layout.artifact(kind, content)
    template = _template(layout, artifacts.open_artifact(normals), times, realizations)
    shards = {"realization": 1, "time": min(TIMES_PER_CHUNK, len(times))}
    artifacts.create(path, template, chunks=shards, shards=shards, family=family)
    units = artifacts.plan_units({str(d): n for d, n in template.sizes.items()}, shards)
    artifacts.adopt_units(path, units, artifacts.donors(layout, kind, family))
    missing = artifacts.missing_units(path, units)
    draw = partial(draw_units, config, path, checkpoint, normals, times)
    map_units(client, draw, _draws(missing, config.generate.batch), progress, label=kind)
    figures = {"realizations": realizations, "times": len(times), "units drawn": len(missing)}
    provenance = {
        "figures": figures,
        "seconds": clock.monotonic() - began,
        "history": f"spherescore {version('spherescore')}: GME, {config.generate.steps} steps",
        "run_seed": config.run.seed,
        "normals_digest": normals.digest,
        "checkpoints_digest": checkpoint.digest,
        "spherescore_version": version("spherescore"),
        "config": config.to_dict(),
    }
    return artifacts.publish(layout, kind, content, units, provenance)


def draw_units(
    config: RunConfig,
    path: Path,
    checkpoint: artifacts.Published,
    normals: artifacts.Published,
    times: xr.DataArray,
    draw: Draw,
) -> None:
    """Draw the fields of some units and write each. Runs on a worker."""
    torch.set_num_threads(1)
    score, constants = _loaded(config, checkpoint, normals)
    part = times.isel(time=draw.units[0].region["time"])
    wanted = [unit.region["realization"].start for unit in draw.units]
    x = whitened_draws(config, score, constants, wanted, part)
    fields = to_fields(x, constants, white_remainder(config, constants, wanted, part))
    for number, unit in enumerate(draw.units):
        block = fields.isel(realization=[number])
        for name, values in block.items():
            if not _finite_where_data_are(values, constants):
                raise SampleNotFinite(
                    f"{unit.name}: {name} is not finite; nothing of this unit is written. Train "
                    "longer or with a lower train.learning_rate, or sample with more steps"
                )
        artifacts.write_unit(path, unit, block, extra={"checkpoint": checkpoint.digest})


def whitened_draws(
    config: RunConfig,
    score: Score,
    normals: xr.Dataset,
    realizations: Sequence[int],
    times: xr.DataArray,
) -> xr.DataArray:
    """Whitened draws (realization, time, channel, coefficient) of the score's law.

    The network sees aligned groups of `generate.microbatch` realizations at one time, whole even
    where only some of a group are wanted: the same draw has the same neighbours in every plan.
    """
    sampler, size = sampler_of(config), config.generate.microbatch
    channels = [str(name) for name in normals["channel"].values]
    lmax, device = int(normals.attrs["lmax"]), score.baseline.variance.device
    phase = season_phase(times)
    result = np.empty((len(realizations), len(times), len(channels), (lmax + 1) ** 2), np.float32)
    for column, time in enumerate(times.values):
        season = torch.full((size,), float(phase[column]), dtype=torch.float64, device=device)
        for group in sorted({number // size for number in realizations}):
            members = range(group * size, (group + 1) * size)
            addresses = [
                NoiseAddress(seed=config.run.seed, realization=member, time=str(time))
                for member in members
            ]

            def noise(step: int, addresses: list[NoiseAddress] = addresses) -> torch.Tensor:
                white = [address.white(step, channels, lmax) for address in addresses]
                return torch.from_numpy(np.stack(white)).to(device)

            drawn = sampler(score, noise, season).cpu().numpy()
            for row, number in enumerate(realizations):
                if number in members:
                    result[row, column] = drawn[number - members.start]
    return xr.DataArray(
        result,
        dims=("realization", "time", "channel", "coefficient"),
        coords={"time": times, "phase": ("time", phase), "channel": channels},
    )


def white_remainder(
    config: RunConfig, normals: xr.Dataset, realizations: Sequence[int], times: xr.DataArray
) -> xr.DataArray:
    """White noise on the grid, addressed as that of the coefficients is."""
    grid = grid_of(normals)
    channels = [str(name) for name in normals["channel"].values]
    white = [
        [
            NoiseAddress(seed=config.run.seed, realization=number, time=str(time)).on_grid(
                channels, grid.shape
            )
            for time in times.values
        ]
        for number in realizations
    ]
    return xr.DataArray(
        np.array(white, dtype=np.float64), dims=("realization", "time", "channel", *grid.dims)
    )


def gaussian_ensemble(
    config: RunConfig, layout: StoreLayout, name: str, times: xr.DataArray, realizations: int
) -> xr.Dataset:
    """The same number of fields at the same times from a Gaussian baseline alone, in memory."""
    normals = artifacts.open_published(layout, "normals").load()
    baseline, lmax = baseline_of(normals, name), int(normals.attrs["lmax"])
    channels = [str(channel) for channel in normals["channel"].values]
    white = np.stack(
        [
            [
                NoiseAddress(seed=config.run.seed, realization=number, time=str(time)).white(
                    0, channels, lmax
                )
                for time in times.values
            ]
            for number in range(realizations)
        ]
    )
    x = xr.DataArray(
        baseline.color(torch.from_numpy(white)).numpy(),
        dims=("realization", "time", "channel", "coefficient"),
        coords={"time": times, "phase": ("time", season_phase(times)), "channel": channels},
    )
    return to_fields(x, normals, white_remainder(config, normals, range(realizations), times))


def asked_times(config: RunConfig, layout: StoreLayout) -> xr.DataArray:
    """The dates of the configuration as times of the source's calendar, at its time of day."""
    published_input(layout, "fields", "ingest")
    source = artifacts.open_published(layout, "fields")["time"]
    first = source.values[0]
    if isinstance(first, np.datetime64):
        time_of_day = first - first.astype("datetime64[D]")
        days = np.array(config.generate.times, dtype="datetime64[D]")
        values = days.astype(source.dtype) + time_of_day
    else:
        values = np.array(
            [
                first.replace(year=year, month=month, day=day)
                for year, month, day in (
                    map(int, date.split("-")) for date in config.generate.times
                )
            ]
        )
    return xr.DataArray(values, dims="time", coords={"time": values}, name="time")


def _template(
    layout: StoreLayout, normals: xr.Dataset, times: xr.DataArray, realizations: int
) -> xr.Dataset:
    source, grid = artifacts.open_published(layout, "fields"), grid_of(normals)
    shape = (realizations, len(times), *grid.shape)
    empty = np.broadcast_to(np.float32(0), shape)
    dims = ("realization", "time", *grid.dims)
    dataset = xr.Dataset(
        {str(name): (dims, empty) for name in normals["channel"].values},
        coords={"time": times} | {dim: source[dim] for dim in grid.dims if dim in source.coords},
    )
    return label_ensemble(dataset, source, realizations=np.arange(realizations))


def _draws(units: Sequence[artifacts.Unit], batch: int) -> list[Draw]:
    """Missing units grouped by times and by aligned runs of `batch` realizations."""
    groups: dict[tuple[int, int], list[artifacts.Unit]] = {}
    for unit in units:
        place = (unit.region["realization"].start // batch, unit.region["time"].start)
        groups.setdefault(place, []).append(unit)
    return [Draw(tuple(group)) for _, group in sorted(groups.items())]


def _finite_where_data_are(values: xr.DataArray, normals: xr.Dataset) -> bool:
    missing = normals["mask"].sel(channel=values.name, drop=True).astype(bool)
    return bool((np.isfinite(values) | missing).all())


# One model per worker process; a new run brings new digests.
_MODELS: dict[tuple[str, str], tuple[Score, xr.Dataset]] = {}


def _loaded(
    config: RunConfig, checkpoint: artifacts.Published, normals: artifacts.Published
) -> tuple[Score, xr.Dataset]:
    place = (checkpoint.digest, normals.digest)
    if place not in _MODELS:
        _MODELS.clear()
        constants = artifacts.open_artifact(normals).load()
        _MODELS[place] = trained(config, checkpoint, constants), constants
    return _MODELS[place]
