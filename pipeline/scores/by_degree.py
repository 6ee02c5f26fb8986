"""Scores that belong to a degree, or to whole fields: spectra, and distances of all coefficients.

Spectra come from the power by degree, one realization after the other. Distances between fields
come from their inner products, which add up over degrees; those of so many fields that the table
of all pairs would not fit are of `FIELDS` of them, evenly spread.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from pipeline.arrays import FloatArray
from pipeline.scores.arena import NUMBERS, Arena, Sample
from pipeline.scores.bootstrap import fair_root, fair_sum
from pipeline.scores.maps import IntArray
from pipeline.sphere.coefficients import lmax_of, mean_by_degree

__all__ = [
    "EnergyUnit",
    "Spectra",
    "chosen",
    "energy_units",
    "mean_power",
    "parts_of",
    "power",
    "products",
    "spectra_of",
]

FIELDS = 2048  # of a candidate, between which distances are taken; 2 realizations at least
UNITS = 8  # of a candidate: each brings back a table of all pairs


def power(coefficients: FloatArray) -> FloatArray:
    """Mean square per degree: (..., channel, coefficient) to (..., channel, degree)."""
    result = mean_by_degree(np.square(coefficients, dtype=np.float64))
    first = result[..., 0]
    first[first == 0.0] = 1.0  # winds have no degree 0: the ratio of nothing to nothing is one
    return result


@dataclass(frozen=True, kw_only=True)
class Spectra:
    """Of one candidate.

    Attributes:
        mean: power, mean over dates and realizations, (replicate, channel, degree).
        errors: rms over coefficients of the logarithm of the ratio of power spectra to the truth's,
            by variable, (replicate,). The components of a wind share that of their kinetic energy.
    """

    mean: FloatArray
    errors: dict[str, FloatArray]


def spectra_of(arena: Arena, sample: Sample) -> Spectra:
    """Those of a candidate, one realization after the other."""
    parts, degrees = parts_of(arena), sample.power.sizes["degree"]
    measure = 2.0 * np.arange(degrees) + 1  # the sampling noise of all degrees alike
    truth = mean_power(arena, arena.truth, 0)
    total = np.zeros_like(truth)
    ours = {name: np.log(truth[:, places].mean(axis=1)) for name, places in parts.items()}
    sums = {name: np.zeros_like(each) for name, each in ours.items()}
    squares = {name: np.zeros(len(truth)) for name in parts}
    number = sample.power.sizes["realization"]
    for realization in range(number):
        member = mean_power(arena, sample, realization)
        total += member
        for name, places in parts.items():
            away = np.log(member[:, places].mean(axis=1)) - ours[name]
            sums[name] += away
            squares[name] += np.square(away) @ measure
    return Spectra(
        mean=total / number,
        errors={
            name: fair_root(
                fair_sum(np.square(sums[name]) @ measure, squares[name], number) / measure.sum()
            )
            for name in parts
        },
    )


def parts_of(arena: Arena) -> dict[str, list[int]]:
    """By variable, the channels that share its score: the two parts of a wind are named after both
    components (pipeline/sphere/stacked)."""
    named = list(zip(arena.channels, arena.modelled, strict=True))
    fields = [
        channel if channel == variable else channel.rpartition(":")[0]
        for channel, variable in named
    ]
    return {
        variable: [place for place, one in enumerate(fields) if one == field]
        for (_, variable), field in zip(named, fields, strict=True)
    }


def mean_power(arena: Arena, sample: Sample, realization: int) -> FloatArray:
    """Mean over dates of the power of a realization, (replicate, channel, degree)."""
    values = sample.power.isel(realization=realization)
    step = max(1, NUMBERS // max(1, values[0].size))
    total: FloatArray = np.zeros((len(arena.weights), *values.shape[1:]))
    for start in range(0, arena.dates, step):
        dates = slice(start, start + step)
        total += np.tensordot(arena.weights[:, dates], values.isel(time=dates).values, axes=1)
    mean: FloatArray = total / arena.weights.sum(axis=1)[:, None, None]
    return mean


@dataclass(frozen=True)
class EnergyUnit:
    """Some degrees of a candidate: from the first to before the last."""

    owner: str
    degrees: tuple[int, int]

    def __str__(self) -> str:
        return f"of {self.owner}, degrees {self.degrees[0]} to {self.degrees[1] - 1}"


def chosen(arena: Arena, sample: Sample) -> tuple[int, IntArray]:
    """How many realizations of a candidate, and which dates, distances are taken between."""
    dates = min(arena.dates, FIELDS // 2)
    realizations = min(sample.x.sizes["realization"], max(2, FIELDS // dates))
    return realizations, np.linspace(0, arena.dates - 1, dates).round().astype(int)


def energy_units(arena: Arena, owner: str) -> list[EnergyUnit]:
    """Degrees in a few units of equally many coefficients."""
    sample = arena.candidates[owner]
    realizations, dates = chosen(arena, sample)
    size = sample.x.sizes["coefficient"]
    numbers = (realizations + 1) * len(dates) * sample.x.sizes["channel"] * size
    units = int(np.clip(numbers // NUMBERS, 1, UNITS))
    last = lmax_of(size) + 1
    edges = np.unique(np.round(last * np.sqrt(np.linspace(0, 1, units + 1))).astype(int)).tolist()
    return [EnergyUnit(owner, pair) for pair in itertools.pairwise(edges)]


def products(arena: Arena, unit: EnergyUnit) -> FloatArray:
    """Inner products over some degrees of the fields of a candidate, realization after realization,
    and then the true ones; the norm is the rms of the scaled anomalies over the sphere."""
    sample = arena.candidates[unit.owner]
    realizations, dates = chosen(arena, sample)
    rows = (realizations + 1) * len(dates)
    total = np.zeros((rows, rows))
    for first, stop in _blocks(unit.degrees, rows * sample.x.sizes["channel"]):
        read = [
            _features(arena, x.isel(time=dates), first, stop)
            for x in (sample.x.isel(realization=slice(0, realizations)), arena.truth.x)
        ]
        features = np.concatenate(read)
        total += features @ features.T
    return total / (4 * np.pi * sample.x.sizes["channel"])


def _blocks(degrees: tuple[int, int], numbers: int) -> Iterator[tuple[int, int]]:
    """Whole degrees, as many as have `NUMBERS` numbers or so together, of so many for each
    coefficient."""
    first, stop = degrees
    while first < stop:
        most = int((first**2 + NUMBERS / numbers) ** 0.5)
        following = min(stop, max(first + 1, most))
        yield first, following
        first = following


def _features(arena: Arena, x: xr.DataArray, first: int, stop: int) -> FloatArray:
    """Scaled coefficients of some degrees, (realization and date, feature)."""
    part = x.isel(coefficient=slice(first**2, stop**2))
    values = part.transpose("realization", "time", "channel", "coefficient").values
    values = values.reshape(-1, *values.shape[2:]).astype(np.float64)
    if arena.factor is not None:
        factor = arena.factor[first:stop]
        along = np.repeat(factor, 2 * np.arange(first, stop) + 1, axis=0)
        plain, values = values, np.zeros_like(values)
        for target, source in np.ndindex(factor.shape[1:]):
            if factor[:, target, source].any():
                values[:, target] += along[:, target, source] * plain[:, source]
    return values.reshape(len(values), -1)
