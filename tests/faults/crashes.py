"""Every crash point of an operation: the n-th change of a file, for all n, each in its own process.

    python -m tests.faults.crashes '[["checkpoint", "killed", 1, 1], ...]'

prints for each job `calls` (changes of files if undisturbed), `tried` and `bad` (sentences).
To be started by `run`, with the failing disk (disk.c) in front of libc. A fault is injected in a
forked child; a second one looks at what is left, acts again and looks at the end. The parent opens
no store, so that every child begins as a fresh process would.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from xarray.backends.plugins import list_engines

from storage.artifacts.layout import StoreLayout
from tests.faults.operations import MISTAKES, OPERATIONS, Operation, digests

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name("disk.c")
MODES = {"count": 0, "killed": 1, "torn": 2, "lost": 3, "full": 4, "failing": 5, "heirs": 6}
SECONDS = 60  # no child takes longer


Job = tuple[str, str, int, int]  # operation, mode, first call, step


def run(jobs: Sequence[Job], directory: Path) -> list[dict[str, Any]]:
    """For each job inject one fault at each call `first`, `first + step`, ... of an operation.

    Modes: "killed" (the process dies; a write is cut in half), "torn" (the power fails: files that
    were not fsynced are empty), "lost" (and names in directories that were not fsynced are as
    before), "full" (no space from that call on), "failing" (one call gives EIO), "heirs" (the
    process dies and the power stays; another one goes on to the end, or to some later call, and
    then the power fails: what neither of them has fsynced is lost).

    Args:
        directory: for the compiled disk and the stores.
    """
    command = [sys.executable, "-m", "tests.faults.crashes", json.dumps(jobs)]
    environment = os.environ | {
        "LD_PRELOAD": str(compiled(directory)),
        "TMPDIR": str(directory),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=3600
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    result: list[dict[str, Any]] = json.loads(done.stdout)
    return result


def compiled(directory: Path) -> Path:
    """The failing disk as a library."""
    library = directory / "disk.so"
    if not library.exists():
        compiler = [os.environ.get("CC", "cc"), "-O1", "-shared", "-fPIC"]
        subprocess.run([*compiler, "-o", library, SOURCE, "-ldl", "-lpthread"], check=True)
    return library


def _every_point(operation: Operation, mode: str, first: int, step: int) -> dict[str, Any]:
    list_engines()  # what every reader asks for once, and starts no thread
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        _must(lambda: operation.prepare(_layout(base / "prepared")))
        (base / "prepared").mkdir(exist_ok=True)
        golden = _golden(operation, base)
        calls, complete = golden["calls"], _must(lambda: digests(_layout(base / "golden")))
        points, bad = range(first, calls + 1, step), []
        for point in points:
            try_one = _with_an_heir if mode == "heirs" else _one
            said = try_one(operation, mode, point, base, complete)
            bad += [f"{mode} at call {point}: {sentence}" for sentence in said]
    return {"calls": calls, "tried": len(points), "bad": bad}


def _golden(operation: Operation, base: Path) -> dict[str, Any]:
    root = _copy(base, "golden")

    def count() -> dict[str, Any]:
        disk = _armed(base, root, "count", 0)
        operation.act(_layout(root))
        disk.disk_disarm()
        return {"calls": disk.disk_calls()}

    return _must(count)


def _one(
    operation: Operation, mode: str, point: int, base: Path, complete: dict[str, str]
) -> list[str]:
    root = _copy(base, "faulty")
    layout = _layout(root)
    (base / "stash").mkdir(exist_ok=True)

    def disturbed() -> str:
        _armed(base, root, mode, point)
        try:
            operation.act(layout)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return ""

    ended, said = _in_child(disturbed)
    if mode in ("killed", "torn", "lost") and ended != signal.SIGKILL:
        # Threads take turns at the disk, so that an operation may need a call less than before.
        return [] if ended == 0 and not said else [f"not killed: {ended}, {said}"]
    if mode in ("full", "failing"):
        if ended:
            return [f"it ended with signal {ended}"]
        if said and not any(word in said for word in ("No space left", "Input/output error")):
            return [f"it does not say what failed: {said}"]
    ended, wrong = _in_child(lambda: _survive(operation, layout))
    if ended or wrong:
        return wrong or [f"what comes after the fault ends with signal {ended}"]
    last_bytes = _must(lambda: digests(layout))
    shutil.rmtree(base / "stash", ignore_errors=True)
    return [] if last_bytes == complete else ["after resuming: other bytes than undisturbed"]


def _with_an_heir(
    operation: Operation, mode: str, point: int, base: Path, complete: dict[str, str]
) -> list[str]:
    """One process is killed, a second one goes on, and the power fails at its end or before."""
    wrong = []
    for later in (0, 1 + 7 * point % 64):
        root, reached = _copy(base, "faulty"), base / "reached"
        layout = _layout(root)
        (base / "stash").mkdir(exist_ok=True)
        reached.unlink(missing_ok=True)

        def first(root: Path = root, layout: StoreLayout = layout) -> None:
            _armed(base, root, mode, point)
            operation.act(layout)

        def second(
            root: Path = root, layout: StoreLayout = layout, later: int = later, end: Path = reached
        ) -> None:
            disk = _armed(base, root, "lost", later or 1 << 40)
            operation.act(layout)
            end.touch()
            disk.disk_fail()

        _in_child(first)
        ended, said = _in_child(second)
        if ended != signal.SIGKILL:
            return [f"the second process was not killed: {ended}, {said}"]
        done = reached.exists()
        ended, said = _in_child(lambda layout=layout, done=done: _survive(operation, layout, done))
        shutil.rmtree(base / "stash", ignore_errors=True)
        place = "the end" if done else f"call {later}"
        if ended or said:
            said = said or [f"what comes after the fault ends with signal {ended}"]
            wrong += [f"power fails at {place} of the second: {one}" for one in said]
        elif _must(lambda layout=layout: digests(layout)) != complete:
            wrong.append(f"power fails at {place} of the second: other bytes than undisturbed")
    return wrong


def _survive(operation: Operation, layout: StoreLayout, done: bool = False) -> list[str]:
    """What a process that comes after the fault finds wrong, before and after going on.

    Args:
        done: whether the operation had come to its end before the fault.
    """
    wrong = [f"after the fault: {sentence}" for sentence in operation.complaints(layout, done)]
    operation.act(layout)
    return wrong + [f"after resuming: {one}" for one in operation.complaints(layout, True)]


def _layout(root: Path) -> StoreLayout:
    """Where an operation works: below directories that it makes itself."""
    return StoreLayout(f"{root}/deep/run")


def _armed(base: Path, root: Path, mode: str, point: int) -> Any:
    disk = ctypes.CDLL(None)
    disk.disk_arm.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_long]
    disk.disk_arm(str(root).encode(), str(base / "stash").encode(), MODES[mode], point)
    return disk


def _copy(base: Path, name: str) -> Path:
    shutil.rmtree(base / name, ignore_errors=True)
    return Path(shutil.copytree(base / "prepared", base / name, symlinks=True))


def _in_child(function: Callable[[], Any]) -> tuple[int, Any]:
    """The signal that ended a child, and what the function returned or raised there."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        signal.alarm(SECONDS)
        try:
            value = function()
        except BaseException as error:
            value = [f"{type(error).__name__}: {error}"]
        os.write(writer, json.dumps(value).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        content = stream.read()
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, json.loads(content or b"null")


def _must(function: Callable[[], Any]) -> Any:
    ended, value = _in_child(lambda: {"value": _plain(function())})
    if ended or not isinstance(value, dict):
        raise RuntimeError(f"an undisturbed step fails: {value or ended}")
    return value["value"]


def _plain(value: Any) -> Any:
    return value if isinstance(value, dict) else None


def main(text: str) -> None:
    operations = OPERATIONS | MISTAKES
    jobs = json.loads(text)
    found = [_every_point(operations[name], mode, *where) for name, mode, *where in jobs]
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
