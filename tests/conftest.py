"""Shared by all tests: a small source with known values, its configuration, a real cluster."""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before anything imports Prefect or a BLAS: tests stay on this machine and on their cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import xarray as xr

from flows.config.schema import Cluster, RunConfig
from tests import s3

TIMES = 90
SHAPE = (8, 16)


@pytest.fixture(autouse=True)
def user_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests leave nothing in the cache of the user."""
    monkeypatch.setenv("SPHERESCORE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def source() -> xr.Dataset:
    """90 days of one variable on a regular global grid, each value its own flat index."""
    values = np.arange(TIMES * SHAPE[0] * SHAPE[1], dtype=np.float32).reshape(TIMES, *SHAPE)
    days = np.datetime64("2001-01-01", "ns") + np.arange(TIMES) * np.timedelta64(1, "D")
    attrs = {"standard_name": "geopotential_height", "units": "m", "cell_methods": "time: mean"}
    return xr.Dataset(
        {"z": (("time", "lat", "lon"), values, attrs)},
        coords={
            "time": days,
            "lat": ("lat", 78.75 - 22.5 * np.arange(SHAPE[0]), {"units": "degrees_north"}),
            "lon": ("lon", 22.5 * np.arange(SHAPE[1]), {"units": "degrees_east"}),
        },
        attrs={"title": "indices"},
    )


@pytest.fixture
def table(tmp_path: Path, source: xr.Dataset) -> dict[str, Any]:
    """A configuration of that source as plain tables, to be changed by tests."""
    source.to_netcdf(tmp_path / "source.nc")
    return {
        "run": {"root": str(tmp_path / "run")},
        "source": {"paths": [str(tmp_path / "source.nc")], "variables": ["z"]},
        "split": {
            "train": ["2001-01-01", "2001-01-31"],
            "validation": ["2001-02-01", "2001-02-28"],
            "test": ["2001-03-01", "2001-03-31"],
        },
        "spectral": {"lmax": 5},
        "train": {"steps": 2},
        "generate": {"realizations": 2, "times": ["2001-01-15"]},
        "cluster": {"workers": 1},
    }


@pytest.fixture
def config(table: dict[str, Any]) -> RunConfig:
    return RunConfig.from_dict(table)


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[[dict[str, Any]], str]:
    """Write plain tables as TOML; returns the path."""

    def write(table: dict[str, Any]) -> str:
        lines = []
        for section, values in table.items():
            lines.append(f"[{section}]")
            lines += [f"{key} = {_toml(value)}" for key, value in values.items()]
        path = tmp_path / f"config-{random.getrandbits(32):08x}.toml"
        path.write_text("\n".join(lines))
        return str(path)

    return write


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of one real cluster with two workers."""
    from flows.cluster.local import local_client

    with local_client(Cluster(workers=2), tmp_path_factory.mktemp("scratch")) as client:
        yield client


@pytest.fixture(scope="module")
def here() -> Iterator[Any]:
    """A client of one worker in this process, where faults can be put into functions."""
    from distributed import Client

    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as one:
        yield one


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """A real server of the S3 protocol, "host:port"."""
    pytest.importorskip("moto")
    with s3.server() as address:
        yield address


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a fresh bucket that the environment leads to."""
    for name, text in s3.environment(s3_server).items():
        monkeypatch.setenv(name, text)
    name = f"test-{random.getrandbits(48):012x}"
    s3.make_bucket(s3_server, name)
    return name


@pytest.fixture
def quiet() -> Callable[[int, int, str], None]:
    return lambda done, total, text: None


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)
