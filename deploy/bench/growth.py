"""How stages grow: each at 1, 4 and 16 times the data, in a process of its own; time and memory.

Data are days for ingest, preprocess and the series that a training reads, realizations for
generate, dates for verify. The rival of a row is the same stage at the smallest size, so a ratio is
the time of a datum, or the memory, there over that here. Memory is that of the process and of all
its children: the most that those which lived at the same time have held, each since its start.

    python -m deploy.bench.growth STAGE     one stage, of the configuration (JSON) on stdin
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import zarr

from deploy.bench import inputs, stores
from deploy.bench.ours import RingGrid
from deploy.bench.rivals import ROOT
from deploy.bench.rows import Row
from flows.config.schema import RunConfig
from flows.stages.base import stages_until
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout

FACTORS = (1, 4, 16)
STEPS, WIDTH, REALIZATIONS = 60, 16, 4  # of a training, and of each date of verification
COUNTED = {
    "ingest": "days",
    "preprocess": "days",
    "train": "steps",
    "generate": "realizations",
    "verify": "dates",
}
VERIFIED = ("verification", "report")  # what verify publishes
MB = 1e6
BETWEEN = 0.1  # seconds between two looks at the memory
YOUNG = 0.2  # seconds in which a new process may still be its parent, and have the same memory


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The rows of one stage, and what is counted: days, steps, realizations or dates."""

    name: str
    counted: str

    @property
    def time(self) -> Row:
        row = f"{self.name}, {FACTORS[-1]}x the data"
        return Row(row=row, rival="itself at 1x", unit=f"{self.counted}/s", goal=0.95)

    @property
    def beyond(self) -> Row:
        """What a datum takes, without the start. A training counts steps, the same at all sizes."""
        row, rival = f"{self.name}, from 4x to 16x", "itself from 1x to 4x"
        return Row(row=row, rival=rival, unit=f"{self.counted}/s", goal=0.95)

    def memory(self, factor: int) -> Row:
        row = f"{self.name}, memory, {factor}x the data"
        return Row(row=row, rival="itself at 1x", unit="MB", goal=0.9)

    @property
    def rows(self) -> tuple[Row, ...]:
        times = (self.time,) if self.counted == "steps" else (self.time, self.beyond)
        return *times, *(self.memory(factor) for factor in FACTORS[1:])


STAGES = tuple(Stage(name=name, counted=counted) for name, counted in COUNTED.items())
ROWS = tuple(row for stage in STAGES for row in stage.rows)


@dataclass(frozen=True)
class Sizes:
    """The smallest sizes of all, and the grid.

    From `days` on the units of ingest and preprocess are as large as they get: 64 MiB.
    """

    grid: RingGrid
    days: int
    realizations: int
    drawn: int  # dates of each realization
    dates: int
    lmax: int
    block: int = 64  # days in a file of the source


