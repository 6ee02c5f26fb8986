"""Processes of whole runs that are killed, stopped, or run beside each other.

Each lane starts `spherescore run` on the small world of runs.py and compares what it leaves with a
run that nobody disturbed. Units that were done again are counted by their records and by a journal
of the writers.
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from storage.artifacts import audit
from tests.faults.runs import Run, World, wait_until

Found = dict[str, Any]  # tried, bad (sentences), said
WORKERS = 2
DEAD_SECONDS = 30.0  # within which nothing of a dead run may be alive


@cache
def undisturbed() -> tuple[dict[str, str], float]:
    """The digests of a run that nobody disturbs, and the seconds that it takes here and now."""
    run, began = World(golden_root().parent).run(golden_root().name), time.monotonic()
    if code := run.finish():
        raise RuntimeError(f"an undisturbed run ends with {code}: {run.last_words()}")
    return run.digests(), time.monotonic() - began


@cache
def golden_root() -> Path:
    """Where it is, for this process."""
    base = Path(tempfile.mkdtemp(prefix="golden-"))
    atexit.register(shutil.rmtree, base, True)
    return base / "golden"


def runs_killed(directory: Path, kills: int = 40, chains: int = 4, seed: int = 1) -> Found:
    """The whole process group at random times, again and again, then a run to the end."""
    golden, seconds = undisturbed()
    world, share = World(directory), kills // chains

    def chain(number: int) -> Found:
        chance = random.Random(seed + number)
        return _killed_often(world, number, share, golden, seconds, chance)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(chain, range(chains)))
    tried = sum(one["kills"] for one in found)
    lost, most = sum(one["lost"] for one in found), max(one["most"] for one in found)
    return {
        "tried": tried,
        "bad": [sentence for one in found for sentence in one["bad"]],
        "said": f"{lost} units were begun again, at most {most} after one kill of {WORKERS} "
        "workers; no unit that had a record was",
    }


def _killed_often(
    world: World,
    number: int,
    kills: int,
    golden: Mapping[str, str],
    seconds: float,
    chance: random.Random,
) -> Found:
    bad: list[str] = []
    lost = most = done = roots = 0
    run = world.run(f"killed-{number}")
    while done < kills:
        before, began = run.records(), sum(run.attempts().values())
        run.start()
        delay = chance.uniform(0.05, 0.6) * seconds
        try:
            code = run.wait(delay)
        except subprocess.TimeoutExpired:
            run.kill()
        else:
            bad += _ended(run, code, golden)
            roots += 1
            run = world.run(f"killed-{number}-{roots}")
            continue
        done += 1
        where = f"chain {number}, kill {done} after {delay:.1f} s"
        if run.gone_within(DEAD_SECONDS) is None:
            bad.append(f"{where}: still alive: {run.clear()}")
        after = run.records()
        again = [name for name, known in before.items() if after.get(name) != known]
        bad += [f"{where}: {name} had a record and was done again" for name in again]
        unfinished = sum(run.attempts().values()) - began - (len(after) - len(before))
        lost, most = lost + unfinished, max(most, unfinished)
        if unfinished > WORKERS:
            bad.append(f"{where}: {unfinished} units in hand of {WORKERS} workers")
        bad += [f"{where}: {problem}" for problem in audit.check(run.layout)]
    bad += _ended(run, run.finish(), golden)
    return {"kills": done, "lost": lost, "most": most, "bad": bad}


def _ended(run: Run, code: int, golden: Mapping[str, str]) -> list[str]:
    if code:
        return [f"{run.root.name} ends with {code}: {run.last_words()}"]
    left = run.gone_within(DEAD_SECONDS)
    wrong = [] if left is not None else [f"after the end still alive: {run.clear()}"]
    return [f"{run.root.name}: {one}" for one in (*run.complaints(golden), *wrong)]


PLACES = {  # of a unit: where, when, which call, by stage
    "before it reads": (
        {
            "fields": "flows.stages.ingest.ingest:write_fields",
            "whitened": "flows.stages.preprocess.block_sums:write_whitened",
            "ensemble": "flows.stages.generate.draws:draw_units",
        },
        "before",
        1,
    ),
    "after it has read": ("storage.artifacts.units:write_unit", "before", 1),
    "between its files": ("storage.places.files:_write_hashed", "after", 1),
    "before its files are moved": ("storage.places.files:move_all_into_place", "before", 1),
    "before its record": ("storage.artifacts.units:_write_record", "before", 1),
    "after its record": ("storage.artifacts.units:_write_record", "after", 1),
}
WRITTEN = ("fields", "whitened", "ensemble")


def _faults(place: str, kinds: Iterable[str], action: str) -> list[dict[str, Any]]:
    where, when, call = PLACES[place]
    return [
        {
            "place": where[kind] if isinstance(where, dict) else where,
            "when": when,
            "call": call,
            "within": f"{kind}-",
            "action": action,
        }
        for kind in kinds
    ]


def workers_killed(directory: Path, places: Iterable[str] = tuple(PLACES)) -> Found:
    """A worker at a chosen place of a unit, in three stages; nobody starts the run again."""
    golden, _ = undisturbed()
    world, again = World(directory), [0]

    def one(place: str) -> list[str]:
        run = world.run(place.replace(" ", "-"))
        run.faults = _faults(place, WRITTEN, "kill")
        wrong = _ended(run, run.finish(), golden)
        if run.happened() != len(WRITTEN):
            wrong.append(f"{run.happened()} of {len(WRITTEN)} workers were killed")
        attempts = run.attempts()
        redone = sum(attempts.values()) - len(run.records())
        again[0] += redone
        if redone > len(WRITTEN):
            wrong.append(f"{redone} units were begun again after {len(WRITTEN)} kills")
        return [f"{place}: {sentence}" for sentence in wrong]

    with ThreadPoolExecutor(2) as pool:
        bad = [sentence for found in pool.map(one, places) for sentence in found]
    return {
        "tried": len(WRITTEN) * len(tuple(places)),
        "bad": bad,
        "said": f"{again[0]} units were begun again",
    }


SEQUENCES: dict[str, dict[str, Any]] = {
    "train": {"model": "gaussian:var"},
    "sequence": {"past": 1},
    "generate": {
        "microbatch": 2,
        "sequences": [
            {"start": "2001-02-01", "days": 150, "realizations": 3},
            {"name": "branch", "start": "2001-03-01", "from": "2001-02-28", "days": 70}
            | {"of": "sequences.zarr", "realization": 1, "realizations": 2},
        ],
    },
}
FOLLOWED = ("states", "sequences")


def sequences_killed(
    directory: Path, places: Iterable[str] = ("after it has read", "before its record")
) -> Found:
    """A worker in the second unit of states, and of fields; then flow and scheduler."""
    world, bad, again = World(directory, SEQUENCES), list[str](), 0
    whole = world.run("whole")
    if code := whole.finish():
        raise RuntimeError(f"an undisturbed run ends with {code}: {whole.last_words()}")
    golden = whole.digests()
    for place in places:
        run = world.run(place.replace(" ", "-"))
        run.faults = [one | {"call": 2} for one in _faults(place, FOLLOWED, "kill")]
        wrong = _ended(run, run.finish(), golden)
        redone = sum(run.attempts().values()) - len(run.records())
        again += redone
        if run.happened() != len(FOLLOWED):
            wrong.append(f"{run.happened()} of {len(FOLLOWED)} workers were killed")
        if redone > len(FOLLOWED):
            wrong.append(f"{redone} units were begun again after {len(FOLLOWED)} kills")
        bad += [f"{place}: {sentence}" for sentence in wrong]
    flow = world.run("flow")
    for kind in FOLLOWED:
        process = flow.start()
        if not _begun(flow, kind):
            bad.append(f"flow: {kind} was not reached: {flow.last_words()}")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        if flow.gone_within(DEAD_SECONDS) is None:
            bad.append(f"flow: alive after {DEAD_SECONDS:.0f} s: {flow.clear()}")
    bad += [f"flow: {sentence}" for sentence in _ended(flow, flow.finish(), golden)]
    return {
        "tried": len(FOLLOWED) * (len(tuple(places)) + 1),
        "bad": bad,
        "said": f"{again} units were begun again; a branch among them",
    }


def flow_killed(
    directory: Path, moments: Iterable[str] = ("fields", "ensemble", "verification")
) -> Found:
    """The process alone that holds scheduler and flow, in the middle of three stages."""
    golden, _ = undisturbed()
    run, bad, longest, tried = World(directory).run("flow"), list[str](), 0.0, 0
    for kind in moments:
        process = run.start()
        begun = _begun(run, kind)
        if not begun:
            bad.append(f"{kind} was not reached: {run.last_words()}")
            run.kill()
            break
        tried += 1
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        seconds = run.gone_within(DEAD_SECONDS)
        if seconds is None:
            bad.append(f"{kind}: alive after {DEAD_SECONDS:.0f} s: {run.clear()}")
        longest = max(longest, seconds or DEAD_SECONDS)
    bad += _ended(run, run.finish(), golden)
    return {
        "tried": tried,
        "bad": bad,
        "said": f"nothing of the run was alive after {longest:.1f} s at most",
    }


def _begun(run: Run, kind: str, seconds: float = 300.0) -> bool:
    """Wait until a unit of this kind was begun."""
    known = len(_lines(run, kind))
    return wait_until(lambda: len(_lines(run, kind)) > known, seconds)


def _lines(run: Run, kind: str) -> list[str]:
    journal = run.aside / "journal"
    lines = journal.read_text().splitlines() if journal.exists() else []
    return [line for line in lines if f"/{kind}-" in line]


def zombies(directory: Path, places: tuple[str, ...] = tuple(PLACES)[1:5]) -> Found:
    """Workers that are stopped in a unit, and go on when others have done it and published."""
    golden, _ = undisturbed()
    run = World(directory).run("zombies")
    # Twenty seconds of silence are enough here; and those that are not of this machine in
    # earnest must not be ended with the run.
    run.settings = {
        "flows.cluster.dask_settings:DASK_CONFIG": {"distributed.scheduler.worker-ttl": "20s"},
        "flows.processes.watchdog:MARK": "NOBODY_IS_WATCHED",
    }
    kinds = ("fields", "whitened", "ensemble", "verification")
    run.faults = [
        fault
        for kind, place in zip(kinds, places, strict=False)
        for fault in _faults(place, [kind], "zombie")
    ]
    code = run.finish()
    bad = [] if code == 0 else [f"the run ends with {code}: {run.last_words()}"]
    late = [int(text) for text in (run.aside / "zombies").read_text().split()]
    ended = len(_endings(run))
    for process in late:
        os.kill(process, signal.SIGCONT)
    if run.gone_within(60) is None:
        bad.append(f"zombies do not end: {run.clear()}")
    wrote = len(_endings(run)) - ended
    if len(late) != len(run.faults) or wrote != len(late):
        bad.append(f"{len(late)} of {len(run.faults)} were stopped, {wrote} wrote late")
    bad += run.complaints(golden)
    return {"tried": len(late), "bad": bad, "said": f"{wrote} wrote after the publication"}


def _endings(run: Run) -> list[str]:
    return [line for line in (run.aside / "journal").read_text().splitlines() if "ends" in line]


def prefect_lost(directory: Path) -> Found:
    """The server killed, the database deleted, two runs at once in one root."""
    golden, _ = undisturbed()
    cases: list[Callable[[World, Mapping[str, str]], list[str]]]
    cases = [_server_killed, _database_deleted, _two_at_once]
    world = World(directory)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda case: case(world, golden), cases))
    return {
        "tried": len(cases),
        "bad": [sentence for wrong in found for sentence in wrong],
        "said": "after its server was killed a run ends by itself; without the database no unit is "
        "done again; two runs of one root agree",
    }


def _server_killed(world: World, golden: Mapping[str, str]) -> list[str]:
    run = world.run("server")
    run.start()
    if not _begun(run, "fields"):
        return [f"no unit was begun: {run.last_words()}"]
    servers = [one for one in run.processes() if "uvicorn" in " ".join(one.cmdline())]
    for server in servers:
        server.kill()
    wrong = _ended(run, run.wait(), golden)
    return [f"server killed: {one}" for one in wrong] + ([] if servers else ["there is no server"])


def _database_deleted(world: World, golden: Mapping[str, str]) -> list[str]:
    run = world.run("database")
    run.start()
    if not _begun(run, "ensemble"):
        return [f"no unit was begun: {run.last_words()}"]
    run.kill()
    before = run.records()
    shutil.rmtree(run.layout.prefect)
    wrong = _ended(run, run.finish(), golden)
    after = run.records()
    wrong += [f"{name} was done again" for name in before if after.get(name) != before[name]]
    return [f"database deleted: {one}" for one in wrong]


def _two_at_once(world: World, golden: Mapping[str, str]) -> list[str]:
    run = world.run("race")
    first, second = run.start(), run.start()
    codes = [process.wait(600) for process in (first, second)]
    wrong = [] if 0 in codes else [f"both end badly: {codes}, {run.last_words()}"]
    if any(codes):
        wrong.append(f"exit codes {codes}: {run.last_words()}")
    wrong += _ended(run, 0, golden)
    return [f"two at once: {one}" for one in wrong]


def worker_counts(directory: Path, counts: tuple[int, ...] = (1, 4)) -> Found:
    """Other numbers of workers than the two of the undisturbed run."""
    golden, _ = undisturbed()
    world, bad = World(directory), list[str]()
    for count in counts:
        run = world.run(f"workers-{count}", cluster={"workers": count})
        bad += _ended(run, run.finish(), golden)
    return {"tried": len(counts), "bad": bad, "said": f"1, 2 and {max(counts)}: the same bytes"}
