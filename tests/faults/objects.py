"""Every request of an operation fails once: objects between a real S3 server and a wire that fails.

    with store() as line: every_request(line, "publication", "reset after")

An operation of `operations` is prepared, then acted with one harm at its k-th request, for k = 1
until it makes fewer requests than that. Most harms must pass unnoticed: the operation ends well,
with the bytes of an undisturbed one, and what it published or saved was never deleted. Where the
storage stays away it must end with an error of the storage that says so, and go on afterwards.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

from storage.artifacts.layout import StoreLayout
from storage.places import buckets
from tests import s3
from tests.faults.operations import OPERATIONS, Operation, digests
from tests.faults.proxy import HARMS, Wire, wire

AWAY = "away"  # the storage stays away from the k-th request on, and comes back later
FORBIDDEN = "403"  # the k-th request and all after it are forbidden
MODES = (*HARMS, AWAY, FORBIDDEN)
EVERYWHERE = ("lost", "reset after")  # the server did it, and nobody was told
ROOTS = (".zarr/zarr.json", "/published.json")
ENVIRONMENT = {"AWS_TIMEOUT": "1500ms", "AWS_CONNECT_TIMEOUT": "5s"}
ALWAYS = 1 << 30
_NUMBERS = itertools.count()


@contextmanager
def store() -> Iterator[Wire]:
    """A wire to a server of its own; this process gets there by the wire alone."""
    with s3.server() as address, wire(address) as line:
        known = s3.environment(line.url.removeprefix("http://")) | ENVIRONMENT
        with (
            patch.dict(os.environ, known),
            patch.multiple(buckets, FIRST_PAUSE=0.01, LONGEST_PAUSE=0.05),
        ):
            yield line


def fresh_root(line: Wire) -> StoreLayout:
    """A root in a bucket of its own: the server looks at every object of a bucket to list some."""
    bucket = f"faults-{next(_NUMBERS)}"
    s3.make_bucket(line.upstream, bucket)
    return StoreLayout(f"s3://{bucket}/a-root")


def every_request(
    line: Wire, name: str, mode: str, first: int = 1, step: int = 1, most: int = 10000
) -> dict[str, Any]:
    """One harm at each request `first`, `first + step`, ... of an operation, `most` times at most.

    Returns:
        `requests` of the last operation, which nothing reached; `tried`; `bad` (sentences).
    """
    operation = OPERATIONS[name]
    with tempfile.TemporaryDirectory() as directory:
        local = StoreLayout(f"{directory}/run")
        operation.prepare(local)
        operation.act(local)
        complete = digests(local)
    point, tried = first, 0
    bad: list[str] = []
    while True:
        line.harm()
        layout = fresh_root(line)
        operation.prepare(layout)
        line.harm(*_harm(mode), point, ALWAYS if mode in (AWAY, FORBIDDEN) else point)
        wrong, said = _act(operation, layout, mode), line.requests
        if len(said) < point or tried == most:
            return {"requests": len(said), "tried": tried, "bad": bad + wrong}
        wrong += _deeds(line, name, layout)
        line.harm()
        ended = mode in HARMS
        wrong += [f"after the fault: {one}" for one in operation.complaints(layout, ended)]
        operation.act(layout)
        wrong += [f"after going on: {one}" for one in operation.complaints(layout, True)]
        if digests(layout) != complete:
            wrong.append("other bytes than undisturbed")
        bad += [f"{name}, {mode} at request {point}: {sentence}" for sentence in wrong]
        tried += 1
        point += step


def _harm(mode: str) -> tuple[str]:
    return ("reset",) if mode == AWAY else (mode,)


def _act(operation: Operation, layout: StoreLayout, mode: str) -> list[str]:
    """What is wrong with how an operation ends."""
    patience = 0.3 if mode == AWAY else buckets.PATIENCE
    try:
        with patch.object(buckets, "PATIENCE", patience):
            operation.act(layout)
    except buckets.StorageUnavailable as error:
        if mode in HARMS:
            return [f"it should pass, and ends with {error}"]
        if "\n" in str(error) or "s3://" not in str(error):
            return [f"no line that says where: {error}"]
        return []
    except Exception as error:
        return [f"it ends with {type(error).__name__}: {error}"]
    return []


def _deeds(line: Wire, name: str, layout: StoreLayout) -> list[str]:
    """What the server did and should not have done: a second root, or anything deleted."""
    done = [request for request, status in line.done if status < 300]
    wrong = []
    if name != "checkpoint" and name != "training's end":
        wrong += [f"the server deleted: {one}" for one in done if one.startswith(("DEL", "POST"))]
    roots = [one for one in done if one.startswith("PUT") and one.endswith(ROOTS)]
    if len(roots) > 1:
        wrong.append(f"{len(roots)} roots were put: {roots}")
    return wrong


def lane(directory: Path) -> dict[str, Any]:
    """Every second request loses its answer (in two ways, so that each does in one of them) in
    every operation; every thirteenth one has all other harms."""
    jobs = [(name, mode, 1 + k, 2) for k, mode in enumerate(EVERYWHERE) for name in OPERATIONS]
    others = (mode for mode in MODES if mode not in EVERYWHERE)
    jobs += [(name, mode, 1 + k % 13, 13) for k, mode in enumerate(others) for name in OPERATIONS]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        found = list(pool.map(_job, jobs))
    counts = {job[0]: one["requests"] for job, one in zip(jobs, found, strict=True)}
    return {
        "tried": sum(one["tried"] for one in found),
        "bad": [sentence for one in found for sentence in one["bad"]],
        "said": "requests: " + ", ".join(f"{name} {count}" for name, count in counts.items()),
    }


def _job(job: tuple[str, str, int, int]) -> dict[str, Any]:
    try:
        with store() as line:
            return every_request(line, *job)
    except Exception as error:  # the other jobs are still to be done
        said = f"{job[0]}, {job[1]}: the lane broke off with {type(error).__name__}: {error}"
        return {"requests": 0, "tried": 0, "bad": [said]}
