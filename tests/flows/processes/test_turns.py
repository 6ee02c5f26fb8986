"""Runs that nobody watches do not overlap in a root."""

import subprocess
import sys
import time
from pathlib import Path

from flows.processes.turns import turn
from storage.artifacts.layout import StoreLayout

HOLDER = """
import sys, time
from flows.processes.turns import turn
from storage.artifacts.layout import StoreLayout
with turn(StoreLayout(sys.argv[1])):
    print("begun", flush=True)
    time.sleep(60)
"""


def test_a_run_waits_for_the_one_that_is_at_work_and_not_for_a_dead_one(tmp_path: Path) -> None:
    root = tmp_path / "run"
    with turn(StoreLayout(str(tmp_path / "another"))):  # of another root: nobody waits
        command = [sys.executable, "-c", HOLDER, str(root)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
            assert first.stdout is not None and first.stdout.readline() == "begun\n"
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as second:
                time.sleep(3.0)
                assert first.poll() is None and second.poll() is None
                first.kill()
                assert second.stdout is not None and second.stdout.readline() == "begun\n"
                second.kill()
    with turn(StoreLayout(str(root))):
        assert (root / ".turn").exists()
