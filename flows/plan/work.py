"""How much work a stage is, in a few kinds, and what each kind costs in seconds.

Values that pass through a stage, products of its transforms and of its network, and units each have
a price. The prices were measured on one machine (`make unit-costs`, unit_costs.json).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

from flows.plan.workload import VALIDATIONS, Machines, Workload, judging_of
from flows.stages.generate.chunks import TIMES_PER_CHUNK
from flows.stages.train.judging import DRAWS, SHARE, STEP

CERTIFIED, PROBED = 2000, 1280  # evaluations of the network for J_G; for likelihood and bounds
FOLDS = 4  # laws of which each leaves a part of the training fields out
RESCORED = 7  # transforms of each field that verification scores, there and back
NEAREST = 512  # draws whose nearest training field is looked for


@dataclass(frozen=True, kw_only=True)
class Work:
    """Counts of one stage.

    Attributes:
        values, scored, legendre, network, units: shared by workers; a value that is scored costs
            what one does that is worked on in one process.
        training, judging: products of the network in one process on all cores of its machine, of
            a training that its minutes may end, and of what is done in any case. Ranks divide the
            former.
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
    judging = judging_of(load)
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


def foretold(load: Workload, machines: Machines, price: Prices) -> int | None:
    """Steps that a training makes in its minutes, of which judging may take its share; None where
    it is told how many."""
    if load.minutes is None or load.steps is not None:
        return None
    training, _ = _training_prices(machines, price)
    step = STEP * load.batch * load.network_products * training
    return max(1, round(60.0 * load.minutes * (1.0 - SHARE) / step))


def seconds(stage: str, done: Work, load: Workload, machines: Machines, price: Prices) -> float:
    """Time of a stage. Units that the scheduler cannot hand out fast enough wait for it."""
    own = price.stages[stage]
    network = price.network / machines.workers
    training, judging = _training_prices(machines, price)
    if machines.gpus:
        network = training
    shared = done.values * own["value"] + done.legendre * price.legendre + done.units * own["unit"]
    shared += done.scored * own["alone"]
    by_workers = shared / machines.workers + done.network * network
    waited = max(by_workers, done.units * price.task)
    trained = done.training * training
    if stage == "train" and load.minutes is not None:
        limit = 60.0 * load.minutes
        trained = min(limit, trained) if load.steps else limit
    alone = done.judging * judging + done.alone * own["alone"] + done.products * price.legendre
    return own["run"] + waited + trained + alone


def _training_prices(machines: Machines, price: Prices) -> tuple[float, float]:
    """Of a product of the network in a step, and where one process judges."""
    if machines.gpus:
        return (1.0 / (machines.gpus * machines.gpu_speed),) * 2
    if machines.ranks > 1:  # of one thread each
        return price.network / machines.ranks, price.network
    return price.training, price.training
