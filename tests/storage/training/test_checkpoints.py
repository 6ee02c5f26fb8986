"""The newest whole state is the one that training resumes from."""

from __future__ import annotations

import hashlib
import json
import logging
import struct
from pathlib import Path

import numpy as np
import pytest

from storage.artifacts import audit
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from storage.places import files
from storage.training import checkpoints

KEY = "ab" * 32


def tensors(step: int) -> dict[str, np.ndarray]:
    return {"w": np.full((2, 3), step, dtype=np.float32), "rng": np.arange(4, dtype=np.uint8)}


def save_steps(directory: Path, *steps: int) -> list[Path]:
    return [checkpoints.save(directory, s, tensors(s), {"losses": [0.5, s]}) for s in steps]


def test_a_state_comes_back_as_it_was_saved(tmp_path):
    save_steps(tmp_path, 7)
    step, numbers, meta = checkpoints.load_latest(tmp_path)
    assert step == 7
    assert meta == {"losses": [0.5, 7]}
    assert numbers.keys() == tensors(7).keys()
    for name, expected in tensors(7).items():
        assert numbers[name].dtype == expected.dtype
        np.testing.assert_array_equal(numbers[name], expected)


def test_no_state_is_none(tmp_path):
    assert checkpoints.load_latest(tmp_path) is None


def test_three_states_are_kept(tmp_path):
    save_steps(tmp_path, 1, 2, 10, 100)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "step-000000002",
        "step-000000010",
        "step-000000100",
    ]


def test_the_first_state_goes_as_every_other_one_does(tmp_path):
    save_steps(tmp_path, 0, 1, 2, 3)
    assert sorted(p.name[-1] for p in tmp_path.iterdir()) == ["1", "2", "3"]
    checkpoints.save(tmp_path, 4, tensors(4), {}, also=1)
    assert sorted(p.name[-1] for p in tmp_path.iterdir()) == ["1", "2", "3", "4"]


@pytest.mark.parametrize("file", ["tensors.safetensors", "meta.json", "manifest.json"])
@pytest.mark.parametrize("harm", ["flip", "truncate", "delete"])
def test_a_bad_newest_is_reported_and_the_one_before_is_used(tmp_path, caplog, file, harm):
    newest = save_steps(tmp_path, 1, 2)[1] / file
    content = bytearray(newest.read_bytes())
    match harm:
        case "flip":
            content[len(content) // 2] ^= 1
            newest.write_bytes(content)
        case "truncate":
            newest.write_bytes(content[:-3])
        case "delete":
            newest.unlink()
    with caplog.at_level(logging.WARNING):
        assert checkpoints.load_latest(tmp_path).step == 1
    assert "step-000000002 is not used" in caplog.text
    assert len(checkpoints.rejected(tmp_path)) == 1


def test_a_state_left_half_written_is_not_seen(tmp_path):
    save_steps(tmp_path, 1)
    (tmp_path / ".step-000000002.1-abc").mkdir()
    assert checkpoints.load_latest(tmp_path).step == 1


def test_a_published_training_is_found_and_loads(tmp_path):
    layout = StoreLayout(str(tmp_path))
    save_steps(layout.artifact("checkpoints", KEY), 1, 2)
    artifact = checkpoints.publish(layout, KEY, {"seconds": 1.5})
    assert artifacts.find(layout, "checkpoints", KEY) == artifact
    assert artifacts.published(layout, "checkpoints").attrs["seconds"] == 1.5
    assert checkpoints.load_latest(layout.name("checkpoints")).step == 2
    assert audit.check(layout) == []
    assert checkpoints.publish(layout, KEY, {}) == artifact


def test_the_digest_covers_the_final_state_and_no_attributes(tmp_path):
    def digest(name: str, *steps: int, **attrs: float) -> str:
        layout = StoreLayout(str(tmp_path / name))
        save_steps(layout.artifact("checkpoints", KEY), *steps)
        return checkpoints.publish(layout, KEY, attrs).digest

    reference = digest("a", 1, 5)
    assert digest("b", 2, 3, 5, seconds=3.0) == reference
    assert digest("c", 1, 6) != reference


def test_a_harmed_published_checkpoint_is_reported(tmp_path):
    layout = StoreLayout(str(tmp_path))
    (state,) = save_steps(layout.artifact("checkpoints", KEY), 1)
    checkpoints.publish(layout, KEY, {})
    file = state / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x07")
    (problem,) = audit.check(layout)
    assert "tensors.safetensors is corrupt" in problem


def test_nothing_to_publish_is_refused(tmp_path):
    with pytest.raises(artifacts.IncompleteArtifact, match="train first"):
        checkpoints.publish(StoreLayout(str(tmp_path)), KEY, {})


@pytest.mark.parametrize(
    "forged",
    [
        b"",
        b"\xff" * 8,
        struct.pack("<Q", 1 << 40) + b"{}",
        b'\x40\0\0\0\0\0\0\0{"w":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4]}}',
        b"\x80\x05\x8c\x08builtins\x8c\x05print\x93.",
    ],
)
def test_a_forged_state_with_right_seals_is_not_used(tmp_path, caplog, forged):
    """Who can write the tensors can write their sha256: sizes are checked by what reads them."""
    save_steps(tmp_path, 1)
    (path,) = save_steps(tmp_path, 2)
    (path / "tensors.safetensors").write_bytes(forged)
    seals = json.loads((path / "manifest.json").read_text())
    seals["tensors.safetensors"] = hashlib.sha256(forged).hexdigest()
    (path / "manifest.json").write_text(json.dumps(seals))
    with caplog.at_level(logging.WARNING):
        assert checkpoints.load_latest(tmp_path).step == 1
    assert "its seals match, but it is no state" in caplog.text


def test_a_directory_is_not_there_before_all_of_it_is(tmp_path, monkeypatch):
    target, seen, real = tmp_path / "step-1", [], files.write_new

    def watched(path, content):
        seen.append(target.exists())
        real(path, content)

    monkeypatch.setattr(files, "write_new", watched)
    files.write_directory(target, {"tensors": b"1", "manifest.json": b"2"})
    assert seen == [False, False]
    assert sorted(path.name for path in target.iterdir()) == ["manifest.json", "tensors"]
