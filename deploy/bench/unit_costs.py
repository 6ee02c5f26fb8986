"""`make unit-costs`: the prices of flows.plan.work on this machine, and how true its times are.

    python -m deploy.bench.unit_costs [--quick]

Products are timed alone: transforms, evaluations and training steps of the network, empty tasks.
What is left of the time of each stage is fitted, with prices that are not negative, to four small
whole runs and a long one; then runs of other sizes are compared with what the model says of them.
Prices go to flows/plan/unit_costs.json, the comparison into docs/performance.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dask.system import CPU_COUNT
from scipy.optimize import nnls

from deploy.bench import stores
from deploy.bench.inputs import made
from deploy.bench.ours import RingGrid, plan
from deploy.bench.paper_plan import put
from deploy.bench.rivals import BUILD, ROOT
from deploy.bench.run import where
from deploy.bench.timing import in_turns, timed
from deploy.bench.training import BATCH, CHANNELS, prepared, whitened_file
from flows.cluster.local import local_client
from flows.cluster.map_units import map_units
from flows.config.schema import Cluster, RunConfig
from flows.plan.costs import estimates
from flows.plan.plan import workload
from flows.plan.work import Prices, seconds, work
from flows.plan.workload import Machines, Workload
from flows.run import run_stage
from flows.stages.base import STAGES
from storage.artifacts.layout import StoreLayout

PRICES = ROOT / "flows" / "plan" / "unit_costs.json"
WORKERS, TASKS = 2, 500
FITTED = ("value", "unit", "alone", "run")
FREE = dict.fromkeys(FITTED, 0.0)
BY_VALUE = ("ingest", "preprocess")  # stages whose units are nothing but their values


@dataclass(frozen=True)
class Size:
    """A whole run: its grid, its band limit, variables (one letter each), days and width."""

    nlat: int
    nlon: int
    lmax: int
    names: str
    days: int
    width: int = 64
    realizations: int = 8
    dates: int = 2
    scored: int = 4

    def __str__(self) -> str:
        variables = f"{len(self.names)} variable{'s' * (len(self.names) > 1)}"
        return f"{self.nlat} x {self.nlon}, {variables}, lmax {self.lmax}, width {self.width}"


FIT = (
    Size(32, 64, 31, "abc", 400),
    Size(64, 128, 63, "ab", 300, width=16),
    Size(96, 192, 47, "a", 240, width=16, realizations=32, dates=8),
    Size(32, 64, 21, "abcde", 900, width=32, realizations=48, dates=16, scored=16),
    # Small runs say what a stage takes that does nothing; what a value takes, only a long one.
    Size(181, 360, 63, "ab", 1500, width=16, realizations=64, dates=16, scored=16),
)
CHECK = (
    Size(24, 48, 23, "ab", 500, realizations=24, dates=4),
    Size(48, 96, 47, "abcd", 400, width=16, realizations=16),
    Size(121, 240, 63, "ab", 240, width=16, realizations=8),
)
QUICK = (Size(16, 32, 15, "a", 240), Size(16, 32, 15, "ab", 240), Size(24, 48, 15, "a", 300))


def main() -> int:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--quick", action="store_true", help="tiny sizes; writes nothing")
    quick = arguments.parse_args().quick
    logging.disable(logging.INFO)
    found = products(quick)
    fitted = [measured(size) for size in (QUICK if quick else FIT)]
    if not quick:
        runs = [{"load": vars(load), "seconds": taken} for load, taken in fitted]
        kept = json.dumps({**found, "runs": runs})
        (BUILD / "unit_costs.json").write_text(kept, encoding="utf-8")
    stages = {stage.name: fit(stage.name, fitted, found) for stage in STAGES}
    price = Prices(stages=stages, where=where().removeprefix("Measured "), **found)
    print(json.dumps(vars(price), indent=1))
    if not quick:
        PRICES.write_text(json.dumps(vars(price), indent=1) + "\n", encoding="utf-8")
    lines = list(table(QUICK[:1] if quick else CHECK, price))
    print("\n".join(lines))
    if not quick:
        put("model", "\n".join(lines))
    return 0


def products(quick: bool) -> dict[str, float]:
    """Seconds of one product of each kind, and of one empty task."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        assert os.environ.get(name) == "1", f"{name} must be 1; use `make unit-costs`"
    transforms = []
    for nlat in (64, 128, 180):
        grid = RingGrid.gaussian(nlat)
        fields = np.load(made(grid, nlat - 1, 32)[1]).astype(np.float64)
        transform = plan(grid, nlat - 1, "float64")
        (best,) = in_turns(timed(partial(transform.analysis, fields)), quick=quick)
        transforms.append((grid.size, nlat * nlat**2, best / len(fields)))
    points, flops, times = np.array(transforms).T
    by_part = nnls(np.stack([points, flops], axis=1) / times[:, None], np.ones(len(times)))[0]

    load = _load(channels=CHANNELS, lmax=31)
    trainer, step = prepared(whitened_file(), BATCH)
    y = torch.randn(4, CHANNELS, load.coefficients)
    t, condition = torch.full((4,), 0.3), torch.zeros(4, 1)
    torch.set_num_threads(1)
    with torch.no_grad():
        evaluation = timed(partial(trainer.model.residual, t, y, condition))
        (one,) = in_turns(evaluation, quick=quick)
    torch.set_num_threads(CPU_COUNT)
    (training,) = in_turns(timed(step), seconds=10, quick=quick)
    torch.set_num_threads(1)
    return {
        "legendre": float(by_part[1]),
        "network": one / (4 * load.network_products),
        "training": training / (3 * BATCH * load.network_products),
        "task": _task(),
    }


