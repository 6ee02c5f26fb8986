"""Draws of the days of gaps, given the days beside them and observations of their own.

Up to lmax the law of sequences is exact (pipeline/given/bridge, filling). Beyond it the noise of
the days of a gap is moved to agree with that of the days beside it (pipeline/given/edges), and on
days that are observed, too, then with what was observed, day by day. Runs on workers. A window is
drawn whole for each unit that has some of its days, from noise that is addressed by seed,
realization and date, so the bytes depend neither on workers nor on order.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
import xarray as xr

from flows.config.schema import RunConfig
from flows.stages.condition.draws import (
    EFFECTIVE,
    EVIDENCE,
    GAUSSIAN_EVIDENCE,
    of_realization,
)
from flows.stages.condition.gaps import DrawnDays
from flows.stages.condition.observed import coarse_degree, functionals_of, given_at
from flows.stages.generate.draws import Draw, channels_of, require_finite
from flows.stages.kept import Kept
from flows.stages.preprocess.normals import tail_of
from flows.stages.trained_model import loaded_normals, loaded_sequence_law
from pipeline.arrays import FloatArray
from pipeline.diffusion.noise import NoiseAddress
from pipeline.fields.standardisation import Normals
from pipeline.fields.whitening import stack_variables
from pipeline.gaussian.channel_covariance import mix_channels
from pipeline.gaussian.conditional_tail import GaussianTail
from pipeline.gaussian.persistence import persistent
from pipeline.given.bridge import Bridge, Window
from pipeline.given.carried import carry
from pipeline.given.edges import agreeing
from pipeline.given.filling import Filling
from pipeline.given.seen import Seen
from pipeline.sphere.coefficients import orders
from storage.artifacts import publishing as artifacts
from storage.places.places import Place

__all__ = ["Model", "Record", "WindowDrawn", "beside", "fill_units", "write_days"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """The artifacts that gaps are filled from.

    Attributes:
        fields, normals: published.
        observed: of the days of gaps; None if nothing is.
    """

    fields: artifacts.Published
    normals: artifacts.Published
    observed: artifacts.Published | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Days:
    """Days of the record taken apart: several, or one of them without its axis.

    Attributes:
        x: whitened coefficients up to lmax, (day, channel, coefficient).
        beyond: white noise of the tail, (day, channel, coefficient); None without a tail.
        left: the remainder on the grid, (day, channel, *grid).
    """

    x: FloatArray
    beyond: FloatArray | None
    left: FloatArray

    def of(self, day: int) -> "Days":
        beyond = None if self.beyond is None else self.beyond[day]
        return Days(x=self.x[day], beyond=beyond, left=self.left[day])


@dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """All that is known of a window.

    Attributes:
        beside: known days by their place in it; those before it have places below zero.
        seen: what is observed of a day that is not known, and its values.
        law: of the coefficients given all this.
    """

    window: Window
    beside: Mapping[int, Days]
    seen: Mapping[int, tuple[Seen, FloatArray]]
    law: Filling

    @cached_property
    def log_evidence(self) -> float:
        """log of the density [nats] of the known days of the window given those before it, and of
        what is observed of the others given both."""
        days = self.side(early=True), self.side(early=False)
        observed = {place: values for place, (_, values) in self.seen.items()}
        return self.law.bridge.log_evidence(*days) + self.law.log_evidence(*days, observed)

    def side(self, early: bool) -> FloatArray:
        """x of the days before the window or of its known days, (day, channel, coefficient)."""
        layout = self.law.bridge.layout
        none = np.empty((0, layout.channels, (layout.lmax + 1) ** 2))
        places = [place for place in sorted(self.beside) if (place < 0) == early]
        return np.stack([self.beside[place].x for place in places]) if places else none


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """What the draws of a unit share."""

    config: RunConfig
    gaps: DrawnDays
    constants: xr.Dataset
    known: Normals
    tail: GaussianTail | None
    channels: list[str]
    persistence: FloatArray
    tail_persistence: FloatArray

    @classmethod
    def of(cls, config: RunConfig, normals: artifacts.Published, gaps: DrawnDays) -> "Model":
        constants = loaded_normals(normals)
        known, tail = Normals.of(constants), tail_of(constants)
        a, of_tail = constants["sequence_remainder_persistence"].values, np.empty(0)
        if tail is not None:
            beyond = np.abs(orders(tail.last))[(known.lmax + 1) ** 2 :]
            of_tail = constants["sequence_tail_persistence"].values[beyond]
        return cls(
            config=config,
            gaps=gaps,
            constants=constants,
            known=known,
            tail=tail,
            channels=channels_of(constants),
            persistence=a.reshape(-1, *(1 for _ in known.grid.shape)),
            tail_persistence=of_tail,
        )

    def noise(self, member: int, number: int) -> NoiseAddress:
        """Of a day; days that are drawn together share none with other draws of their date."""
        time = f"{self.gaps.time(number)} filled"
        return NoiseAddress(seed=self.config.run.seed, realization=member, time=time)


def fill_units(
    config: RunConfig, path: Place, record: Record, gaps: DrawnDays, draw: Draw
) -> list[artifacts.Record]:
    """Draw the days of some units and write each. Runs on a worker."""
    units = artifacts.missing_units(path, draw.units)
    if not units:
        return []
    torch.set_num_threads(1)
    model = Model.of(config, record.normals, gaps)

    def filled(window: Window, members: range, wanted: Sequence[int]) -> WindowDrawn:
        told = _told(record, model, window)
        x = told.law.draw(*_noise(model, told, members))
        nats = told.log_evidence
        return WindowDrawn(
            fields=(_completed(model, told, x[:, k - members.start], k) for k in wanted),
            figures={EVIDENCE: nats, GAUSSIAN_EVIDENCE: nats, EFFECTIVE: 1.0},
        )

    return write_days(model, path, units, filled)


@dataclass(frozen=True, kw_only=True, eq=False)
class WindowDrawn:
    """Draws of the days of a window.

    Attributes:
        fields: scaled anomalies (day, variable, *grid) of each realization that is wanted.
        figures: by name, the same for all realizations and days.
    """

    fields: Iterable[FloatArray]
    figures: Mapping[str, float]


def write_days(
    model: Model,
    path: Place,
    units: Sequence[artifacts.Unit],
    drawn: Callable[[Window, range, Sequence[int]], WindowDrawn],
) -> list[artifacts.Record]:
    """Write the days of some units, neighbouring realizations at the same times.

    Args:
        drawn: of a window, of realizations that are drawn together, those that are wanted.
    """
    known, gaps, size = model.known, model.gaps, model.config.generate.microbatch
    columns = range(gaps.times.sizes["time"])[units[0].region["time"]]
    wanted = [unit.region["realization"].start for unit in units]
    first = wanted[0] // size * size
    values = np.empty((len(units), len(columns), len(known.variables), *known.grid.shape))
    figures: dict[str, FloatArray] = {}
    for window in gaps.windows:
        inside = [column for column in columns if gaps.wanted[column] in window.days]
        if not inside:
            continue
        made = drawn(window, range(first, first + size), wanted)
        for name, figure in made.figures.items():
            of_days = figures.setdefault(name, np.empty(len(columns)))
            of_days[[column - columns.start for column in inside]] = figure
        for row, fields in enumerate(made.fields):
            for column in inside:
                number = gaps.wanted[column]
                values[row, column - columns.start] = fields[number - window.start]
    rows = known.rows(gaps.times)[columns.start : columns.stop]
    dims, written = ("realization", "time", *known.grid.dims), []
    for unit, fields in zip(units, values, strict=True):
        physical = known.physical(fields, rows)
        parts = {name: (dims, physical[None, :, k]) for k, name in enumerate(known.variables)}
        require_finite(unit, xr.Dataset(parts), model.constants)
        block = xr.Dataset(parts | of_realization(figures))
        written.append(artifacts.write_unit(path, unit, block))
    return written


def taken_apart(known: Normals, tail: GaussianTail | None, fields: xr.Dataset) -> Days:
    """Days of the record as the parts that draws are made of."""
    rows = known.rows(fields)
    scaled = known.anomalies(stack_variables(fields, known.pointwise(rows)), rows)
    coefficients, left = known.analysed(scaled)
    whole = mix_channels(np.linalg.inv(known.factor), coefficients)
    x, rest = np.split(whole, [(known.lmax + 1) ** 2], axis=-1)
    return Days(x=x, beyond=None if tail is None else tail.white_of(x, rest), left=left)


# One window in a process: its factors are dear, and units of the same one follow each other.
_WINDOWS = Kept[Known]()


def _told(record: Record, model: Model, window: Window) -> Known:
    digest = "" if record.observed is None else record.observed.digest
    place = (record.fields.digest, record.normals.digest, digest, window)
    return _WINDOWS(place, lambda: _read(record, model, window))


def _read(record: Record, model: Model, window: Window) -> Known:
    """What is known of a window, read from the record and from what is observed."""
    there = [place for place, known in enumerate(window.known) if known]
    places, beside = [*range(-window.before, 0), *there], dict[int, Days]()
    if places:
        times = np.array([model.gaps.time(window.start + place) for place in places])
        fields = artifacts.open_artifact(record.fields).sel(time=times)
        days = taken_apart(model.known, model.tail, fields)
        beside = {place: days.of(row) for row, place in enumerate(places)}
    seen = {} if record.observed is None else _seen(record.observed, model, window)
    law = loaded_sequence_law(record.normals)
    bridge = Bridge(law, before=window.before, known=window.known)
    filling = Filling(bridge, {place: one for place, (one, _) in seen.items()})
    return Known(window=window, beside=beside, seen=seen, law=filling)


def _seen(
    observed: artifacts.Published, model: Model, window: Window
) -> dict[int, tuple[Seen, FloatArray]]:
    """What is observed of days of a window, by their places, and their values."""
    table, known, gaps = artifacts.open_artifact(observed), model.known, model.gaps
    lmax, terms, found = coarse_degree(table), known.rows(gaps.times), {}
    columns = {time: place for place, time in enumerate(table["time"].values)}
    for column, number in enumerate(gaps.wanted):
        row = columns.get(gaps.times["time"].values[column])
        if number not in window.days or row is None:
            continue
        given = given_at(table, row)
        given = given.isel(observation=np.flatnonzero(given["withheld"].values == 0))
        functionals = functionals_of(given, known, lmax)
        value, error = given["value"].values, given["error"].values
        carried = carry(known, functionals, terms[column], value, error)
        seen = Seen.of(known.at(terms[column]), model.tail, functionals, carried.error)
        found[number - window.start] = seen, carried.values
    return found


def _noise(model: Model, told: Known, members: range) -> tuple[Any, ...]:
    """What `Filling.draw` takes: noise, known days, observed values, and their noise."""

    def all_of(number: int, drawn: Callable[[NoiseAddress], Any]) -> FloatArray:
        return np.array([drawn(model.noise(member, number)) for member in members], np.float64)

    channels, lmax, window = model.channels, model.known.lmax, told.window
    white = [all_of(day, lambda one: one.white(0, channels, lmax)) for day in window.days]
    error = {}
    for place, summary in told.law.summaries.items():
        numbers = partial(NoiseAddress.numbers, step=0, name="observations")
        rows = len(summary.operator)
        error[place] = all_of(window.start + place, partial(numbers, size=rows))
    values = {place: told.seen[place][1] for place in error}
    return np.stack(white), told.side(early=True), told.side(early=False), values, error


def _completed(model: Model, told: Known, x: FloatArray, member: int) -> FloatArray:
    """Scaled anomalies (day, variable, *grid) of a window, of coefficients x up to lmax."""
    known, tail, start = model.known, model.tail, told.window.start
    left, beyond = beside(model, told.window, told.beside, member)
    for place, (seen, values) in told.seen.items():
        one = model.noise(member, start + place)
        error = one.numbers("grid", "observations", len(values))[None].astype(np.float64)
        white = None if beyond is None else beyond[place]
        white, left[place] = seen.complete(values, x[place][None], white, left[place], error)
        if beyond is not None:
            beyond[place] = white
    if tail is not None and beyond is not None:
        x = np.concatenate([x, tail.draw(x, beyond[:, 0])], axis=-1)
    return known.synthesis(x) + left[:, 0]


def beside(
    model: Model, window: Window, there: Mapping[int, Days], member: int
) -> tuple[FloatArray, FloatArray | None]:
    """Remainder and white noise of the tail of the days of a window, (day, draw: 1, ...), in
    agreement with those of the days that are there."""
    known, tail, start = model.known, model.tail, window.start
    early = min(1, window.before)
    days = range(start - early, window.stop)
    there = {place + early: one for place, one in there.items() if place >= -early}

    def on_grid(number: int) -> FloatArray:
        return model.noise(member, number).on_grid(model.channels, known.grid.shape)

    a = model.persistence
    noise = known.remainder_of(persistent(on_grid, days, a))[:, None]
    left = agreeing(noise, {place: one.left for place, one in there.items()}, a)[early:]
    if tail is None:
        return left, None
    low, last = (known.lmax + 1) ** 2, tail.last

    def of_tail(number: int) -> FloatArray:
        return model.noise(member, number).white(0, model.channels, last)[:, low:]

    a = model.tail_persistence
    beyond = {place: one.beyond for place, one in there.items() if one.beyond is not None}
    return left, agreeing(persistent(of_tail, days, a)[:, None], beyond, a)[early:]
