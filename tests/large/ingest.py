"""Ingest of a large series against a plain xarray copy, and of many files: rate, memory, tasks.

    python -m tests.large.ingest --gib 20      one Zarr store, the same chunks in both
    python -m tests.large.ingest --files 3650  daily NetCDF files

Not part of `make test`; `make large` runs both. It ends with exit code 1 if a promise is not kept.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
import zarr
from distributed import Client

from deploy.bench.stores import own_peak_memory, peak_memory
from flows.cluster.local import local_client
from flows.config.schema import Cluster, RunConfig
from flows.stages.ingest import ingest
from storage.artifacts.layout import StoreLayout

LAT, LON = 181, 360
MEMORY, RATE = 2048, 0.7  # MB of a worker at most, share of the rate of a plain copy at least
WORKERS = 2


def times_of(count: int) -> np.ndarray:
    return np.datetime64("1900-01-01", "ns") + np.arange(count) * np.timedelta64(6, "h")


def coords() -> dict[str, Any]:
    return {
        "lat": ("lat", np.linspace(-90, 90, LAT), {"units": "degrees_north"}),
        "lon": ("lon", np.arange(LON) * 1.0, {"units": "degrees_east"}),
    }


def series(path: Path, count: int) -> None:
    """A store of `count` times, the same 64 fields again and again, compressed as fields are."""
    smooth = np.cumsum(np.random.default_rng(0).normal(size=(64, LAT, LON)), axis=2)
    block = np.round(280 + 0.1 * smooth, 2).astype(np.float32)
    attrs = {"units": "K", "standard_name": "air_temperature"}
    empty = dask.array.zeros((count, LAT, LON), dtype=np.float32, chunks=(256, LAT, LON))
    dataset = xr.Dataset(
        {"t": (("time", "lat", "lon"), empty, attrs)}, coords={"time": times_of(count), **coords()}
    )
    encoding = {"t": {"chunks": (4, LAT, LON), "shards": (256, LAT, LON)}}
    dataset.to_zarr(path, encoding=encoding, compute=False, zarr_format=3, consolidated=False)
    array = zarr.open_array(path / "t")
    whole = np.concatenate([block] * 4)
    for start in range(0, count, 256):
        array[start : start + 256] = whole[: min(256, count - start)]


def daily(directory: Path, count: int) -> None:
    for day in range(count):
        values = np.full((1, 19, 36), 280 + day % 7, np.float32)
        xr.Dataset(
            {"t": (("time", "lat", "lon"), values, {"units": "K"})},
            coords={
                "time": times_of(4 * count)[4 * day : 4 * day + 1],
                "lat": ("lat", np.linspace(-90, 90, 19), {"units": "degrees_north"}),
                "lon": ("lon", np.arange(36) * 10.0, {"units": "degrees_east"}),
            },
        ).to_netcdf(directory / f"{day:05d}.nc")


def ingested(client: Client, root: Path, paths: str) -> tuple[float, Path]:
    """Seconds, and where the fields are."""
    days = ["1900-01-01", "1900-01-02"], ["1900-01-03", "1900-01-04"], ["1900-01-05", "1900-01-06"]
    table = {
        "run": {"root": str(root)},
        "source": {"paths": [paths], "variables": ["t"]},
        "split": dict(zip(("train", "validation", "test"), days, strict=True)),
        "spectral": {"lmax": 5},
        "train": {"steps": 1},
        "generate": {"realizations": 1, "times": ["1900-01-05"]},
    }
    config = RunConfig.from_dict(table)
    began = time.monotonic()
    receipt = ingest.run(config, StoreLayout(str(root)), client, lambda *_: None)
    return time.monotonic() - began, Path(receipt.path)


def copied(source: Path, target: Path, like: Path) -> float:
    """Seconds of a plain copy with the chunks and shards that ingest has."""
    layout = zarr.open_array(like / "t")
    chunks, shards = layout.chunks, layout.shards or layout.chunks
    began = time.monotonic()
    with xr.open_zarr(source, chunks={"time": shards[0]}, consolidated=False) as dataset:
        dataset["t"].encoding = {}
        dataset.to_zarr(
            target,
            encoding={"t": {"chunks": chunks, "shards": shards}},
            zarr_format=3,
            consolidated=False,
        )
    return time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=0.0)
    parser.add_argument("--files", type=int, default=0)
    parser.add_argument("--where", default=None, help="a directory with room for it")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.where) as made:
        where, kept = Path(made), True
        if asked.gib:
            count = int(asked.gib * (1 << 30) / (4 * LAT * LON))
            series(where / "source.zarr", count)
        if asked.files:
            (where / "files").mkdir()
            daily(where / "files", asked.files)
        with local_client(Cluster(workers=WORKERS), where / "scratch") as client:
            submitted: list[int] = []
            send = client._send_to_scheduler
            client._send_to_scheduler = lambda message: (
                submitted.append(1) if message.get("op") == "update-graph" else None,
                send(message),
            )[1]
            if asked.gib:
                seconds, fields = ingested(client, where / "run", str(where / "source.zarr"))
                rate = asked.gib / seconds
                plain = asked.gib / copied(where / "source.zarr", where / "copy.zarr", fields)
                most = peak_memory(client)
                print(
                    f"{asked.gib:g} GiB: ingest {rate:.3f} GiB/s, plain copy {plain:.3f} GiB/s "
                    f"({rate / plain:.0%}), worker {most:.0f} MiB at most, "
                    f"this process {own_peak_memory():.0f} MiB"
                )
                kept = kept and rate >= RATE * plain and most <= MEMORY
                shutil.rmtree(where / "copy.zarr")
            if asked.files:
                submitted.clear()
                seconds, _ = ingested(client, where / "many", str(where / "files" / "*.nc"))
                most = peak_memory(client)
                print(
                    f"{asked.files} files: {seconds:.1f} s, {len(submitted)} submissions of one "
                    f"task, worker {most:.0f} MiB at most, this process "
                    f"{own_peak_memory():.0f} MiB"
                )
                kept = kept and most <= MEMORY
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
