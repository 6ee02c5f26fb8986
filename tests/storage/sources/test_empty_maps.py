"""Maps without any value are times that lack, not values that something could stand for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from storage.sources.sources import open_source
from storage.sources.survey import Survey, total
from tests.storage.imitations import days, opened, refused, regular, row, write


def lacking(*places: int, count: int = 12) -> xr.Dataset:
    source = regular(count)
    source.ta[list(places)] = np.nan
    return source


@row(
    "value",
    "a time axis that goes on beyond the data",
    "refused: N maps are empty, from ... to ...; `period` takes the rest",
)
def test_a_time_axis_beyond_the_data_is_cut_by_the_period_that_is_offered(tmp_path):
    path = write(tmp_path, lacking(8, 9, 10, 11))
    text = refused("ta: 4 maps are empty, from 2000-01-09 to 2000-01-12", path)
    assert 'period = ["2000-01-01", "2000-01-08"]' in text
    assert "= 0" not in text
    fields, _ = open_source(path, ["ta"], period=("2000-01-01", "2000-01-08"))
    np.testing.assert_array_equal(fields.ta, regular(12).ta[:8])


@row(
    "value",
    "empty maps within a record",
    'refused; `[source] drop = ["2000-01-04/2000-01-06"]` leaves them out, noted and without a gap',
)
def test_empty_maps_within_a_record_are_dropped_as_is_offered(tmp_path):
    path = write(tmp_path, lacking(3, 4, 5, 8))
    text = refused("ta: 4 maps are empty, from 2000-01-04 to 2000-01-09", path)
    assert 'drop = ["2000-01-04/2000-01-06", "2000-01-09"]' in text
    fields, report = open_source(path, ["ta"], drop=["2000-01-04/2000-01-06", "2000-01-09"])
    np.testing.assert_array_equal(fields.ta, regular(12).ta[[0, 1, 2, 6, 7, 9, 10, 11]])
    assert report.gaps == () and report.missing == {}
    assert any("4 times dropped, as source.drop says" in note for note in report.notes)
    refused("source.drop names '2001-01-01', when ta has no time", path, drop=["2001-01-01"])


def test_a_time_of_a_day_is_dropped_alone(tmp_path):
    source = lacking(5).assign_coords(time=days(12, step=np.timedelta64(6, "h")))
    path = write(tmp_path, source)
    text = refused("ta: 1 map of 12 is empty, at 2000-01-02T06:00:00", path)
    assert 'drop = ["2000-01-02T06:00:00"]' in text
    fields, _ = open_source(path, ["ta"], drop=["2000-01-02T06:00:00"])
    assert fields.sizes["time"] == 11


def test_a_map_of_a_declared_fill_is_empty(tmp_path):
    source = regular(12)
    source.ta[4] = -999.0
    refused("ta: 1 map of 12 is empty", write(tmp_path, source), missing={"ta": -999.0})


@row("value", "a chunk of a Zarr store is lost, its fill value NaN", "refused, the chunk named")
@pytest.mark.parametrize(("version", "chunk"), [(2, "ta/2.0.0"), (3, "ta/c/2/0/0")])
def test_a_lost_chunk_is_named(tmp_path, version, chunk):
    encoding = {"ta": {"chunks": (3, 4, 8)}}
    path = write(tmp_path, regular(12), "a.zarr", zarr_format=version, encoding=encoding)
    Path(path, chunk).unlink()
    refused(f"3 maps are empty, from 2000-01-07 to 2000-01-09.*chunks {chunk} are not in", path)


@row(
    "value",
    "files that overlap, one empty where the other has values",
    "the values are taken, noted; values that contradict each other are refused",
)
@pytest.mark.parametrize("empty", ["a.nc", "b.nc"])
def test_values_beat_empties_where_files_overlap(tmp_path, empty):
    whole, hollow = regular(12), lacking(6, 7)
    hollow.ta[5, :2] = np.nan
    parts = {"a.nc": slice(0, 8), "b.nc": slice(5, 12)}
    for name, part in parts.items():
        write(tmp_path, (hollow if name == empty else whole).isel(time=part), name)
    fields, report = open_source(str(tmp_path / "*.nc"), ["ta"])
    np.testing.assert_array_equal(fields.ta, whole.ta)
    assert "3 repeated times with fewer values of ta dropped" in report.notes
    other = whole.copy(deep=True)
    other.ta[6, 0, 0] += 1
    write(tmp_path, other.isel(time=parts[empty]), empty)
    refused("2000-01-07 occurs twice with different values", str(tmp_path / "*.nc"))


@row("value", "masks that move", "counted: how many values are missing, and how many of them move")
def test_the_values_that_come_and_go_are_counted(tmp_path):
    source = regular()
    source.ta[:, 0, :3] = np.nan
    source.ta[2, 1, 1] = source.ta[3, 1, 1] = source.ta[3, 2, 2] = np.nan
    _, report = opened(tmp_path, source)
    found = report.missing["ta"]
    assert (found.count, found.moving, found.cells, found.static) == (21, 3, 2, False)


def test_empty_maps_are_found_wherever_a_survey_is_cut():
    values = lacking(0, 4, 5, 11).ta.values
    whole = Survey.of(values)
    assert whole.empty == (0, 4, 5, 11)
    for size in (1, 3, 5):
        parts = [Survey.of(values[at : at + size]) for at in range(0, 12, size)]
        again = total(Survey.from_json(part.to_json()) for part in parts)
        assert again.empty == whole.empty
