"""Harm inside the processes of a run, by PYTHONPATH: Python imports this file at its start.

SPHERESCORE_FAULTS is a JSON table:

    journal   file that gets a line "<artifact's path>/<unit> begins|ends" from whoever writes one
    settings  {"module:NAME": value, or a table that is merged into one}
    faults    [{place: "module:function", when: "before" | "after", call: n-th in a process,
                within: text that the arguments hold, action, marker: file, made by the one who acts
                first: each fault happens once}]
    timers    directory for the seconds that this process spends in sha256, crc32c and fsync

Without the variable nothing is done.
"""

import contextlib
import functools
import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
import time

ORDERS = json.loads(os.environ.get("SPHERESCORE_FAULTS", "{}"))
ME = os.getpid()


def _act(action: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "kill group":
        if _is_of_the_run(os.getppid()):  # a training is a child with a group of its own
            os.killpg(os.getpgid(os.getppid()), signal.SIGKILL)
        os.killpg(os.getpgid(0), signal.SIGKILL)
    elif action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif action == "zombie":
        # The same process twice: one is stopped here and goes on when it is too late (its worker's
        # supervisor cannot reach it), the other is stopped for good.
        if os.fork() == 0:
            os.setsid()
            with open(ORDERS["zombies"], "a") as stream:
                print(os.getpid(), file=stream)
        os.kill(os.getpid(), signal.SIGSTOP)
    elif action == "hang":
        time.sleep(1e6)
    elif action == "eat memory":
        eaten = []
        while True:
            eaten.append(b"x" * (16 << 20))
            time.sleep(0.05)
    elif action.startswith("fill "):
        disk, kind, left = action.removeprefix("fill ").split(":")
        _fill(disk, kind, int(left))
    else:
        raise ValueError(action)


def _is_of_the_run(process: int) -> bool:
    with open(f"/proc/{process}/environ", "rb") as stream:
        return b"SPHERESCORE_FAULTS=" in stream.read()


def _fill(disk: str, kind: str, left: int) -> None:
    """Take all but `left` bytes or files of a disk."""
    if kind == "bytes":
        with open(f"{disk}/ballast", "wb") as stream:
            for step in (1 << 20, 1 << 12):
                with contextlib.suppress(OSError):
                    while os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize >= left + step:
                        os.posix_fallocate(stream.fileno(), os.fstat(stream.fileno()).st_size, step)
    else:
        os.makedirs(f"{disk}/ballasts", exist_ok=True)
        for number in range(max(0, os.statvfs(disk).f_favail - left)):
            open(f"{disk}/ballasts/{number}", "wb").close()


def _guarded(real, faults):
    calls = dict.fromkeys(range(len(faults)), 0)

    def consider(when, arguments):
        for number, fault in enumerate(faults):
            if fault.get("when", "before") != when:
                continue
            said = " ".join(str(one)[:500] for one in arguments)
            if fault.get("within", "") not in said:
                continue
            calls[number] += 1
            if calls[number] < fault.get("call", 1):
                continue
            try:
                os.close(os.open(fault["marker"], os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            _act(fault["action"])

    @functools.wraps(real)
    def wrapped(*arguments, **options):
        consider("before", arguments)
        result = real(*arguments, **options)
        consider("after", arguments)
        return result

    return wrapped


def _noted(real):
    @functools.wraps(real)
    def wrapped(path, unit, *arguments, **options):
        _note(f"{path}/{unit.name} begins")
        result = real(path, unit, *arguments, **options)
        _note(f"{path}/{unit.name} ends")
        if os.getpid() != ME:  # a zombie has done its late work
            os._exit(0)
        return result

    return wrapped


def _note(line: str) -> None:
    descriptor = os.open(ORDERS["journal"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


SPENT: dict[str, float] = {}
TOLD = 0.0


def _timed(name, real):
    def wrapped(*arguments):
        global TOLD
        began = time.monotonic()
        try:
            return real(*arguments)
        finally:
            now = time.monotonic()
            SPENT[name] = SPENT.get(name, 0.0) + now - began
            if now - TOLD > 0.2:
                TOLD = now
                _tell()

    return wrapped


def _tell() -> None:
    with open(f"{ORDERS['timers']}/{os.getpid()}.json", "w") as stream:
        json.dump(SPENT, stream)


class _TimedHash:
    """What the modules that hash know of hashlib, timed."""

    def __init__(self, *content):
        self.real = _hashlib.sha256()
        self.update = _timed("sha256", self.real.update)
        self.hexdigest = self.real.hexdigest
        for part in content:
            self.update(part)

    sha256 = classmethod(lambda cls, *content: cls(*content))


HASHING = ("storage.places.files", "storage.artifacts.sealed")


def _with_timers(module) -> None:
    if module.__name__ in HASHING:
        module.hashlib = _TimedHash
    if module.__name__ == "storage.artifacts.shards":
        module._checksum = _timed("crc32c", module._checksum)


def _change(module) -> None:
    if "timers" in ORDERS:
        _with_timers(module)
    for place, value in ORDERS.get("settings", {}).items():
        where, _, name = place.partition(":")
        if where == module.__name__:
            old = getattr(module, name)
            setattr(module, name, {**old, **value} if isinstance(value, dict) else value)
    if module.__name__ == "storage.artifacts.units" and "journal" in ORDERS:
        module.write_unit = _noted(module.write_unit)
    places = {fault["place"] for fault in ORDERS.get("faults", ())}
    for place in sorted(places):
        where, _, name = place.partition(":")
        if where == module.__name__:
            faults = [fault for fault in ORDERS["faults"] if fault["place"] == place]
            setattr(module, name, _guarded(getattr(module, name), faults))


WANTED = {
    "storage.artifacts.units",
    *(place.partition(":")[0] for place in ORDERS.get("settings", ())),
    *(fault["place"].partition(":")[0] for fault in ORDERS.get("faults", ())),
}


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that are to be changed, as Python would, and changes them when loaded."""

    def find_spec(self, name, path=None, target=None):
        if name not in WANTED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        real = spec.loader.exec_module

        def exec_module(module):
            real(module)
            _change(module)

        spec.loader.exec_module = exec_module
        return spec


if "timers" in ORDERS:
    import atexit
    import hashlib as _hashlib

    WANTED |= {*HASHING, "storage.artifacts.shards"}
    os.fsync = _timed("fsync", os.fsync)
    atexit.register(_tell)

if ORDERS:
    sys.meta_path.insert(0, _Finder())
