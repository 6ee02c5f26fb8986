"""A thousand simulated workers on one scheduler: what it costs to hand out very many units.

    make scale SCALE_ARGS='--workers 1000 --units 100000 --seconds 2'

Workers are Dask's own, without a nanny, many in a process; their units sleep. All else is what
a run does: `map_units`, a scheduler in a process of its own, connections over loopback. Processor
times of the scheduler and of the run are told beside the clock, because a thousand workers on few
cores take from each other what a cluster would not.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from dask import config
from distributed import Client, Worker

from flows.cluster.dask_settings import DASK_CONFIG
from flows.cluster.map_units import map_units

HOSTS = 4  # processes that simulate workers
SETTINGS = DASK_CONFIG | {
    "distributed.scheduler.worker-ttl": "30 minutes",  # simulated ones are slow to say they live
    "distributed.comm.timeouts.connect": "120s",
    "distributed.comm.timeouts.tcp": "300s",
    "distributed.worker.heartbeat-interval": "60s",
}
RESULTS = Path("build/scale.json")


def sleep(seconds: float) -> None:
    time.sleep(seconds)


async def host(address: str, workers: int, scratch: str) -> None:
    """Simulate workers until the scheduler is gone."""
    with config.set(SETTINGS):
        there = [
            Worker(address, nthreads=1, memory_limit=0, local_directory=scratch, dashboard=False)
            for _ in range(workers)
        ]
        for one in there:
            await one
        await asyncio.gather(*(one.finished() for one in there))


def measure(workers: int, units: int, seconds: float) -> dict[str, float]:
    """Have `units` sleeps done and tell what it took."""
    with ExitStack() as stack:
        scratch = stack.enter_context(TemporaryDirectory(ignore_cleanup_errors=True))
        stack.enter_context(config.set(SETTINGS))

        def start(*command: str) -> "subprocess.Popen[bytes]":
            process = subprocess.Popen([sys.executable, "-m", *command], stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        where = Path(scratch) / "scheduler.json"
        options = ["--host", "tcp://127.0.0.1", "--port", "0", "--no-dashboard"]
        scheduler = start(
            "distributed.cli.dask_scheduler", *options, "--scheduler-file", str(where)
        )
        while not where.exists():
            time.sleep(0.1)
        address = json.loads(where.read_text())["address"]
        for number in range(HOSTS):
            share = (number + 1) * workers // HOSTS - number * workers // HOSTS
            start("deploy.bench.scale", "--host", address, "--workers", str(share))
        client = stack.enter_context(Client(address, set_as_default=False, timeout=60))
        client.wait_for_workers(workers, timeout=1800)
        watched = {"scheduler": psutil.Process(scheduler.pid), "run": psutil.Process()}
        before = {name: spent(process) for name, process in watched.items()}
        began = time.monotonic()
        told = tell_now_and_then(began)
        map_units(client, sleep, [seconds] * units, told, label="sleep")
        took = time.monotonic() - began
        ideal = units * seconds / workers
        figures = {"workers": workers, "units": units, "seconds": seconds, "took": took}
        figures |= {"ideal": ideal, "part of ideal": ideal / took}
        for name, process in watched.items():
            figures[f"{name}, CPU ms per unit"] = 1e3 * (spent(process) - before[name]) / units
        return figures


def spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def tell_now_and_then(began: float):
    last = began

    def tell(done: int, total: int, text: str) -> None:
        nonlocal last
        if time.monotonic() - last > 10:
            last = time.monotonic()
            print(f"{done}/{total} after {last - began:.0f} s", file=sys.stderr, flush=True)

    return tell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--units", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--host", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.host:
        with TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            asyncio.run(host(arguments.host, arguments.workers, scratch))
        return
    figures = measure(arguments.workers, arguments.units, arguments.seconds)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(figures, indent=1))
    for name, value in figures.items():
        print(f"{name:<28}{value:>12.4g}")


if __name__ == "__main__":
    main()
