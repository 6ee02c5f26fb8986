"""Some of the flips of `make faults`, on small artifacts, and that the lane finds what is wrong."""

import json

import pytest

from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from tests.faults import flips
from tests.faults.operations import _end_training, build, key_of


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Artifacts of both sorts: stores of units, and directories of files."""
    layout = StoreLayout(str(tmp_path_factory.mktemp("flips") / "run"))
    build(layout, 2, 1)
    _end_training(layout)
    scores = json.dumps({"J_G": 1.0}).encode()
    artifacts.publish_files(layout, "report", key_of(1), {"scores.json": scores}, {})
    return layout.path


def test_every_flipped_bit_is_found_in_files_of_every_sort(root):
    chosen = flips.choose(root, 160, seed=1)
    assert len({subject.sort for subject, _ in chosen}) >= 14
    found = flips.try_all(root, chosen)
    assert found["bad"] == []
    assert found["tried"] == 160
    refused = [sort for sort in found["counts"] if sort.endswith("refused")]
    assert len(refused) >= 6


def test_every_missing_file_is_found(root):
    chosen = [(subject, None) for subject in flips.data_files(root)]
    assert len(chosen) >= 20
    assert flips.try_all(root, chosen)["bad"] == []


@pytest.mark.parametrize(
    ("place", "sort"),
    [
        ("storage.artifacts.shards._checksum", "shards of ensemble"),
        ("storage.artifacts.audit.problems_of", "records of ensemble"),
    ],
)
def test_the_lane_finds_a_mistake(root, monkeypatch, place, sort):
    chosen = [one for one in flips.choose(root, 400, seed=2) if one[0].sort == sort]
    careless = {
        "storage.artifacts.shards._checksum": _agrees,
        "storage.artifacts.audit.problems_of": lambda path: [],
    }
    monkeypatch.setattr(place, careless[place])
    assert flips.try_all(root, chosen, foreign=False)["bad"]


class _Agrees(bytes):
    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = bytes.__hash__


def _agrees(data: object) -> bytes:
    return _Agrees(b"")


def _is_well(path: object) -> list[str]:
    return []


def test_a_root_that_reads_well_and_says_something_else_is_refused(tmp_path):
    layout = StoreLayout(str(tmp_path / "run"))
    marker = build(layout, 1, 1).path / "zarr.json"
    assert marker.read_text().count("a test") == 1
    marker.write_text(marker.read_text().replace("a test", "a best"))
    with pytest.raises(artifacts.CorruptArtifact, match="is not what was published"):
        flips.read(layout, "ensemble")
