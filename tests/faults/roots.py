"""A root is a place, however it is spelled: a whole run whose root is relative, looked at from
other directories, through a link, with a slash at its end, and run again under each spelling."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from flows.stages.base import STAGES
from tests.faults.runs import ROOT
from tests.small import small_table

MADE_AS = "runs/a"


def lane(directory: Path) -> dict[str, Any]:
    """Every spelling finds all stages up to date, does nothing again and loses nothing."""
    home = directory / "home"
    (home / "deep/er").mkdir(parents=True)
    (directory / "link").symlink_to(home)
    spellings = [
        (home, MADE_AS),
        (home, f"./{MADE_AS}/"),
        (home, str(home / MADE_AS)),
        (home, f"deep/../{MADE_AS}"),
        (home / "deep/er", f"../../{MADE_AS}"),
        (directory, f"link/{MADE_AS}"),
        (directory, f"{directory / 'link' / MADE_AS}/"),
    ]
    table, bad = small_table(directory), list[str]()
    for number, (where, root) in enumerate(spellings):
        table["run"]["root"] = root
        config = directory / f"{number}.toml"
        lines = []
        for section, values in table.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(v)}" for key, v in values.items())]
        config.write_text("\n".join(lines))
        bad += [f"{root} from {where}: {one}" for one in wrong(config, where, first=number == 0)]
    return {"tried": len(spellings), "bad": bad, "said": f"a run made as {MADE_AS}"}


def wrong(config: Path, where: Path, *, first: bool) -> list[str]:
    """What a spelling of the root gets wrong; the first one makes the run."""
    found = []
    done = _said("run", config, where)
    if done["nothing_to_do"] == first:
        found.append("the run was made again" if not first else "there was a run before")
    for _ in range(2):
        states = [one["state"] for one in _said("status", config, where)["stages"].values()]
        if states != ["up to date"] * len(STAGES):
            found.append(f"status says {states}")
        if removed := _said("clean", config, where, "--yes")["paths"]:
            found.append(f"clean removed {removed}")
    if problems := _said("check", config, where)["problems"]:
        found.append(f"check says {problems}")
    return found


def _said(command: str, config: Path, where: Path, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli.main", command, str(config), "--json", *options],
        cwd=where,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))
