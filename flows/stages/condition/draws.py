"""Draws given observations, or given that an event happens. Runs on workers.

Draws of a network are made in aligned groups of `condition.particles` at a time, those of a
Gaussian law in groups of `generate.microbatch`; groups are whole even where only some of them are
wanted, and days with the same places and errors share their factors. Noise is addressed as that of
all draws, so the bytes depend on neither workers nor order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import torch
import xarray as xr
from scipy.special import ndtr

from flows.config.schema import RunConfig
from flows.stages.condition.events import EventSeen, event_at
from flows.stages.condition.observed import coarse_degree, functionals_of, given_at
from flows.stages.generate.draws import Draw, channels_of, require_finite
from flows.stages.preprocess.normals import tail_of
from flows.stages.trained_model import loaded
from pipeline.arrays import FloatArray
from pipeline.diffusion.noise import NoiseAddress
from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.diffusion.score import GaussianScore, Score
from pipeline.fields.standardisation import Normals
from pipeline.gaussian.conditional_tail import GaussianTail
from pipeline.gaussian.posterior import GaussianPosterior
from pipeline.given.carried import Carried, carry
from pipeline.given.functionals import Functionals
from pipeline.given.seen import Seen, Summary
from pipeline.given.twisted import TwistedChain
from storage.artifacts import publishing as artifacts
from storage.places.places import Place

EVIDENCE, EFFECTIVE = "log_evidence", "effective_sample_size"
GAUSSIAN_EVIDENCE = "log_evidence_gaussian"
AGAINST = "_against"  # at the end of the names of figures of another world


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """What all draws share on a worker."""

    config: RunConfig
    score: Score
    known: Normals
    tail: GaussianTail | None
    channels: list[str]

    @property
    def group(self) -> int:
        """Draws that are made together."""
        return group_of(self.config)


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """Days with the same places and errors: what is seen of them, and their values (day, row).

    Of an event the values are drawn.
    """

    columns: list[int]
    seen: Seen
    values: FloatArray
    event: EventSeen | None = None


def group_of(config: RunConfig) -> int:
    """How many draws are made together; part of the identity of each."""
    known = config.condition.particles, config.generate.microbatch
    return known[0] if config.draws_by_network else known[1]


def draw_units(
    config: RunConfig,
    path: Place,
    checkpoint: artifacts.Published,
    normals: artifacts.Published,
    observed: artifacts.Published | None,
    times: xr.Dataset,
    against: xr.Dataset | None,
    draw: Draw,
) -> list[artifacts.Record]:
    """Draw the fields of some units and write each. Runs on a worker.

    Args:
        against: the same times in another world, of which the probability of an event is asked.
    """
    units = artifacts.missing_units(path, draw.units)
    if not units:
        return []
    torch.set_num_threads(1)
    trained, constants = loaded(config, checkpoint, normals)
    model = Model(
        config=config,
        score=trained.score,
        known=Normals.of(constants),
        tail=tail_of(constants),
        channels=channels_of(constants),
    )
    columns = range(times.sizes["time"])[units[0].region["time"]]
    first = units[0].region["realization"].start // model.group * model.group
    members = range(first, first + model.group)
    rows = model.known.rows(times)
    made = [
        (given, _drawn(model, given, times, members))
        for given in _given(model, observed, times, rows, columns)
    ]
    if against is not None:
        others = _given(model, None, against, model.known.rows(against), columns)
        for (_, drawn), other in zip(made, others, strict=True):
            _, _, figures = _weighed(model, other, against, _noises(model, other, times, members))
            drawn.figures.update({name + AGAINST: part for name, part in figures.items()})
    written = []
    for unit in units:
        number = unit.region["realization"].start - first
        block = _block(constants, model.known, made, rows, columns, number)
        require_finite(unit, block[list(model.known.variables)], constants)
        written.append(
            artifacts.write_unit(path, unit, block, extra={"checkpoint": checkpoint.digest})
        )
    return written


def _given(
    model: Model,
    observed: artifacts.Published | None,
    times: xr.Dataset,
    rows: FloatArray,
    columns: Sequence[int],
) -> list[Given]:
    """What is given at some times; times that share places and errors together."""
    if observed is None:
        event = model.config.condition.event
        assert event is not None
        return [
            Given(columns=[column], seen=there.seen, values=np.empty((1, 1)), event=there)
            for column in columns
            for there in [event_at(model.known, model.tail, event, rows[column])]
        ]
    table = artifacts.open_artifact(observed)
    lmax = coarse_degree(table)
    groups: dict[bytes, list[tuple[int, Functionals, Carried]]] = {}
    for column in columns:
        whole = given_at(table, column)
        given = whole.isel(observation=np.flatnonzero(whole["withheld"].values == 0))
        functionals = functionals_of(given, model.known, lmax)
        value, error = given["value"].values, given["error"].values
        carried = carry(model.known, functionals, rows[column], value, error)
        weights = functionals.weights.tocsr()
        parts = [weights.data, weights.indices, weights.indptr, functionals.variable, carried.error]
        if len(model.known.log_scale):
            parts.append(rows[column])  # what observations see depends on the scale of their time
        place = sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).digest()
        groups.setdefault(place, []).append((column, functionals, carried))
    found = []
    for several in groups.values():
        first, functionals, carried = several[0]
        known = model.known.at(rows[first])
        found.append(
            Given(
                columns=[column for column, _, _ in several],
                seen=Seen.of(known, model.tail, functionals, carried.error),
                values=np.stack([one.values for _, _, one in several]),
            )
        )
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """Fields (day, member, variable, *grid) of scaled anomalies, and what was learned of the days.

    Attributes:
        figures: by name, (day,): log-densities of what was observed, under the model and its
            Gaussian law [nats], and the effective sample size as a share.
    """

    fields: FloatArray
    figures: dict[str, FloatArray]


def _drawn(model: Model, given: Given, times: xr.Dataset, members: range) -> Drawn:
    noises = _noises(model, given, times, members)
    x, values, figures = _weighed(model, given, times, noises)
    fields = np.empty((*x.shape[:2], len(model.known.variables), *model.known.grid.shape))
    for day, addresses in enumerate(noises):
        of_members = np.broadcast_to(values[day], (len(members), values.shape[2]))
        fields[day] = _completed(model, given.seen, of_members, x[day], addresses)
    return Drawn(fields=fields, figures=figures)


def _noises(
    model: Model, given: Given, times: xr.Dataset, members: range
) -> list[list[NoiseAddress]]:
    """Where the noise of each day and member lies: the same in every world."""
    days = [times["time"].values[column] for column in given.columns]
    return [[_address(model.config, number, day) for number in members] for day in days]


def _weighed(
    model: Model, given: Given, times: xr.Dataset, noises: list[list[NoiseAddress]]
) -> tuple[FloatArray, FloatArray, dict[str, FloatArray]]:
    """Draws x (day, member, channel, coefficient), the values (day, member or 1, row) that they
    have, and the figures of `Drawn`."""
    condition = torch.from_numpy(times["condition"].values[given.columns])
    values, start = given.values[:, None], None
    if given.event is not None:
        values, start = _of_event(model, given.event, noises[0])
    summary = Summary.of(given.seen)
    observed, more = summary.values(values)
    made = _whitened(model, summary, observed, condition, noises, start)
    evidence, gaussian = (part + more.mean(axis=1) for part in (made.evidence, made.gaussian))
    if given.event is not None:
        values = made.values  # those of the particles that go on; one row, as it was
        gaussian = np.array([given.event.log_probability(model.score.baseline)])
    figures = {EVIDENCE: evidence, GAUSSIAN_EVIDENCE: gaussian, EFFECTIVE: made.effective}
    return made.x, values, figures


@dataclass(frozen=True, kw_only=True, eq=False)
class Whitened:
    """Draws x (day, member, channel, coefficient) given values (day, member or 1, row), and the
    figures of `Drawn`."""

    x: FloatArray
    values: FloatArray
    evidence: FloatArray
    gaussian: FloatArray
    effective: FloatArray


def _whitened(
    model: Model,
    summary: Summary,
    observed: FloatArray,
    condition: torch.Tensor,
    noises: list[list[NoiseAddress]],
    start: FloatArray | None,
) -> Whitened:
    """Draws given values (day, member or 1, row)."""
    device = model.score.baseline.variance.device
    operator, noise, values = (
        torch.from_numpy(np.ascontiguousarray(part)).to(device)
        for part in (summary.operator, summary.noise, observed)
    )
    lmax, rows = model.known.lmax, len(summary.operator)

    def white(step: int) -> torch.Tensor:
        return _stacked(noises, lambda one: one.white(step, model.channels, lmax)).to(device)

    def error(step: int) -> torch.Tensor:
        return _stacked(noises, lambda one: one.numbers(step, "observations", rows)).to(device)

    def uniform(step: int) -> torch.Tensor:
        firsts = [row[:1] for row in noises]
        normal = _stacked(firsts, lambda one: one.numbers(step, "resampling", 1))
        return torch.from_numpy(ndtr(normal.double().numpy()))[:, 0, 0]

    law = GaussianPosterior(model.score.baseline, operator, noise)
    weights = None if start is None else torch.from_numpy(start).to(device)
    gaussian = (law.log_evidence(values) + (0.0 if weights is None else weights)).mean(dim=1)
    if isinstance(model.score, GaussianScore):
        x, given = law.draw(white(0), error(0), values), values
        effective = np.ones(len(observed))
        evidence = gaussian
    else:
        about = model.config.condition
        process = OrnsteinUhlenbeck()
        grid = process.power_grid(about.evaluations, model.config.generate.grid_exponent)
        chain = TwistedChain(
            score=model.score,
            operator=operator,
            noise=noise,
            times=torch.as_tensor(grid, device=device),
            weighted=about.particles > 1,
        )
        made = chain(values, condition.to(device), white, error, uniform, weights)
        x, given, evidence = made.x, made.values, made.log_evidence
        effective = made.effective.cpu().numpy()
    return Whitened(
        x=x.cpu().numpy(),
        values=given.cpu().numpy(),
        evidence=evidence.cpu().numpy(),
        gaussian=gaussian.cpu().numpy(),
        effective=effective,
    )


def _of_event(
    model: Model, there: EventSeen, addresses: list[NoiseAddress]
) -> tuple[FloatArray, FloatArray]:
    """Values (1, member, 1) of the event's mean, and the logs of their weights (1, member)."""
    uniform = ndtr([float(one.numbers(0, "event", 1)[0]) for one in addresses])
    learned = not isinstance(model.score, GaussianScore)
    values, logs = there.proposed(model.score.baseline, np.asarray(uniform), learned)
    return values[None, :, None], logs[None]


