"""What a run will need, from metadata alone, before any work: bytes, files, memory, units."""

import os
import shutil
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
from dask.utils import format_bytes, parse_bytes

from flows.config.schema import RunConfig
from flows.errors import ExitCode
from flows.plan.conditioning import conditioning
from flows.plan.costs import Estimate, estimates
from flows.plan.work import prices
from flows.plan.workload import Machines, Workload
from flows.processes.machine import machine_memory, memory_share
from flows.stages.block_degree import block_degree
from flows.stages.dates import require_dates
from flows.stages.ingest.ingest import how_to_open, look_first, paths_of, unit_sizes
from flows.stages.splits import SPLITS, part_of
from pipeline.sphere.named_grids import grid_named, grid_of
from storage.artifacts.layout import StoreLayout
from storage.places.places import BucketPath, Place
from storage.sources.sources import open_source


class NotEnoughSpace(RuntimeError):
    """The disk of the run is too small for what is still to be written."""

    exit_code = ExitCode.NO_SPACE


class NotEnoughMemory(RuntimeError):
    """A worker cannot hold one unit of work."""

    exit_code = ExitCode.NO_MEMORY


def estimate(config: RunConfig) -> list[Estimate]:
    """What each stage takes, from the metadata of the source.

    Raises:
        SourceError: If the source cannot be opened or its metadata are not acceptable.
        UnusableData, ConfigError: If its times are not those that the configuration speaks of.
    """
    machines = Machines(
        workers=config.cluster.workers, memory=machine_memory(), ranks=config.train.ranks
    )
    load, price = workload(config), prices()
    asked = conditioning(config, load, machines, price)
    return [*estimates(load, machines, price), *([] if asked is None else [asked])]


def workload(config: RunConfig) -> Workload:
    """The sizes of a run, from the metadata of its source."""
    source, generate = config.source, config.generate
    with look_first(source) as looking:
        looking.wait()
    fields, _ = open_source(
        paths_of(source),
        source.variables,
        check_values=False,
        **how_to_open(source),
    )
    require_dates(config, fields["time"])
    known = part_of(fields["time"], config.split, "train")
    fitted, validated, tested = (
        part_of(fields["time"], config.split, name).sizes["time"] for name in SPLITS
    )
    network = config.train.model == "network"
    first = fields[source.variables[0]]
    return Workload(
        times=fields.sizes["time"],
        fitted=fitted + validated,
        validated=validated,
        tested=tested,
        channels=len(source.variables),
        nlat=len(grid_of(fields).latitudes),
        points=prod(n for dim, n in first.sizes.items() if dim != "time"),
        lmax=config.spectral.lmax,
        ensemble=(generate.realizations * (1 + len(generate.scenarios)), len(generate.times)),
        verification=(config.verify.realizations, config.verify.dates),
        steps=config.train.steps if network else 0,
        minutes=config.train.minutes if network else None,
        batch=config.train.batch,
        accumulate=config.train.accumulate,
        width=config.train.width,
        blocks=config.train.blocks,
        evaluations=generate.evaluations if config.draws_by_network else 0,
        together=generate.batch,
        microbatch=generate.microbatch,
        shard=unit_sizes(fields, source)["shard"],
        drawn_points=None if generate.grid == "source" else grid_named(generate.grid).size,
        series=generate.series,
        block_degree=block_degree(config),
        sequences=tuple((one.realizations, one.days) for one in generate.sequences),
        past=config.sequence.past,
        learned=generate.evaluations if config.learns_sequences else 0,
        years=len(config.split.train_members) or len(np.unique(known["time"].dt.year)),
    )


def preflight(config: RunConfig, layout: StoreLayout, waiting: Sequence[str]) -> list[Estimate]:
    """Refuse before work starts what cannot end well.

    Args:
        waiting: The stages that are still to be run.
    Returns:
        What they will take.
    Raises:
        NotEnoughSpace, NotEnoughMemory: With what is needed and what there is.
    """
    expected = [one for one in estimate(config) if one.stage in waiting]
    refused = refusal(config, layout, expected)
    if refused is not None:
        raise refused
    return expected


def refusal(
    config: RunConfig, layout: StoreLayout, needed: Sequence[Estimate]
) -> NotEnoughSpace | NotEnoughMemory | None:
    """Why these stages cannot end well, with what is needed and what there is; None if they can."""
    return (
        _lack_of_space(config, layout, needed)
        or _lack_of_memory_here(needed)
        or _lack_of_memory_of_workers(config, needed)
    )


