"""A machine as `spherescore up` makes it: real server, worker and Dask cluster on free ports."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import xarray as xr
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun

from flows.deployments.up import Machine, Ports, machine

HERE = Path(__file__).parents[2]
PATIENCE = 120.0  # of a busy machine


@dataclass
class Site:
    """A machine and a directory of daily files whose run is deployed there."""

    machine: Machine
    directory: Path
    days: xr.Dataset
    table: dict[str, Any]
    arrived: int = 0

    @property
    def environment(self) -> dict[str, str]:
        return {**self.machine.environment, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}

    def command(
        self, *words: str, check: bool = True, given: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """`spherescore WORDS` against this server."""
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli.main", *words],
            env={**self.environment, **(given or {})},
            cwd=HERE,
            capture_output=True,
            text=True,
            timeout=600,
        )
        if check and done.returncode:
            raise AssertionError(done.stdout + done.stderr)
        return done

    def new_days(self, count: int) -> None:
        """Some more days arrive, as one file that is whole when it is there."""
        part = self.days.isel(time=slice(self.arrived, self.arrived + count))
        beside = self.directory / ".arriving"
        part.to_netcdf(beside)
        beside.rename(self.directory / "new" / f"days-{self.arrived:04d}.nc")
        self.arrived += count

    def write_config(self, name: str, **changed: Mapping[str, Any]) -> Path:
        """A configuration of these files, by default with a root of its own in this directory."""
        table = {key: {**value, **changed.get(key, {})} for key, value in self.table.items()}
        table["run"].setdefault("root", str(self.directory / f"run-{name}"))
        path = self.directory / f"{name}.toml"
        path.write_text(_toml(table))
        return path


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    state = tmp_path_factory.mktemp("machine")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(HERE)
    with machine(state, ports=Ports(server=0, scheduler=0, dashboard=0), workers=1) as running:
        yield running
    if before is not None:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="session")
def api(served: Machine) -> Iterator[SyncPrefectClient]:
    with client_of(served) as client:
        yield client


def client_of(running: Machine) -> SyncPrefectClient:
    return SyncPrefectClient(
        api=running.environment["PREFECT_API_URL"],
        auth_string=running.environment["PREFECT_API_AUTH_STRING"],
    )


@pytest.fixture
def site(served: Machine, tmp_path: Path) -> Site:
    return site_of(served, tmp_path)


def site_of(running: Machine, directory: Path) -> Site:
    (directory / "new").mkdir()
    values = np.random.default_rng(3).normal(size=(500, 8, 16)).astype(np.float32)
    days = xr.Dataset(
        {"z": (("time", "lat", "lon"), values, {"units": "m"})},
        coords={
            "time": np.datetime64("2001-01-01", "ns") + np.arange(500) * np.timedelta64(1, "D"),
            "lat": ("lat", 78.75 - 22.5 * np.arange(8), {"units": "degrees_north"}),
            "lon": ("lon", 22.5 * np.arange(16), {"units": "degrees_east"}),
        },
    )
    table = {
        "run": {},
        "source": {"paths": [str(directory / "new" / "*.nc")], "variables": ["z"]},
        "split": {
            "train": ["2001-01-01", "2001-12-31"],
            "validation": ["2002-01-01", "2002-01-31"],
            "test": ["2002-02-01", "latest"],
        },
        "spectral": {"lmax": 5},
        "train": {"steps": 60, "width": 8, "blocks": 1, "device": "cpu"},
        "generate": {"realizations": 2, "times": ["2002-02-11"]},
        "cluster": {"workers": 1},
    }
    return Site(running, directory, days, table)


def eventually(
    found: Callable[[], Any], seconds: float = PATIENCE, pause: float = 0.5, what: str = ""
) -> Any:
    """What `found` returns as soon as that is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(pause)
    raise AssertionError(f"{what or found} did not come true within {seconds:.0f} s")


def runs_of(api: SyncPrefectClient, deployment: str) -> list[FlowRun]:
    """Runs of a deployment, by their start."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId

    found = api.read_deployment_by_name(deployment)
    ours = DeploymentFilter(id=DeploymentFilterId(any_=[found.id]))
    runs = api.read_flow_runs(deployment_filter=ours)
    return sorted(runs, key=lambda run: run.expected_start_time)


def lines_of(api: SyncPrefectClient, run: FlowRun) -> list[tuple[str, str | None]]:
    """Log lines of a flow run with the names of the task runs that they are on."""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterId,
        LogFilter,
        LogFilterFlowRunId,
    )

    this = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
    tasks = {one.id: one.name for one in api.read_task_runs(flow_run_filter=this)}
    lines = api.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])))
    return [(line.message, tasks.get(line.task_run_id)) for line in lines]


def processes_of(run: FlowRun) -> list[psutil.Process]:
    """Processes of a flow run on this machine, its workers among them."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("PREFECT__FLOW_RUN_ID") == str(run.id):
                found.append(process)
    return found


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def _toml(table: Mapping[str, Mapping[str, Any]]) -> str:
    lines = []
    for section, values in table.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {_value(value)}" for key, value in values.items()]
    return "\n".join(lines)
