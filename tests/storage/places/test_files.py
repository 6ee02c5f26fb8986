"""Files of a unit, written together: side by side, and all or none in their places."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from storage.places import buckets, files
from storage.places.files import sha256_of, write_together
from storage.places.places import BucketPath

CONTENT = [b"one", b"two", b"three"]


def test_sizes_and_digests_are_those_of_the_files(tmp_path: Path) -> None:
    places = [tmp_path / "new" / str(number) for number in range(3)]
    parts = [[content[:1], content[1:]] for content in CONTENT]
    written = write_together(dict(zip(places, parts, strict=True)), tmp_path / "beside")
    assert [place.read_bytes() for place in places] == CONTENT
    assert written == [(place.stat().st_size, sha256_of(place)) for place in places]
    assert sorted(tmp_path.rglob("*")) == sorted([tmp_path / "new", *places])


def test_nothing_is_moved_before_all_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def fails_for_the_second(path: Path) -> None:
        asked.append(path)
        if path.read_bytes() == CONTENT[1]:
            raise OSError("the disk fails")

    monkeypatch.setattr(files, "make_durable", fails_for_the_second)
    places = {tmp_path / str(number): [content] for number, content in enumerate(CONTENT)}
    with pytest.raises(OSError, match="the disk fails"):
        write_together(places, tmp_path / "beside")
    assert len(asked) == 3 and not list(tmp_path.iterdir())


def test_objects_are_put_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    all_of_them, put = threading.Barrier(3, timeout=60), {}

    def waits_for_the_others(bucket: str, key: str, content: bytes) -> None:
        all_of_them.wait()
        put[key] = content

    monkeypatch.setattr(buckets, "put", waits_for_the_others)
    place = BucketPath("a-bucket", "unit")
    objects = {place / str(number): [content] for number, content in enumerate(CONTENT)}
    written = write_together(objects, place / "beside")
    assert [put[f"unit/{number}"] for number in range(3)] == CONTENT
    assert [size for size, _ in written] == [3, 3, 5]
