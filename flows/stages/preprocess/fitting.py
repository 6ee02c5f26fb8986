"""What a fit of `normals` works on: the fields of two splits, and workers that go through them."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial, reduce
from operator import add
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import xarray as xr

from flows.cluster.map_units import map_units
from flows.config.schema import ConfigError, RunConfig
from flows.progress import Progress
from flows.stages.block_degree import block_degree
from flows.stages.dates import require_dates
from flows.stages.preprocess.block_sums import Span
from flows.stages.splits import Name, members_of, part_of, spans_of
from pipeline.arrays import FloatArray, Sums
from pipeline.fields.climatology import season_phase
from pipeline.fields.seasons import harmonics_of
from pipeline.gaussian.fit import refuse_sizes
from pipeline.sphere.named_grids import grid_of
from storage.artifacts import publishing as artifacts

if TYPE_CHECKING:
    from distributed import Client

R = TypeVar("R")
Addend = TypeVar("Addend", bound=Sums)

BLOCK_BYTES = 1 << 26  # of float64 fields, that a worker holds a few times over
LARGEST_BLOCK = 256  # times
SUMS_BYTES, FEWEST_SUMS = 1 << 30, 4  # of spans that are in the process of the run at once
SPANS = 8  # sums come back from so many stretches of a split, whatever the number of workers


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """The fields to which a fit is made, in blocks of times, and how workers are asked for sums.

    Attributes:
        source: the published fields.
        lmax, tail: highest degree that is learned, and that is drawn.
        degree: up to which laws know the degrees of an order together.
    """

    config: RunConfig
    source: artifacts.Published
    fields: xr.Dataset
    lmax: int
    tail: int
    degree: int
    client: "Client"
    progress: Progress

    @classmethod
    def of(
        cls, config: RunConfig, source: artifacts.Published, client: "Client", progress: Progress
    ) -> "Fitting":
        """A fit to published fields.

        Raises:
            ConfigError: If the grid does not determine the degrees, or a law of them is too large.
            UnusableData: If its times are not those that the configuration speaks of.
        """
        fields = artifacts.open_artifact(source)
        require_dates(config, fields["time"])
        lmax, tail = _checked_lmax(config, fields), _checked_tail(config, fields)
        _refuse_sizes(len(config.source.variables), degree := block_degree(config))
        return cls(
            config=config,
            source=source,
            fields=fields,
            lmax=lmax,
            tail=tail,
            degree=degree,
            client=client,
            progress=progress,
        )

    @cached_property
    def block(self) -> int:
        """Times that a worker holds at once."""
        return block_times(self.fields, len(self.config.source.variables))

    @cached_property
    def train(self) -> list[Span]:
        return _spans(self.fields, self.config, "train", self.block)

    @cached_property
    def validation(self) -> list[Span]:
        return _spans(self.fields, self.config, "validation", self.block)

    @cached_property
    def phase(self) -> FloatArray:
        """Seasons of the training times [rad]."""
        return season_phase(part_of(self.fields["time"], self.config.split, "train"))

    @cached_property
    def harmonics(self) -> int:
        """How many harmonics the yearly cycle has."""
        return harmonics_of(self.phase, self.config.spectral.harmonics)

    def sums(
        self, count: Callable[..., R], *subject: Any, spans: Sequence[Any], label: str
    ) -> list[R]:
        """What `count(source, *subject, block, span)` gives for each span, on the workers."""
        counted = partial(count, self.source, *subject, self.block)
        return map_units(self.client, counted, spans, self.progress, label=label)

    def total(
        self,
        count: Callable[..., Addend],
        *subject: Any,
        spans: Sequence[Span],
        label: str,
        size: int,
    ) -> Addend:
        """The sum over spans, in their order, of which only a few are here at once.

        Args:
            size: of the sum of one span [bytes].
        """
        few = max(FEWEST_SUMS, SUMS_BYTES // size)
        parts = (
            part
            for start in range(0, len(spans), few)
            for part in self.sums(count, *subject, spans=spans[start : start + few], label=label)
        )
        return reduce(add, parts)


def block_times(fields: xr.Dataset, channels: int) -> int:
    """Times of as many channels that a worker holds at once."""
    times = BLOCK_BYTES // (8 * channels * grid_of(fields).size)
    return int(np.clip(times, 1, min(LARGEST_BLOCK, fields.sizes["time"])))


def _checked_lmax(config: RunConfig, fields: xr.Dataset) -> int:
    grid, lmax = grid_of(fields), config.spectral.lmax
    least = 4 if isinstance(config.spectral.reference, str) else 1
    if not least <= lmax <= grid.max_lmax:
        raise ConfigError(
            f"spectral.lmax: expected {least} to {grid.max_lmax}, what a {grid.describe()} grid "
            f"determines, got {lmax}"
        )
    return lmax


def _checked_tail(config: RunConfig, fields: xr.Dataset) -> int:
    lmax, grid = config.spectral.lmax, grid_of(fields)
    tail = lmax if config.spectral.tail is None else config.spectral.tail
    if not lmax <= tail <= grid.max_lmax:
        raise ConfigError(
            f"spectral.tail: expected {lmax} (spectral.lmax) to {grid.max_lmax}, what a "
            f"{grid.describe()} grid determines, got {tail}"
        )
    return tail


def _refuse_sizes(channels: int, degree: int) -> None:
    try:
        refuse_sizes(channels, degree)
    except ValueError as error:
        raise ConfigError(f"spectral.block_degree: {error}") from error


def cut(places: slice, times: int, block: int) -> list[tuple[int, int]]:
    """First place and the one after the last of stretches of some places, cut where blocks are.

    Args:
        times: of which there are to be `SPANS` stretches, or hardly more.
    """
    step = block * max(1, -(-times // (SPANS * block)))
    first, stop = places.start, places.stop
    edges = [first, *range((first // step + 1) * step, stop, step), stop]
    return list(itertools.pairwise(edges))


def _spans(fields: xr.Dataset, config: RunConfig, name: Name, block: int) -> list[Span]:
    """At most `SPANS` stretches of a split's times, cut where blocks are; none without a field."""
    periods, members = spans_of(fields, config.split, name), members_of(fields, config.split, name)
    times = sum(one.stop - one.start for one in periods)
    spans = [Span(a, b, members) for one in periods for a, b in cut(one, times, block)]
    there = np.isin(fields["member"].to_numpy(), members) if members else None
    return [span for span in spans if there is None or there[span.start : span.stop].any()]
