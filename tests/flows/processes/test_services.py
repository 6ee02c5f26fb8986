"""Children that serve a run: they end when asked, when killed, and with us."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from flows.processes.supervisor import MOST_RESTARTS, Service, ServiceFailed, wait_until

SLEEPS = "import time; print('here', flush=True); time.sleep(600)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPS
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEPS!r}]); {SLEEPS}"


@pytest.fixture
def service(tmp_path: Path) -> Callable[[str], Service]:
    def make(code: str) -> Service:
        one = Service(
            name="sleeper",
            command=[sys.executable, "-c", code],
            environment=dict(os.environ),
            log=tmp_path / "log",
        )
        one.start()
        wait_until(lambda: "here" in one.log.read_text(), one, 30)
        return one

    return make


def is_gone(pid: int) -> bool:
    _, alive = psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], 10)
    return not alive


@pytest.mark.parametrize("code", [SLEEPS, DEAF], ids=["listens", "deaf"])
def test_a_child_ends_whether_it_listens_or_not(
    service: Callable[[str], Service], code: str
) -> None:
    one = service(code)
    one.stop(grace=1.0 if code is DEAF else 20.0)
    assert one.ended() == -(signal.SIGKILL if code is DEAF else signal.SIGTERM)


def test_children_of_a_child_end_with_it(service: Callable[[str], Service]) -> None:
    one = service(PARENT)
    assert one.process is not None
    (grandchild,) = psutil.Process(one.process.pid).children()
    one.stop()
    assert is_gone(grandchild.pid)


def test_a_child_that_ends_is_started_again_but_not_for_ever(
    service: Callable[[str], Service],
) -> None:
    one, said = service(SLEEPS), []
    assert one.process is not None
    first = one.process.pid
    one.restart_if_ended(said.append)
    assert one.process.pid == first
    one.process.kill()
    one.process.wait()
    one.restart_if_ended(said.append)
    assert one.process.pid != first
    assert said == ["sleeper ended with status -9; it is started again"]
    one.stop()
    one.command = [sys.executable, "-c", "print('no use'); raise SystemExit(3)"]
    with pytest.raises(ServiceFailed, match=r"sleeper ended .* status 3 .*'no use'"):
        for _ in range(MOST_RESTARTS + 1):
            one.restart_if_ended(said.append)
            assert one.process is not None
            one.process.wait(30)


def test_what_does_not_answer_is_said_with_its_last_words(
    service: Callable[[str], Service],
) -> None:
    one = service(SLEEPS)
    with pytest.raises(ServiceFailed, match=r"sleeper does not answer after \d+ s.*'here'"):
        wait_until(lambda: False, one, 0.5)
    one.stop()
    with pytest.raises(ServiceFailed, match=r"sleeper ended with status -15"):
        wait_until(lambda: False, one, 30)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's word is Linux's")
def test_children_end_when_we_are_killed_and_can_be_interrupted_from_a_shell(
    tmp_path: Path,
) -> None:
    """Started in the background of a shell, which ignores SIGINT for its jobs."""
    code = (
        "import os, sys, time\nfrom pathlib import Path\n"
        "from flows.processes.supervisor import Service\n"
        f"one = Service(name='child', command=[sys.executable, '-c', {SLEEPS!r}],\n"
        f"    environment=dict(os.environ), log=Path({str(tmp_path)!r}) / 'log')\n"
        "one.start()\nprint(one.process.pid, flush=True)\ntime.sleep(600)\n"
    )
    script = f'{sys.executable} -c "$CODE" & echo $!; wait'
    with subprocess.Popen(
        ["sh", "-c", script], env={**os.environ, "CODE": code}, stdout=subprocess.PIPE, text=True
    ) as shell:
        assert shell.stdout is not None
        parent, child = int(shell.stdout.readline()), int(shell.stdout.readline())
        ignored = int(_status(child, "SigIgn"), 16)
        assert not ignored & (1 << (signal.SIGINT - 1))
        os.kill(parent, signal.SIGKILL)
        time.sleep(0.1)
        assert is_gone(child)


def _status(pid: int, key: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{key}:"))
