"""What `spherescore condition` takes: counted as the stages of a run are (costs.py).

How much is observed is read from the metadata of files, and from the days of a table. The largest
arrays are the observed rows, a factor of as many values as are observed together, and the fields of
the draws that are made together; a gap holds the path of its days, and its factor is as large as
the known days beside it.
"""

from collections import Counter
from dataclasses import dataclass, replace
from math import ceil, prod

import numpy as np

from flows.config.schema import RunConfig
from flows.config.sections.given import ALL
from flows.plan.costs import Estimate
from flows.plan.sizes import INTERPRETER_BYTES, LAWS_DRAWN
from flows.plan.work import Prices, Work, seconds
from flows.plan.workload import Machines, Workload
from flows.stages.generate.chunks import TIMES_PER_CHUNK, times_of_unit
from flows.stages.ingest.ingest import how_to_open
from pipeline.gaussian.lags import contiguous
from pipeline.sphere.named_grids import grid_of
from storage.sources.observations import rows_by_day
from storage.sources.sources import open_source

__all__ = ["Asked", "asked_of", "conditioning"]

STAGE = "condition"
ROWS = 3  # copies of the observed rows: of fields, of coefficients, in the coordinates of a law
FACTORS = 4  # arrays of as many values as are observed, squared: covariance, errors, factor, room
PATHS = 6  # copies of the path of a window: noise, path, residual and the runs of its rule
PARTS = 8  # arrays of the fields of a day that is completed, float64
PAGE_BYTES = 1 << 20  # of the page and its figures
OBSERVED_BYTES = 50  # of an observed value in its artifact


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How much is drawn, given how much.

    Attributes:
        dates: that are drawn.
        values: observed on the date that has most, and on all dates.
        together: values that are observed within the days that are drawn together, at most.
        window: days that are drawn together where a gap is filled, those beside it too; 0 else.
    """

    dates: int
    values: int = 0
    all_values: int = 0
    together: int = 0
    window: int = 0


def conditioning(
    config: RunConfig, load: Workload, machines: Machines, price: Prices | None
) -> Estimate | None:
    """What the stage takes; None where the configuration asks for nothing of it."""
    about = config.condition
    if not (about.event or about.gaps or about.given):
        return None
    asked = asked_of(config, load)
    done = _work(config, load, asked)
    return Estimate(
        stage=STAGE,
        seconds=None if price is None else seconds("generate", done, load, machines, price),
        bytes=about.realizations * asked.dates * load.field_bytes
        + OBSERVED_BYTES * asked.all_values
        + PAGE_BYTES,
        files=load.channels * done.units + 60,
        units=done.units,
        memory=_memory(config, load, asked),
        memory_here=_memory_here(config, load, asked),
    )


def asked_of(config: RunConfig, load: Workload) -> Asked:
    """What the configuration asks for, from metadata alone.

    Raises:
        SourceError: If a file cannot be opened.
    """
    about, rows = config.condition, Counter[str]()
    if about.event is not None:
        days = about.event.days
        window = days if days > 1 else 0
        return Asked(dates=len(config.generate.times) * days, values=1, together=1, window=window)
    if about.observations is not None:
        rows.update(rows_by_day(about.observations))
    for key in ("fields", "coarse"):
        rows.update(_rows_of_files(config, load, key))
    most, whole = max(rows.values(), default=0), sum(rows.values())
    if not about.gaps:
        return Asked(dates=len(rows), values=most, all_values=whole, together=most)
    days, longest = _days_of_gaps(config)
    window = longest + 2 * config.sequence.past
    held = sum(sorted(rows.values())[-longest:]) if rows else 0
    return Asked(dates=days, values=most, all_values=whole, together=held, window=window)


def _rows_of_files(config: RunConfig, load: Workload, key: str) -> dict[str, int]:
    """Observed values of each day of the files of a key."""
    paths = getattr(config.condition, key)
    if not paths:
        return {}
    source = replace(
        config.source, paths=paths, scenarios=(), period=None, drop=(), static=(), covariates={},
        trend=(), samples="", allow_gaps=True,
    )  # fmt: skip
    there, _ = open_source(paths, source.variables, check_values=False, **how_to_open(source))
    field = there[source.variables[0]]
    cells = prod(size for dim, size in field.sizes.items() if dim != "time")
    if key == "coarse":
        told = config.condition.coarse_lmax
        lmax = (max(grid_of(there).points) - 1) // 3 if told is None else told
        cells = (min(load.lmax, lmax) + 1) ** 2
    days = [str(day)[:10] for day in there["time"].values]
    return dict.fromkeys(days, load.channels * cells)


def _days_of_gaps(config: RunConfig) -> tuple[int, int]:
    """Days that are filled, and those of the longest gap."""
    about = config.condition
    if about.gaps != ALL:
        lengths = [_number(last) - _number(first) + 1 for first, last in about.periods]
        return sum(lengths), max(lengths)
    source = config.source
    fields, _ = open_source(
        source.paths, source.variables, check_values=False, **how_to_open(source)
    )
    times = fields["time"].values
    steps = [np.diff(times[part]) for part in contiguous(times)]
    step = np.concatenate(steps)[0]
    lengths = [round(float(gap / step)) - 1 for gap in np.diff(times) if gap > 1.5 * step]
    return sum(lengths), max(lengths, default=0)


def _number(day: str) -> int:
    """A number of a date, whatever its calendar: no two are closer than their days."""
    year, month, number = map(int, day.split("-"))
    return 372 * year + 31 * month + number


def _group(config: RunConfig) -> int:
    """Draws that are made together."""
    network = config.draws_by_network and not config.conditions_sequences
    return config.condition.particles if network else config.generate.microbatch


def _held(load: Workload, asked: Asked) -> int:
    """Values of a factor: those of a date, or as many as it has coefficients."""
    most = load.channels * load.coefficients
    if asked.window:
        return min(asked.together, most * max(1, asked.window))
    return min(asked.values, most)


def _work(config: RunConfig, load: Workload, asked: Asked) -> Work:
    """Counts of the stage; all products outside of the network are counted as one kind."""
    about, group, size = config.condition, _group(config), load.channels * load.coefficients
    groups, held = ceil(about.realizations / group), _held(load, asked)
    worlds = 2 if about.event is not None and about.event.against else 1
    drawn, rows = about.realizations * asked.dates, worlds * groups * group * asked.dates
    network = config.draws_by_network and not asked.window
    each = held**2 * size + held**3 // 3 + 2 * rows * held * size
    products = drawn * load.legendre_flops + groups * each * (about.evaluations if network else 1)
    together = TIMES_PER_CHUNK
    if asked.window:
        together = times_of_unit(load.channels * load.points, asked.dates)
        passes = 16 * load.past * load.covariances * (asked.window + held)
        cut = ceil(asked.window / together)  # units that draw the same window
        products += passes * groups * group * cut + 16 * load.past**2 * load.covariances
    return Work(
        values=drawn * load.channels * load.points,
        legendre=products,
        network=rows * about.evaluations * load.network_products if network else 0.0,
        units=about.realizations * ceil(asked.dates / together),
    )


def _memory(config: RunConfig, load: Workload, asked: Asked) -> int:
    """Of a worker."""
    laws, double = 8 * load.covariances, 2 * load.field_bytes
    last = (config.spectral.tail or load.lmax) + 1
    held, group = _held(load, asked), _group(config)
    observed = ROWS * 8 * max(asked.values, asked.together) * load.channels * last**2
    errors = 16 * asked.values**2 // (1 if config.spectral.tail else load.channels)
    factors = FACTORS * 8 * held**2
    total = INTERPRETER_BYTES + LAWS_DRAWN * laws + observed + errors + factors
    if not asked.window:
        return total + 32 * group * double + TIMES_PER_CHUNK * group * double
    past = max(1, load.past)
    path = asked.window * group * load.channels * load.coefficients * 8
    unit = times_of_unit(load.channels * load.points, asked.dates) * group
    bridge = 16 * (load.channels * (load.degree + 1)) ** 2 * past * asked.window
    matrices = past * (past + 1) // 2 + 2 * (past + 1)
    fields = (PARTS * asked.window + 2 * unit) * double
    return total + matrices * laws + PATHS * path + bridge + fields


def _memory_here(config: RunConfig, load: Workload, asked: Asked) -> int:
    """Of the process of the run, which looks at the draws of a date, of gaps at those of two."""
    dates = 2 if asked.window else 1
    return INTERPRETER_BYTES + 4 * config.condition.realizations * dates * 2 * load.field_bytes
