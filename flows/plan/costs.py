"""What a run takes: a model of its time, memory, bytes and files, from counts of work.

A stage is counted in a few kinds of work (values that pass through it, products of its transforms
and of its network, units), each of which has a price in seconds. The prices were measured on one
machine (`make unit-costs`, flows/plan/unit_costs.json); docs/performance.md compares the model with
whole runs and carries it to sizes that were not run.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

from flows.processes.machine import SERIES_SHARE
from flows.stages.generate.chunks import TIMES_PER_CHUNK, UNIT_TIMES, times_of_unit
from flows.stages.train.judging import DRAWS, STEP, Judging
from pipeline.gaussian.moments import block_bytes

__all__ = ["Estimate", "Machines", "Prices", "Work", "Workload", "estimates", "prices", "work"]

INTERPRETER_BYTES = 600 << 20  # a process with torch, xarray and zarr loaded
CANDIDATES = 6  # whose fields verification scores: model, two Gaussian laws, observed, analogues
CERTIFIED, PROBED = 2000, 1280  # evaluations of the network for J_G; for likelihood and bounds
VALIDATIONS = 12  # of J_G on validation fields
FOLDS = 4  # laws of which each leaves a part of the training fields out
RESCORED = 7  # transforms of each field that verification scores, there and back
ROWS = 256  # training fields among which the nearest is looked for at once
LAWS_FITTED = 11  # in the process of the run while preprocess fits them: sums, mixed sums, laws
LAWS_TRAINED = 14  # in a training: of each fold and of the model with their rotations, stored ones
LAWS_DRAWN, LAWS_JUDGED = 4, 7  # of a worker that draws, that compares densities
WINDOW = 7  # days around a date whose fields of other years are draws of the climatology
OTHER_YEARS = 30  # at most
NUMBERS, ARRAYS = 1 << 25, 8  # of an array of a unit that is scored; how many there are
VALUES, MADE = 1 << 24, 14  # of the fields that verification makes at once; arrays of them
UNIT_BYTES = 1 << 27  # of a unit of them
BANK = 1 << 29  # numbers of the training fields that draws are compared with at once
PAIRED, TABLES = 2048, 8  # fields between which distances are taken; tables that come back
REPLICATES = 101
PICTURES = 96 << 20  # of the libraries that draw
JUDGED = 100  # bytes of each coefficient of the fields that are noised and scored together
JUDGED_FIELDS, JUDGED_NUMBERS = 64, 1 << 25  # of these
MATCHING = 32  # bytes of each coefficient of the fields that match the flow
PARTIAL = 16  # test fields of a part of the certificate, which brings back all steps of its chain
CHAIN = 256
WHOLE = 10  # copies of its fields that the fit of the whole law holds at most (test_costs.py)
WHOLE_FIELDS, WHOLE_BYTES = 1500, 3 << 25  # that it is fitted to, and all that they may take
NEAREST = 512  # draws whose nearest training field is looked for
MAPS = 12  # of a channel in normals: climatology, scale and how it changes, deviations, ranks
MOVED = 4500  # products in the time that a value of a block's feature maps takes (widths 16 to 64)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The sizes of a run on which its costs depend.

    Attributes:
        times, fitted: of the series; of training and validation together.
        validated, tested: of validation and test alone.
        nlat, points: rings of the grid; cells of one field.
        steps: of training; None if `minutes` end it.
        ensemble, verification: realizations, and the times of each.
        together: realizations that one task draws.
        shard: times in one unit of ingest.
        years: of training, or its members: what verification finds fields like a date in.
        accumulate: parts of a batch that a process trains on one after the other.
        drawn_points: cells of one field of the ensemble, if it is drawn on another grid.
        series: whether the ensemble is copied for readers of series.
        block_degree: up to which Gaussian laws keep the covariances of each order; lmax if None.
        sequences: realizations and days of each.
        past: days that a day of them is drawn given.
        learned: evaluations of the network for each of these days; 0 for the linear law.
    """

    times: int
    fitted: int
    channels: int
    nlat: int
    points: int
    lmax: int
    ensemble: tuple[int, int]
    verification: tuple[int, int]
    validated: int = 0
    tested: int = 0
    steps: int | None = None
    minutes: float | None = None
    batch: int = 32
    accumulate: int = 1
    width: int = 64
    blocks: int = 4
    evaluations: int = 12
    together: int = 8
    microbatch: int = 4
    shard: int = 64
    years: int = 1
    drawn_points: int | None = None
    series: bool = False
    block_degree: int | None = None
    sequences: tuple[tuple[int, int], ...] = ()
    past: int = 0
    learned: int = 0

    @property
    def coefficients(self) -> int:
        return (self.lmax + 1) ** 2

    @property
    def drawn(self) -> int:
        return self.ensemble[0] * self.ensemble[1]

    @property
    def scored(self) -> int:
        return self.verification[0] * self.verification[1]

    @property
    def like(self) -> int:
        """Training fields of the calendar days of verification."""
        return min(self.years, OTHER_YEARS) * self.verification[1]

    @property
    def compared(self) -> int:
        """Fields that are scored: of the model and two Gaussian laws, of other years, whole and
        cut to lmax, and of the climatology."""
        return (CANDIDATES - 3) * self.scored + (2 + WINDOW) * self.like

    @property
    def followed(self) -> int:
        """Days of all sequences together."""
        return sum(realizations * days for realizations, days in self.sequences)

    @property
    def sequence_units(self) -> tuple[int, int]:
        """Units of the states of all sequences, and of their fields."""
        states = sum(n * ceil(days / UNIT_TIMES) for n, days in self.sequences)
        fields = sum(n * ceil(days / self.times_of(days)) for n, days in self.sequences)
        return states, fields

    def times_of(self, days: int) -> int:
        """Times in a unit of the fields of a sequence."""
        return times_of_unit(self.channels * (self.drawn_points or self.points), days)

    @property
    def field_bytes(self) -> int:
        """One field of all channels, float32."""
        return 4 * self.channels * self.points

    @property
    def legendre_flops(self) -> int:
        """Products of the transforms of all channels of one field, hemispheres folded."""
        return self.channels * self.nlat * self.coefficients

    @property
    def degree(self) -> int:
        """The block degree."""
        return self.lmax if self.block_degree is None else min(self.block_degree, self.lmax)

    @property
    def covariances(self) -> int:
        """Numbers in the covariances of all orders up to the block degree, and of the channels of
        each degree beyond it."""
        blocks, beyond = block_bytes(self.channels, self.degree) // 8, self.lmax - self.degree
        return blocks + self.channels**2 * beyond

    @property
    def mixed(self) -> int:
        """Products that mix the channels of all coefficients beyond the block degree."""
        return self.channels**2 * (self.coefficients - (self.degree + 1) ** 2)

    @property
    def factored(self) -> int:
        """Numbers of the laws, each as often as its matrix has rows: what their fit costs."""
        orders = (self.degree + 1) ** 4 if self.degree else 1
        return self.channels**3 * (orders + self.lmax - self.degree)

    @property
    def network_products(self) -> int:
        """One evaluation of one field: convolutions on the network's own grid of 2 (lmax + 1)^2
        cells, four transforms, the basis of the Gaussian law there and back; and the feature maps
        that are moved meanwhile, as the products that take as long."""
        width, cells = self.width, 2 * self.coefficients
        moved = MOVED * self.blocks * cells * width
        convolutions = 18 * cells * width * (10 * self.channels + 20 + 2 * self.blocks * width)
        transforms = 4 * self.channels * (self.lmax + 1) * self.coefficients
        return convolutions + moved + transforms + 6 * self.covariances + 6 * self.mixed


