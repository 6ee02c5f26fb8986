"""Hostile and broken inputs, each given to `spherescore ingest` in a process of its own.

    python -m tests.faults.hostile DIRECTORY [NAME ...]      one JSON object per line

A warmed process forks for every input: once to make the files, once for the command, which runs
whole, with its own child that looks at files first (forked too), but with a Dask worker in the
same process.
Then it is asked: was the exit code a documented one, was there one line, no traceback, no socket,
little memory, little time, and is nothing published that was refused?
"""

from __future__ import annotations

import json
import logging
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
import traceback
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from storage.sources import inspector
from tests.faults import contradictions, meanings, members
from tests.faults.inputs import CASES, TWINS, Case
from tests.faults.meanings import BASE

MEMORY = 512 << 20  # bytes, of the command and of its child, each
SECONDS = 5.0  # of CPU, of both together
HANGS = 120.0  # seconds of the clock, on a busy machine
NOBODY = 65534

assert meanings and contradictions and members  # registers their cases


def lane(directory: Path) -> dict[str, Any]:
    """All of them, on all cores."""
    found = run([*CASES, *TWINS], directory, os.cpu_count() or 1)
    refused = [one for one in found if one["name"] in CASES]
    memory = max(max(one["memory"]) for one in found) >> 20
    seconds = max(one["seconds"] for one in refused)
    return {
        "tried": len(found),
        "bad": [f"{one['name']}: {sentence}" for one in found for sentence in one["bad"]],
        "said": f"{len(refused)} hostile or broken, {len(found) - len(refused)} benign; at most "
        f"{memory} MiB, {seconds:.1f} s of CPU for one that is refused, "
        f"{sum(one['sockets'] for one in found)} sockets",
    }


