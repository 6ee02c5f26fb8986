"""A process of its own: it reports, it ends with its parent, and what ends it is said."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.errors import Stalled, WorkersLost
from flows.processes import child
from flows.processes.child import ChildFailed, OutOfMemory, call
from flows.progress import Progress
from tests.services import until

ME = "tests.flows.processes.test_child"


def add(arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    for done in range(3):
        progress(done + 1, 3, "step")
    logging.getLogger("spherescore").info("half of %d", 42)
    logging.getLogger("storage.training.checkpoints").warning("a state is not used")
    return {"sum": arguments["a"] + arguments["b"], "torch": "torch" in sys.modules}


def fail(arguments: dict[str, Any], progress: Progress) -> None:
    if arguments["how"] == "disk":
        raise OSError(28, "No space left on device")
    if arguments["how"] == "memory":
        raise MemoryError("too much")
    if arguments["how"] == "ours":
        raise ChildFailed("the loss is nan", 50)
    raise KeyError("nobody foresaw this")


def hang(arguments: dict[str, Any], progress: Progress) -> None:
    progress(0, 1, str(os.getpid()))
    if arguments.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)


def die(arguments: dict[str, Any], progress: Progress) -> None:
    counter = arguments.get("counter")
    if counter:
        Path(counter).write_text("oom_kill 8\n")
    os.kill(os.getpid(), arguments["signal"])


def test_a_child_returns_what_it_found_and_is_heard(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("spherescore"), "propagate", True)
    told: list[tuple[int, int, str]] = []
    with caplog.at_level(logging.INFO):
        found = call(f"{ME}:add", {"a": 1, "b": 2}, lambda *said: told.append(said))
    assert found == {"sum": 3, "torch": False}
    assert told == [(1, 3, "step"), (2, 3, "step"), (3, 3, "step")]
    assert ("spherescore", logging.INFO, "half of 42") in caplog.record_tuples
    assert (
        "storage.training.checkpoints",
        logging.WARNING,
        "a state is not used",
    ) in caplog.record_tuples


def test_what_a_child_raises_keeps_its_words_and_its_code(quiet: Progress) -> None:
    with pytest.raises(ChildFailed, match="the loss is nan") as ours:
        call(f"{ME}:fail", {"how": "ours"}, quiet)
    assert ours.value.exit_code == 50
    with pytest.raises(OSError, match="No space left") as full:
        call(f"{ME}:fail", {"how": "disk"}, quiet)
    assert full.value.errno == 28
    with pytest.raises(MemoryError, match="too much"):
        call(f"{ME}:fail", {"how": "memory"}, quiet)
    with pytest.raises(ChildFailed, match=r"KeyError.*nobody foresaw") as other:
        call(f"{ME}:fail", {"how": "else"}, quiet)
    assert other.value.exit_code == 1


def test_a_child_that_is_silent_too_long_is_ended(
    quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "GRACE_SECONDS", 0.5)
    told: list[str] = []
    with pytest.raises(Stalled, match="has not said a word for 2 s") as stalled:
        call(f"{ME}:hang", {"deaf": True}, lambda *said: told.append(said[2]), silence=2.0)
    assert stalled.value.exit_code == 43
    for process in told:  # on a busy machine it may not have begun
        assert not psutil.pid_exists(int(process))


def test_a_child_killed_for_want_of_memory_is_said_so(
    quiet: Progress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = tmp_path / "vmstat"
    counter.write_text("pgfault 3\noom_kill 7\n")
    monkeypatch.setattr(child, "COUNTERS", (counter, tmp_path / "absent"))
    killed = {"signal": signal.SIGKILL, "counter": str(counter)}
    with pytest.raises(OutOfMemory, match=r"no memory left.*lower train\.batch") as short:
        call(f"{ME}:die", killed, quiet)
    assert short.value.exit_code == 41
    with pytest.raises(WorkersLost, match=r"ended with signal 9 \(SIGKILL\)") as lost:
        call(f"{ME}:die", {"signal": signal.SIGKILL}, quiet)
    assert lost.value.exit_code == 40


def test_a_child_ends_with_an_interrupted_parent() -> None:
    told: list[int] = []

    def interrupt(done: int, total: int, text: str) -> None:
        told.append(int(text))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call(f"{ME}:hang", {}, interrupt)
    assert not psutil.pid_exists(told[0])


def test_a_child_dies_with_a_killed_parent() -> None:
    tell = "lambda *said: print(said[2], flush=True)"
    code = f"from flows.processes.child import call; call('{ME}:hang', {{}}, {tell})"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        process = psutil.Process(int(parent.stdout.readline()))
        assert os.getpgid(process.pid) == process.pid
        parent.kill()
        parent.wait()
    until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
