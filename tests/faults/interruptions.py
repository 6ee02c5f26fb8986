"""Ctrl-C in a terminal, and SIGTERM as `timeout`, systemd and Slurm send it, reach all processes of
a run at once: its workers and the embedded Prefect server, too. The run ends within seconds, in
every stage, and nothing of it is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from flows.config.schema import RunConfig
from flows.run import up_to_date
from flows.stages.base import STAGES
from tests.small import small_table

SECONDS = 30.0  # within which it has ended, on a machine that is busy with other things
NUMBERS = (signal.SIGINT, signal.SIGTERM)
MARK = "SPHERESCORE_TESTED"


def lane(directory: Path) -> dict[str, Any]:
    """Both signals, in every stage."""
    slowest, bad = 0.0, list[str]()
    for first in range(len(NUMBERS)):
        (own := directory / str(first)).mkdir()
        seconds, wrong = signalled(own, first)
        slowest, bad = max(slowest, seconds), bad + wrong
    said = f"SIGINT and SIGTERM to the group; the slowest run had ended after {slowest:.0f} s"
    return {"tried": len(NUMBERS) * len(STAGES), "bad": bad, "said": said}


def signalled(directory: Path, first: int) -> tuple[float, list[str]]:
    """One run, signalled in each of its stages in turn and begun again; what was wrong.

    Args:
        first: Which of the two signals is the one of the first stage; then they take turns.
    """
    table, file = small_table(directory), directory / "run.toml"
    file.write_text(_toml(table))
    read, slowest, bad = RunConfig.from_dict(table), 0.0, list[str]()
    for index, stage in enumerate(STAGES):
        number = NUMBERS[(first + index) % 2]
        code, seconds, said, left = interrupted(str(file), stage.name, number)
        slowest = max(slowest, seconds)
        laws = {
            f"ended with {code}": code == 128 + number,
            f"took {seconds:.0f} s": seconds < SECONDS,
            f"left {left}": not left,
            "said nothing": "interrupted; finished units are safe" in said,
            "went on without Prefect": "goes on without it" not in said,
            "lost what was published": len(up_to_date(read, read.layout)) >= index,
        }
        where = f"{number.name} in {stage.name}"
        bad += [f"{where}: {wrong}\n{said[-2000:]}" for wrong, holds in laws.items() if not holds]
    return slowest, bad


def _toml(table: dict[str, Any]) -> str:
    """Tables of plain values as TOML, whose values are those of JSON."""
    lines = []
    for section, values in table.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines)


def interrupted(config: str, stage: str, number: int) -> tuple[int, float, str, list[str]]:
    """Run, and signal the group when a stage has begun.

    Returns:
        The exit code, the seconds that it took, what was said, and processes that are left.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    with subprocess.Popen(
        [sys.executable, "-m", "flows.cli.main", "run", config],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment | {MARK: config},
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if f"{stage}: starts" in line:
                break
        time.sleep(1.5)
        began = time.monotonic()
        os.killpg(process.pid, number)
        try:
            said += process.communicate(timeout=120)[0]
        finally:
            seconds = time.monotonic() - began
            process.kill()
    return process.returncode, seconds, said, _still_there(config)


def _still_there(config: str) -> list[str]:
    """What a run of this configuration has left running, ten seconds after it."""
    deadline = time.monotonic() + 10
    while (found := _marked(config)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def _marked(config: str) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == config:
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return found