def run(names: Sequence[str], directory: Path, processes: int = 1) -> list[dict[str, Any]]:
    """What happened to the inputs of these names."""

    def some(number: int) -> list[dict[str, Any]]:
        part = [name for index, name in enumerate(names) if index % processes == number]
        place = directory / str(number)
        place.mkdir(parents=True)
        directory.chmod(0o755)  # one input is read by a user without rights
        place.chmod(0o777)
        done = subprocess.run(
            [sys.executable, "-m", "tests.faults.hostile", str(place), *part],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    with ThreadPoolExecutor(processes) as pool:
        return [one for part in pool.map(some, range(processes)) for one in part]


def attempt(one: Case, directory: Path) -> dict[str, Any]:
    """Make the input, run the command, judge."""
    directory.mkdir(mode=0o777)
    directory.chmod(0o777)
    made = _forked(lambda: _make(one, directory))
    if made != 0:
        return {"name": one.name, "bad": [f"it could not be made ({made})"], "memory": [0, 0]} | {
            "seconds": 0.0,
            "sockets": 0,
        }
    began = time.monotonic()
    status = _forked(lambda: _command(directory, one.unprivileged))
    report = directory / "report.json"
    seen = json.loads(report.read_text()) if report.exists() else {}
    said = (directory / "stderr").read_bytes().decode("utf-8", "replace")
    found = {
        "name": one.name,
        "code": seen.get("code"),
        "memory": seen.get("memory", [0, 0]),
        "seconds": round(seen.get("seconds", 0.0), 2),
        "clock": round(time.monotonic() - began, 1),
        "sockets": seen.get("sockets", 0),
        "said": said.strip().splitlines()[-1][:300] if said.strip() else "",
    }
    return found | {"bad": _judge(one, found, status, said, directory)}


def _judge(one: Case, found: dict[str, Any], status: int, said: str, directory: Path) -> list[str]:
    bad = []
    if status != 0:
        bad.append(f"the command broke (status {status})")
    if found["code"] not in one.codes:
        bad.append(f"exit code {found['code']}, not {sorted(one.codes)}: {found['said']}")
    if found["code"]:
        errors = [line for line in said.splitlines() if line.startswith("spherescore: ")]
        if len(errors) != 1 or "Traceback" in said:
            bad.append(f"{len(errors)} lines: {said[-300:]}")
        if "(unexpected;" in said:
            bad.append(f"nobody foresaw it: {found['said']}")
        if any(ord(letter) < 32 for letter in said.replace("\n", "")):
            bad.append("control characters reach the terminal")
        if (directory / "run" / "fields.zarr").exists():
            bad.append("refused, but published")
        if found["seconds"] > SECONDS:
            bad.append(f"{found['seconds']:.1f} s of CPU")
    elif not (directory / "run" / "fields.zarr").exists():
        bad.append("accepted, but not published")
    if found["sockets"]:
        bad.append(f"{found['sockets']} sockets")
    if max(found["memory"]) > MEMORY:
        bad.append(f"{max(found['memory']) >> 20} MiB")
    return bad


def _make(one: Case, directory: Path) -> int:
    os.chdir(directory)
    made = one.make(directory, random.Random(zlib.crc32(one.name.encode())))
    path = directory / "config.toml"
    if isinstance(made, bytes):
        path.write_bytes(made)
    else:
        head, tail = BASE.replace("ROOT", str(directory / "run")).split("[source]", 1)
        rest = tail[tail.index("[split]") :]
        lines = [f"{key} = {_toml(value)}" for key, value in made.items()]
        path.write_text("\n".join([head + "[source]", *lines, rest]), encoding="utf-8")
    return 0


def _command(directory: Path, unprivileged: bool) -> int:
    """`spherescore ingest` as it is, and what it took."""
    os.chdir(directory)
    import flows.processes.watchdog
    import flows.run
    import storage.sources.inspection
    from flows.cli.main import main

    # Nothing outlives this command, and the user without rights may not start an interpreter.
    flows.processes.watchdog.watched = nullcontext
    flows.run.client_on_demand = _in_this_process  # type: ignore[assignment]
    storage.sources.inspection._start = _Fork  # type: ignore[assignment]
    stderr = os.open(directory / "stderr", os.O_WRONLY | os.O_CREAT, 0o666)
    os.dup2(stderr, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    if unprivileged and os.geteuid() == 0:
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    sockets: list[Any] = []

    def listen(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.__new__" and arguments[1] != socket.AF_UNIX and not _CLIENTS:
            sockets.append(arguments[1:])

    sys.addaudithook(listen)
    own = resource.getrusage(resource.RUSAGE_SELF)
    code = main(["ingest", "config.toml"])
    sys.stderr.flush()
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(u.ru_utime + u.ru_stime for u in used) - own.ru_utime - own.ru_stime
    report = {
        "code": code,
        "memory": [u.ru_maxrss * 1024 for u in used],
        "seconds": seconds,
        "sockets": len(sockets),
    }
    (directory / "report.json").write_text(json.dumps(report))
    return 0


@contextmanager
def _in_this_process(cluster: Any, scratch: Path) -> Iterator[Any]:
    from flows.cluster.local import _OnDemand

    def start() -> Any:
        from distributed import Client

        _CLIENTS.append(None)  # Dask asks for its own address: sockets count up to here
        _CLIENTS[0] = Client(
            processes=False,
            n_workers=1,
            threads_per_worker=1,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,  # as those of a local cluster are
        )
        return _CLIENTS[0]

    yield _OnDemand(start)
    for client in _CLIENTS:
        client.close()


_CLIENTS: list[Any] = []


class _Fork:
    """The child that looks at files first, without the second that its interpreter takes."""

    def __init__(self, environment: dict[str, str]) -> None:
        wish, self.stdin_end = os.pipe()
        self.stdout_end, answers = os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            os.dup2(wish, 0)
            os.dup2(answers, 1)
            for end in (wish, answers, self.stdin_end, self.stdout_end):
                os.close(end)
            sys.stdin = os.fdopen(0)
            inspector.main()
            os._exit(0)
        os.close(wish)
        os.close(answers)
        self.stdin = os.fdopen(self.stdin_end, "wb")
        self.stdout = os.fdopen(self.stdout_end, "rb")

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


def _forked(work: Any) -> int:
    """What `work` returns in a fork of this process: 0, or how it broke."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            os.setsid()
            status = work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    deadline = time.monotonic() + HANGS
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -999


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def main(directory: Path, names: Sequence[str]) -> None:
    os.environ.setdefault("SPHERESCORE_CACHE", str(directory / "cache"))
    # Warm, but without threads: what is forked has one.
    import distributed
    import h5py
    import netCDF4
    import xarray.backends.zarr
    import zarr

    import flows.run
    import flows.stages.ingest.ingest

    assert (
        distributed
        and h5py
        and netCDF4
        and zarr
        and xarray.backends.zarr
        and flows.stages.ingest.ingest
        and flows.run
    )
    known = {**CASES, **TWINS}
    for number, name in enumerate(names):
        found = attempt(known[name], directory / f"{number:03d}")
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:] or [*CASES, *TWINS])
