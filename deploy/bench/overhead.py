"""What the machinery costs: the demonstration, a small run, a run with nothing to do, the help.

The small run is that of deploy/configs/demo.toml with a training of a few steps and few draws, so
what is not in a stage (Prefect, clusters that start, imports) weighs more than in the real one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy.bench import stores
from deploy.bench.rivals import ROOT
from deploy.bench.rows import Row
from deploy.bench.timing import in_turns, timed

DEMO = Row(row="the demonstration", rival="sum of its stages", unit="s", goal=0.9)
SHARE = Row(row="a small run of all stages", rival="sum of its stages", unit="s", goal=0.9)
NO_OP = Row(row="a run with nothing to do", rival="limit", unit="s", goal=1.0)
HELP = Row(row="spherescore --help", rival="limit", unit="s", goal=1.0)
ROWS = (DEMO, SHARE, NO_OP, HELP)
NO_OP_SECONDS, HELP_SECONDS = 5.0, 0.5


def measure(quick: bool) -> Iterator[Row]:
    (seconds,) = in_turns(timed(lambda: _command("--help")), seconds=0, quick=quick)
    yield HELP.measured(seconds, HELP_SECONDS)
    with stores.workshop() as shop:
        small = shop / "small.toml"
        small.write_text(_small_demo(shop / "small", steps=2 if quick else 100), encoding="utf-8")
        yield _shared(SHARE, small)
        (seconds,) = in_turns(
            timed(lambda: _command("run", str(small), "--json")), least=1, seconds=0
        )
        yield NO_OP.measured(seconds, NO_OP_SECONDS)
        if not quick:
            whole = shop / "demo.toml"
            whole.write_text(_written(_demo(shop / "demo")), encoding="utf-8")
            yield _shared(DEMO, whole)


def _shared(row: Row, config: Path) -> Row:
    """Wall time of a run from nothing against the seconds that its stages say they took."""
    said: dict[str, Any] = {}
    wall = timed(lambda: said.update(_command("run", str(config), "--json")))()
    inside = sum(stage["seconds"] for stage in said["stages"].values())
    note = f"{wall - inside:.1f} s outside of stages"
    return row.measured(wall, inside, limit_share=inside / wall, note=note)


def _demo(root: Path) -> dict[str, Any]:
    table = tomllib.loads((ROOT / "deploy/configs/demo.toml").read_text(encoding="utf-8"))
    table["run"]["root"] = str(root)
    return table


def _small_demo(root: Path, steps: int) -> str:
    table = _demo(root)
    table["train"] = {"steps": steps}
    table["generate"]["realizations"] = 8
    table["verify"] = {"dates": 16, "realizations": 4}
    return _written(table)


def _written(table: dict[str, Any]) -> str:
    lines = []
    for section, values in table.items():
        lines += [f"[{section}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


def _command(*arguments: str) -> dict[str, Any]:
    """The JSON object that the command ends with, if asked for; its error is ours."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli.main", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"spherescore {' '.join(arguments)}: {done.stderr[-300:]}")
    return json.loads(done.stdout.splitlines()[-1]) if "--json" in arguments else {}
