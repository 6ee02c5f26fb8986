"""Ctrl-C in a terminal, and SIGTERM as `timeout`, systemd and Slurm send it, reach all processes of
a run at once: its workers and the embedded Prefect server, too. The run ends within seconds."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.config.schema import RunConfig
from flows.run import up_to_date
from tests.small import small_table

SECONDS = 30.0  # within which it has ended, on a machine that is busy with other things
STAGES = ("ingest", "preprocess", "train", "generate", "verify")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_group_ends_a_run_in_every_stage(
    number: int, tmp_path: Path, write_config: Callable[[dict[str, Any]], str]
) -> None:
    table = small_table(tmp_path)
    config = write_config(table)
    for index, stage in enumerate(STAGES):
        code, seconds, said, left = interrupted(config, stage, number)
        assert code == 128 + number, said
        assert "interrupted; finished units are safe" in said
        assert "goes on without it" not in said and "Traceback" not in said, said
        assert seconds < SECONDS, said
        assert left == []
        read = RunConfig.from_dict(table)
        assert len(up_to_date(read, read.layout)) >= index


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
        env=environment | {"SPHERESCORE_TESTED": config},
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
    while (found := list(_marked(config))) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def _marked(config: str) -> "list[str]":
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SPHERESCORE_TESTED") == config:
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return found


LOST = """
import gc, sys, time
from flows.processes.signals import take_over

class Dies:
    def __del__(self):
        print("dying", flush=True)
        time.sleep(60)

take_over()
Dies()
time.sleep(60)
"""


def test_an_interruption_that_python_drops_in_a_finalizer_is_raised_again() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LOST], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "dying\n"
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert said.count("Traceback") == 1 and "Interrupted: 15" in said


STUCK = """
import sys, time
from flows.processes.signals import ending_within, take_over

take_over()
with ending_within(float(sys.argv[1]), lambda number: print("last words", number, flush=True)):
    try:
        print("begun", flush=True)
        time.sleep(60)
    except BaseException:
        pass
    try:
        time.sleep(60)
    except BaseException:
        time.sleep(60)
"""


@pytest.mark.parametrize(("patience", "second"), [("1", False), ("50", True)])
def test_a_process_that_swallows_its_interruption_ends_all_the_same(
    patience: str, second: bool
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STUCK, patience], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        if second:
            process.send_signal(signal.SIGINT)  # an echo, as `timeout` makes it
            time.sleep(2.0)
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert process.returncode == 130
    assert said == "last words 2\n"
