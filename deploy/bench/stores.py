"""Small runs for the stages to be timed on: sources, configurations, published fields, clusters."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from deploy.bench import inputs
from deploy.bench.ours import (
    Normals,
    RingGrid,
    float32_error,
    precision_for,
    preprocess_key,
)
from deploy.bench.timing import Call, timed
from flows.config.schema import RunConfig
from flows.stages.base import STAGES
from flows.stages.ingest.ingest import unit_sizes
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout

if TYPE_CHECKING:
    from distributed import Client

GRID, LMAX = RingGrid.latlon(181, 360), 179
FIRST_DAY = np.datetime64("1950-01-01", "ns")
SPLIT = {"train": (0, 119), "validation": (120, 159), "test": (160, 199)}  # days from the first


@contextmanager
def workshop() -> Iterator[Path]:
    """A directory on the disk of the benchmark, gone afterwards."""
    inputs.DATA.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=inputs.DATA, ignore_cleanup_errors=True) as directory:
        yield Path(directory)


def days(count: int) -> np.ndarray:
    return FIRST_DAY + np.arange(count) * np.timedelta64(1, "D")


def dataset(grid: RingGrid, fields: np.ndarray, first: int = 0, names: Sequence[str] = "v") -> Any:
    """Fields (time, *grid) as a labelled dataset; each variable is that before it, a day later."""
    arrays = {name: np.roll(fields, k, axis=0) + np.float32(280) for k, name in enumerate(names)}
    return labelled(grid, arrays, first)


def labelled(grid: RingGrid, arrays: Mapping[str, np.ndarray], first: int = 0) -> xr.Dataset:
    """Variables (time, *grid) of consecutive days as a dataset, their values as they are."""
    count = max(map(len, arrays.values()))
    coords: dict[str, Any] = {"time": days(first + count)[first:]}
    if grid.kind != "healpix":
        coords["lat"] = ("lat", np.asarray(grid.latitudes), {"units": "degrees_north"})
        longitudes = np.arange(grid.shape[1]) * 360.0 / grid.shape[1]
        coords["lon"] = ("lon", longitudes, {"units": "degrees_east"})
    return xr.Dataset(
        {name: (("time", *grid.dims), values, {"units": "K"}) for name, values in arrays.items()},
        coords=coords,
    )


def netcdf_files(grid: RingGrid, lmax: int, count: int, files: int, names: str = "v") -> list[str]:
    """NetCDF files that together hold `count` days; made once."""
    label = f"{grid.describe()} {lmax} {count} {files} {names}".replace(" ", "-")
    directory = inputs.DATA / f"netcdf-{label}"
    if not directory.exists():
        fields = np.load(inputs.made(grid, lmax, count)[1], mmap_mode="r")
        partial = directory.with_suffix(".part")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for number, part in enumerate(np.array_split(np.arange(count), files)):
            first, stop = int(part[0]), int(part[-1]) + 1
            one = dataset(grid, fields[first:stop], first, names)
            one.to_netcdf(partial / f"part-{number}.nc")
        partial.rename(directory)
    return sorted(map(str, directory.glob("*.nc")))


def configuration(root: Path, paths: Sequence[str] = ("unused.nc",), **changes: Any) -> RunConfig:
    """One variable at LMAX; `changes` are whole sections."""
    split = {name: [day(end) for end in ends] for name, ends in SPLIT.items()}
    table = {
        "run": {"root": str(root)},
        "source": {"paths": list(paths), "variables": ["v"]},
        "split": split,
        "spectral": {"lmax": LMAX},
        "train": {"steps": 2},
        "generate": {"realizations": 1, "times": [split["test"][0]]},
    }
    return RunConfig.from_dict(table | changes)


def day(number: int) -> str:
    """The date so many days after the first."""
    return str(FIRST_DAY + number * np.timedelta64(1, "D"))[:10]


def publish_fields(config: RunConfig, count: int) -> StoreLayout:
    """`fields` as ingest would lay them out, of `count` days that repeat those of the inputs."""
    layout, key = StoreLayout(config.run.root), "f" * 64
    made = np.load(inputs.made(GRID, LMAX, min(count, 2000))[1], mmap_mode="r")
    template = labelled(GRID, {"v": np.broadcast_to(np.float32(0), (count, *GRID.shape))})
    sizes = unit_sizes(template, config.source)
    path, shard = layout.artifact("fields", key), {"time": sizes["shard"]}
    artifacts.create(path, template, chunks={"time": sizes["chunk"]}, shards=shard)
    units = artifacts.plan_units({"time": count}, shard)
    for unit in units:
        part = unit.region["time"]
        block = made[np.arange(part.start, part.stop) % len(made)]
        artifacts.write_unit(path, unit, dataset(GRID, block, part.start))
    artifacts.publish(layout, "fields", key, units, {})
    return layout


def publish_normals(config: RunConfig) -> None:
    """`normals` of the inputs' law, under the key that preprocess looks for."""
    layout, channel = StoreLayout(config.run.root), ("channel", "lat", "lon")
    climatology = np.zeros((1, 5, *GRID.shape))
    climatology[:, 0] = 280.0
    root = (1.0 + np.arange(LMAX + 1)) ** -1.5
    normals = xr.Dataset(
        {
            "climatology": (("channel", "season", "lat", "lon"), climatology),
            "scale": (channel, np.ones((1, *GRID.shape))),
            "mask": (channel, np.zeros((1, *GRID.shape), np.int8)),
            "remainder": (channel, np.zeros((1, *GRID.shape))),
            "reference_factor": (("degree", "channel", "other_channel"), root[:, None, None]),
        },
        coords={
            "channel": np.asarray(["v"]),
            "transform": ("channel", np.asarray(["identity"])),
            **{name: dataset(GRID, np.empty((0, *GRID.shape)))[name] for name in ("lat", "lon")},
        },
        attrs={"lmax": LMAX},
    )
    fields = artifacts.open_published(layout, "fields").isel(time=slice(0, 16))
    known = Normals.of(normals)
    error = float32_error(known, [fields["v"].values], known.rows(fields))
    normals.attrs["precision"] = precision_for(error)
    key = preprocess_key(config, layout)
    artifacts.create(layout.artifact("normals", key), normals, chunks={}, shards={})
    artifacts.publish(layout, "normals", key, [], {"figures": {}})


