"""Nothing that a run has started outlives it, however it ends."""

import os
import signal
import subprocess
import sys
import time

import psutil

from flows.processes import watchdog as orphans

RUN = """
import os, subprocess, sys, time
from flows.processes.watchdog import watched
with watched():
    child = [sys.executable, "-c", "import os, time; os.setsid(); print('up', flush=True); "
             "time.sleep(600)"]
    one = subprocess.Popen(child, stdout=subprocess.PIPE)
    one.stdout.readline()
    print(one.pid, flush=True)
    if sys.argv[1] == "wait":
        time.sleep(600)
    one.kill()
"""


def started(how: str) -> tuple[subprocess.Popen[str], psutil.Process]:
    command = [sys.executable, "-c", RUN, how]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert run.stdout is not None
    return run, psutil.Process(int(run.stdout.readline()))


def test_children_of_a_killed_run_end_even_in_sessions_of_their_own() -> None:
    run, child = started("wait")
    began = time.monotonic()
    run.send_signal(signal.SIGKILL)
    run.wait()
    gone, _ = psutil.wait_procs([child], timeout=60)
    assert gone
    assert time.monotonic() - began < 60


def test_a_run_that_ends_in_order_ends_its_watcher() -> None:
    run, _ = started("end")
    watchers = [
        p for p in psutil.Process(run.pid).children() if "flows.processes.watchdog" in str(p)
    ]
    assert run.wait(60) == 0
    _, alive = psutil.wait_procs(watchers, timeout=60)
    assert not alive


def test_runs_inside_runs_have_marks_of_their_own(monkeypatch) -> None:
    monkeypatch.delenv(orphans.MARK, raising=False)
    with orphans.watched():
        outer = os.environ[orphans.MARK]
        with orphans.watched():
            assert os.environ[orphans.MARK] != outer
        assert os.environ[orphans.MARK] == outer
    assert orphans.MARK not in os.environ
