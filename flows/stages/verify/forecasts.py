"""Forecasts from held-out days: a test of the law of a day given those before it.

    leads, starts, members   days ahead, held-out days that are gone on from, members of each
    channels
    crps, crps_error    by candidate (model, linear, persistence, climatology): fair CRPS (lead,
                        channel) in units of the local standard deviation, area mean, and the
                        standard error of its mean over starts
    spread              by candidate (model, linear): spread over error, (lead, channel)

The model's and the linear law's members share their noise. Climatology is that of training days of
the season; persistence the last day itself.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
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
    loaded_normals,
    loaded_sequence_law,
    loaded_sequences,
    sampler_of,
)
from pipeline.arrays import FloatArray
from pipeline.diffusion.noise import NoiseAddress
from pipeline.diffusion.sequences import NextDay
from pipeline.gaussian.given_past import days_with_past
from pipeline.scores.proper_scores import fair_crps
from pipeline.sphere.coefficients import degrees
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import plan
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout

if TYPE_CHECKING:
    from distributed import Client

LEADS, STARTS, MEMBERS = 10, 12, 8
SEASON = 0.26  # rad, 15 days: so near are the days of a climatology


@dataclass(frozen=True)
class Start:
    """A held-out day that forecasts go on from, by its place among those of the test period."""

    day: int

    def __str__(self) -> str:
        return f"from day {self.day}"


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Of the forecasts from a day, by candidate: CRPS, and squares of spread and error.

    Attributes:
        crps: (lead, channel); squares: (2, lead, channel).
    """

    crps: dict[str, FloatArray]
    squares: dict[str, FloatArray]


def forecasts(
    config: RunConfig, layout: StoreLayout, client: "Client", progress: Progress
) -> dict[str, Any] | None:
    """What forecasts are worth, drawn on the workers; None where the test period is too short."""
    kinds = ("checkpoints", "normals", "whitened")
    checkpoint, normals, whitened = (published_input(layout, kind) for kind in kinds)
    held_out = in_courses(part_of(artifacts.open_artifact(whitened), config.split, "test"))
    # A day with as many before it as leads is the last day of a forecast from `LEADS` before.
    long = config.sequence.past + LEADS - 1
    ends = days_with_past(course_of(held_out), long)
    if not len(ends):
        return None
    chosen = np.linspace(0, len(ends) - 1, min(STARTS, len(ends))).round().astype(int)
    starts = [Start(int(ends[place]) - LEADS) for place in chosen]
    score = partial(scored, config, checkpoint, normals, whitened)
    found = map_units(client, score, starts, progress, label="forecasts", resource="GPU")
    names, count = [*found[0].crps], max(2, len(found)) ** 0.5
    crps = {name: np.stack([each.crps[name] for each in found]) for name in names}
    squares = {
        name: np.mean([each.squares[name] for each in found], axis=0) for name in found[0].squares
    }
    return {
        "leads": LEADS,
        "starts": len(starts),
        "members": MEMBERS,
        "channels": [str(name) for name in held_out["channel"].values],
        "crps": {name: each.mean(axis=0).tolist() for name, each in crps.items()},
        "crps_error": {name: (each.std(axis=0) / count).tolist() for name, each in crps.items()},
        "spread": {name: np.sqrt(each[0] / each[1]).tolist() for name, each in squares.items()},
    }


def scored(
    config: RunConfig,
    checkpoint: artifacts.Published,
    normals: artifacts.Published,
    whitened: artifacts.Published,
    start: Start,
) -> Scored:
    """Forecasts from a day and their scores. Runs on a worker."""
    torch.set_num_threads(1)
    constants = loaded_normals(normals)
    everything = opened(whitened)
    held_out = in_courses(part_of(everything, config.split, "test"))
    drawn = drawn_from(config, checkpoint, normals, held_out, start.day)
    whole = held_out["x"][start.day : start.day + LEADS + 1].values.astype(np.float64)
    shown = Shown.of(constants)
    truth = shown(whole)
    ensembles = {name: shown(x) for name, x in drawn.items()}
    phases = held_out["phase"].values[start.day + 1 : start.day + 1 + LEADS]
    usual = _of_the_season(config, everything, phases, shown)
    ensembles["climatology"] = usual
    later, crps, squares = truth[1:], {}, {}
    for name, members in ensembles.items():
        crps[name] = np.average(fair_crps(members, later), axis=-1, weights=shown.area)
    for name in drawn:
        members = ensembles[name]
        variance = members.var(axis=0, ddof=1) * (1 + 1 / len(members))
        error = np.square(members.mean(axis=0) - later)
        squares[name] = np.average(np.stack([variance, error]), axis=-1, weights=shown.area)
    crps["persistence"] = np.average(np.abs(later - truth[0]), axis=-1, weights=shown.area)
    return Scored(crps=crps, squares=squares)


