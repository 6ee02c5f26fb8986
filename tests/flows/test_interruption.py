"""An interruption wins, whatever goes on. `make faults` tries both signals in every stage."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.interruptions import signalled


@pytest.mark.long
def test_a_signal_to_the_group_ends_a_run_in_every_stage(tmp_path: Path) -> None:
    assert signalled(tmp_path, 0)[1] == []


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


HURRIED = """
import time
from flows.processes.signals import ending_within, hurry, take_over

take_over()
with ending_within(50.0, lambda number: print("last words", number, flush=True)):
    try:
        print("begun", flush=True)
        time.sleep(60)
    finally:
        hurry()
        time.sleep(60)
"""


def test_what_is_not_ours_has_little_time_once_ours_is_left() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HURRIED], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    assert time.monotonic() - began < 20
    assert (process.returncode, said) == (143, "last words 15\n")


SLOW_TO_END = """
import atexit, sys, time
from flows.cli import commands, main

def run(arguments):
    print("begun", flush=True)
    time.sleep(60)

commands.run, main.PATIENCE = run, 2.0
atexit.register(time.sleep, 60)  # as closing what libraries have started on a busy machine
sys.exit(main.main(["run", "my.toml"]))
"""


def test_an_interruption_is_said_once_however_long_python_takes_to_end() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_TO_END],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "spherescore: interrupted; finished units are safe, run again to go on\n"