def _completed(
    model: Model, seen: Seen, values: FloatArray, x: FloatArray, addresses: list[NoiseAddress]
) -> FloatArray:
    """Scaled anomalies on the grid of draws x (member, channel, coefficient)."""
    known, low = model.known, x.shape[-1]
    error = np.stack([one.numbers("grid", "observations", values.shape[1]) for one in addresses])
    white = None
    if model.tail is not None:
        last = model.tail.last
        white = np.stack([one.white(0, model.channels, last)[:, low:] for one in addresses])
    noise = np.stack([one.on_grid(model.channels, known.grid.shape) for one in addresses])
    remainder = known.remainder_of(noise.astype(np.float64))
    white, remainder = seen.complete(values, x, white, remainder, error)
    if model.tail is not None:
        x = np.concatenate([x, model.tail.draw(x, white)], axis=-1)
    return known.synthesis(x) + remainder


def _block(
    constants: xr.Dataset,
    known: Normals,
    made: Sequence[tuple[Given, Drawn]],
    rows: FloatArray,
    columns: Sequence[int],
    number: int,
) -> xr.Dataset:
    """One realization at the times of a unit, physical."""
    first, size = columns[0], len(columns)
    values = np.empty((size, len(known.variables), *known.grid.shape))
    figures: dict[str, FloatArray] = {}
    for given, drawn in made:
        for day, column in enumerate(given.columns):
            values[column - first] = drawn.fields[day, number]
            for name, part in drawn.figures.items():
                figures.setdefault(name, np.empty(size))[column - first] = part[day]
    physical = known.physical(values, rows[first : first + size])
    dims = ("realization", "time", *known.grid.dims)
    block = {name: (dims, physical[None, :, place]) for place, name in enumerate(known.variables)}
    return xr.Dataset(block | of_realization(figures))


def of_realization(
    figures: Mapping[str, FloatArray],
) -> dict[str, tuple[tuple[str, str], FloatArray]]:
    """Figures of one realization, each (time,), as variables of its unit."""
    dims = ("realization", "time")
    return {name: (dims, part[None].astype(np.float32)) for name, part in figures.items()}


def _address(config: RunConfig, number: int, time: object) -> NoiseAddress:
    """Draws given something share no noise with those of the same date that are not."""
    return NoiseAddress(seed=config.run.seed, realization=number, time=f"{time} given")


def _stacked(noises: list[list[NoiseAddress]], numbers) -> torch.Tensor:  # type: ignore[no-untyped-def]
    return torch.from_numpy(np.array([[numbers(one) for one in row] for row in noises]))
