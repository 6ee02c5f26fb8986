"""How much of the work is kept when something is killed every fifteen seconds.

A run draws more units than it can in the time that is watched; its records are counted. Three times
of the same length from the start of the command: nobody disturbs; a worker is killed every fifteen
seconds; the whole run is, and is started again at once.
"""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.runs import ROOT, Run, World

Found = dict[str, Any]
Curve = list[tuple[float, int]]
PICTURE = ROOT / "docs" / "images" / "kills.png"
SECONDS, INTERVAL = 120.0, 15.0
KEPT = 0.8  # of the units of an undisturbed run, when workers are killed
ENDLESS = {"generate": {"realizations": 200_000, "batch": 8, "grid": "gaussian:T31"}}


def killed_every_fifteen_seconds(
    directory: Path, seconds: float = SECONDS, picture: Path | None = PICTURE
) -> Found:
    """Units of generate that have a record after two minutes, with and without kills."""
    world, base = prepared(directory)
    return compared(world, base, seconds, picture)


def prepared(directory: Path) -> tuple[World, Run]:
    """A run up to its training."""
    world = World(directory)
    base = world.run("base")
    for stage in ("ingest", "preprocess", "train"):
        if code := base.finish(stage):
            raise RuntimeError(f"{stage} ends with {code}: {base.last_words()}")
    return world, base


def compared(world: World, base: Run, seconds: float, picture: Path | None) -> Found:
    """The three times, one after the other."""
    curves = {
        name: _watched(_copy(world, base, name), harm, seconds)
        for name, harm in (
            ("undisturbed", lambda run: None),
            ("a worker every 15 s", _kill_a_worker),
            ("the whole run every 15 s", _kill_the_run),
        )
    }
    counts = dict(curves["undisturbed"])
    whole, half = max(counts.values()), max(n for at, n in counts.items() if at < seconds / 2)
    if whole - half < 0.2 * whole:
        raise RuntimeError(
            f"undisturbed it drew {half} units in half of the time and {whole} in all"
        )
    kept = {name: curve[-1][1] / whole for name, curve in curves.items()}
    if picture is not None:
        _draw(curves, picture)
    bad = [] if kept["a worker every 15 s"] >= KEPT else ["less than 80 % with workers killed"]
    words = [f"{name}: {share:.0%}" for name, share in kept.items() if name != "undisturbed"]
    return {
        "tried": 2 * int(seconds / INTERVAL - 0.5),
        "bad": bad,
        "said": f"units kept of {whole} in {seconds:.0f} s without kills: {', '.join(words)}",
    }


def _copy(world: World, base: Run, name: str) -> Run:
    run = world.run(name.replace(" ", "-"), **ENDLESS)
    shutil.copytree(base.root, run.root, symlinks=True)
    return run


def _watched(run: Run, harm: Callable[[Run], None], seconds: float) -> Curve:
    began, curve, kills, before = time.monotonic(), [(0.0, 0)], 0, len(run.records())
    run.start("generate")
    try:
        while (now := time.monotonic() - began) < seconds:
            time.sleep(0.5)
            if now > INTERVAL * (kills + 1) and now < seconds - INTERVAL / 2:
                harm(run)
                kills += 1
            curve.append((time.monotonic() - began, len(run.records()) - before))
            if run.process is not None and run.process.poll() not in (None, -signal.SIGKILL):
                raise RuntimeError(f"generate ended by itself: {run.last_words()}")
    finally:
        run.clear()
        run.gone_within(60)
    return curve


def _kill_a_worker(run: Run) -> None:
    workers = [p for p in run.processes() if "spawn_main" in " ".join(p.cmdline())]
    if workers:
        random.Random(len(run.records())).choice(workers).send_signal(signal.SIGKILL)


def _kill_the_run(run: Run) -> None:
    run.kill()
    run.start("generate")


def _draw(curves: dict[str, Curve], picture: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(*zip(*curve, strict=True), label=name)
    axes.set(xlabel="seconds from the start of the command", ylabel="units kept")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(picture, dpi=110)


def too_little_memory(directory: Path) -> Found:
    """A unit that takes ever more memory: the workers are ended, the run says so and ends."""
    run = World(directory).run("memory", cluster={"workers": 1, "memory": "1GiB"})
    # Every worker that gets the unit meets it: one mark for each death.
    run.faults = [
        {
            "place": "storage.artifacts.units:write_unit",
            "within": "fields-",
            "action": "eat memory",
            "marker": str(run.aside / f"fault-{number}"),
        }
        for number in range(8)
    ]
    began = time.monotonic()
    code = run.finish("ingest")
    seconds, last = time.monotonic() - began, run.output().splitlines()[-1]
    bad = [] if code in (40, 41) and "memory" in last else [f"exit code {code}: {last}"]
    if run.gone_within(30) is None:
        bad.append(f"still alive: {run.clear()}")
    return {"tried": 1, "bad": bad, "said": f"exit code {code} after {seconds:.0f} s"}


def hung_unit(directory: Path) -> Found:
    """A unit that never returns: the run ends with 43 at its deadline, and takes its workers."""
    run = World(directory).run("hung", cluster={"unit_minutes": 0.25})
    run.faults = [
        {"place": "storage.artifacts.units:write_unit", "within": "fields-", "action": "hang"}
    ]
    began = time.monotonic()
    code = run.finish("ingest")
    seconds, last = time.monotonic() - began, run.output().splitlines()[-1]
    bad = [] if code == 43 else [f"exit code {code}: {last}"]
    if run.gone_within(30) is None:
        bad.append(f"still alive: {run.clear()}")
    if again := run.finish("ingest"):
        bad.append(f"run again it ends with {again}: {run.last_words()}")
    return {"tried": 1, "bad": bad, "said": f"exit code {code} after {seconds:.0f} s"}
