"""Places in a bucket, with a real S3 server: what is asked again, what is refused, what is kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.artifacts import audit
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from storage.artifacts.pointers import leads_to, point
from storage.errors import CorruptFile, CorruptShard, NameConflict
from storage.places import buckets
from storage.places.files import write_file, write_file_once
from storage.places.places import BucketPath, matching, place_of, sizes_below
from tests.faults.operations import OPERATIONS, build, fields, key_of
from tests.faults.proxy import Wire, wire


@pytest.fixture
def place(bucket: str) -> BucketPath:
    return BucketPath(bucket, "a/run")


@pytest.fixture
def line(s3_server: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """A wire to the server, which this process goes by."""
    monkeypatch.setattr(buckets, "FIRST_PAUSE", 0.01)
    monkeypatch.setenv("AWS_TIMEOUT", "2s")
    with wire(s3_server) as one:
        monkeypatch.setenv("AWS_ENDPOINT_URL", one.url)
        yield one


def test_a_place_in_a_bucket_has_the_words_of_a_path() -> None:
    place = place_of("s3://some-bucket/a/run/")
    path = Path("/a/run")
    assert isinstance(place, BucketPath)
    for way in ("x.zarr", "b/c.zarr", "c"):
        ours, theirs = place / way, path / way
        assert ours.name == theirs.name and ours.suffix == theirs.suffix
        assert str(ours) == f"s3://some-bucket{theirs}"
        assert str(ours.parent) == f"s3://some-bucket{theirs.parent}"
        assert ours.with_suffix(".records").name == theirs.with_suffix(".records").name
        assert str(ours.relative_to(place)) == way
    with pytest.raises(TypeError):
        os.fspath(place)  # type: ignore[call-overload]


def test_objects_are_found_as_files_are(place: BucketPath, tmp_path: Path) -> None:
    names = (
        "a-1.records/t.json",
        "a-1.zarr/x/c/0",
        "a-1.zarr/zarr.json",
        "a-2.zarr/zarr.json",
        "b",
    )
    for name in names:
        write_file(place / name, name.encode())
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_file(tmp_path / name, name.encode())
    for pattern in ("a-*", "*", "*/zarr.json", "a-*.records/t.json", "a-1.zarr/*/c/*", "no*", "b"):
        ours = [str(one.relative_to(place)) for one in matching(place, pattern)]
        theirs = [str(one.relative_to(tmp_path)) for one in matching(tmp_path, pattern)]
        assert ours == theirs, pattern
    assert sizes_below(place) == {name: len(name) for name in names}
    assert (place / "a-1.zarr").is_dir() and not (place / "a-1").exists()
    assert (place / "b").is_file() and not (place / "a-1.zarr").is_file()


def test_a_name_is_the_way_to_an_artifact(place: BucketPath) -> None:
    name, target = place / "fields.zarr", place / "artifacts" / f"fields-{'0' * 16}.zarr"
    assert leads_to(name) is None
    point(name, target)
    assert leads_to(name) == target
    assert name.read_bytes() == f"artifacts/fields-{'0' * 16}.zarr".encode()
    write_file(name, b"something else")
    with pytest.raises(FileExistsError, match="is no name"):
        point(name, target)
    with pytest.raises(CorruptFile):
        leads_to(name)


def test_what_stands_where_a_name_belongs_is_left(place: BucketPath) -> None:
    layout = StoreLayout(str(place))
    write_file(layout.name("ensemble") / "zarr.json", b"theirs")
    with pytest.raises(NameConflict, match="objects lie below"):
        build(layout, 1, 1)


@pytest.mark.parametrize("name", ["publication", "growth", "checkpoint", "training's end"])
def test_operations_do_in_a_bucket_what_they_do_on_a_disk(place: BucketPath, name: str) -> None:
    operation, layout = OPERATIONS[name], StoreLayout(str(place))
    operation.prepare(layout)
    operation.act(layout)
    assert operation.complaints(layout, True) == []


def test_nobody_opens_what_is_not_published(place: BucketPath) -> None:
    layout = StoreLayout(str(place))
    published = build(layout, 1, 1)
    root = published.path / "zarr.json"
    marker = root.read_bytes()
    buckets.delete(place.bucket, [root.key])
    assert artifacts.find(layout, "ensemble", key_of(1)) is None
    write_file(root, marker)
    assert artifacts.find(layout, "ensemble", key_of(1)) == published


def test_an_object_that_changed_is_an_error_and_never_a_number(place: BucketPath) -> None:
    layout = StoreLayout(str(place))
    shard = build(layout, 1, 1).path / "ta" / "c" / "0" / "0" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[3] ^= 1
    write_file(shard, bytes(content))
    assert len(audit.check(layout)) == 1
    with pytest.raises(CorruptShard):
        artifacts.open_published(layout, "ensemble").load()
    buckets.delete(place.bucket, [shard.key])
    with pytest.raises(artifacts.CorruptArtifact, match="lacks 1 of its files"):
        artifacts.open_published(layout, "ensemble")


def test_an_object_is_put_once(place: BucketPath) -> None:
    write_file_once(place / "x", b"first", place / "beside")
    with pytest.raises(FileExistsError):
        write_file_once(place / "x", b"second", place / "beside")
    assert (place / "x").read_bytes() == b"first"


@pytest.mark.parametrize("harm", ["lost", "reset after", "stall after", "truncated"])
def test_an_answer_that_is_lost_is_read_back(line: Wire, place: BucketPath, harm: str) -> None:
    line.harm(harm, 1)
    write_file_once(place / "x", b"ours", place / "beside")
    assert [request.split()[0] for request in line.requests] == ["PUT", "GET"]
    write_file(place / "y", b"theirs")
    line.harm("500", 1)  # before the server heard of it: another one's object is no lost answer
    with pytest.raises(FileExistsError):
        write_file_once(place / "y", b"ours", place / "beside")
    assert (place / "y").read_bytes() == b"theirs"


def test_an_outcome_that_cannot_be_known_is_said(
    line: Wire, place: BucketPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "PATIENCE", 0.3)
    line.harm("reset after", 1, 10**6)
    with pytest.raises(buckets.OutcomeUnknown, match="nothing was deleted") as unknown:
        write_file_once(place / "x", b"ours", place / "beside")
    assert unknown.value.exit_code == 32
    line.harm()
    assert (place / "x").read_bytes() == b"ours"


@pytest.mark.parametrize(("harm", "code"), [("403", 31), ("507", 30)])
def test_what_cannot_pass_is_asked_once(
    line: Wire, place: BucketPath, harm: str, code: int
) -> None:
    line.harm(harm, 1, 10**6)
    with pytest.raises(buckets.StorageUnavailable) as refused:
        write_file(place / "x", b"ours")
    assert refused.value.exit_code == code
    assert len(line.requests) == 1
    assert str(place / "x") in str(refused.value) and "\n" not in str(refused.value)


def test_large_objects_are_read_and_put_in_parts(
    line: Wire, place: BucketPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytes(range(256)) * 50000
    monkeypatch.setattr(buckets, "LARGE", 6 << 20)
    write_file(place / "x", content)
    line.harm("truncated", 2)
    assert (place / "x").read_bytes() == content
    assert len(line.requests) == 5  # the size, three parts, one of them again


def test_a_bucket_that_is_not_there_is_said(place: BucketPath) -> None:
    absent = BucketPath(f"no-{place.bucket}", "a")
    for ask in (absent.read_bytes, absent.exists, lambda: write_file(absent, b"")):
        with pytest.raises(buckets.StorageUnavailable, match="no such bucket"):
            ask()


def test_parts_of_shards_are_read(place: BucketPath) -> None:
    layout = StoreLayout(str(place))
    build(layout, 2, 1)
    seen = artifacts.open_published(layout, "ensemble")
    part = {"realization": 1, "time": [5, 0, 4], "lon": slice(1, 3)}
    assert (seen["ta"].isel(part).values == fields(2)["ta"].isel(part).values).all()
