"""Disks that cannot do all that a disk should: no links, no locks, no writing for a reader.

    python -m tests.faults.poor ROOT

does every operation of operations.py below ROOT, twice where a second one replaces the first, and
prints the digests of each and what is wrong. To be started by `operations`, with a poor disk
(disk.c) in front of libc.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from storage.artifacts.lock import in_use
from storage.errors import RootInUse
from tests.faults.crashes import ROOT, compiled
from tests.faults.kills import undisturbed
from tests.faults.operations import OPERATIONS, PAGES, digests, key_of
from tests.faults.runs import World

Found = dict[str, Any]
ALL = "links renames symlinks locks directories"
LACKING = ("links", "links renames", "symlinks", "locks", "directories", ALL)
READING = ("check", "status", "runs", "plan", "export")


def poor(lacks: str, root: Path, directory: Path) -> dict[str, str]:
    """The environment of a process for which the disk below `root` lacks these."""
    library = str(compiled(directory))
    return {"LD_PRELOAD": library, "DISK_ROOT": str(root), "DISK_LACKS": lacks}


def operations(lacks: str, directory: Path) -> dict[str, Any]:
    """Digests of all operations on such a disk, and what is wrong, in words."""
    root = directory / (lacks.replace(" ", "-") or "rich")
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.poor", str(root)],
        env=os.environ | poor(lacks, root, directory) | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode:
        return {"digests": {}, "bad": [done.stderr.strip().splitlines()[-1]]}
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def poor_disks(directory: Path) -> Found:
    """The operations on each poor disk; a whole run on the poorest; readers who may not write."""
    rich, bad = operations("", directory), list[str]()
    for lacks in LACKING:
        found = operations(lacks, directory)
        bad += [f"no {lacks}: {one}" for one in found["bad"]]
        if found["digests"] != rich["digests"]:
            bad.append(f"no {lacks}: other bytes")
    golden, _ = undisturbed()
    run = World(directory).run("poorest")
    run.environment = poor(ALL, run.root, directory)
    for turn in ("a run", "the same run again"):
        if code := run.finish():
            bad.append(f"{turn} ends with {code}: {run.last_words()}")
        bad += [f"{turn}: {one}" for one in run.complaints(golden)]
    bad += readers(directory)
    return {
        "tried": 1 + len(LACKING) + 2 + len(READING),
        "bad": bad,
        "said": f"without {', '.join(LACKING)}: the same bytes; readers of what they may not "
        f"write: {', '.join(READING)}",
    }


def readers(directory: Path) -> list[str]:
    """Every command that reads, in the root of a run of which nothing may be written."""
    run = World(directory).run("another's")
    if code := run.finish():
        return [f"an undisturbed run ends with {code}: {run.last_words()}"]
    before, bad = _tree(run.root), list[str]()
    run.environment = poor("writing", run.root, directory)
    for command in READING:
        options = ("--to", str(directory / "out")) if command == "export" else ()
        if code := run.finish(command, *options):
            bad.append(f"{command} ends with {code}: {run.last_words()}")
        if _tree(run.root) != before:
            bad.append(f"{command} changed something")
    return bad


def _tree(root: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in sorted(root.rglob("*"))}


def _try_all(root: Path) -> dict[str, Any]:
    found, bad = {}, []
    for name, operation in OPERATIONS.items():
        layout = StoreLayout(str(root / name.replace(" ", "-")))
        operation.prepare(layout)
        with in_use(layout), in_use(layout, reading=True):
            operation.act(layout)
            operation.act(layout)
            try:
                with in_use(layout, alone=True):
                    bad.append(f"{name}: cleaned while a run is at work")
            except RootInUse:
                pass
        with in_use(layout, alone=True):
            bad += [f"{name}: {one}" for one in operation.complaints(layout, True)]
        found[name] = digests(layout)
    layout = StoreLayout(str(root / "report"))
    pages = {name: content + b" again" for name, content in PAGES.items()}
    artifacts.publish_files(layout, "report", key_of(2), pages, {})
    for name, content in pages.items():
        if (layout.path / name).read_bytes() != content:
            bad.append(f"{name} below the root is that of before")
    return {"digests": found, "bad": bad}


if __name__ == "__main__":
    print(json.dumps(_try_all(Path(sys.argv[1]))))