@dataclass(frozen=True, kw_only=True)
class Machines:
    """What a run has.

    Attributes:
        workers: Dask workers of one thread.
        gpus: what trains and samples; without any, the CPU that was measured does.
        gpu_speed: products that one of them does in a second, in the network.
        memory: of the machine that trains [bytes]; None: as much as it takes.
        ranks: that train on workers; one trains beside the run.
    """

    workers: int = 2
    gpus: int = 0
    gpu_speed: float = 0.0
    memory: int | None = None
    ranks: int = 1


@dataclass(frozen=True, kw_only=True)
class Work:
    """Counts of one stage.

    Attributes:
        values, scored, legendre, network, units: shared by workers; a value that is scored costs
            what one does that is worked on in one process.
        training, judging: products of the network in one process on all cores of its machine, of
            a training that its minutes may end, and of what is done in any case.
        alone: values, and numbers of laws that are fitted, in one process.
        products: other products in one process.
    """

    values: float = 0.0
    scored: float = 0.0
    legendre: float = 0.0
    network: float = 0.0
    units: int = 0
    training: float = 0.0
    judging: float = 0.0
    alone: float = 0.0
    products: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Seconds.

    Attributes:
        legendre, network, training: of one product: outside of the network on one thread, in the
            network on one thread, in the network on all threads.
        stages: {stage: {"value", "unit", "alone", "run"}} of each kind of work; `run` is spent
            once.
        task: of the scheduler, for each unit.
        where: the machine, and when.
    """

    legendre: float
    network: float
    training: float
    task: float
    stages: Mapping[str, Mapping[str, float]]
    where: str

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> "Prices":
        return cls(**table)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What one stage takes; bytes and memory are upper estimates.

    Attributes:
        seconds: None where no prices were measured.
        memory: of one worker that does units of the stage [bytes]; 0 if it has none.
        memory_here: of the process of the run, or of its child that trains [bytes].
    """

    stage: str
    seconds: float | None
    bytes: int
    files: int
    units: int
    memory: int
    memory_here: int


