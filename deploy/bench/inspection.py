"""What it costs that a child process opens the files first: ingest with it and without.

python -m deploy.bench.inspection [FILES]     100 files of a year each, and the demonstration
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import xarray as xr

from flows.cluster.local import local_client
from flows.config.schema import Cluster, RunConfig, read_config
from flows.stages.ingest import ingest
from storage.artifacts.layout import StoreLayout
from storage.sources import inspection

ROOT = Path(__file__).parents[2]
GRID = (32, 64)


def years(directory: Path, count: int) -> list[str]:
    """Files of 365 days of two variables each."""
    rng = np.random.default_rng(0)
    lat, lon = 90 - (np.arange(GRID[0]) + 0.5) * 180 / GRID[0], np.arange(GRID[1]) * 5.625
    values = (280 + rng.normal(size=(365, *GRID))).astype(np.float32)
    found = []
    for number in range(count):
        times = np.arange(365.0) + 365 * number
        made = xr.Dataset(
            {name: (("time", "lat", "lon"), values, {"units": "K"}) for name in ("ta", "tb")},
            coords={
                "time": ("time", times, {"units": "days since 1900-01-01", "calendar": "noleap"}),
                "lat": ("lat", lat, {"units": "degrees_north"}),
                "lon": ("lon", lon, {"units": "degrees_east"}),
            },
        )
        found.append(str(directory / f"{number:03d}.nc"))
        made.to_netcdf(
            found[-1], encoding={n: {"zlib": True, "complevel": 1} for n in ("ta", "tb")}
        )
    return found


def seconds(config: RunConfig, directory: Path, *, first: bool) -> float:
    """One ingest on workers that are there already."""
    inspection._SEEN.clear()
    whole = ingest.look_first
    layout = StoreLayout(str(directory))
    if not first:
        nothing: Any = nullcontext(SimpleNamespace(wait=lambda: None))
        ingest.look_first = lambda source, whole=False: nothing
    try:
        with local_client(Cluster(workers=2), directory / "scratch") as client:
            client.run(importlib.import_module, "flows.stages.ingest.ingest")
            began = time.monotonic()
            ingest.run(config, layout, client, lambda done, total, text: None)
            return time.monotonic() - began
    finally:
        ingest.look_first = whole


def main(count: int = 100) -> None:
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        demo = read_config(ROOT / "deploy" / "configs" / "demo.toml").to_dict()
        demo["source"]["paths"] = [str(ROOT / path) for path in demo["source"]["paths"]]
        many = json.loads(json.dumps(demo))
        many["source"] = {"paths": years(directory, count), "variables": ["ta", "tb"]}
        for name, table in (("demonstration", demo), (f"{count} files", many)):
            config = RunConfig.from_dict(table)
            pairs = [
                (
                    seconds(config, directory / f"{name}-{turn}-first", first=True),
                    seconds(config, directory / f"{name}-{turn}-without", first=False),
                )
                for turn in range(2)
            ]
            said = "; ".join(f"{one:.2f} s and {other:.2f} s without" for one, other in pairs)
            print(f"{name}: {said}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