WHOLE = Sizes(RingGrid.latlon(257, 512), 1024, 32, 8, 8, 31)
QUICK = Sizes(RingGrid.latlon(24, 48), 512, 8, 2, 2, 11)


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a stage took: its seconds, how many data they were for, memory [bytes]."""

    seconds: float
    count: int
    memory: int
    largest: int  # of one process


def measure(quick: bool) -> Iterator[Row]:
    sizes = QUICK if quick else WHOLE
    found: dict[str, list[Taken]] = {stage.name: [] for stage in STAGES}
    on_series = ("ingest", "preprocess", "train")
    with stores.workshop() as shop:
        for factor in FACTORS:
            series(shop / f"{factor}x.zarr", sizes, factor)
            for name in on_series:
                run = configuration(sizes, shop / f"{factor}x", factor)
                found[name].append(taken(name, run))
        for stage in STAGES[: len(on_series)]:
            yield from rows(stage, found[stage.name])
        root, layout = shop / "4x", StoreLayout(str(shop / "4x"))
        for stage, kinds in zip(STAGES[-2:], (("ensemble",), VERIFIED), strict=True):
            for factor in FACTORS:
                stores.forget(layout, kinds)
                verified = stage.name == "verify"
                drawn, scored = (FACTORS[-1], factor) if verified else (factor, 1)
                run = configuration(sizes, root, 4, drawn=drawn, scored=scored)
                found[stage.name].append(taken(stage.name, run))
            yield from rows(stage, found[stage.name])


def rows(stage: Stage, found: Sequence[Taken]) -> Iterator[Row]:
    """The rows of a stage at its sizes."""
    rates = [one.count / one.seconds for one in found]
    told = f"{found[-1].seconds:.1f} s, at first {found[0].seconds:.1f} s"
    yield stage.time.measured(rates[-1], rates[0], note=told)
    if stage.beyond in stage.rows:
        more = [b.count - a.count for a, b in itertools.pairwise(found)]
        took = [b.seconds - a.seconds for a, b in itertools.pairwise(found)]
        if min(took) > 0:
            yield stage.beyond.measured(more[-1] / took[-1], more[0] / took[0])
        else:
            yield stage.beyond.absent("less than what the start varies by")
    for factor, one in zip(FACTORS[1:], found[1:], strict=True):
        told = f"largest process {one.largest / MB:.0f} MB, at first {found[0].largest / MB:.0f} MB"
        yield stage.memory(factor).measured(one.memory / MB, found[0].memory / MB, note=told)


def series(path: Path, sizes: Sizes, factor: int) -> None:
    """A Zarr store of daily fields, which are those of the smallest size again and again.

    Files are made once and linked, so that a longer series takes no more disk, and reading it is
    not slower because it is no longer kept by the system.
    """
    grid, count, block = sizes.grid, sizes.days * factor, sizes.block
    template = stores.labelled(grid, {"v": np.broadcast_to(np.float32(0), (count, *grid.shape))})
    encoding = {"v": {"chunks": (block, *grid.shape)}}
    lazy = template.chunk({"time": count})
    lazy.to_zarr(path, encoding=encoding, compute=False, zarr_format=3, consolidated=False)
    fields = np.load(inputs.made(grid, sizes.lmax, sizes.days)[1], mmap_mode="r")
    if factor == 1:
        array = zarr.open_array(path / "v")
        for start in range(0, count, block):
            array[start : start + block] = fields[start : start + block] + np.float32(280)
        return
    for number in range(count // block):
        name = Path("v", "c", str(number), "0", "0")
        there = path.with_name("1x.zarr") / "v" / "c" / str(number % (sizes.days // block))
        (path / name).parent.mkdir(parents=True)
        os.link(there / "0" / "0", path / name)


def configuration(
    sizes: Sizes, root: Path, factor: int, *, drawn: int = 1, scored: int = 1
) -> RunConfig:
    """A run on the series of a factor; how many times the realizations and dates of the others."""
    days = sizes.days * factor
    edges = (0, int(0.7 * days), int(0.85 * days), days)
    split = {
        name: [stores.day(start), stores.day(stop - 1)]
        for name, (start, stop) in zip(
            ("train", "validation", "test"), itertools.pairwise(edges), strict=True
        )
    }
    paths = [str(root.with_name(f"{root.name}.zarr"))]
    return stores.configuration(
        root,
        paths,
        source={"paths": paths, "variables": ["v"]},
        split=split,
        spectral={"lmax": sizes.lmax},
        train={"steps": STEPS, "width": WIDTH},
        generate={
            "realizations": sizes.realizations * drawn,
            "times": [stores.day(edges[2] + k) for k in range(sizes.drawn)],
        },
        verify={"dates": sizes.dates * scored, "realizations": REALIZATIONS},
        cluster={"workers": 2},
    )


def taken(stage: str, config: RunConfig) -> Taken:
    """Run a stage in a process of its own, watched."""
    count = counted(stage, config)
    print(f"  {stage}, {count:,} {COUNTED[stage]}", end="", file=sys.stderr, flush=True)
    with subprocess.Popen(
        [sys.executable, "-m", "deploy.bench.growth", stage],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(config.to_dict()))
        process.stdin.close()
        memory, largest = watched(process)
        answer = process.stdout.read()
    if process.returncode:
        raise RuntimeError(f"{stage} ended with {process.returncode}")
    seconds = json.loads(answer.splitlines()[-1])["seconds"]
    print(f": {seconds:.1f} s, {memory / MB:.0f} MB", file=sys.stderr, flush=True)
    return Taken(seconds=seconds, count=count, memory=memory, largest=largest)


def counted(stage: str, config: RunConfig) -> int:
    """Data of a stage: days, steps, realizations or dates."""
    last = np.datetime64(config.split.test[1])
    days = int((last - stores.FIRST_DAY.astype("datetime64[D]")).astype(int)) + 1
    counts = {
        "train": STEPS,
        "generate": config.generate.realizations,
        "verify": config.verify.dates,
    }
    return counts.get(stage, days)


def watched(process: subprocess.Popen[str]) -> tuple[int, int]:
    """The most that a process and its children held until its end, together and one of them."""
    memory = largest = 0
    while process.poll() is None:
        held = held_by(process.pid)
        memory, largest = max(memory, sum(held)), max(largest, *held, 0)
        time.sleep(BETWEEN)
    return memory, largest


def held_by(pid: int) -> list[int]:
    """The most that a process and each of its living children have held so far [bytes]."""
    found: list[int] = []
    with suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.Error, OSError, IndexError):
                if time.time() - process.create_time() < YOUNG:
                    continue
                status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
                found.append(1024 * int(status.split("VmHWM:")[1].split()[0]))
    return found


def main() -> int:
    from flows.run import run_stage

    config = RunConfig.from_dict(json.load(sys.stdin))
    stage = stages_until(sys.argv[1])[-1]
    began = time.monotonic()
    run_stage(stage, config, config.layout)
    seconds = time.monotonic() - began
    if stage.name == "train":  # its steps and validations, whatever the start takes
        found = artifacts.published(config.layout, "checkpoints")
        assert found is not None
        seconds = found.attrs["seconds"]
    print(json.dumps({"seconds": seconds}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
