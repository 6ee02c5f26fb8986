"""`make paper-plan`: what runs far beyond this machine would take, from the prices of
flows.plan.costs.

Writes the region `plan` of docs/performance.md. What was not measured is assumed, named and kept in
one place here: the speed of a GPU, what machines cost, how many samples a training sees.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import isnan, nan
from pathlib import Path

from dask.utils import format_bytes

from deploy.bench.rivals import ROOT
from deploy.bench.rows import between
from flows.plan.costs import estimates
from flows.plan.plan import duration
from flows.plan.work import Prices, prices, seconds, work
from flows.plan.workload import Machines, Workload
from pipeline.gaussian.moments import largest_block_degree

PAGE = ROOT / "docs" / "performance.md"
GPU_SPEED = 100e12  # products a second in the network, a tenth of what an H100 is sold with
GPU_HOUR, CORE_HOUR, STORE_MONTH = 2.5, 0.04, 20.0  # dollars; a month of a TB
EVALUATIONS = 6  # of the network for each draw, the default
SAMPLES, LARGEST_BATCH = 2_000_000, 256  # fields that a training sees, and in one step at most
MEMORY = 64 << 30  # of the machine of a process
GPUS = (1, 8, 64, 1000)


@dataclass(frozen=True)
class Plan:
    """One enterprise: `runs` runs of the same size that do not wait for each other."""

    title: str
    load: Workload
    runs: int = 1

    @property
    def machines(self) -> Machines:
        """What each process has; as many train as have one field at once."""
        ranks = self.load.batch // self.load.accumulate
        return Machines(workers=1, gpus=1, gpu_speed=GPU_SPEED, memory=MEMORY, ranks=ranks)


def plans() -> tuple[Plan, ...]:
    """ERA5 at a quarter of a degree, and a hundred models of CMIP."""
    era5 = Workload(
        times=14_610,
        fitted=13_880,
        validated=365,
        tested=730,
        channels=20,
        nlat=721,
        points=721 * 1440,
        lmax=719,
        ensemble=(1000, 12),
        verification=(16, 48),
        steps=SAMPLES // 256,
        batch=256,
        accumulate=4,
        width=64,
        shard=16,
        block_degree=largest_block_degree(20, 719),
        years=37,
        evaluations=EVALUATIONS,
    )
    cmip = Workload(
        times=60_225,
        fitted=54_750,
        validated=3_650,
        tested=5_475,
        channels=5,
        nlat=192,
        points=192 * 288,
        lmax=95,
        ensemble=(1000, 12),
        verification=(16, 48),
        steps=SAMPLES // 64,
        batch=64,
        shard=300,
        block_degree=largest_block_degree(5, 95),
        years=140,
        evaluations=EVALUATIONS,
    )
    return (
        Plan("ERA5, daily, 0.25 degrees, 40 years, 20 variables, lmax 719", era5),
        Plan("100 models of CMIP, daily, 192 x 288, 165 years, 5 variables, lmax 95", cmip, 100),
    )


def lines(plan: Plan, price: Prices | None) -> Iterator[str]:
    """The section of one plan; without prices what depends on the time of a core is a dash."""
    load, counts = plan.load, work(plan.load)
    one = plan.machines
    said = {e.stage: e for e in estimates(load, one, price)}

    def by_workers(stage: str) -> float:
        """Core hours of Dask workers, of all runs; NaN without prices."""
        if price is None:
            return nan
        without = replace(counts[stage], network=0.0, training=0.0, judging=0.0)
        return plan.runs * seconds(stage, without, load, one, price) / 3600

    def by_gpu(stage: str) -> float:
        done = counts[stage]
        products = done.network + done.training + done.judging
        return plan.runs * products / GPU_SPEED / 3600

    yield f"**{plan.title}**; {load.ensemble[0]:,} realizations of {load.ensemble[1]} dates."
    yield ""
    yield "| stage | core hours of workers | GPU hours | writes | files | memory of a process |"
    yield "|---|---|---|---|---|---|"
    for stage, each in said.items():
        written, number = format_bytes(plan.runs * each.bytes), plan.runs * each.files
        yield (
            f"| {stage} | {told(by_workers(stage), ',.1f')} | {by_gpu(stage):,.2f} | {written} | "
            f"{number:,} | {format_bytes(max(each.memory, each.memory_here))} |"
        )
    yield ""
    yield "| GPUs | training | drawing | workers to write | workers to preprocess | cost [$] |"
    yield "|---|---|---|---|---|---|"
    stored = plan.runs * sum(each.bytes for each in said.values()) / 1e12
    cores = sum(by_workers(stage) for stage in said)
    hours = sum(by_gpu(stage) for stage in said)
    for gpus in GPUS:
        useful = min(gpus, plan.runs * min(load.batch, LARGEST_BATCH))
        training = by_gpu("train") / useful
        drawing = (by_gpu("generate") + by_gpu("verify")) / gpus
        writing = (by_workers("generate") + by_workers("verify")) / drawing
        before = (by_workers("ingest") + by_workers("preprocess")) / training
        cost = hours * GPU_HOUR + cores * CORE_HOUR + stored * STORE_MONTH
        yield (
            f"| {gpus:,} | {duration(3600 * training)} | {duration(3600 * drawing)} | "
            f"{told(writing, ',.0f')} | {told(before, ',.0f')} | {told(cost, ',.0f')} |"
        )
    yield ""
    tables = 2 * 4 * load.nlat * load.coefficients / 2
    laws, whole = (8 * each.covariances for each in (load, replace(load, block_degree=None)))
    units = counts["generate"].units
    text = (
        f"Tables of the transform: {format_bytes(tables)} in float32, for all workers of a host. "
        f"Covariances of a law up to its block degree {load.degree}: {format_bytes(laws)}, of all "
        f"degrees it would be {format_bytes(whole)}. Files of an ensemble: "
        f"{said['generate'].files:,} in a run, {load.ensemble[0]:,} entries in the largest "
        f"directory. Tasks of drawing: {units:,} in a run"
    )
    if price is not None:
        unit = 3600 * by_workers("generate") / plan.runs / max(1, units)
        text += (
            f", of {duration(unit)} of a worker each; the scheduler hands out "
            f"{1 / price.task:,.0f} a second, so it keeps {unit / price.task:,.0f} workers busy"
        )
    yield text + "."
    yield ""


def told(value: float, form: str) -> str:
    return "-" if isnan(value) else format(value, form)


def put(mark: str, text: str, page: Path = PAGE) -> None:
    """Renew one region of the page."""
    page.write_text(between(page.read_text("utf-8"), mark, text), encoding="utf-8")


def main() -> int:
    price = prices()
    if price is None:
        print("no prices: without times; run make unit-costs first", file=sys.stderr)
    text = "\n".join(line for plan in plans() for line in lines(plan, price)).strip()
    print(text)
    put("plan", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
