"""What a run takes: time, memory, bytes and files of each stage, from counts of work and of bytes.

docs/performance.md compares them with whole runs and carries them to sizes that were not run.
"""

from dataclasses import dataclass, replace

from flows.plan.sizes import sizes
from flows.plan.work import Prices, foretold, seconds, work
from flows.plan.workload import Machines, Workload


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


def estimates(load: Workload, machines: Machines, price: Prices | None) -> list[Estimate]:
    """Time, bytes, files, units and memory of every stage."""
    if price is not None:
        load = replace(load, foretold=foretold(load, machines, price))
    counts = work(load)
    return [
        Estimate(
            stage=stage,
            seconds=None if price is None else seconds(stage, counts[stage], load, machines, price),
            units=max(1, counts[stage].units),
            **vars(size),
        )
        for stage, size in sizes(load, machines).items()
    ]
