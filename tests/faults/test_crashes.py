"""Some of the crash points of `make faults`, and that the lane finds what is wrong."""

from __future__ import annotations

import pytest

from tests.faults import crashes

MODES = ("killed", "torn", "lost", "full", "failing")
PLACES = {
    "publication": (25, 70),
    "growth": (130, 50),
    "checkpoint": (3, 5),
    "training's end": (30, 4),
    "report": (2, 4),
}
JOBS = [(name, mode, *where) for name, where in PLACES.items() for mode in MODES]
HEIRS = {
    "publication": (110, 50),
    "growth": (170, 45),
    "checkpoint": (13, 4),
    "training's end": (40, 8),
    "report": (30, 12),
}
JOBS += [(name, "heirs", *where) for name, where in HEIRS.items()]
MISTAKES = [("careless", "torn", 60, 20), ("careless", "heirs", 60, 20)]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    jobs = [*JOBS, *MISTAKES]
    results = crashes.run(jobs, tmp_path_factory.mktemp("disk"))
    return dict(zip(jobs, results, strict=True))


@pytest.mark.parametrize("job", JOBS, ids=lambda job: f"{job[0]}, {job[1]}")
def test_after_a_fault_a_store_is_whole_and_goes_on(found, job):
    assert found[job]["tried"] >= 2
    assert found[job]["bad"] == []


@pytest.mark.parametrize("job", MISTAKES, ids=lambda job: f"{job[0]}, {job[1]}")
def test_the_lane_finds_a_mistake(found, job):
    assert found[job]["bad"]


def test_there_are_as_many_crash_points_as_are_promised(found):
    assert sum({job[0]: found[job]["calls"] for job in JOBS}.values()) >= 40