def _lack_of_space(
    config: RunConfig, layout: StoreLayout, needed: Sequence[Estimate]
) -> NotEnoughSpace | None:
    stages = ", ".join(one.stage for one in needed)
    space, free = sum(one.bytes for one in needed), free_space(layout.path)
    if free is not None and space > free:
        return NotEnoughSpace(
            f"{config.run.root} has {format_bytes(free)} free, {stages} write up to "
            f"{format_bytes(space)}; free some, or choose another run.root. Nothing was started"
        )
    files, free_files = sum(one.files for one in needed), free_inodes(layout.path)
    if free_files is not None and files > free_files:
        return NotEnoughSpace(
            f"{config.run.root} has room for {free_files} more files (inodes), {stages} make up "
            f"to {files}; remove some, or choose another run.root. Nothing was started"
        )
    return None


def _lack_of_memory_here(needed: Sequence[Estimate]) -> NotEnoughMemory | None:
    """What the run does itself is compared with this machine, whatever workers have."""
    most, machine = max(needed, key=lambda one: one.memory_here), memory_share(1)
    if most.memory_here <= machine:
        return None
    return NotEnoughMemory(
        f"{most.stage} needs {format_bytes(most.memory_here)} in the process of the run and this "
        f"machine has {format_bytes(machine)} for it; take a machine with more, or "
        f"{_SMALLER.get(most.stage, 'a lower spectral.lmax')}. Nothing was started"
    )


def _lack_of_memory_of_workers(
    config: RunConfig, needed: Sequence[Estimate]
) -> NotEnoughMemory | None:
    most, share = max(needed, key=lambda one: one.memory), memory_per_worker(config)
    known = config.cluster.kind == "local" or config.cluster.memory != "auto"
    if not known or most.memory <= share:
        return None
    return NotEnoughMemory(
        f"{most.stage} needs {format_bytes(most.memory)} in each of {config.cluster.workers} "
        f"workers and they have {format_bytes(share)}; lower cluster.workers or raise "
        "cluster.memory. Nothing was started"
    )


_SMALLER = {
    "train": "a higher train.accumulate, a lower train.width or fewer validation fields",
}


def memory_per_worker(config: RunConfig) -> int:
    """The limit of each worker [bytes], as flows.cluster.local sets it."""
    if config.cluster.memory == "auto":
        return memory_share(config.cluster.workers)
    return int(parse_bytes(config.cluster.memory))


def free_space(path: Place) -> int | None:
    """Bytes free on the disk where `path` is, or will be made; a bucket does not tell."""
    if isinstance(path, BucketPath):
        return None
    return shutil.disk_usage(_existing(path)).free


def _existing(path: Path) -> Path:
    there = path.absolute()
    while not there.exists():
        there = there.parent
    return there


def free_inodes(path: Place) -> int | None:
    """Files that can still be made where `path` is or will be; None where there is no limit."""
    if isinstance(path, BucketPath):
        return None
    known = os.statvfs(_existing(path))
    return known.f_favail if known.f_files else None


def no_space_left(config: RunConfig, layout: StoreLayout, stage: str) -> NotEnoughSpace:
    """What to say of a stage that met a full disk: what there is, and what it writes."""
    needed = [one for one in estimate(config) if one.stage == stage]
    disk = layout.on_this_machine if isinstance(layout.path, BucketPath) else layout.path
    free, files = free_space(disk), free_inodes(disk)
    assert free is not None
    return NotEnoughSpace(
        f"{stage} met a full disk: {disk} has {format_bytes(free)} free"
        f"{'' if files is None else f' and room for {files} files'}"
        + "".join(
            f", {stage} writes up to {format_bytes(one.bytes)} in {one.files} files"
            for one in needed
        )
        + ". Finished units are safe; make room and run again to go on"
    )


def duration(seconds: float | None) -> str:
    """Seconds in the largest unit that leaves a number of at least one; a dash for None."""
    if seconds is None:
        return "-"
    for unit, size in (("s", 60.0), ("min", 60.0), ("h", 24.0)):
        if seconds < size:
            return f"{seconds:.0f} {unit}" if unit == "s" else f"{seconds:.1f} {unit}"
        seconds /= size
    return f"{seconds:.1f} d"
