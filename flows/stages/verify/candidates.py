"""Who is scored against what: the held-out truth, the candidates, the climatological reference.

`model` and the Gaussian baselines are generated fields. `noise-floor` are the training
fields of the same calendar days, `band-limit` those fields cut to lmax: a perfect draw of what the
score model learns, without the remainder. The last two are absent if the training period lacks the
season of the held-out dates or holds it only once. Where members are split, the truth of a date is
the first member of the test, and the noise floor the members that were learned from. Where the
source has scenarios, the held-out dates are theirs by turns, each drawn with the covariates that it
has there and compared with training fields of its own scenario.

Workers line up the same from the same artifacts, so that no field goes from one process to another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import xarray as xr

from flows.config.schema import RunConfig, Split
from flows.stages.conditions import conditioned_as_observed
from flows.stages.kept import Kept
from flows.stages.splits import part_of
from flows.stages.trained_model import loaded_normals
from pipeline.arrays import FloatArray
from pipeline.fields.climatology import season_phase
from pipeline.fields.standardisation import factor_of, variables_of
from pipeline.gaussian.channel_covariance import mix_channels
from pipeline.scores.analogues import Analogues, analogues
from pipeline.scores.arena import FLOOR, Arena, Fields, Sample
from pipeline.scores.bootstrap import date_weights
from pipeline.scores.intervals import block_of
from pipeline.sphere.named_grids import grid_of
from storage.artifacts import publishing as artifacts
from storage.artifacts.published import Published
from storage.conventions.labels import at, once

SLOW_DEGREES = 5  # whose coefficients say how long dates hang together
REPLICATES = 100
WINDOW = (-15.0, -10.0, -5.0, 0.0, 5.0, 10.0, 15.0)  # days, of the climatological reference
MODEL, BAND_LIMIT, HELD_OUT = "model", "band-limit", "held-out"


def held_out_times(fields: xr.Dataset, config: RunConfig) -> xr.DataArray:
    """`verify.dates` times of the test period, as evenly spread as its times allow.

    Returns:
        Each time once; where the source has scenarios, with the number of one of them as `member`.
        They take turns, as far as a time has several.
    """
    times = part_of(fields["time"], config.split, "test")
    _, first, count = np.unique(times.values, return_index=True, return_counts=True)
    number = min(config.verify.dates, first.size)
    if number < 2:
        raise artifacts.IncompleteArtifact(
            f"split.test {config.split.spoken('test')} holds {first.size} "
            "times; verification needs at least 2"
        )
    chosen = np.linspace(0, first.size - 1, number).round().astype(int)
    if not config.source.scenarios:
        return times.isel(time=first[chosen]).reset_coords(drop=True)
    turn = np.arange(number) % count[chosen]
    times = times.isel(time=first[chosen] + turn)
    return times.drop_vars([name for name in times.coords if name not in ("time", "member")])


@dataclass(frozen=True)
class Inputs:
    """What is compared, by name alone: what a worker is sent."""

    config: RunConfig
    fields: Published
    normals: Published
    whitened: Published
    drawn: Published

    @property
    def place(self) -> tuple[object, ...]:
        """What tells it from others."""
        parts = (self.fields, self.normals, self.whitened, self.drawn)
        config = self.config.subset("run.seed", "split", "verify")
        return (repr(config), *(part.digest for part in parts))

    @property
    def known(self) -> Known:
        """The same, opened; kept by a worker for its next unit."""
        return _KNOWN(self.place, lambda: Known(self))


@dataclass
class Known:
    """The record and what of it is looked at; nothing of it is in memory but the normals."""

    inputs: Inputs

    @cached_property
    def normals(self) -> xr.Dataset:
        return loaded_normals(self.inputs.normals)

    @cached_property
    def fields(self) -> xr.Dataset:
        """The record's variables that are modelled."""
        return self.everything[list(variables_of(self.normals))]

    @cached_property
    def everything(self) -> xr.Dataset:
        return artifacts.open_artifact(self.inputs.fields)

    @cached_property
    def whitened(self) -> xr.DataArray:
        return artifacts.open_artifact(self.inputs.whitened)["x"]

    @cached_property
    def dates(self) -> xr.DataArray:
        return held_out_times(self.everything, self.inputs.config)

    @cached_property
    def conditions(self) -> xr.Dataset:
        """Of the held-out dates, as observed."""
        return conditioned_as_observed(self.dates, self.everything, self.normals)

    @cached_property
    def of_fields(self) -> Places:
        return Places.of(self.everything, self.inputs.config, self.dates)

    @cached_property
    def of_whitened(self) -> Places:
        return Places.of(self.whitened, self.inputs.config, self.dates)

    @property
    def floor(self) -> bool:
        """Whether training fields of the season are there to be compared with."""
        floors = (self.of_fields.floor, self.of_whitened.floor)
        return all(one is not None and len(one.rows) > 1 for one in floors)


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where in a record stand the held-out fields, and those of training that they are compared
    with.

    Attributes:
        truth: (date,).
        floor, window: of the same calendar days; of the days around them, too.
    """

    truth: np.ndarray
    floor: Analogues | None
    window: Analogues | None

    @classmethod
    def of(
        cls, record: xr.Dataset | xr.DataArray, config: RunConfig, dates: xr.DataArray
    ) -> Places:
        split, along = config.split, record["time"].reset_coords(drop=True)
        numbered = along.copy(data=np.arange(along.size)).assign_coords(
            {name: record[name] for name in ("member",) if name in record.coords}
        )
        past = part_of(numbered, split, "train")
        return cls(
            truth=at(part_of(numbered, split, "test"), dates).values,
            floor=_like(past, dates, split, (0.0,)),
            window=_like(past, dates, split, WINDOW),
        )


def _like(
    past: xr.DataArray, dates: xr.DataArray, split: Split, offsets: tuple[float, ...]
) -> Analogues | None:
    """Places of the training fields that could have stood at the dates; of the same scenario.

    Args:
        past: the places of all training fields, along their times.
    """
    if "member" not in dates.coords:
        weather = past["member"].to_numpy() if split.by_members else None
        return _analogues(past if split.by_members else once(past), dates, offsets, weather)
    scenario, found = dates["member"].to_numpy(), list[tuple[np.ndarray, Analogues]]()
    for number in np.unique(scenario):
        mine = np.flatnonzero(scenario == number)
        own = past.isel(time=np.flatnonzero(past["member"].to_numpy() == number))
        if not own.size or (one := _analogues(own, dates.isel(time=mine), offsets, None)) is None:
            return None
        found.append((mine, one))
    fewest = min(len(one.rows) for _, one in found)
    rows = np.empty((fewest, dates.size), dtype=np.intp)
    year = np.empty_like(rows)
    for mine, one in found:
        kept = np.linspace(0, len(one.rows) - 1, fewest).round().astype(int)
        rows[:, mine], year[:, mine] = one.rows[kept], one.year[kept]
    return Analogues(rows=rows, year=year)


def _analogues(
    past: xr.DataArray,
    dates: xr.DataArray,
    offsets: tuple[float, ...],
    weather: np.ndarray | None,
) -> Analogues | None:
    seasons, wanted = season_phase(past["time"]), season_phase(dates)
    found = analogues(past["time"], seasons, wanted, offsets=offsets, weather=weather)
    return None if found is None else Analogues(rows=past.values[found.rows], year=found.year)


@dataclass(frozen=True)
class Lineup:
    """All that is compared, by name alone.

    Attributes:
        stores: of each candidate, and of the truth, what flows/stages/verify/compared makes.
        block: dates that hang together.
    """

    inputs: Inputs
    stores: Mapping[str, Published] = field(hash=False)
    block: int = 1

    @property
    def arena(self) -> Arena:
        """Lined up; kept by a worker for its next unit."""
        digests = tuple(store.digest for store in self.stores.values())
        place = (*self.inputs.place, *digests, self.block)
        return _ARENAS(place, lambda: _lined_up(self))


def _lined_up(lineup: Lineup) -> Arena:
    known = lineup.inputs.known
    normals, names = known.normals, list(variables_of(known.normals))
    named = {"channel": normals["channel"].values, "variable": ("channel", names)}
    stores = {label: artifacts.open_artifact(one) for label, one in lineup.stores.items()}

    def sample(label: str, fields: Fields) -> Sample:
        store = stores[label]
        return Sample(
            fields=fields,
            x=store["x"].assign_coords(named),
            power=store["power"].assign_coords(named),
        )

    def stored(label: str) -> Sample:
        return sample(label, Fields(dataset=stores[label][names]))

    def chosen(rows: np.ndarray) -> Fields:
        return Fields(dataset=known.fields, rows=rows)

    drawn = artifacts.open_artifact(lineup.inputs.drawn)[names]
    candidates = {MODEL: sample(MODEL, Fields(dataset=drawn))}
    candidates |= {
        name: stored(name) for name in stores if name not in (MODEL, FLOOR, BAND_LIMIT, HELD_OUT)
    }
    places, climatology, years = known.of_fields, None, None
    if known.floor:
        assert places.floor is not None and places.window is not None
        candidates[FLOOR] = sample(FLOOR, chosen(places.floor.rows))
        candidates[BAND_LIMIT] = stored(BAND_LIMIT)
        climatology, years = chosen(places.window.rows), places.window.year
    grid = grid_of(known.fields)
    kept = [name for name in ("lat", "lon", "cell", "crs") if name in known.fields.coords]
    return Arena(
        truth=sample(HELD_OUT, chosen(places.truth[None])),
        expected=Fields(dataset=stores[HELD_OUT][names]),
        candidates=candidates,
        climatology=climatology,
        years=years,
        area=xr.DataArray(grid.area, dims=grid.dims).assign_coords(
            {name: known.fields[name] for name in kept}
        ),
        weights=_weights(lineup, known.dates.size),
        block=lineup.block,
        factor=factor_of(normals)[: int(normals.attrs["lmax"]) + 1],
    )


def _weights(lineup: Lineup, dates: int) -> FloatArray:
    return date_weights(
        dates,
        block=lineup.block,
        replicates=REPLICATES,
        generator=np.random.default_rng(lineup.inputs.config.run.seed),
    )


def block_of_dates(known: Known) -> int:
    """`memory_of` the held-out fields."""
    last = min(SLOW_DEGREES, int(known.normals.attrs["lmax"]))
    x = known.whitened.isel(time=known.of_whitened.truth, coefficient=slice(0, (last + 1) ** 2))
    slow = mix_channels(factor_of(known.normals), x.values.astype(np.float64))
    return memory_of(x.copy(data=slow))


def memory_of(coefficients: xr.DataArray) -> int:
    """Dates that are drawn together: by the memory of the largest scales of the held-out fields.

    Args:
        coefficients: scaled, (time, channel, coefficient).
    """
    slow = coefficients.isel(coefficient=coefficients["degree"].values <= SLOW_DEGREES)
    series = slow.transpose("time", "channel", "coefficient").values.astype(np.float64)
    scale = series.std(axis=0)
    return block_of(series / np.where(scale > 0.0, scale, 1.0))


def spacing(dates: xr.DataArray) -> float:
    """Mean days between neighbouring dates."""
    span = dates.values[-1] - dates.values[0]
    days = span / np.timedelta64(1, "D") if isinstance(span, np.timedelta64) else span.days
    return float(days) / (dates.size - 1)


_KNOWN, _ARENAS = Kept[Known](), Kept[Arena]()
