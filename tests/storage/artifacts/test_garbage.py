"""What `spherescore clean` takes away, and what it must leave."""

import pytest

from storage.artifacts import audit
from storage.artifacts import publishing as artifacts
from storage.artifacts.garbage import garbage, remove
from storage.artifacts.layout import StoreLayout, records_of
from storage.artifacts.published import files_of
from storage.places.files import write_file
from tests.faults.operations import KIND, _save, build, fields, key_of

ANOTHER = artifacts.content_key(stage="other", schema=0, config={}, inputs={}, code="")


def two_ensembles(layout):
    """A root with an ensemble, the one before it, and a training that the ensemble names."""
    build(layout, 1, 1)
    build(layout, 2, 2)
    return layout


@pytest.fixture
def layout(tmp_path):
    return two_ensembles(StoreLayout(str(tmp_path / "run")))


@pytest.fixture
def remote(bucket, tmp_path):
    return two_ensembles(StoreLayout(f"s3://{bucket}/a/run", str(tmp_path)))


@pytest.fixture(params=["layout", "remote"])
def anywhere(request):
    return request.getfixturevalue(request.param)


def publish_fields(layout, number, attrs):
    path = layout.artifact("fields", key_of(number))
    artifacts.create(path, fields(number))
    return artifacts.publish(layout, "fields", key_of(number), [], attrs)


def gone(layout, keys=()):
    pieces = garbage(layout, keys)
    for piece in pieces:
        remove(piece)
    return {path.name for piece in pieces for path in piece.paths}


def name_of(layout, kind, number):
    return layout.artifact(kind, key_of(number)).name


def test_what_the_name_led_to_before_goes_with_its_records(anywhere):
    layout = anywhere
    old = layout.artifact(KIND, key_of(1))
    (piece,) = garbage(layout, ())
    assert set(piece.paths) == {old, records_of(old)}
    files = [file.name for file in files_of(old)]
    assert len(files) > 5 and piece.size > 0
    assert old.exists()  # nothing goes by asking
    remove(piece)
    assert not old.exists() and not records_of(old).exists()
    assert garbage(layout, ()) == []
    assert audit.check(layout) == []
    assert artifacts.open_published(layout, KIND).load().sizes["realization"] == 2


def test_inputs_of_inputs_stay_by_their_digests(anywhere):
    layout = anywhere
    first = publish_fields(layout, 1, {})
    second = publish_fields(layout, 2, {"made": {"from": [first.digest]}})
    publish_fields(layout, 3, {"source": f"see {second.digest}"})
    assert gone(layout) == {name_of(layout, KIND, 1), f"{KIND}-{key_of(1)[:16]}.records"}
    assert artifacts.find(layout, "fields", key_of(1)) is not None
    publish_fields(layout, 4, {})
    left = {path.name for path in layout.artifacts.glob("fields-*.zarr")}
    assert gone(layout) >= left - {name_of(layout, "fields", 4)} != set()


def test_unfinished_work_of_this_configuration_stays(anywhere):
    layout = anywhere
    for key in (key_of(7), ANOTHER):
        artifacts.create(layout.artifact("fields", key), fields(1), shards={"time": 4})
    _save(layout, 1)
    going = gone(layout, [key_of(7), key_of(1)])
    assert layout.artifact("fields", ANOTHER).name in going
    assert layout.artifact("fields", key_of(7)).exists()
    assert layout.artifact("checkpoints", key_of(1)).exists()


def test_what_dead_processes_left_goes_and_names_like_it_stay(layout):
    current = layout.artifact(KIND, key_of(2))
    litter = [
        layout.path / ".ensemble.zarr.12-0123abcd",
        layout.artifacts / ".fields-0123456789abcdef.zarr.77-89abcdef" / "ta" / "zarr.json",
        records_of(current) / ".realization-0-1.time-0-4.3-deadbeef",
        records_of(current) / "realization-0-1" / ".time-0-4.json.3-deadbeef",
        layout.scratch / "dask-x1" / "spilled",
    ]
    mine = [layout.path / ".notes", layout.artifacts / "fields-of-mine", layout.path / "data.nc"]
    for path in (*litter, *mine):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 10)
    gone(layout)
    assert not any(path.exists() for path in litter)
    assert all(path.exists() for path in mine)
    assert audit.check(layout) == []


def test_nothing_is_cleaned_of_a_root_whose_named_artifact_cannot_be_read(anywhere):
    layout = anywhere
    write_file(artifacts.published(layout, KIND).path / "zarr.json", b"{}")
    with pytest.raises(artifacts.CorruptArtifact):
        garbage(layout, ())


def test_a_removal_that_is_interrupted_leaves_no_artifact_and_can_be_repeated(layout, monkeypatch):
    (piece,) = garbage(layout, ())
    monkeypatch.setattr("shutil.rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        remove(piece)
    monkeypatch.undo()
    assert artifacts.find(layout, KIND, key_of(1)) is None
    (again,) = garbage(layout, ())
    assert again.reason.startswith("unfinished")
    remove(again)
    assert garbage(layout, ()) == []
