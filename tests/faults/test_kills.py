"""A worker and a whole run killed in one stage; every place and every stage is `make faults`."""

import os
import signal

import pytest

from tests.faults.kills import DEAD_SECONDS, _begun, _faults
from tests.faults.runs import World


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"), {"cluster": {"workers": 1}})


@pytest.mark.long
def test_ingest_survives_its_worker_and_its_flow(world):
    lost = world.run("worker")
    lost.faults = _faults("before its record", ["fields"], "kill")
    assert lost.finish("ingest") == 0, lost.last_words()
    assert lost.happened() == 1
    assert sum(lost.attempts().values()) == len(lost.records()) + 1

    killed = world.run("flow")
    process = killed.start("ingest")
    assert _begun(killed, "fields"), killed.last_words()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert killed.gone_within(2 * DEAD_SECONDS) is not None, killed.clear()
    before = killed.records()
    assert killed.finish("ingest") == 0, killed.last_words()
    assert killed.digests() == lost.digests() != {}
    after = killed.records()
    assert all(after[name] == known for name, known in before.items())
    assert killed.complaints(lost.digests()) == []
