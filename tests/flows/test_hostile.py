"""A file that only workers stumble on: their deaths end, and the file is named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows import ingest
from flows.cluster import local_client
from flows.config import Cluster, RunConfig
from flows.stage import Progress
from storage import inspection
from storage.layout import StoreLayout
from storage.sources import SourceError
from tests.storage.imitations import regular, write

HOUSE = Path(__file__).parents[2]
KILLER = """
import os, signal
import xarray.backends.netCDF4_ as backend
whole = backend.NetCDF4ArrayWrapper._getitem
def getitem(self, key):
    first = key[0] if len(key) == 3 else 0
    if self.variable_name == "ta" and getattr(first, "start", 0) >= 40:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(self, key)
backend.NetCDF4ArrayWrapper._getitem = getitem
"""


def large(path: Path) -> str:
    made = regular(60, lat=np.linspace(-89, 89, 90), lon=np.arange(360) * 1.0)
    return write(path, made, "bad.nc")


def test_a_file_that_kills_workers_is_named(
    table: dict[str, Any], quiet: Progress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "killer").mkdir()
    (tmp_path / "killer" / "sitecustomize.py").write_text(KILLER)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'killer'}{os.pathsep}{HOUSE}")
    monkeypatch.setattr(inspection, "FIRST_VALUES", 1)
    table["source"] = {"paths": [large(tmp_path)], "variables": ["ta"]}
    config = RunConfig.from_dict(table)
    with (
        local_client(Cluster(workers=1), tmp_path / "scratch") as client,
        pytest.raises(SourceError, match=r"bad\.nc broke the process .*: it died of SIGKILL"),
    ):
        ingest.run(config, StoreLayout(config.run.root), client, quiet)
    assert not StoreLayout(config.run.root).name("fields").exists()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("fault", ["cut", "pickle", "region"])
def test_what_is_refused_opens_no_socket(
    fault: str,
    table: dict[str, Any],
    write_config: Callable[[dict[str, Any]], str],
    tmp_path: Path,
) -> None:
    made = regular() if fault != "region" else regular(lat=[10.0, 11, 12, 13])
    name = "a.zarr" if fault == "pickle" else "a.nc"
    options = {"zarr_format": 2, "consolidated": False} if fault == "pickle" else {}
    path = Path(write(tmp_path, made, name, **options))
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:3000])
    if fault == "pickle":
        array = path / "ta" / ".zarray"
        array.write_text(
            array.read_text().replace('"filters": null', '"filters": [{"id": "pickle"}]')
        )
    table["source"] = {"paths": [str(path)], "variables": ["ta"]}
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-qq", "-e", "trace=network", "-o", str(trace), sys.executable]
    done = subprocess.run(
        [*command, "-m", "flows.cli", "ingest", write_config(table)], capture_output=True, text=True
    )
    assert done.returncode == (60 if fault == "pickle" else 10), done.stderr
    calls = [line for line in trace.read_text().splitlines() if "socket" in line]
    assert [line for line in calls if "AF_UNIX" not in line] == []
