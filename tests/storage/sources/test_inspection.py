"""What breaks a reader breaks a child process first, and the file is named."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from storage.conventions.axes import SourceError, UnsafeSource
from storage.sources import inspection
from storage.sources.inspection import inspect
from tests.storage.imitations import regular, write

FAULT = """
import os, resource, signal, socket, subprocess, sys, time
import storage.sources.formats.opening
whole = storage.sources.formats.opening.open_tables
def broken(path, *options):
    if "bad" in path:
        {fault}
    return whole(path, *options)
storage.sources.formats.opening.open_tables = broken
from storage.sources.inspector import main
main()
"""


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    return [write(tmp_path, regular(), name) for name in ("a.nc", "bad.nc", "c.nc")]


def looked_at(monkeypatch: pytest.MonkeyPatch, files: list[str], fault: str) -> str:
    """What is said of files when the reader of one of them has a fault."""
    child = (sys.executable, "-c", FAULT.format(fault=fault))
    monkeypatch.setattr(inspection, "CHILD", child)
    with pytest.raises(SourceError) as caught, inspect(files, ["ta"]) as looking:
        looking.wait()
    assert caught.value.exit_code == 10
    assert "\n" not in str(caught.value)
    assert looking.process is not None and looking.process.returncode is not None
    return str(caught.value)


@pytest.mark.parametrize(
    ("fault", "how"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "it died of SIGSEGV"),
        ("os.abort()", "it died of SIGABRT"),
        ("os._exit(3)", "it ended with status 3"),
        ("held = bytearray(1 << 40)", "it needed more memory than it had"),
        ("held = [bytes(1 << 20) for _ in range(1 << 20)]", "it needed more memory than it had"),
        ("while True: pass", "it needed more time than it had"),
    ],
)
def test_a_file_that_breaks_its_reader_is_named(monkeypatch, files, fault, how):
    said = looked_at(monkeypatch, files, fault)
    assert said.startswith(f"{files[1]} broke the process that looked at it first: {how}")


def test_a_reader_that_hangs_is_ended(monkeypatch, files):
    begin = inspection.inspect

    def impatient(*arguments, **options):
        looking = begin(*arguments, **options)
        looking.deadlines = [90.0, 1.0, 90.0]
        return looking

    monkeypatch.setitem(globals(), "inspect", impatient)
    said = looked_at(monkeypatch, files, "time.sleep(1000)")
    assert said.startswith(f"{files[1]} broke") and "no answer in time" in said


@pytest.mark.parametrize(
    "fault",
    [
        "socket.create_connection(('127.0.0.1', 9))",
        "subprocess.run(['true'])",
        "import pickle; pickle.loads(pickle.dumps(print))",
    ],
)
def test_the_child_has_no_network_no_programs_and_no_pickles(monkeypatch, files, fault):
    said = looked_at(monkeypatch, files, fault)
    assert "while a foreign file is read" in said or "unreachable" in said


def test_the_child_cannot_write(monkeypatch, files, tmp_path):
    made = str(tmp_path / "made")
    fault = f"os.write(os.open({made!r}, os.O_CREAT | os.O_WRONLY), b'x')"
    assert "too large" in looked_at(monkeypatch, files, fault)
    assert not (tmp_path / "made").read_text()


def test_the_child_knows_no_secrets(monkeypatch, files):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sentinel")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "sentinel")
    fault = "raise ValueError(f'seen: {[k for k, v in os.environ.items() if v == \"sentinel\"]}')"
    assert "seen: []" in looked_at(monkeypatch, files, fault)


def test_an_honest_source_is_looked_at_once(files):
    with inspect(files, ["ta"]) as looking:
        looking.wait()
    assert looking.process is not None
    assert inspect(files, ["ta"]).process is None
    os.utime(files[0], (1, 1))
    with inspect(files, ["ta"]) as looking:
        assert looking.process is not None


def test_a_refusal_keeps_its_words_and_its_code(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = write(tmp_path, regular())
    with h5py.File(path, "r+") as file:
        file["elsewhere"] = h5py.ExternalLink("/etc/passwd", "/ta")
    with pytest.raises(UnsafeSource, match=r"a\.nc: /elsewhere is a link into another file"):
        inspect(path, ["ta"]).wait()


def test_a_child_that_does_not_start_is_no_fault_of_a_file(monkeypatch, files):
    monkeypatch.setattr(inspection, "CHILD", (sys.executable, "-c", "raise SystemExit(7)"))
    with pytest.raises(RuntimeError, match="did not start: it ended with status 7"):
        inspect(files, ["ta"]).wait()
