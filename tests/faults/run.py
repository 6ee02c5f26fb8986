"""Every lane of faults in full.

    python -m tests.faults.run [LANE ...]

A lane tries faults of one sort and counts those after which anything is wrong. What it found goes
to build/faults.json (lane -> tried, bad, and what it says) and into the table of
docs/reliability.md. Exit status 1 if anything is bad. `make test` runs a fast part of each lane.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.faults import (
    crashes,
    flips,
    hostile,
    interruptions,
    kills,
    objects,
    poor,
    progress,
    readers,
    roots,
    space,
    trainings,
)
from tests.faults.operations import OPERATIONS

ROOT = Path(__file__).resolve().parents[2]
RESULTS, PAGE = ROOT / "build" / "faults.json", ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- faults:begin -->", "<!-- faults:end -->"

Lane = Callable[[Path], dict[str, Any]]  # -> tried, bad (sentences), said


def crash_points(modes: tuple[str, ...], step: int = 1) -> Lane:
    """One fault at every change of a file, or at each `step`-th, in every operation."""

    def lane(directory: Path) -> dict[str, Any]:
        crashes.compiled(directory)
        jobs = [(name, mode) for name in OPERATIONS for mode in modes]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = list(pool.map(lambda job: crashes.run([(*job, 1, step)], directory)[0], jobs))
        points = {name: one["calls"] for (name, _), one in zip(jobs, found, strict=True)}
        return {
            "tried": sum(one["tried"] for one in found),
            "bad": [
                f"{name}, {sentence}"
                for (name, _), one in zip(jobs, found, strict=True)
                for sentence in one["bad"]
            ],
            "said": "points: " + ", ".join(f"{name} {count}" for name, count in points.items()),
        }

    return lane


LANES: dict[str, tuple[str, Lane]] = {
    "hostile input": ("inputs that are hostile or broken, and benign twins", hostile.lane),
    "crash points": ("killed before every change of a file", crash_points(("killed",))),
    "power failures": (
        "the same, and what was not fsynced is empty, or its name gone too",
        crash_points(("torn", "lost")),
    ),
    "two processes in a power failure": (
        "one killed before each third change of a file; a second goes on, then the power fails",
        crash_points(("heirs",), step=3),
    ),
    "failing disk": (
        "no space from every change on, or one call fails",
        crash_points(("full", "failing")),
    ),
    "object storage": (
        "a wire to an S3 server that stalls, breaks, answers 500, loses answers, at every request",
        objects.lane,
    ),
    "runs killed": ("SIGKILL to the whole process group at random times", kills.runs_killed),
    "workers killed": ("six places of a unit, in three stages", kills.workers_killed),
    "sequences killed": (
        "a worker in its second unit of states and of fields, and the flow alone",
        kills.sequences_killed,
    ),
    "flow killed": ("SIGKILL to the process of flow and scheduler alone", kills.flow_killed),
    "interruptions": (
        "SIGINT and SIGTERM to the process group, in every stage",
        interruptions.lane,
    ),
    "relative roots": (
        "a run whose root is relative, under seven spellings of it",
        roots.lane,
    ),
    "zombies": ("workers stopped in a unit, going on after its publication", kills.zombies),
    "Prefect": ("server killed, database deleted, two runs at once", kills.prefect_lost),
    "worker counts": ("1 and 4 workers instead of 2", kills.worker_counts),
    "trainings killed": ("at every phase of a state and of the end", trainings.trainings_killed),
    "flipped bits": ("one bit of one file", flips.flipped_bits),
    "missing files": ("one file of an artifact removed", flips.missing_files),
    "a kill every 15 s": (
        "of a worker, and of the whole run, for two minutes each",
        progress.killed_every_fifteen_seconds,
    ),
    "memory": ("a unit takes ever more memory", progress.too_little_memory),
    "hung unit": ("a unit never returns", progress.hung_unit),
    "poor disks": ("no links, no locks, nothing may be written by who reads", poor.poor_disks),
    "swapped names": (
        "the name led elsewhere before each read of readers that stay open",
        readers.swapped_names,
    ),
    "leases": ("`clean` while `check` or `export` stands still in the middle", readers.leases),
    "disk full": ("no bytes or no inodes left, in every stage", space.disk_full),
}


def main(names: list[str]) -> int:
    if unknown := set(names) - set(LANES):
        print(f"no lane {', '.join(sorted(unknown))}; they are {', '.join(LANES)}", file=sys.stderr)
        return 2
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    for name in names or LANES:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as directory:
            try:
                found = LANES[name][1](Path(directory))
            except Exception as error:  # the next lanes are still to be run
                traceback.print_exc()
                words = f"ended with {type(error).__name__}: {error}"
                found = {"tried": 0, "bad": [words], "said": "the lane broke off"}
        found["seconds"] = round(time.monotonic() - began)
        results[name] = found
        print(f"{name}: {_row(found)} in {found['seconds']} s. {found['said']}", flush=True)
        for sentence in found["bad"][:10]:
            print(f"  {sentence}", flush=True)
        RESULTS.write_text(json.dumps(results, indent=1))
        renew(results)
    return 1 if any(results[name]["bad"] for name in names or LANES) else 0


def renew(results: dict[str, Any]) -> None:
    """Put the table into the page; lanes that were not run keep their rows."""
    page = PAGE.read_text()
    head, rest = page.split(BEGIN)
    table, tail = rest.split(END)
    before = {line.split("|")[1].strip(): line for line in table.splitlines() if "|" in line}
    rows = ["| lane | what is done | tried | bad | |", "|---|---|---|---|---|"]
    for name, (text, _) in LANES.items():
        found = results.get(name)
        if found is None:
            rows.append(before.get(name, f"| {name} | {text} | not run yet | | |"))
        else:
            tried, bad = found["tried"], len(found["bad"])
            rows.append(f"| {name} | {text} | {tried} | {bad} | {found['said']} |")
    PAGE.write_text("\n".join([head + BEGIN, "", *rows, "", END + tail]))


def _row(found: dict[str, Any]) -> str:
    return f"{found['tried']} tried, {len(found['bad'])} bad"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