def stage_call(
    name: str, config: RunConfig, client: Client, forgotten: Sequence[str] | None = None
) -> Call:
    """The seconds of a stage that has its work to do: what it published before is removed first."""
    stage = next(stage for stage in STAGES if stage.name == name)
    kinds = stage.kinds if forgotten is None else forgotten
    layout = StoreLayout(config.run.root)
    run = timed(lambda: stage.module().run(config, layout, client, quiet))

    def call() -> float:
        forget(layout, kinds)
        return run()

    return call


def forget(layout: StoreLayout, kinds: Sequence[str]) -> None:
    """Remove all artifacts of these kinds, with their records and names."""
    for kind in kinds:
        layout.name(kind).unlink(missing_ok=True)
        for path in layout.artifacts.glob(f"{kind}-*"):
            shutil.rmtree(path)


@contextmanager
def usual_client(workers: int) -> Iterator[Client]:
    """A local cluster as Dask starts it by default, with workers of one thread."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def with_client(client: Client, function: Callable[[], Any]) -> Call:
    """The seconds of a function whose Dask work goes to this client."""

    def run() -> None:
        with client.as_current():
            function()

    return timed(run)


def peak_memory(client: Client) -> float:
    """The most memory that a worker has held so far [MB]."""
    return max(client.run(own_peak_memory).values())


def own_peak_memory() -> float:
    """The most memory that this process has held so far [MB]."""
    # The system's own account of resources begins with what the parent held.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def quiet(done: int, total: int, text: str) -> None:
    """Progress that nobody is told."""
