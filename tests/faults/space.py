"""A disk that fills up in every stage of a run, and has room again afterwards."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.faults.kills import undisturbed
from tests.faults.runs import Run, World

Found = dict[str, Any]
NO_SPACE = 30

# Where a stage is when the disk is filled: place, when, text in the arguments.
MOMENTS = {
    "ingest, template": ("storage.artifacts.templates:make_tree_durable", "before", "fields-"),
    "ingest, unit": ("storage.artifacts.units:write_unit", "before", "fields-"),
    "preprocess, normals": ("storage.artifacts.templates:write_sealed", "before", "normals-"),
    "preprocess, unit": ("storage.artifacts.units:write_unit", "before", "whitened-"),
    "train, state": ("storage.training.checkpoints:save", "before", "checkpoints-"),
    "train, publication": ("storage.training.checkpoints:publish_directory", "before", ""),
    "generate, unit": ("storage.artifacts.units:write_unit", "before", "ensemble-"),
    "generate, publication": ("storage.artifacts.publishing:write_json", "before", "ensemble-"),
    "verify, unit": ("storage.artifacts.units:write_unit", "before", "verification-"),
    "verify, report": ("storage.artifacts.publishing:write_directory_once", "before", "report-"),
}


def can_mount() -> bool:
    return os.geteuid() == 0 and Path("/proc/mounts").exists()


@contextmanager
def disk(place: Path, options: str) -> Iterator[Path]:
    """A file system in memory."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def resize(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)


def disk_full(directory: Path, moments: tuple[str, ...] = tuple(MOMENTS)) -> Found:
    """A tmpfs that is too small at first, then filled at chosen moments, by bytes or by files."""
    if not can_mount():
        return {"tried": 0, "bad": [], "said": "skipped: mounting a tmpfs needs root"}
    golden, _ = undisturbed()
    bad, tried = list[str](), 0
    small = {"bytes": ("size=256k", "size=600m"), "files": ("nr_inodes=40", "nr_inodes=20000")}
    for kind, (first, later) in small.items():
        with disk(directory / kind, first if kind == "bytes" else f"size=600m,{first}") as place:
            run = World(directory).run(f"full-{kind}", run={"root": str(place / "run")})
            tried += 1
            bad += _refused(run, run.finish(), f"{kind}, too small a disk", "Nothing was started")
            resize(place, later)
            before = ""
            for moment in moments:
                stage, where, when, within = moment.partition(",")[0], *MOMENTS[moment]
                if before not in ("", stage) and (code := run.finish(before)):
                    bad.append(f"{kind}: with room {before} ends with {code}: {run.last_words()}")
                before = stage
                fault = {"place": where, "when": when, "within": within}
                run.faults.append({**fault, "action": f"fill {place}:{kind}:0"})
                tried += 1
                happened = run.happened()
                bad += _refused(run, run.finish(stage), f"{kind}, {moment}", "writes up to")
                if run.happened() == happened:
                    bad.append(f"{kind}, {moment}: was not reached")
                subprocess.run(["rm", "-rf", place / "ballast", place / "ballasts"], check=True)
            code = run.finish()
            bad += [f"{kind}: ends with {code}: {run.last_words()}"] if code else []
            bad += [f"{kind}: {one}" for one in run.complaints(golden)]
    return {
        "tried": tried,
        "bad": bad,
        "said": "each ends with 30, what there is and what is needed; with room, golden bytes",
    }


def _refused(run: Run, code: int, moment: str, said: str) -> list[str]:
    words = run.last_words()
    if code != NO_SPACE:
        return [f"{moment}: exit code {code}: {words}"]
    last = run.output().splitlines()[-1]
    if said not in last or not any(word in last for word in ("free", "room for")):
        return [f"{moment}: it does not say both numbers: {last}"]
    return []
