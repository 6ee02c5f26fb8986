"""Paths and patterns: what is there is meant by its letters, what is not may be a pattern."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from storage.conventions.axes import SourceError
from storage.guards.named_files import resolve, told_apart
from storage.sources.sources import open_source
from tests.storage.imitations import regular, row, write


@row("format", "a file whose name looks like a pattern (`x[1].nc`)", "taken by its name")
def test_a_path_that_is_there_is_no_pattern(tmp_path):
    for name in ("x[1].nc", "x1.nc", "what?.nc"):
        (tmp_path / name).touch()
    assert resolve(str(tmp_path / "x[1].nc")) == [str(tmp_path / "x[1].nc")]
    assert resolve(str(tmp_path / "what?.nc")) == [str(tmp_path / "what?.nc")]
    assert resolve(str(tmp_path / "x[0-9].nc")) == [str(tmp_path / "x1.nc")]
    (tmp_path / "run[1]").mkdir()
    (tmp_path / "run[1]" / "a.nc").touch()
    assert resolve(str(tmp_path / "run[1]" / "*.nc")) == [str(tmp_path / "run[1]" / "a.nc")]


@row(
    "format",
    "patterns with `**`",
    "files in any depth, each once; what lies in a Zarr store is not",
)
def test_two_stars_are_any_number_of_directories(tmp_path, monkeypatch):
    for month, day in enumerate(("2000-01-01", "2000-01-07", "2000-01-13"), 1):
        folder = tmp_path / Path(*"abc"[:month])
        folder.mkdir(exist_ok=True)
        write(folder, regular(6, day, seed=month), f"{month}.nc")
    write(tmp_path / "a", regular(6, "2000-01-19"), "d.zarr")
    found = [Path(one).name for one in resolve(str(tmp_path / "**" / "*.nc"))]
    assert sorted(found) == ["1.nc", "2.nc", "3.nc"]
    fields, _ = open_source(str(tmp_path / "**" / "*"), ["ta"])
    assert fields.sizes["time"] == 24
    np.testing.assert_array_equal(fields.ta[12:18], regular(6, seed=3).ta)
    os.symlink(tmp_path / "a", tmp_path / "latest")
    assert len(resolve(str(tmp_path / "**" / "*.nc"))) == 3
    monkeypatch.chdir(tmp_path)
    assert sorted(resolve("**/*.nc")) == ["a/1.nc", "a/b/2.nc", "a/b/c/3.nc"]


def test_a_pattern_that_matches_nothing_is_refused(tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        resolve(str(tmp_path / "**" / "*.nc"))


def test_files_are_named_by_as_much_of_their_paths_as_tells_them_apart():
    files = ["a.nc", "x/a.nc", "x/a.nc", "x/b.nc", "p/q/a.nc", "r/q/a.nc"]
    names = ["a.nc", "x/a.nc", "x/a.nc", "b.nc", "p/q/a.nc", "r/q/a.nc"]
    assert told_apart(files) == names
    assert told_apart([]) == []
