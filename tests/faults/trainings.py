"""A training that is killed at every phase of a state and of its end, and goes on."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from storage import artifacts
from tests.faults.runs import Run, World

Found = dict[str, Any]
NETWORK = {"train": {"model": "network", "steps": 26, "width": 8, "blocks": 1, "batch": 8}}
PHASES = {  # place, when, which call, text in the arguments
    "before a state is saved": ("storage.checkpoints:save", "before", 3, ""),
    "after its numbers": ("storage.checkpoints:write_file", "after", 4, ""),
    "after its description": ("storage.checkpoints:write_json", "after", 5, "meta"),
    "before it is on disk": ("storage.checkpoints:make_tree_durable", "before", 6, ""),
    "after it has its name": ("storage.checkpoints:make_durable", "before", 7, ""),
    "after older ones went": ("storage.checkpoints:save", "after", 8, ""),
    "before the last state": ("storage.checkpoints:save", "before", 1, "step"),
    "before the end is published": ("storage.checkpoints:publish", "before", 1, ""),
    "while older states are removed": ("storage.checkpoints:_remove", "after", 1, ""),
    "before the manifest": ("storage.artifacts:write_json", "before", 1, "manifest"),
    "before its publication": ("storage.artifacts:write_file_once", "before", 1, ""),
    "before its name": ("storage.artifacts:point", "before", 1, "checkpoints"),
}


def trainings_killed(directory: Path, phases: Iterable[str] = tuple(PHASES)) -> Found:
    """SIGKILL to the whole group at each phase; then the training goes on."""
    world = World(directory, NETWORK)
    base = world.run("base")
    for stage in ("ingest", "preprocess"):
        if code := base.finish(stage):
            raise RuntimeError(f"{stage} ends with {code}: {base.last_words()}")
    golden = _copy(world, base, "golden")
    if code := golden.finish("train"):
        raise RuntimeError(f"an undisturbed training ends with {code}: {golden.last_words()}")
    digests, bad, tried = golden.digests(), list[str](), 0
    for phase in phases:
        place, when, call, within = PHASES[phase]
        run = _copy(world, base, phase.replace(" ", "-"))
        fault = {"place": place, "when": when, "call": call, "within": within}
        run.faults = [{**fault, "action": "kill group"}]
        tried += 1
        if run.finish("train") == 0 or not run.happened():
            bad.append(f"{phase}: it was not killed: {run.last_words()}")
        bad += [f"{phase}: {problem}" for problem in artifacts.check(run.layout)]
        if code := run.finish("train"):
            bad.append(f"{phase}: resumed, it ends with {code}: {run.last_words()}")
        bad += [f"{phase}: {one}" for one in run.complaints(digests)]
        left = run.gone_within(30)
        bad += [] if left is not None else [f"{phase}: still alive: {run.clear()}"]
        shutil.rmtree(run.root)
    return {"tried": tried, "bad": bad, "said": "the same weights each time, bit for bit"}


def _copy(world: World, base: Run, name: str) -> Run:
    run = world.run(name)
    shutil.copytree(base.root, run.root, symlinks=True)
    run.settings = {"flows.train:SECONDS_BETWEEN_STATES": 0.0}
    return run