def _load(**changes: Any) -> Workload:
    sizes = dict(times=1, fitted=1, nlat=32, points=2048, ensemble=(1, 1), verification=(1, 1))
    return Workload(**sizes | changes)


def _task() -> float:
    with stores.workshop() as shop, local_client(Cluster(workers=WORKERS), shop) as client:
        run = timed(lambda: map_units(client, abs, range(TASKS), stores.quiet))
        return in_turns(run, least=2, seconds=0)[0] / TASKS


def measured(size: Size) -> tuple[Workload, dict[str, float]]:
    """The sizes of a run as the plan sees them, and the seconds of its stages."""
    print(f"a run of {size}", file=sys.stderr, flush=True)
    with stores.workshop() as shop:
        config = configuration(size, shop / "run")
        layout = StoreLayout(config.run.root)
        taken = {}
        for stage in STAGES:
            call = timed(partial(run_stage, stage, config, layout))
            taken[stage.name] = call()
        load = workload(config)
    return load, taken


def configuration(size: Size, root: Path) -> RunConfig:
    """Five eighths of the days are trained on; the test period is the last quarter."""
    grid = RingGrid.latlon(size.nlat, size.nlon) if size.nlat % 2 else RingGrid.gaussian(size.nlat)
    paths = stores.netcdf_files(grid, size.lmax, size.days, 2, size.names)
    edges = (0, 5 * size.days // 8, 3 * size.days // 4, size.days)
    periods = itertools.pairwise(edges)
    split = {
        name: [stores.day(first), stores.day(stop - 1)]
        for name, (first, stop) in zip(("train", "validation", "test"), periods, strict=True)
    }
    return stores.configuration(
        root,
        paths,
        source={"paths": paths, "variables": list(size.names)},
        split=split,
        spectral={"lmax": size.lmax},
        train={"steps": 40, "width": size.width, "batch": 16},
        generate={
            "realizations": size.realizations,
            "times": [stores.day(size.days - 1 - k) for k in reversed(range(size.dates))],
        },
        verify={"dates": 8, "realizations": size.scored},
        cluster={"workers": WORKERS},
    )


def fit(
    stage: str, runs: Sequence[tuple[Workload, Mapping[str, float]]], known: Mapping[str, float]
) -> dict[str, float]:
    """The prices of a stage that explain what its products do not, in relative least squares."""
    bare = Prices(stages={stage: FREE}, where="", **known)
    rows, left = [], []
    for load, taken in runs:
        done = work(load)[stage]
        explained = seconds(stage, done, load, Machines(workers=WORKERS), bare)
        units = 0.0 if stage in BY_VALUE else done.units / WORKERS
        alone = done.alone + done.scored / WORKERS
        counts = (done.values / WORKERS, units, alone, 1.0)
        rows.append(np.array(counts) / taken[stage])
        left.append(max(0.0, taken[stage] - explained) / taken[stage])
    matrix = np.array(rows)
    unit = np.maximum(np.abs(matrix).max(axis=0), 1e-300)
    found = nnls(matrix / unit, np.array(left))[0] / unit
    return dict(zip(FITTED, map(float, found), strict=True))


def table(sizes: Sequence[Size], price: Prices) -> Iterator[str]:
    """What runs took, over what the model says; one row for each size."""
    names = [stage.name for stage in STAGES]
    yield "| run | " + " | ".join(f"{name} [s]" for name in (*names, "all")) + " |"
    yield "|---|" + "---|" * (len(names) + 1)
    for size in sizes:
        load, taken = measured(size)
        said = {e.stage: e.seconds for e in estimates(load, Machines(workers=WORKERS), price)}
        both = [(taken[name], said[name]) for name in names]
        both.append((sum(taken.values()), sum(said.values())))
        cells = [f"{real:.1f} / {model:.1f}" for real, model in both]
        yield f"| {size}, {size.days} days | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
