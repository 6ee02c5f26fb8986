"""One degree from files to report: what `plan` says, and what a run then takes.

Two years of eight daily variables on 181 x 360, lmax 179. The large scales are the demonstration's
simulated days, three of the eight being mixtures of its five variables; the small ones are noise
that continues their spectra and has half of itself the day after. Each stage is a command of its
own, watched: its time, and the most memory that any one process of it has held.

    python -m deploy.bench.one_degree [--minutes M] [--workers N] [--in DIRECTORY]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from deploy.bench import inputs, stores
from deploy.bench.growth import watched
from deploy.bench.ours import RingGrid, degrees, plan
from deploy.bench.rivals import ROOT

DEMO = ROOT / "deploy" / "demo" / "jcm-t21-daily.nc"
GRID, LMAX = RingGrid.latlon(181, 360), 179
LARGE = 31  # the last degree that the demonstration's grid determines
DAYS, BLOCK = 731, 61
MEMORY = 0.5  # of the small scales
MIXED = {"tas": {"ta850": 0.8}, "psl": {"zg500": 0.6}, "hur": {"ta850": -0.5, "va850": 0.3}}
GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What one stage took: seconds, and bytes of its largest process."""

    seconds: float
    largest: int


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of training")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--in", dest="directory", type=Path, default=inputs.DATA / "one-degree")
    asked = parser.parse_args(arguments)
    asked.directory.mkdir(parents=True, exist_ok=True)
    config = asked.directory / "run.toml"
    config.write_text(configuration(asked.directory, asked.minutes, asked.workers))
    print(f"files in {asked.directory}", flush=True)
    files(asked.directory)
    said = foretold(config)
    print(f"{'stage':12}{'plan':>9}{'took':>9}{'ratio':>7}   largest process [GiB]: plan, held")
    for stage, (seconds, memory) in said.items():
        found = taken(stage, config)
        print(
            f"{stage:12}{seconds:8.0f}s{found.seconds:8.0f}s{found.seconds / seconds:7.2f}   "
            f"{memory / GIB:.2f}, {found.largest / GIB:.2f}",
            flush=True,
        )
    return 0


def foretold(config: Path) -> dict[str, tuple[float, float]]:
    """Seconds of each stage, and bytes of its largest process, as `plan` says."""
    answer = json.loads(command("plan", config, "--json").splitlines()[-1])
    return {
        name: (one["seconds"], max(one["memory"], one["memory_here"]))
        for name, one in answer["stages"].items()
    }


def taken(stage: str, config: Path) -> Taken:
    """Run a stage as a command, watched."""
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "flows.cli.main", stage, str(config)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        _, largest = watched(process)
    if process.returncode:
        raise RuntimeError(f"{stage} ended with {process.returncode}")
    return Taken(seconds=time.monotonic() - began, largest=largest)


def command(*arguments: object) -> str:
    words = [sys.executable, "-m", "flows.cli.main", *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def files(directory: Path) -> None:
    """NetCDF files of two years, one for each `BLOCK` days; made once."""
    if len(list(directory.glob("days-*.nc"))) == -(-DAYS // BLOCK):
        return
    with xr.open_dataset(DEMO) as demo:
        five = ["zg500", "ta850", "ua850", "va850", "pr"]
        source = demo[five].isel(time=slice(DAYS)).load()
    means = {name: source[name].mean("time") for name in five}
    deviations = {name: float(source[name].std("time").mean()) for name in five}
    coarse, fine = plan(RingGrid.gaussian(32), LARGE), plan(GRID, LMAX)
    degree, generator = degrees(LMAX), np.random.default_rng(0)
    small = np.where(degree > LARGE, (1.0 + degree) ** -1.5, 0.0)
    small *= 0.15 * np.sqrt(4 * np.pi) / np.linalg.norm(small)
    weather = {name: generator.standard_normal(small.size) for name in (*five, *MIXED)}
    for start in range(0, DAYS, BLOCK):
        part = source.isel(time=slice(start, start + BLOCK))
        units = {name: part[name].attrs for name in five}
        scaled = {name: ((part[name] - means[name]) / deviations[name]).values for name in five}
        arrays: dict[str, np.ndarray] = {}
        for name in (*five, *MIXED):
            white = MIXED.get(name, {name: 1.0})
            large = np.sum([share * scaled[of] for of, share in white.items()], axis=0)
            coefficients = np.zeros((len(large), small.size))
            coefficients[:, : (LARGE + 1) ** 2] = coarse.analysis(large)
            for day in coefficients:
                new = generator.standard_normal(small.size)
                weather[name] = MEMORY * weather[name] + np.sqrt(1 - MEMORY**2) * new
                day += small * weather[name]
            arrays[name] = fine.synthesis(coefficients)
            if name in five:
                mean = fine.synthesis(_extended(coarse.analysis(means[name].values), small.size))
                arrays[name] = mean + deviations[name] * arrays[name]
        arrays["pr"] = np.maximum(arrays["pr"], 0.0)
        dataset = stores.labelled(GRID, {k: v.astype(np.float32) for k, v in arrays.items()}, start)
        for name, attrs in units.items():
            dataset[name].attrs = {key: attrs[key] for key in ("units",) if key in attrs}
        dataset.to_netcdf(directory / f"days-{start:03}.nc")


def _extended(coefficients: np.ndarray, size: int) -> np.ndarray:
    whole = np.zeros(size)
    whole[: coefficients.size] = coefficients
    return whole


def configuration(directory: Path, minutes: float, workers: int) -> str:
    ends = [stores.day(k) for k in (0, 545, 546, 637, 638, DAYS - 1)]
    names = ["zg500", "ta850", "ua850", "va850", "pr", *MIXED]
    return f"""\
[run]
root = {json.dumps(str(directory / "run"))}

[source]
paths = [{json.dumps(str(directory / "days-*.nc"))}]
variables = {json.dumps(names)}
transform = {{ pr = "rank" }}

[split]
train = {json.dumps(ends[0:2])}
validation = {json.dumps(ends[2:4])}
test = {json.dumps(ends[4:6])}

[spectral]
lmax = {LMAX}
block_degree = 40                  # beyond it a law knows the channels of each degree alone

[train]
minutes = {minutes}
accumulate = 8                      # parts of a batch, so that no process needs more than 8 GiB

[generate]
realizations = 4
times = {json.dumps([stores.day(650), stores.day(700)])}

[verify]
dates = 12
realizations = 4

[cluster]
workers = {workers}
"""


if __name__ == "__main__":
    sys.exit(main())
