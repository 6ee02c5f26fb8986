"""Disks without links or locks hold the same artifacts; readers write nothing."""

from __future__ import annotations

import pytest

from tests.faults import poor


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("poor")


@pytest.fixture(scope="module")
def rich(directory):
    return poor.operations("", directory)


@pytest.mark.parametrize("lacks", poor.LACKING)
def test_a_disk_that_lacks_something_holds_the_same_artifacts(rich, directory, lacks):
    found = poor.operations(lacks, directory)
    assert found["bad"] == []
    assert rich["bad"] == [] and len(rich["digests"]) == 6
    assert found["digests"] == rich["digests"]
