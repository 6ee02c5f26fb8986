"""Every path of a run comes from its layout."""

from __future__ import annotations

import pytest

from storage.layout import KINDS, StoreLayout, records_of

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


@pytest.mark.parametrize("root", ["s3://bucket/run", "simplecache::/run", "", "a\nb"])
def test_roots_that_are_no_local_directory_are_refused(root):
    with pytest.raises(ValueError, match=r"run\.root"):
        StoreLayout(root)


def test_unknown_kinds_and_keys_are_refused():
    with pytest.raises(ValueError, match="no artifact kind 'maps'"):
        StoreLayout("root").name("maps")
    with pytest.raises(ValueError, match="64 lower-case hex"):
        StoreLayout("root").artifact("fields", "../../etc")
