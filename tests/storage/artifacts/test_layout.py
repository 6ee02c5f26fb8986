"""Every path of a run comes from its layout."""

from __future__ import annotations

import pytest

from storage.artifacts.layout import KINDS, StoreLayout, records_of

KEY = "0123456789abcdef" * 4


def test_artifacts_are_named_by_kind_and_head_of_the_key():
    layout = StoreLayout("runs/demo")
    assert str(layout.artifact("fields", KEY)) == "runs/demo/artifacts/fields-0123456789abcdef.zarr"
    assert layout.artifact("checkpoints", KEY).name == "checkpoints-0123456789abcdef"
    assert layout.name("ensemble").name == "ensemble.zarr"
    assert layout.name("checkpoints").name == "checkpoints"


@pytest.mark.parametrize("kind", KINDS)
def test_records_lie_beside_the_artifact(kind):
    layout = StoreLayout("root")
    records = layout.records(kind, KEY)
    assert records == records_of(layout.artifact(kind, KEY))
    assert records.parent == layout.artifact(kind, KEY).parent
    assert records != layout.artifact(kind, KEY)


@pytest.mark.parametrize(
    "root",
    [
        *("simplecache::/run", "", "a\nb", "http://host/run", "s3://", "s3://Bucket/run"),
        *("s3://bucket/a/../b", "s3://bucket/a//b", "s3://bucket/run?versionId=1"),
        "s3://key:secret@bucket/run",
    ],
)
def test_roots_that_are_neither_a_directory_nor_a_bucket_are_refused(root):
    with pytest.raises(ValueError, match=r"run\.root") as refused:
        StoreLayout(root)
    assert "secret" not in str(refused.value)


def test_what_needs_a_disk_lies_on_this_machine():
    assert str(StoreLayout("runs/demo").logs) == "runs/demo/logs"
    assert str(StoreLayout("s3://bucket/a/run").scratch) == "runs/bucket/a/run/scratch"
    assert str(StoreLayout("s3://bucket/a/run", "here").prefect) == "here/prefect"
    with pytest.raises(ValueError, match=r"run\.scratch must be a directory of this machine"):
        StoreLayout("s3://bucket/run", "s3://bucket/scratch")


def test_unknown_kinds_and_keys_are_refused():
    with pytest.raises(ValueError, match="no artifact kind 'maps'"):
        StoreLayout("root").name("maps")
    with pytest.raises(ValueError, match="64 lower-case hex"):
        StoreLayout("root").artifact("fields", "../../etc")
