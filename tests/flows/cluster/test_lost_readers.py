"""Workers that die reading values, beyond what the child reads first: a file is named, or none."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.cluster.local import local_client
from flows.config.schema import Cluster, RunConfig
from flows.errors import WorkersLost
from flows.progress import Progress
from flows.stages.ingest import ingest
from storage.errors import SourceError
from storage.sources import inspection
from tests.faults.runs import ROOT, SITE
from tests.storage.imitations import on_first_days, regular, write

DEATHS = 8  # more than are retried

# A child that values beyond the first ones kill, if the file is called bad.nc.
CHILD = """
import os, signal
import storage.sources.inspection, storage.sources.inspector
honest = storage.sources.inspector._look
def look(file, wish):
    beyond = wish["bytes"] * len(wish["files"]) > storage.sources.inspection.FIRST_VALUES
    if beyond and file["path"].endswith("bad.nc"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return honest(file, wish)
storage.sources.inspector._look = look
storage.sources.inspector.main()
"""


@pytest.fixture
def deadly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that start now die when they load values."""
    place = {"place": "flows.stages.ingest.ingest:_loaded", "action": "kill"}
    faults = [{**place, "marker": str(tmp_path / f"death-{n}")} for n in range(DEATHS)]
    monkeypatch.setenv("SPHERESCORE_FAULTS", json.dumps({"faults": faults}))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SITE), str(ROOT)]))
    monkeypatch.setattr(inspection, "CHILD", (sys.executable, "-c", CHILD))


@pytest.mark.parametrize(
    ("second", "error", "said"),
    [
        ("bad.nc", SourceError, r"bad\.nc broke the process .* it died of SIGSEGV"),
        ("good.nc", WorkersLost, "its workers died 4 times"),
    ],
)
def test_the_file_that_kills_workers_is_named_and_no_honest_one(
    deadly: None,
    table: dict[str, Any],
    quiet: Progress,
    tmp_path: Path,
    second: str,
    error: type[Exception],
    said: str,
) -> None:
    half = regular().sizes["time"] // 2
    first, rest = regular().isel(time=slice(half)), regular().isel(time=slice(half, None))
    table["source"] = {
        "paths": [write(tmp_path, first, "a.nc"), write(tmp_path, rest, second)],
        "variables": ["ta"],
    }
    on_first_days(table)
    config = RunConfig.from_dict(table)
    with (
        local_client(Cluster(workers=1), tmp_path / "scratch") as client,
        pytest.raises(error, match=said),
    ):
        ingest.run(config, config.layout, client, quiet)
    assert len(list(tmp_path.glob("death-*"))) == 4
    assert not config.layout.name("fields").exists()
