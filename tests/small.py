"""The smallest run that has all stages: noise on a coarse grid, on the days of three years."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from flows import run as runs
from flows.config.schema import RunConfig
from flows.stages.base import published_input
from storage.artifacts.layout import StoreLayout

STAGES = ("ingest", "preprocess", "train", "generate")
MADE = ("fields", "normals", "whitened", "checkpoints", "ensemble")


def small_table(directory: Path) -> dict[str, Any]:
    """Its configuration as plain tables, with the source written into `directory`."""
    times = xr.date_range("2000-01-01", "2002-12-31", freq="4D")
    values = np.random.default_rng(0).standard_normal((len(times), 8, 16)).astype("f4")
    attrs = {"standard_name": "geopotential_height", "units": "m", "cell_methods": "time: mean"}
    source = xr.Dataset(
        {"z": (("time", "lat", "lon"), values, attrs)},
        coords={
            "time": times,
            "lat": ("lat", 78.75 - 22.5 * np.arange(8), {"units": "degrees_north"}),
            "lon": ("lon", 22.5 * np.arange(16), {"units": "degrees_east"}),
        },
        attrs={"title": "noise"},
    )
    source.to_netcdf(directory / "noise.nc")
    return {
        "run": {"root": str(directory / "run")},
        "source": {"paths": [str(directory / "noise.nc")], "variables": ["z"]},
        "split": {
            "train": ["2000-01-01", "2001-12-31"],
            "validation": ["2002-01-01", "2002-06-30"],
            "test": ["2002-07-01", "2002-12-31"],
        },
        "spectral": {"lmax": 5},
        "train": {"steps": 2},
        "generate": {"realizations": 2, "times": ["2002-07-01"]},
        "cluster": {"workers": 1},
    }


def run_stages(table: dict[str, Any], *stages: str) -> None:
    for stage in stages or STAGES:
        runs.run_alone(RunConfig.from_dict(table), stage)


def digests(table: dict[str, Any]) -> dict[str, str]:
    layout = StoreLayout(table["run"]["root"])
    return {kind: published_input(layout, kind).digest for kind in MADE}
