"""Whole runs of a small world, started as users start them, and what is found afterwards.

The world is noise on 8 x 16 cells with a Gaussian model, so that a run is mostly the machinery that
is to be tried: processes, units, records, publications.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import xarray as xr

from storage.artifacts import audit
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import KINDS, StoreLayout, record_of

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(__file__).with_name("site")
DAYS = 360
SECONDS = 600  # no run takes longer, be the machine ever so busy
MARK = "SPHERESCORE_FAULTS_RUN"


def write_source(path: Path) -> None:
    """Noise of two variables on a small grid, the same each time."""
    noise = np.random.default_rng(0).standard_normal((2, DAYS, 8, 16)).astype(np.float32)
    described = {
        "z": (5000 + 10 * noise[0], {"standard_name": "geopotential_height", "units": "m"}),
        "ta": (280 + noise[1] + noise[0], {"standard_name": "air_temperature", "units": "K"}),
    }
    days = np.datetime64("2001-01-01", "ns") + np.arange(DAYS) * np.timedelta64(1, "D")
    xr.Dataset(
        {name: (("time", "lat", "lon"), *one) for name, one in described.items()},
        coords={
            "time": days,
            "lat": ("lat", 78.75 - 22.5 * np.arange(8), {"units": "degrees_north"}),
            "lon": ("lon", 22.5 * np.arange(16), {"units": "degrees_east"}),
        },
        attrs={"title": "noise"},
    ).to_netcdf(path)


@dataclass
class World:
    """A source and a configuration; every run of it has a root of its own below `base`."""

    base: Path
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.base.mkdir(parents=True, exist_ok=True)
        if not (self.base / "source.nc").exists():
            write_source(self.base / "source.nc")

    def run(self, name: str, **changes: Mapping[str, Any]) -> Run:
        """A run that is not started yet.

        Args:
            changes: to sections of the configuration.
        """
        table: dict[str, dict[str, Any]] = {
            "run": {"root": str(self.base / name)},
            "source": {"paths": [str(self.base / "source.nc")], "variables": ["z", "ta"]},
            "split": {
                "train": ["2001-01-01", "2001-06-30"],
                "validation": ["2001-07-01", "2001-09-30"],
                "test": ["2001-10-01", "2001-12-20"],
            },
            "spectral": {"lmax": 5},
            "train": {"model": "gaussian:m-block"},
            "generate": {
                "realizations": 8,
                "batch": 2,
                "times": ["2001-03-01", "2001-04-01"],
            },
            "verify": {"dates": 4, "realizations": 4},
            "cluster": {"workers": 2},
        }
        for section, values in [*self.sections.items(), *changes.items()]:
            table[section] = {**table.get(section, {}), **values}
        path = self.base / f"{name}.toml"
        lines = []
        for section, values in table.items():
            lines += [f"[{section}]", *(f"{key} = {_toml(v)}" for key, v in values.items())]
        path.write_text("\n".join(lines))
        return Run(path, Path(table["run"]["root"]), self.base / f"{name}.aside")


def _toml(value: Any) -> str:
    """A plain value as TOML has it: tables inline, all else as in JSON."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml(item)}' for key, item in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)


