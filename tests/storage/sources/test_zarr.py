"""Zarr stores that read as something that nobody measured, wherever they lie."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from storage.sources.source_files import source_digest
from storage.sources.sources import open_source
from tests.storage.imitations import refused, regular, row, served_by, write


def rain(fill: float | None = 0.0, lat: Any = (-80.0, -40, 0, 40, 80)) -> xr.Dataset:
    """Days of rain with dry cells, latitudes and longitudes that have a 0 among them."""
    source = regular(lat=lat, name="pr")
    source["pr"] = (source.pr - 280).clip(0).assign_attrs(units="mm day-1")
    source.pr.encoding["_FillValue"] = fill
    return source


def plain_store(path: Path, source: xr.Dataset) -> str:
    """As zarr-python writes arrays of format 2 if nobody says a fill value: it is 0."""
    import zarr

    group = zarr.open_group(path, mode="w", zarr_format=2)
    source = source.assign_coords(time=("time", np.arange(source.sizes["time"])))
    source.time.attrs = {"units": "days since 2000-01-01", "standard_name": "time"}
    for name, variable in source.variables.items():
        array: Any = group.create_array(
            name, shape=variable.shape, dtype=variable.dtype, fill_value=0,
            chunks=(1, *variable.shape[1:]) if variable.ndim > 1 else variable.shape,
        )  # fmt: skip
        array[:] = variable.values
        array.attrs.update({**variable.attrs, "_ARRAY_DIMENSIONS": list(variable.dims)})
    return str(path)


@row(
    "format",
    "Zarr 2 with its default fill value of 0, zeros among the values",
    'refused; `zarr_fill = "value"` or `"missing"` says what they are; in coordinates they are '
    "values",
)
def test_zeros_of_zarr_2_are_values_or_missing_as_is_said(tmp_path):
    source = rain(None)
    path = plain_store(tmp_path / "a.zarr", source)
    dry = int((source.pr == 0).sum())
    assert dry > 20
    said = refused("0 stands for missing, which is what zarr writes if nobody says", path, ["pr"])
    assert 'zarr_fill = "value"' in said
    fields, _ = open_source(path, ["pr"], zarr_fill="value")
    np.testing.assert_array_equal(fields.pr, source.pr)
    np.testing.assert_array_equal(fields.lat, source.lat)
    assert fields.lon[0] == 0
    fields, report = open_source(path, ["pr"], zarr_fill="missing")
    assert report.missing["pr"].count == dry
    warm = plain_store(tmp_path / "b.zarr", regular())
    np.testing.assert_array_equal(open_source(warm, ["ta"])[0].ta, regular().ta)


def test_a_fill_value_that_somebody_chose_is_missing(tmp_path):
    packed = {"pr": {"_FillValue": -1, "dtype": "int16", "scale_factor": 0.01}}
    path = write(tmp_path, rain(), "a.zarr", zarr_format=2, encoding=packed)
    fields, report = open_source(path, ["pr"])
    assert not report.missing
    assert (fields.pr == 0).sum() > 20
    path = write(tmp_path, rain(), "b.zarr", zarr_format=3)  # an attribute _FillValue: chosen
    assert open_source(path, ["pr"])[1].missing["pr"].count > 20


def test_the_digest_of_a_store_knows_which_chunk_is_which(tmp_path):
    one = {"ta": {"chunks": (1, 4, 8)}}
    path = Path(write(tmp_path, regular(), "a.zarr", zarr_format=3, encoding=one))
    digest = source_digest(str(path))
    (path / "ta/c/5").rename(path / "ta/c/9")  # in the same order as before
    moved = source_digest(str(path))
    assert moved != digest
    (path / "ta/c/9").rename(path / "ta/c/5")
    for old, new in (("1", "9"), ("2", "1"), ("9", "2")):
        (path / "ta/c" / old).rename(path / "ta/c" / new)
    assert source_digest(str(path)) not in (digest, moved)
    for old, new in (("1", "9"), ("2", "1"), ("9", "2")):
        (path / "ta/c" / old).rename(path / "ta/c" / new)
    path.rename(tmp_path / "b.zarr")
    same = source_digest(str(tmp_path / "b.zarr"))
    assert same == digest, "the name of the store itself does not count"


def test_the_digest_of_a_reference_follows_the_files_that_it_leads_to(tmp_path):
    data = tmp_path / "data.bin"
    data.write_bytes(b"\0" * 64)
    path = tmp_path / "refs.json"
    path.write_text(json.dumps({"refs": {".zgroup": "{}", "ta/0.0": [str(data), 0, 64]}}))
    digest = source_digest(str(path))
    data.write_bytes(b"\1" * 64)
    assert source_digest(str(path)) != digest


def stored(tmp_path: Path, kind: str, fill: float | None, lacking: list[str]) -> str:
    """A store without some of its chunks: a directory, a zip file, a reference, or an address."""
    encoding: Any = {"ta": {"chunks": (1, 2, 8)}}
    if fill is not None:
        encoding["ta"]["_FillValue"] = fill
    path = Path(
        write(tmp_path, regular(), "a.zarr", zarr_format=2, consolidated=True, encoding=encoding)
    )
    if fill is None:
        for name in (".zarray", "../.zmetadata"):
            text = (path / "ta" / name).read_text()
            (path / "ta" / name).write_text(text.replace('"NaN"', "null"))
    for chunk in lacking:
        (path / "ta" / chunk).unlink()
    if kind == "zip":
        shutil.make_archive(str(path), "zip", path)
        return f"{path}.zip"
    if kind == "reference":
        refs: dict[str, Any] = {}
        for file in path.rglob("*"):
            key = file.relative_to(path).as_posix()
            if file.is_file() and not key.endswith(".zmetadata"):
                meta = file.name.startswith(".z")
                refs[key] = file.read_text() if meta else [str(file), 0, file.stat().st_size]
        (tmp_path / "refs.json").write_text(json.dumps({"refs": refs}))
        return str(tmp_path / "refs.json")
    return str(path)


@row(
    "format",
    "chunks that are not in a store, of which nothing beside them is either",
    "refused where they would read as a number or as anything: in directories, zip files, "
    "references and at addresses",
)
@pytest.mark.parametrize("kind", ["directory", "zip", "reference", "address"])
@pytest.mark.parametrize("fill", [-9.0, None])
def test_chunks_that_lack_are_found_wherever_the_store_lies(tmp_path, kind, fill):
    path = stored(tmp_path, kind, fill, ["2.0.0", "2.1.0"])
    match = "chunks of ta are not in the store.*first from index 2 on"
    if kind != "address":
        refused(match, path)
        return
    pytest.importorskip("obstore")
    with served_by(tmp_path) as address:
        refused(match, f"{address}/a.zarr")


@pytest.mark.parametrize("kind", ["directory", "zip", "reference", "address"])
def test_chunks_that_are_all_fill_value_may_lack(tmp_path, kind):
    path = stored(tmp_path, kind, -9.0, ["2.0.0", "3.1.0"])
    if kind == "address":
        pytest.importorskip("obstore")
        with served_by(tmp_path) as address:
            report = open_source(f"{address}/a.zarr", ["ta"])[1]
    else:
        report = open_source(path, ["ta"])[1]
    assert report.missing["ta"].count == 2 * 2 * 8


@row(
    "harm", "a store whose metadata are not in one place, with a chunk of gigabytes", "refused: 10"
)
def test_documents_are_examined_wherever_they_are_read(tmp_path):
    pytest.importorskip("obstore")
    path = Path(write(tmp_path, regular(), "a.zarr", zarr_format=3, consolidated=True))
    whole = json.loads((path / "zarr.json").read_text())
    array = whole["consolidated_metadata"]["metadata"]["ta"]
    array["chunk_grid"]["configuration"]["chunk_shape"] = [10**9, 4, 8]
    (path / "zarr.json").write_text(json.dumps(whole))
    with served_by(tmp_path) as address:
        refused("a chunk of ta has .* bytes, more than", f"{address}/a.zarr")


def test_metadata_are_examined_as_they_pass(tmp_path):
    """Of a store that is not consolidated, each array's own document is read when it is opened."""
    import zarr
    from zarr.storage import LocalStore

    from storage.conventions.axes import SourceError
    from storage.sources.formats.zarr import SourceStore

    path = Path(write(tmp_path, regular(), "a.zarr", zarr_format=3, consolidated=False))
    array = json.loads((path / "ta/zarr.json").read_text())
    array["chunk_grid"]["configuration"]["chunk_shape"] = [10**9, 4, 8]
    (path / "ta/zarr.json").write_text(json.dumps(array))
    store: Any = SourceStore(LocalStore(path, read_only=True), "there")
    with pytest.raises(SourceError, match="there: a chunk of ta has"):
        zarr.open_group(store, mode="r")["ta"]