@cache
def prices() -> Prices | None:
    """The prices that `make unit-costs` measured for this installation; None if it never ran."""
    file = Path(__file__).with_name("unit_costs.json")
    if not file.is_file():
        return None
    return Prices.from_dict(json.loads(file.read_text(encoding="utf-8")))


def work(load: Workload) -> dict[str, Work]:
    """The counts of every stage."""
    fitted, channels = load.fitted, load.channels
    samples, coefficients = (load.steps or 0) * load.batch, load.coefficients
    trains = load.steps != 0 or load.minutes is not None
    validations = min(VALIDATIONS, load.steps or VALIDATIONS)
    judging = _judging(load)
    per_field = channels * load.points

    def drawing(
        realizations: int, times: int, certified: int = 0, compared: float = 0.0, **more: float
    ) -> Work:
        count = realizations * times
        return Work(
            values=count * per_field,
            legendre=count * load.legendre_flops + compared,
            network=(count * load.evaluations + certified) * load.network_products,
            units=ceil(realizations / load.together) * ceil(times / TIMES_PER_CHUNK),
            **more,
        )

    return {
        "ingest": Work(values=load.times * per_field, units=ceil(load.times / load.shard)),
        "preprocess": Work(
            values=(load.times + 7 * fitted) * per_field,
            legendre=(load.times + 2 * fitted) * load.legendre_flops
            + 2 * fitted * (load.covariances + load.mixed),
            units=2 * ceil(load.times / load.shard),
            alone=load.factored,
        ),
        "train": Work(
            training=trains
            * (STEP * samples + validations * DRAWS * judging.validated)
            * load.network_products,
            judging=trains * judging.evaluations(0) * load.network_products,
            alone=trains * FOLDS * load.factored,
            products=trains * 2 * (fitted - load.validated) * (load.covariances + load.mixed),
        ),
        "generate": _with_sequences(drawing(*load.ensemble), load),
        "verify": drawing(
            *load.verification,
            certified=trains * (max(CERTIFIED, load.tested) + PROBED),
            scored=load.compared * per_field,
            compared=(RESCORED * load.scored + 3 * load.like) * load.legendre_flops
            + 2 * min(NEAREST, load.scored) * (fitted - load.validated) * channels * coefficients,
        ),
    }


def _with_sequences(done: Work, load: Workload) -> Work:
    """The counts of drawing, with the states and the fields of sequences.

    A microbatch costs the same whether all its members are wanted or not.
    """
    rows = sum(ceil(n / load.microbatch) * load.microbatch * days for n, days in load.sequences)
    return replace(
        done,
        values=done.values + load.followed * load.channels * load.points,
        legendre=done.legendre
        + load.followed * load.legendre_flops
        + 4 * rows * load.past * load.covariances,
        network=done.network + rows * load.learned * load.network_products,
        units=done.units + sum(load.sequence_units),
    )


def seconds(stage: str, done: Work, load: Workload, machines: Machines, price: Prices) -> float:
    """Time of a stage. Units that the scheduler cannot hand out fast enough wait for it."""
    own = price.stages[stage]
    network, training = price.network / machines.workers, price.training
    if machines.gpus:
        network = training = 1.0 / (machines.gpus * machines.gpu_speed)
    shared = done.values * own["value"] + done.legendre * price.legendre + done.units * own["unit"]
    shared += done.scored * own["alone"]
    by_workers = shared / machines.workers + done.network * network
    waited = max(by_workers, done.units * price.task)
    trained = done.training * training
    if stage == "train" and load.minutes is not None:
        limit = 60.0 * load.minutes
        trained = min(limit, trained) if load.steps else limit
    alone = done.judging * training + done.alone * own["alone"] + done.products * price.legendre
    return own["run"] + waited + trained + alone


