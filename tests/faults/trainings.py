"""A training that is killed at every phase of a state and of its end, and goes on."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from storage.artifacts import audit
from tests.faults.runs import Run, World

Found = dict[str, Any]
NETWORK = {
    "train": {"model": "network", "steps": 26, "width": 8, "blocks": 1, "batch": 8},
    "split": {"validation": ["2001-09-01", "2001-09-30"]},  # few fields: it validates often
}
PHASES = {  # place, when, which call, text in the arguments
    "before a state is saved": ("storage.training.checkpoints:save", "before", 3, ""),
    "after its numbers": ("storage.places.files:write_new", "after", 4, "tensors"),
    "after its description": ("storage.places.files:write_new", "after", 5, "meta.json"),
    "before it is on disk": ("storage.places.files:make_tree_durable", "before", 6, "step-"),
    "after it has its name": ("storage.places.files:write_directory", "after", 7, "step-"),
    "after older ones went": ("storage.training.checkpoints:save", "after", 8, ""),
    "before the last state": ("storage.training.checkpoints:save", "before", 1, "step"),
    "before the end is published": ("storage.training.checkpoints:publish", "before", 1, ""),
    "while older states are removed": ("storage.training.checkpoints:remove", "after", 1, ""),
    "before the manifest": ("storage.artifacts.publishing:write_json", "before", 1, "manifest"),
    "before its publication": ("storage.artifacts.publishing:write_file_once", "before", 1, ""),
    "before its name": ("storage.artifacts.publishing:point", "before", 1, "checkpoints"),
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
    digests, chosen = golden.digests(), list(phases)

    def killed(phase: str) -> list[str]:
        place, when, call, within = PHASES[phase]
        run, wrong = _copy(world, base, phase.replace(" ", "-")), list[str]()
        fault = {"place": place, "when": when, "call": call, "within": within}
        run.faults = [{**fault, "action": "kill group"}]
        if run.finish("train") == 0 or not run.happened():
            wrong.append(f"it was not killed: {run.last_words()}")
        wrong += audit.check(run.layout)
        if code := run.finish("train"):
            wrong.append(f"resumed, it ends with {code}: {run.last_words()}")
        wrong += run.complaints(digests)
        if run.gone_within(30) is None:
            wrong.append(f"still alive: {run.clear()}")
        shutil.rmtree(run.root)
        return [f"{phase}: {sentence}" for sentence in wrong]

    with ThreadPoolExecutor(2) as pool:
        bad = [sentence for found in pool.map(killed, chosen) for sentence in found]
    return {
        "tried": len(chosen),
        "bad": bad,
        "said": "the same weights each time, bit for bit",
    }


def _copy(world: World, base: Run, name: str) -> Run:
    run = world.run(name)
    shutil.copytree(base.root, run.root, symlinks=True)
    run.settings = {
        "flows.stages.train.session:SECONDS_BETWEEN_STATES": 0.0,
        "flows.stages.train.session:MATCHED": 8,
    }
    return run