def drawn_from(
    config: RunConfig,
    checkpoint: artifacts.Published,
    normals: artifacts.Published,
    held_out: xr.Dataset,
    day: int,
) -> dict[str, FloatArray]:
    """Members of the learned and of the linear law from a day, (member, lead, channel, ...)."""
    law, model = loaded_sequence_law(normals), loaded_sequences(config, checkpoint, normals)
    channels, lmax = [str(name) for name in held_out["channel"].values], law.layout.lmax
    begun = held_out["x"][day + 1 - law.past : day + 1].values.astype(np.float64)
    features = condition_of(held_out)
    follow: dict[str, NextDay | None] = {"linear": None}
    if model is not None:
        follow = {"model": model.following(law, sampler_of(config)), **follow}
    found = {}
    for name, learned in follow.items():
        past, days = np.repeat(begun[None], MEMBERS, axis=0), []
        for lead in range(1, LEADS + 1):
            time = f"{held_out['time'].values[day]} forecast {lead}"

            def white(step: int, time: str = time) -> torch.Tensor:
                address = [
                    NoiseAddress(seed=config.run.seed, realization=number, time=time)
                    for number in range(MEMBERS)
                ]
                return torch.from_numpy(
                    np.stack([one.white(step, channels, lmax) for one in address])
                )

            if learned is None:
                new = law.next(past, white(0).numpy())
            else:
                device = learned.score.baseline.variance.device
                row = torch.from_numpy(np.tile(features[day + lead], (MEMBERS, 1))).to(device)
                new = learned(past, lambda step: white(step).to(device), row)  # noqa: B023
            days.append(new)
            past = np.concatenate([past[:, 1:], new[:, None]], axis=1)
        found[name] = np.stack(days, axis=1)
    return found


@dataclass(frozen=True, kw_only=True)
class Shown:
    """From whitened coefficients to anomalies in units of the local deviation on a coarse grid.

    Attributes:
        factor: of the reference, by coefficient, (coefficient, channel, channel).
        area: of each cell.
    """

    grid: RingGrid
    lmax: int
    factor: FloatArray
    area: FloatArray

    @classmethod
    def of(cls, normals: xr.Dataset, most: int = 15) -> "Shown":
        lmax = min(most, int(normals.attrs["lmax"]))
        nlat = 2 * -(-(lmax + 1) // 2)
        grid = RingGrid.gaussian(nlat, 2 * nlat)
        factor = normals["reference_factor"].values[degrees(lmax)]
        return cls(grid=grid, lmax=lmax, factor=factor, area=grid.area.ravel())

    def __call__(self, x: FloatArray) -> FloatArray:
        """(..., channel, coefficient) to (..., channel, cell)."""
        coloured = np.einsum("kcd,...dk->...ck", self.factor, x[..., : (self.lmax + 1) ** 2])
        maps = plan(self.grid, self.lmax, "float64").synthesis(coloured)
        return np.asarray(maps.reshape(*x.shape[:-1], -1))


def _of_the_season(
    config: RunConfig, whitened: xr.Dataset, phases: FloatArray, shown: Shown
) -> FloatArray:
    """Training days of the season of each lead, evenly spread: (member, lead, channel, cell)."""
    train = part_of(whitened, config.split, "train")
    known, members = train["phase"].values, []
    for phase in phases:
        apart = np.abs(np.angle(np.exp(1j * (known - phase))))
        near = np.flatnonzero(apart <= max(SEASON, np.sort(apart)[min(MEMBERS, len(apart)) - 1]))
        members.append(near[np.linspace(0, len(near) - 1, MEMBERS).round().astype(int)])
    days, where = np.unique(np.array(members), return_inverse=True)
    x = train["x"][days].values.astype(np.float64)
    return np.swapaxes(shown(x)[where.reshape(len(phases), MEMBERS)], 0, 1)