def estimates(load: Workload, machines: Machines, price: Prices | None) -> list[Estimate]:
    """Time, bytes, files, units and memory of every stage."""
    counts = work(load)
    return [
        Estimate(
            stage=stage,
            seconds=None if price is None else seconds(stage, counts[stage], load, machines, price),
            units=max(1, counts[stage].units),
            **vars(size),
        )
        for stage, size in _sizes(load, machines).items()
    ]


@dataclass(frozen=True, kw_only=True)
class _Size:
    """What of an estimate is counted in bytes and files."""

    bytes: int
    files: int
    memory: int = 0
    memory_here: int = INTERPRETER_BYTES


def _sizes(load: Workload, machines: Machines) -> dict[str, _Size]:
    """Bytes, files and memory of each stage."""
    channels, field, shard = load.channels, load.field_bytes, load.shard
    shards = ceil(load.times / shard)
    whitened = 4 * channels * load.coefficients
    trains = load.steps != 0 or load.minutes is not None
    model = trains * (32 << 20) * ceil(load.width / 32) ** 2  # weights, their mean, optimizer
    laws, maps = 8 * load.covariances, 8 * MAPS * channels * load.points
    training = INTERPRETER_BYTES + trains * series_kept(load, machines) + 8 * model
    training += trains * (LAWS_TRAINED * laws + activations(load, machines.ranks) + held_out(load))
    on_workers = {"memory": training}
    sampling = INTERPRETER_BYTES + 64 * load.microbatch * field + LAWS_DRAWN * laws
    placed = field if load.drawn_points is None else 4 * channels * load.drawn_points
    normals = 0 if load.drawn_points is None else 40  # on both grids

    def files(realizations: int, times: int) -> int:
        return channels * realizations * ceil(times / TIMES_PER_CHUNK) + 20

    def drawing(times: int, one: int, more: int = 0) -> int:
        return sampling + (10 * min(TIMES_PER_CHUNK, times) + more) * one

    return {
        "ingest": _Size(
            bytes=load.times * field,
            files=channels * shards + 20,
            memory=INTERPRETER_BYTES + 3 * shard * field,
        ),
        "preprocess": _Size(
            bytes=load.times * whitened + maps + 3 * laws,
            files=shards + 60,
            memory=INTERPRETER_BYTES + 4 * shard * field + 5 * laws + 2 * maps,
            memory_here=INTERPRETER_BYTES + LAWS_FITTED * laws + maps,
        ),
        "train": _Size(
            bytes=3 * model,
            files=12,
            **(on_workers if machines.ranks > 1 else {"memory_here": training}),
        ),
        "generate": _Size(
            bytes=load.drawn * placed * (1 + load.series)
            + load.followed * (placed * (1 + load.series) + whitened),
            files=files(*load.ensemble)
            + load.sequence_units[0]
            + channels * load.sequence_units[1],
            memory=max(
                drawing(load.ensemble[1], placed, normals),
                *(sampling + 10 * load.times_of(days) * placed for _, days in load.sequences),
                0,
            ),
        ),
        "verify": _Size(
            bytes=load.scored * field + _compared_bytes(load),
            files=CANDIDATES * files(*load.verification),
            memory=max(
                drawing(load.verification[1], field) + (LAWS_JUDGED - LAWS_DRAWN) * laws,
                INTERPRETER_BYTES + whole_law(load),
                INTERPRETER_BYTES + LAWS_DRAWN * laws + maps + _scoring(load),
            ),
            memory_here=INTERPRETER_BYTES + LAWS_DRAWN * laws + maps + _reporting(load),
        ),
    }


def _compared_bytes(load: Workload) -> int:
    """What is kept to be scored: fields of two Gaussian laws, of other years cut to lmax, and of
    the climatology; coefficients of these, of the model's draws and of the real fields."""
    dates = load.verification[1]
    fields = 2 * load.scored + load.like + dates
    coefficients = 3 * load.scored + 2 * load.like + dates
    return fields * load.field_bytes + coefficients * load.channels * (
        4 * load.coefficients + 8 * (load.lmax + 1)
    )


