"""Units and missing values: declared, found, or refused with the line that declares them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from storage.sources.sources import SourceError, missing_values, open_source
from tests.storage.imitations import row


def dataset(days: int = 6, start: str = "2000-01-01", lat=None, lon=None) -> xr.Dataset:
    lat = np.array([-67.5, -22.5, 22.5, 67.5]) if lat is None else np.asarray(lat)
    lon = np.arange(8) * 45.0 if lon is None else np.asarray(lon)
    time = np.datetime64(start, "ns") + np.arange(days) * np.timedelta64(1, "D")
    values = 280 + np.random.default_rng(0).normal(size=(days, len(lat), len(lon)))
    attrs = {"units": "K", "standard_name": "air_temperature"}
    return xr.Dataset(
        {"ta": (("time", "lat", "lon"), values.astype(np.float32), attrs)},
        coords={
            "time": ("time", time, {"standard_name": "time"}),
            "lat": ("lat", lat, {"units": "degrees_north"}),
            "lon": ("lon", lon, {"units": "degrees_east"}),
        },
    )


def write(tmp_path: Path, source: xr.Dataset, name: str = "a.nc", **options) -> str:
    path = tmp_path / name
    path.unlink(missing_ok=True)
    source.to_netcdf(path, **options)
    return str(path)


def opened(tmp_path: Path, source: xr.Dataset, **options):
    return open_source(write(tmp_path, source), ["ta"], **options)


def refused(tmp_path: Path, source: xr.Dataset, match: str, **options) -> None:
    with pytest.raises(SourceError, match=match) as caught:
        opened(tmp_path, source, **options)
    assert caught.value.exit_code == 10


@row(
    "value", "units wrong or missing", "refused if missing; `[source] units = {...}` declares them"
)
def test_missing_and_wrong_units_are_declared_in_the_config(tmp_path):
    source = dataset()
    del source.ta.attrs["units"]
    refused(tmp_path, source, r'no units; .*units = \{ ta = "..." \}')
    fields, report = opened(tmp_path, source, units={"ta": "K"})
    assert fields.ta.attrs["units"] == "K"
    assert any("declared to be 'K'" in note for note in report.notes)


@row(
    "value",
    "units that change between files",
    "converted to those of the first, noted; refused if no conversion is known",
)
def test_units_that_change_between_files_are_converted_or_refused(tmp_path):
    write(tmp_path, dataset(3), "a.nc")
    later = dataset(3, "2000-01-04")
    celsius = later.copy(deep=True)
    celsius["ta"] = (later.ta - 273.15).assign_attrs(later.ta.attrs, units="degC")
    write(tmp_path, celsius, "b.nc")
    fields, report = open_source(str(tmp_path / "*.nc"), ["ta"])
    np.testing.assert_allclose(fields.ta[3:], later.ta, atol=1e-4)
    assert "b.nc: ta converted from degC to K" in report.notes
    celsius.ta.attrs["units"] = "furlong"
    write(tmp_path, celsius, "b.nc")
    with pytest.raises(SourceError, match=r"b\.nc: ta is in 'furlong'.*a value there is"):
        open_source(str(tmp_path / "*.nc"), ["ta"])


@row(
    "value",
    "fill values that nobody declares (9.97e36, 1e20, -999)",
    "refused with value, count and the line that declares it",
)
@pytest.mark.parametrize(
    ("value", "text"),
    [(1e20, "1e+20"), (9.969209968386869e36, "9.96921e+36"), (-999.0, "-999.0"), (9e3, "9000.0")],
)
def test_undeclared_fills_are_refused_with_value_count_and_remedy(tmp_path, value, text):
    source = dataset()
    source.ta[:2, 0, 0] = value
    with pytest.raises(SourceError) as caught:
        opened(tmp_path, source)
    assert f"ta: {text}" in str(caught.value)
    assert "2 times" in str(caught.value)
    assert f"[source] missing = {{ ta = {text} }}" in str(caught.value)
    fields, report = opened(tmp_path, source, missing={"ta": float(text)})
    assert np.isnan(fields.ta[:2, 0, 0]).all()
    assert report.missing["ta"].count == 2
    assert not report.missing["ta"].static


@row(
    "value",
    "values out of range",
    "refused; by the range of the standard_name, or `[source] valid_range`",
)
def test_an_unnamed_quantity_is_judged_by_the_declared_range(tmp_path):
    source = dataset()
    del source.ta.attrs["standard_name"]
    opened(tmp_path, source)
    refused(tmp_path, source, "out of range", valid_range={"ta": (0.0, 100.0)})


@row(
    "value",
    "land as exact 0, `missing = { x = 0.0 }`",
    "missing where it is always 0; other zeros are kept",
)
def test_a_declared_value_among_the_others_masks_only_cells_that_always_have_it(tmp_path):
    source = dataset() - 280
    source.ta.attrs = {"units": "K"}
    source.ta[:, 1, 2:5] = 0
    source.ta[3, 0, 0] = 0
    fields, report = opened(tmp_path, source, missing={"ta": 0.0})
    assert np.isnan(fields.ta[:, 1, 2:5]).all()
    assert fields.ta[3, 0, 0] == 0
    assert report.missing["ta"].count == 18
    assert report.missing["ta"].static
    assert any("1 single values of 0 elsewhere are kept" in note for note in report.notes)


@row("value", "a declared fill value that never occurs", "refused")
def test_a_declared_value_that_never_occurs_is_refused(tmp_path):
    refused(tmp_path, dataset(), "never occurs", missing={"ta": -1.0})


@row(
    "value",
    "missing values",
    "found, with their mask; what becomes of them is said in `[source] fill`",
)
def test_missing_values_are_reported_with_their_mask(tmp_path):
    source = dataset()
    source.ta[:, 0, :2] = np.nan
    fields, report = opened(tmp_path, source)
    assert report.missing["ta"].static
    assert report.missing["ta"].fraction == pytest.approx(2 / 32)
    assert missing_values(fields, ["ta"]) == dict(report.missing)
    source.ta[0, 1, 1] = np.nan
    _, report = opened(tmp_path, source)
    assert not report.missing["ta"].static