@dataclass
class Run:
    """The processes of one root, one after the other.

    Attributes:
        aside: directory for markers, journal and output.
        environment: what its processes have besides.
    """

    config: Path
    root: Path
    aside: Path
    settings: dict[str, Any] = field(default_factory=dict)
    faults: list[dict[str, Any]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def layout(self) -> StoreLayout:
        return StoreLayout(str(self.root))

    def start(self, command: str = "run", *options: str) -> subprocess.Popen[bytes]:
        """Start `spherescore` in a process group of its own."""
        self.aside.mkdir(parents=True, exist_ok=True)
        orders = {
            "journal": str(self.aside / "journal"),
            "zombies": str(self.aside / "zombies"),
            "settings": self.settings,
            "faults": [
                {"marker": str(self.aside / f"fault-{number}"), **fault}
                for number, fault in enumerate(self.faults)
            ],
        }
        path = os.pathsep.join([str(SITE), str(ROOT)])
        environment = os.environ | {
            "PYTHONPATH": path,
            "SPHERESCORE_FAULTS": json.dumps(orders),
            "SPHERESCORE_CACHE": str(self.config.parent / "cache"),
            "OMP_NUM_THREADS": "1",  # two runs at once would wait for each other's threads
            MARK: str(self.root),
            **self.environment,
        }
        environment.pop("PREFECT_HOME", None)
        with (self.aside / "output").open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows.cli.main", command, str(self.config), *options],
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=self.config.parent,
            )
        return self.process

    def wait(self, seconds: float = SECONDS) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def finish(self, command: str = "run", *options: str) -> int:
        """Start, or start again, and wait for the end; its exit code."""
        self.start(command, *options)
        return self.wait()

    def kill(self) -> None:
        """SIGKILL to the whole process group."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def output(self) -> str:
        return (self.aside / "output").read_text(errors="replace")

    def last_words(self) -> str:
        return " | ".join(self.output().splitlines()[-3:])[-600:]

    def happened(self) -> int:
        """How many of the faults have happened."""
        return len(list(self.aside.glob("fault-*")))

    def processes(self) -> list[psutil.Process]:
        """What is alive of all that this root has ever started, wherever it went."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == str(
                    self.root
                ):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def gone_within(self, seconds: float) -> float | None:
        """Seconds until nothing of the run is alive, None if something is after `seconds`."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            if not self.processes():
                return time.monotonic() - began
            time.sleep(0.1)
        return None

    def clear(self) -> list[str]:
        """Kill what is left; its command lines."""
        left = self.processes()
        said = []
        for process in left:
            try:
                said.append(" ".join(process.cmdline())[:80])
                process.kill()
            except psutil.Error:
                continue
        return said

    def digests(self) -> dict[str, str]:
        """The digest of what each name leads to; of the report, its scores without the times."""
        found = {kind: artifacts.published(self.layout, kind) for kind in KINDS}
        named = {kind: one.digest for kind, one in found.items() if one is not None}
        if "report" in named:
            card = json.loads(self.layout.scores.read_text())
            del card["provenance"]["seconds"]
            card["provenance"]["config"].pop("run")
            card["provenance"]["config"].pop("source")
            card["provenance"]["config"].pop("cluster", None)
            named["report"] = artifacts.content_key(
                stage="", schema=0, config={"card": json.dumps(card)}, inputs={}, code=""
            )
        return named

    def records(self) -> dict[str, tuple[int, int]]:
        """Every unit's record: its inode and time, which change if the unit is done again."""
        found = {}
        artifacts = self.layout.artifacts
        for path in (
            *artifacts.glob("*.records/*-*-*.json"),
            *artifacts.glob("*.records/*/*.json"),
        ):
            status = path.stat()
            place = path.relative_to(artifacts).as_posix()
            found[place] = (status.st_ino, status.st_mtime_ns)
        return found

    def attempts(self) -> dict[str, int]:
        """How often each unit was begun, by its journal."""
        journal, counts = self.aside / "journal", dict[str, int]()
        for line in journal.read_text().splitlines() if journal.exists() else []:
            unit, what = line.rsplit(" ", 1)
            if what == "begins":
                name = Path(unit)
                place = record_of(Path(name.parent.name), name.name).as_posix()
                counts[place] = counts.get(place, 0) + 1
        return counts

    def complaints(self, golden: Mapping[str, str]) -> list[str]:
        """What is wrong at the end of a run that went through."""
        wrong = list(audit.check(self.layout))
        mine = self.digests()
        wrong += [f"{k} has another digest" for k in golden if mine.get(k) != golden[k]]
        for path in self.layout.artifacts.rglob(".*"):
            if path.parent.suffix != ".records" and "scratch" not in path.parts:
                wrong += [f"litter in the store: {path.name}"] if path.parent.suffix else []
        return wrong


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False