def _scoring(load: Workload) -> int:
    """Bytes of a worker that makes fields to be compared, or scores them: those of the largest
    unit, which is bounded whatever the dates and realizations."""
    values, size = load.channels * load.points, load.channels * load.coefficients
    dates = load.verification[1]
    unit = max(UNIT_BYTES, min(TIMES_PER_CHUNK, dates) * (load.field_bytes + 4 * size))
    everything = load.scored * (load.field_bytes + 4 * size)
    made = 8 * MADE * max(values, min(VALUES, dates * values)) + 3 * min(unit, everything)
    of_latitude = load.points // load.nlat * dates
    most = load.points * max(load.scored, WINDOW * load.like)
    scored = 8 * ARRAYS * min(most, max(NUMBERS, of_latitude))
    near = 5 * min(ROWS, max(1, BANK // size), load.fitted) * size + 32 * (1 << 23)
    rows = _paired(load)
    paired = 24 * rows**2 + 16 * min(NUMBERS, rows * size)
    return max(made, scored, near, paired)


def _reporting(load: Workload) -> int:
    """Bytes of the process of the run while it adds up what comes back, and draws the pictures:
    of these maps and a few fields, of the former tables that grow with the degrees, and ranks and
    parts of the certificate, which are small parts of the fields that they are about."""
    pictures = PICTURES + 40 * load.field_bytes
    spectra = 8 * REPLICATES * load.channels * (load.lmax + 1)
    ranks = 16 * CANDIDATES * load.channels * max(load.scored, load.like)
    tables = TABLES * 8 * _paired(load) ** 2
    certified = 8 * load.channels * (load.lmax + 1)
    parts = CHAIN * ceil(load.tested / PARTIAL) + 3 * load.tested
    return pictures + 2 * CANDIDATES * spectra + max(tables, ranks, certified * parts) + _days(load)


def _paired(load: Workload) -> int:
    """Rows of a table of distances."""
    dates = min(load.verification[1], PAIRED // 2)
    return dates + min(max(load.scored, load.like), max(PAIRED, 2 * dates))


def _days(load: Workload) -> int:
    """Of runs of sequences, the training and the test days that verification has in memory whole,
    float64."""
    days = load.fitted - load.validated + load.tested
    return bool(load.past) * 8 * days * load.channels * load.coefficients


def activations(load: Workload, ranks: int) -> int:
    """Bytes of what a training keeps for the gradient of the fields that one process trains on at
    once, float32: of each block two feature maps and the two that are made of them, of the last one
    the same once, and the pictures before and after them; and some arrays of coefficients."""
    fields = ceil(load.batch / (ranks * load.accumulate))
    rings = 2 * ceil((load.lmax + 1) / 2)
    maps = (4 * load.blocks + 2 + 3) * load.width + 18 * load.channels
    return fields * (4 * 2 * rings**2 * maps + 80 * load.channels * load.coefficients)


def held_out(load: Workload) -> int:
    """Bytes of the validation fields of a training, of those that are judged at once, and of those
    that match its flow."""
    numbers = load.channels * load.coefficients
    together = min(JUDGED_FIELDS, max(1, JUDGED_NUMBERS // numbers), load.validated)
    matched = _judging(load).matched
    return numbers * (4 * load.validated + JUDGED * together + MATCHING * matched)


def _judging(load: Workload) -> Judging:
    return Judging.of(
        steps=load.steps,
        batch=load.batch,
        validations=VALIDATIONS,
        fields=load.validated,
        numbers=load.channels * load.coefficients,
    )


def whole_law(load: Workload) -> int:
    """Bytes that a worker holds while it fits the whole covariance of the training fields
    (pipeline/gaussian/whole.py); 0 where these are too many to fit it."""
    one, fields = load.channels * load.coefficients, load.fitted - load.validated
    wanted = min(WHOLE_FIELDS, fields)
    return 0 if 8 * one * wanted > WHOLE_BYTES else WHOLE * 8 * wanted * one


def series_kept(load: Workload, machines: Machines) -> int:
    """Bytes of the training fields that training keeps in memory; it reads the others again."""
    series = load.fitted * 4 * load.channels * load.coefficients
    if machines.memory is None:
        return series
    return min(series, int(SERIES_SHARE * machines.memory))
