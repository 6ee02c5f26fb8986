"""A function called in a process of its own: what may hang or take all memory takes that alone.

The child is a fresh interpreter in its own process group. It dies with its parent, which hears
from it line by line (progress, log records, the result, an error as JSON) and ends it when it has
been silent too long. Only plain values cross the border.
"""

import ctypes
import importlib
import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from flows.errors import ExitCode, Relayed, Stalled, WorkersLost
from flows.processes.log_relay import lines_told
from flows.progress import Progress

SILENCE_SECONDS = 1800.0  # longer than any step of a stage
GRACE_SECONDS = 10.0  # between asking a child to end and ending it
COUNTERS = (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events"))  # of OOM kills
PR_SET_PDEATHSIG = 1


class ChildFailed(Relayed):
    """What a child raised, in its words and with its exit code."""


class OutOfMemory(RuntimeError):
    """The system ended a child because there was no memory left."""

    exit_code = ExitCode.NO_MEMORY


def call(
    target: str,
    arguments: Mapping[str, Any],
    progress: Progress,
    *,
    silence: float = SILENCE_SECONDS,
) -> Any:
    """Call `target` ("module:function") as `function(arguments, progress)` in a child.

    Args:
        arguments: Plain values.
        progress: Told what the child tells.
        silence: Seconds without a word, after which the child is ended.
    Returns:
        What the function returned, as plain values.
    Raises:
        Stalled: If the child was silent too long.
        OutOfMemory: If the system killed it for want of memory.
        WorkersLost: If it ended in another way without a result.
        ChildFailed: If the function raised.
    """
    before = _oom_kills()
    process, hearing = _begun(target, arguments)
    try:
        ending = _listen(hearing, progress, silence)
        if ending is None:
            raise Stalled(
                f"{target} has not said a word for {silence:.0f} s and was ended; what it has "
                "saved is safe; run again to go on from there"
            )
    finally:
        os.close(hearing)
        _end(process)
    if "returned" in ending:
        return ending["returned"]
    if "raised" in ending:
        raise _error(ending["raised"])
    if process.returncode == -signal.SIGKILL and _oom_kills() > before:
        raise OutOfMemory(
            f"the system has no memory left and ended {target}; lower train.batch or "
            "cluster.workers, or take a machine with more; run again to go on from the last state"
        )
    raise WorkersLost(
        f"{target} ended with {_words_of(process.returncode)} and without a result; what it has "
        "saved is safe; run again to go on from there"
    )


def _begun(target: str, arguments: Mapping[str, Any]) -> "tuple[subprocess.Popen[bytes], int]":
    """The child, told what to do, and the end of the pipe on which it is heard."""
    hearing, saying = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "flows.processes.child", target, str(saying)],
            stdin=subprocess.PIPE,
            stdout=sys.stderr if _is_file(sys.stderr) else None,
            pass_fds=[saying],
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(_places())},
        )
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(dict(arguments)).encode() + b"\n")
                process.stdin.flush()
        except BaseException:
            _end(process)
            raise
    except BaseException:
        os.close(hearing)
        raise
    finally:
        os.close(saying)
    return process, hearing


def _listen(hearing: int, progress: Progress, silence: float) -> dict[str, Any] | None:
    """The child's last word, {} if it ended without one, None if it is silent."""
    rest, last = b"", time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(hearing, selectors.EVENT_READ)
        while time.monotonic() - last < silence:
            if not selector.select(min(1.0, silence)):
                continue
            heard = os.read(hearing, 1 << 16)
            if not heard:
                return {}
            last = time.monotonic()
            *lines, rest = (rest + heard).split(b"\n")
            for line in lines:
                said = json.loads(line)
                if "progress" in said:
                    progress(*said["progress"])
                elif "log" in said:
                    name, level, text = said["log"]
                    logging.getLogger(name).log(level, "%s", text)
                else:
                    return dict(said)
    return None


def _end(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            if process.poll() is None:
                os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
            break
    with suppress(BrokenPipeError):
        process.stdin.close()


def _error(raised: Mapping[str, Any]) -> Exception:
    if raised["errno"] is not None:
        return OSError(raised["errno"], raised["message"])
    if raised["memory"]:
        return MemoryError(raised["message"])
    return ChildFailed(raised["message"], raised["exit_code"])


def _oom_kills() -> int:
    """How many processes the system has ended for want of memory since it began."""
    count = 0
    for counter in COUNTERS:
        with suppress(OSError):
            for line in counter.read_text().splitlines():
                name, _, value = line.partition(" ")
                count += int(value) if name == "oom_kill" else 0
    return count


def _words_of(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {-code} ({signal.Signals(-code).name})"
    return f"exit code {code}"


def _places() -> list[str]:
    """Where the child finds this package and all others: where this process does."""
    return list(dict.fromkeys([str(Path(__file__).parents[2]), *filter(None, sys.path)]))


def _is_file(stream: Any) -> bool:
    try:
        return isinstance(stream.fileno(), int)
    except (OSError, ValueError, AttributeError):
        return False


class _Words:
    """Lines of JSON to the parent, from any thread."""

    def __init__(self, place: int) -> None:
        self._file, self._lock = os.fdopen(place, "wb", buffering=0), threading.Lock()

    def say(self, kind: str, value: Any) -> None:
        with self._lock:
            self._file.write(json.dumps({kind: value}).encode() + b"\n")

    def log(self, record: logging.LogRecord) -> None:
        self.say("log", [record.name, record.levelno, record.getMessage()])


def _die_with_parent(parent: int) -> None:
    # The end of the input, too: elsewhere than on Linux, and if the parent's thread ended first.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        with suppress(OSError):  # if memory runs out, this process goes and the parent tells of it
            Path("/proc/self/oom_score_adj").write_text("500")
    if os.getppid() != parent:
        os._exit(1)

    def wait_for_the_end() -> None:
        while os.read(0, 1 << 16):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait_for_the_end, daemon=True).start()


def main(target: str, place: int) -> None:
    """The child's side."""
    parent, words = os.getppid(), _Words(place)
    first = bytearray()
    while not first.endswith(b"\n"):
        part = os.read(0, 1)
        if not part:
            return
        first += part
    _die_with_parent(parent)
    module, _, name = target.partition(":")
    try:
        with lines_told(words.log):
            function: Callable[..., Any] = getattr(importlib.import_module(module), name)
            returned = function(
                json.loads(first),
                lambda done, total, text: words.say("progress", [done, total, text]),
            )
    except Exception as error:
        code = getattr(error, "exit_code", None)
        text = str(error) if code is not None else f"{type(error).__name__}: {error}"
        raised = {
            "message": (error.strerror or text) if isinstance(error, OSError) else text,
            "exit_code": code or 1,
            "errno": error.errno if isinstance(error, OSError) and code is None else None,
            "memory": isinstance(error, MemoryError),
        }
        words.say("raised", raised)
    else:
        words.say("returned", returned)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
