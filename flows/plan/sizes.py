"""How much a stage holds in memory and writes: upper estimates, array by array."""

from dataclasses import dataclass
from math import ceil

from flows.plan.workload import CANDIDATES, WINDOW, Machines, Workload, judging_of
from flows.processes.machine import SERIES_SHARE
from flows.stages.generate.chunks import TIMES_PER_CHUNK

INTERPRETER_BYTES = 600 << 20  # a process with torch, xarray and zarr loaded
ROWS = 256  # training fields among which the nearest is looked for at once
LAWS_FITTED = 11  # in the process of the run while preprocess fits them: sums, mixed sums, laws
BLOCK_BYTES, BLOCK_TIMES, BLOCKS = 1 << 26, 256, 8  # of float64 fields that are summed; copies
LAWS_TRAINED = 14  # in a training: of each fold and of the model with their rotations, stored ones
LAWS_DRAWN, LAWS_JUDGED = 4, 7  # of a worker that draws, that compares densities
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
MAPS = 12  # of a channel in normals: climatology, scale and how it changes, deviations, ranks


@dataclass(frozen=True, kw_only=True)
class Size:
    """What of an estimate is counted in bytes and files."""

    bytes: int
    files: int
    memory: int = 0
    memory_here: int = INTERPRETER_BYTES


def sizes(load: Workload, machines: Machines) -> dict[str, Size]:
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
        "ingest": Size(
            bytes=load.times * field,
            files=channels * shards + 20,
            memory=INTERPRETER_BYTES + 3 * shard * field,
        ),
        "preprocess": Size(
            bytes=load.times * whitened + maps + 3 * laws,
            files=shards + 60,
            memory=INTERPRETER_BYTES + max(4 * shard * field, _blocks(load)) + 5 * laws + 2 * maps,
            memory_here=INTERPRETER_BYTES + LAWS_FITTED * laws + maps,
        ),
        "train": Size(
            bytes=3 * model,
            files=12,
            **(on_workers if machines.ranks > 1 else {"memory_here": training}),
        ),
        "generate": Size(
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
        "verify": Size(
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


def _blocks(load: Workload) -> int:
    """Bytes of a worker of preprocess for the times that it sums over at once."""
    one = 8 * load.channels * load.points
    return BLOCKS * one * max(1, min(BLOCK_BYTES // one, BLOCK_TIMES, load.times))


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
    matched = judging_of(load).matched
    return numbers * (4 * load.validated + JUDGED * together + MATCHING * matched)


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
