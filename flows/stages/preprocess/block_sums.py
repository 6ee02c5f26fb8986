"""What preprocess does with blocks of times on the workers: sums that come back, units that stay.

A worker holds one block at a time, whatever the length of the series, and keeps open what it reads:
published artifacts never change.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import add
from typing import TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.arrays import FloatArray, Sums
from pipeline.fields.climatology import HARMONICS, SeasonalMoments, season_phase
from pipeline.fields.pointwise.forced import ForcedScores, Worlds
from pipeline.fields.pointwise.maps import Identity, Marginal
from pipeline.fields.pointwise.normal_scores import Extent, Histogram, NormalScores
from pipeline.fields.precision import float32_error
from pipeline.fields.scale import ScaleFit, ScaleSums, Tried
from pipeline.fields.standardisation import Normals
from pipeline.fields.trend import Trend, climatology_rows
from pipeline.fields.whitening import stack_variables, whitened_block
from pipeline.gaussian.fit import Moments
from storage.artifacts import publishing as artifacts
from storage.places.places import Place

Addend = TypeVar("Addend", Extent, Histogram)

ROUNDED_TIMES = 16


@dataclass(frozen=True)
class Span:
    """Consecutive times that one task sums over, block by block.

    Attributes:
        members: numbers of the members that count, where a split has some of them only.
    """

    start: int
    stop: int
    members: tuple[int, ...] = ()

    def rows(self, fields: xr.Dataset, start: int, stop: int) -> slice | NDArray[np.intp]:
        """Places of its fields from one place on to before another."""
        if not self.members:
            return slice(start, stop)
        member = fields["member"].to_numpy()[start:stop]
        return start + np.flatnonzero(np.isin(member, self.members))

    def __str__(self) -> str:
        return f"times {self.start} to {self.stop - 1}"


def seasonal_moments(
    source: artifacts.Published,
    transforms: Mapping[str, Marginal],
    trend: Trend,
    harmonics: int,
    block: int,
    span: Span,
) -> SeasonalMoments:
    """Sums over the transformed values of a span, for its climatology.

    Variables modelled by their ranks come twice: after all variables stand the indicators of their
    values at the lower bound.
    """
    total = None
    for values, rows in _loaded(source, transforms, trend, block, span, harmonics):
        names, parts = list(transforms), [values]
        for channel, (name, each) in enumerate(transforms.items()):
            if isinstance(each, NormalScores | ForcedScores):
                scores, there = values[:, channel], each.at(trend.forcing(rows))
                indicator = np.where(np.isnan(scores), np.nan, there.at_bound(scores))
                parts.append(indicator[:, None])
                names.append(name)
        part = SeasonalMoments.of(np.concatenate(parts, axis=1), rows, tuple(names), harmonics)
        total = part if total is None else total + part
    assert total is not None
    return total


def extents(
    source: artifacts.Published,
    names: Sequence[str],
    trend: Trend,
    worlds: Worlds,
    block: int,
    span: Span,
) -> list[list[Extent]]:
    """Smallest and largest values of some variables in every cell over a span, by world."""
    raw = dict.fromkeys(names, Identity())
    parts = [
        [[Extent.of(part[:, place]) for part in of_worlds] for place in range(len(names))]
        for of_worlds in _by_world(source, raw, trend, worlds, block, span)
    ]
    return added(parts)


def histograms(
    source: artifacts.Published,
    ranged: Mapping[str, tuple[float, Sequence[Extent]]],
    trend: Trend,
    worlds: Worlds,
    block: int,
    span: Span,
) -> list[list[Histogram]]:
    """Counts of the values of some variables within their extents over a span, by world."""
    raw = dict.fromkeys(ranged, Identity())
    parts = [
        [
            [
                Histogram.of(part[:, place], low, extent)
                for part, extent in zip(of_worlds, of_extents, strict=True)
            ]
            for place, (low, of_extents) in enumerate(ranged.values())
        ]
        for of_worlds in _by_world(source, raw, trend, worlds, block, span)
    ]
    return added(parts)


def added(parts: Sequence[Sequence[Sequence[Addend]]]) -> list[list[Addend]]:
    """Sums over blocks or spans of what there is of each variable in each world."""
    return [
        [reduce(add, of_world) for of_world in zip(*of_variable, strict=True)]
        for of_variable in zip(*parts, strict=True)
    ]


def scale_sums(source: artifacts.Published, known: Normals, block: int, span: Span) -> ScaleSums:
    """What a step towards a scale that changes in time is made of, over a span."""
    parts = (ScaleSums.of(known, *each) for each in anomalous(source, known, block, span))
    return reduce(add, parts)


def scale_fit(
    source: artifacts.Published, scale: FloatArray, found: Normals, block: int, span: Span
) -> ScaleFit:
    """How scales that change in time do over a span (`scale.Tried`)."""
    tried = Tried.of(scale, found)
    return reduce(
        add,
        (
            ScaleFit.of(tried.known, tried.changes, *each)
            for each in anomalous(source, tried.known, block, span)
        ),
    )


def squares_in_holes(
    source: artifacts.Published, anomalies: Normals, block: int, span: Span
) -> FloatArray:
    """Sums of squares of what fills the masked cells, (channel, *grid); 0 in the others."""
    total = np.zeros_like(anomalies.scale)
    for values, rows in anomalous(source, anomalies, block, span):
        squares = np.square(anomalies.anomalies(values, rows)).sum(axis=0)
        total += np.where(anomalies.mask, squares, 0.0)
    return total


@dataclass(frozen=True, kw_only=True)
class SpectralSums(Sums):
    """Sums over scaled anomalies.

    Attributes:
        moments: of the coefficients, tail included.
        energy: area means of squares, by channel.
        left: squares of what the coefficients leave out of each cell, (channel, *grid).
    """

    moments: Moments
    energy: FloatArray
    left: FloatArray


def coefficient_moments(
    source: artifacts.Published, anomalies: Normals, degree: int, block: int, span: Span
) -> SpectralSums:
    """Sums over the scaled anomalies of a span.

    Args:
        degree: the block degree of the moments.
    """
    weight = anomalies.grid.area / (4.0 * np.pi)
    total, energy, left = None, np.zeros(len(anomalies.channels)), np.zeros_like(anomalies.scale)
    for values, rows in anomalous(source, anomalies, block, span):
        scaled = anomalies.anomalies(values, rows)
        energy += np.square(scaled).sum(axis=0).reshape(len(energy), -1) @ weight.ravel()
        coefficients, rest = anomalies.analysed(scaled)
        left += np.square(rest).sum(axis=0)
        part = Moments.of(coefficients, degree)
        total = part if total is None else total + part
    assert total is not None
    return SpectralSums(moments=total, energy=energy, left=left)


def rounding(source: artifacts.Published, normals: Normals, block: int, span: Span) -> float:
    """What single precision would cost (pipeline/fields/precision), on some times of a span."""
    fields = opened(source)
    fields = fields.isel(time=span.rows(fields, span.start, span.stop))
    count = min(ROUNDED_TIMES, block, fields.sizes["time"])
    fields = fields.isel(time=np.linspace(0, fields.sizes["time"] - 1, count).astype(int))
    values = [fields[name].transpose("time", ...).to_numpy() for name in normals.variables]
    return float32_error(normals, values, normals.rows(fields))


def write_whitened(
    path: Place,
    source: artifacts.Published,
    normals: artifacts.Published,
    unit: artifacts.Unit,
) -> artifacts.Record:
    """Write one unit of `whitened`: the coefficients of its times."""
    x = whitened_block(opened(source).isel(time=unit.region["time"]), _normals(normals))
    block = xr.Dataset({"x": (("time", "channel", "coefficient"), x)})
    return artifacts.write_unit(path, unit, block)


def anomalous(
    source: artifacts.Published, normals: Normals, block: int, span: Span
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """What the anomalies of a span are made of."""
    maps = dict(zip(normals.variables, normals.transforms, strict=True))
    return _loaded(source, maps, normals.trend, block, span, normals.harmonics)


def _by_world(
    source: artifacts.Published,
    raw: Mapping[str, Marginal],
    trend: Trend,
    worlds: Worlds,
    block: int,
    span: Span,
) -> Iterator[list[FloatArray]]:
    """Values of each world in a block."""
    for values, rows in _loaded(source, raw, trend, block, span):
        place = worlds.places(trend.forcing(rows))
        yield [values[place == number] for number in range(len(worlds))]


def _loaded(
    source: artifacts.Published,
    transforms: Mapping[str, Marginal],
    trend: Trend,
    block: int,
    span: Span,
    harmonics: int = HARMONICS,
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Transformed values and rows of the climatology of a span, one block in memory at a time."""
    fields = opened(source)
    edges = sorted(
        {span.start, span.stop, *range(-(-span.start // block) * block, span.stop, block)}
    )
    for start, stop in itertools.pairwise(edges):
        part = fields.isel(time=span.rows(fields, start, stop))
        if not part.sizes["time"]:
            continue  # members of other splits alone
        rows = climatology_rows(season_phase(part["time"]), trend.standard(part), harmonics)
        maps = {name: one.at(trend.forcing(rows)) for name, one in transforms.items()}
        yield stack_variables(part, maps), rows


@lru_cache(maxsize=1)
def opened(source: artifacts.Published) -> xr.Dataset:
    """A published artifact, opened once in a process."""
    return artifacts.open_artifact(source)


@lru_cache(maxsize=1)
def _normals(normals: artifacts.Published) -> Normals:
    return Normals.of(artifacts.open_artifact(normals))
