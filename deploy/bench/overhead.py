"""What the machinery costs: a whole small run, a run with nothing to do, the command's help.

The run is that of deploy/configs/demo.toml with a training of a few steps and few draws, so what is
not in a stage (Prefect, clusters that start, imports) weighs more than in the real one.
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

SHARE = Row(row="a small run of all stages", rival="sum of its stages", unit="s", goal=0.9)
NO_OP = Row(row="a run with nothing to do", rival="limit", unit="s", goal=1.0)
HELP = Row(row="spherescore --help", rival="limit", unit="s", goal=1.0)
ROWS = (SHARE, NO_OP, HELP)
NO_OP_SECONDS, HELP_SECONDS = 5.0, 0.5


def measure(quick: bool) -> Iterator[Row]:
    (seconds,) = in_turns(timed(lambda: _command("--help")), seconds=0, quick=quick)
    yield HELP.measured(seconds, HELP_SECONDS)
    with stores.workshop() as shop:
        path = shop / "small.toml"
        path.write_text(_small_demo(shop / "run", steps=2 if quick else 100), encoding="utf-8")
        said: dict[str, Any] = {}
        wall = timed(lambda: said.update(_command("run", str(path), "--json")))()
        inside = sum(stage["seconds"] for stage in said["stages"].values())
        note = f"{wall - inside:.1f} s outside of stages"
        yield SHARE.measured(wall, inside, limit_share=inside / wall, note=note)
        (seconds,) = in_turns(
            timed(lambda: _command("run", str(path), "--json")), least=1, seconds=0
        )
        yield NO_OP.measured(seconds, NO_OP_SECONDS)


def _small_demo(root: Path, steps: int) -> str:
    table = tomllib.loads((ROOT / "deploy/configs/demo.toml").read_text(encoding="utf-8"))
    table["run"]["root"] = str(root)
    table["train"] = {"steps": steps}
    table["generate"]["realizations"] = 8
    table["verify"] = {"dates": 16, "realizations": 4}
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
        [sys.executable, "-m", "flows.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"spherescore {' '.join(arguments)}: {done.stderr[-300:]}")
    return json.loads(done.stdout.splitlines()[-1]) if "--json" in arguments else {}
