"""Some of the failing requests of `make faults`, and that the lane finds what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import pytest

from storage.places import buckets
from tests.faults import objects
from tests.faults.proxy import Wire

PLACES = (
    ("publication", "lost", 37, 1, 1),
    ("publication", "truncated", 20, 1, 1),
    ("growth", "503", 90, 1, 1),
    ("checkpoint", "reset after", 3, 3, 2),
    ("checkpoint", "away", 5, 1, 1),
    ("training's end", "stall", 9, 1, 1),
)


@pytest.fixture(scope="module")
def store() -> Iterator[Wire]:
    pytest.importorskip("moto")
    with objects.store() as known:
        yield known


@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place[0]}, {place[1]}")
def test_after_a_fault_a_bucket_is_whole_and_goes_on(
    store: Wire, place: tuple[str, str, int, int, int]
) -> None:
    found = objects.every_request(store, *place)
    assert found["tried"] == place[-1]
    assert found["bad"] == []


def test_the_lane_finds_a_root_that_is_put_twice(store: Wire) -> None:
    def careless(bucket: str, key: str, content: bytes) -> None:
        buckets.put(bucket, key, content)

    root = at_root(store, "training's end")
    with patch.object(buckets, "put_once", careless):
        found = objects.every_request(store, "training's end", "lost", root, 1, 1)
    assert any("roots were put" in sentence for sentence in found["bad"])


@pytest.mark.parametrize("mode", ["lost", "reset after", "stall after", "truncated", "away"])
def test_one_root_is_put_whatever_becomes_of_the_answer(store: Wire, mode: str) -> None:
    found = objects.every_request(store, "publication", mode, at_root(store, "publication"), 1, 1)
    assert (found["tried"], found["bad"]) == (1, [])


def at_root(line: Wire, name: str) -> int:
    """The number of the request that puts the root."""
    layout = objects.fresh_root(line)
    objects.OPERATIONS[name].prepare(layout)
    line.harm()
    objects.OPERATIONS[name].act(layout)
    roots = [one.startswith("PUT") and one.endswith(objects.ROOTS) for one in line.requests]
    assert roots.count(True) == 1
    return roots.index(True) + 1
