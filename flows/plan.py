"""What a run will need, from metadata alone, before any work: bytes, files, memory, units."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path

from dask.utils import parse_bytes

from flows.cluster import memory_share
from flows.config import RunConfig
from flows.ingest import how_to_open, unit_sizes
from pipeline.grids import grid_named
from storage.layout import StoreLayout
from storage.sources import open_source

TIMES_PER_CHUNK = 8  # of an ensemble
INTERPRETER_BYTES = 600 << 20  # a process with torch, xarray and zarr loaded


class NotEnoughSpace(RuntimeError):
    """The disk of the run is too small for what is still to be written."""

    exit_code = 30


class NotEnoughMemory(RuntimeError):
    """A worker cannot hold one unit of work."""

    exit_code = 41


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Upper estimates for one stage; `memory` is of one process [bytes]."""

    stage: str
    bytes: int
    files: int
    units: int
    memory: int


def estimate(config: RunConfig) -> list[Estimate]:
    """What each stage writes (uncompressed) and holds, from the metadata of the source.

    Raises:
        SourceError: If the source cannot be opened or its metadata are not acceptable.
    """
    source = config.source
    fields, _ = open_source(
        source.paths,
        source.variables,
        check_values=False,
        **how_to_open(source),
    )
    times, channels = fields.sizes["time"], len(source.variables)
    cells = prod(n for dim, n in fields[source.variables[0]].sizes.items() if dim != "time")
    coefficients = (config.spectral.lmax + 1) ** 2
    shard = unit_sizes(fields, source)["shard"]
    units = ceil(times / shard)
    lmax = config.spectral.lmax
    blocks = sum((channels * (lmax + 1 - abs(m))) ** 2 for m in range(-lmax, lmax + 1))
    draw = 4 * channels * cells
    generate, verify = config.generate, config.verify
    drawn = len(generate.times) * generate.realizations
    placed, maps = draw, 0
    if generate.grid != "source":
        placed, maps = 4 * channels * grid_named(generate.grid).size, 40  # normals, twice
    drawing = (10 * min(TIMES_PER_CHUNK, len(generate.times)) + maps) * placed
    scored = verify.dates * verify.realizations
    drawn_units = len(generate.times) * ceil(generate.realizations / generate.batch)
    scored_units = verify.dates * ceil(verify.realizations / generate.batch)
    sampling = INTERPRETER_BYTES + 64 * generate.microbatch * draw
    model = (32 << 20) * ceil(config.train.width / 32) ** 2  # weights, their mean, optimizer
    return [
        Estimate(
            stage="ingest",
            bytes=times * draw,
            files=channels * units + 20,
            units=units,
            memory=INTERPRETER_BYTES + 3 * shard * draw,
        ),
        Estimate(
            stage="preprocess",
            bytes=4 * times * channels * coefficients + 8 * (8 * channels * cells + 2 * blocks),
            files=units + 60,
            units=2 * units,
            memory=INTERPRETER_BYTES + 4 * shard * draw,
        ),
        Estimate(
            stage="train",
            bytes=3 * model,
            files=12,
            units=1,
            memory=INTERPRETER_BYTES + 4 * times * channels * coefficients + 8 * model,
        ),
        Estimate(
            stage="generate",
            bytes=drawn * placed * (1 + generate.series),
            files=channels * drawn_units + 20,
            units=drawn_units,
            memory=sampling + drawing,
        ),
        Estimate(
            stage="verify",
            bytes=scored * draw,
            files=channels * scored_units + 20,
            units=scored_units,
            memory=sampling + 2 * scored * draw,
        ),
    ]


def preflight(config: RunConfig, layout: StoreLayout, waiting: Sequence[str]) -> None:
    """Refuse before work starts what cannot end well.

    Args:
        waiting: The stages that are still to be run.
    Raises:
        NotEnoughSpace, NotEnoughMemory: With what is needed and what there is.
    """
    needed = [one for one in estimate(config) if one.stage in waiting]
    space, free = sum(one.bytes for one in needed), free_space(layout.path)
    if space > free:
        raise NotEnoughSpace(
            f"{config.run.root} has {spoken(free)} free, {', '.join(waiting)} write up to "
            f"{spoken(space)}; free some, or choose another run.root. Nothing was started"
        )
    most = max(needed, key=lambda one: one.memory)
    share = memory_per_worker(config)
    if most.memory > share:
        raise NotEnoughMemory(
            f"{most.stage} needs {spoken(most.memory)} in each of {config.cluster.workers} workers "
            f"and they have {spoken(share)}; lower cluster.workers or raise cluster.memory. "
            "Nothing was started"
        )


def memory_per_worker(config: RunConfig) -> int:
    """The limit of each worker [bytes], as flows.cluster sets it."""
    if config.cluster.memory == "auto":
        return memory_share(config.cluster.workers)
    return int(parse_bytes(config.cluster.memory))


def free_space(path: Path) -> int:
    """Bytes free on the disk where `path` is, or will be made."""
    there = path.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free


def spoken(size: float) -> str:
    """Bytes in the largest unit that leaves a number of at least one."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
