"""Sources of every format reach the workers of a cluster, who open them by themselves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from flows.config.schema import RunConfig
from flows.progress import Progress
from flows.stages.ingest import ingest
from storage.artifacts.layout import StoreLayout
from tests.storage.imitations import on_first_days, regular, served_by, write


def ingested(table: dict[str, Any], client: Any, quiet: Progress, **source: Any) -> xr.Dataset:
    table["source"] = source
    on_first_days(table)
    config = RunConfig.from_dict(table)
    layout = StoreLayout(config.run.root)
    ingest.run(config, layout, client, quiet)
    return xr.open_zarr(layout.name("fields"))


def test_grib_is_ingested(
    table: dict[str, Any], client: Any, quiet: Progress, tmp_path: Path
) -> None:
    pytest.importorskip("cfgrib")
    from tests.storage.sources.test_formats import DATES, message

    with (tmp_path / "a.grib").open("wb") as file:
        for date in DATES:
            for level in (850, 500):
                message(file, "t", date, level)
    paths, names = [str(tmp_path / "a.grib")], ["t@850", "t@500"]
    fields = ingested(table, client, quiet, paths=paths, variables=names)
    assert fields["t@500"].attrs["level"] == 500.0
    assert float(fields["t@500"].mean()) == pytest.approx(250, abs=1)


def test_a_store_over_http_is_ingested(
    table: dict[str, Any], client: Any, quiet: Progress, tmp_path: Path
) -> None:
    pytest.importorskip("obstore")
    write(tmp_path, regular(), "a.zarr", consolidated=True, zarr_format=2)
    with served_by(tmp_path) as address:
        fields = ingested(
            table, client, quiet, paths=[f"{address}/a.zarr"], variables=["ta"]
        ).load()
    np.testing.assert_array_equal(fields["ta"], regular()["ta"])


def test_references_and_zipped_stores_are_ingested(
    table: dict[str, Any], client: Any, quiet: Progress, tmp_path: Path
) -> None:
    import shutil

    store = Path(write(tmp_path, regular(), "a.zarr", zarr_format=2, consolidated=False))
    shutil.make_archive(str(tmp_path / "b.zarr"), "zip", store)
    references: dict[str, Any] = {}
    for file in store.rglob("*"):
        if file.is_file():
            small = file.name.startswith(".z")
            content = file.read_text() if small else [str(file), 0, file.stat().st_size]
            references[file.relative_to(store).as_posix()] = content
    (tmp_path / "c.json").write_text(json.dumps(references))
    for name in ("b.zarr.zip", "c.json"):
        paths = [str(tmp_path / name)]
        fields = ingested(table, client, quiet, paths=paths, variables=["ta"])
        np.testing.assert_array_equal(fields["ta"], regular()["ta"])


def test_nested_cells_keep_their_grid(
    table: dict[str, Any], client: Any, quiet: Progress, tmp_path: Path
) -> None:
    from pipeline.sphere.grid import RingGrid
    from pipeline.sphere.named_grids import grid_of
    from tests.storage.conventions.test_grids import cells, cf

    paths = [write(tmp_path, cf(cells("nested"), "nested"))]
    fields = ingested(table, client, quiet, paths=paths, variables=["ta"])
    assert grid_of(fields) == RingGrid.healpix(4, "nested")
    assert {"lat", "lon", "cell", "crs"} <= set(fields.variables)


def test_members_are_in_the_fields(
    table: dict[str, Any], client: Any, quiet: Progress, tmp_path: Path
) -> None:
    parts = [regular(seed=k) for k in range(2)]
    source = xr.concat(parts, xr.DataArray([5, 6], dims="number", name="number"))
    paths = [write(tmp_path, source)]
    fields = ingested(table, client, quiet, paths=paths, variables=["ta"], samples="number")
    np.testing.assert_array_equal(fields["member"], np.tile([5, 6], 6))
    np.testing.assert_array_equal(fields["ta"][1::2], parts[1]["ta"])


def test_a_declared_fill_in_moving_cells_becomes_what_it_stands_for(
    table: dict[str, Any], client: Any, quiet: Progress, tmp_path: Path
) -> None:
    source = regular()
    source["ta"][2, 1, 1] = -999.0
    declared = {"missing": {"ta": -999.0}, "fill": {"ta": 271.0}}
    paths = [write(tmp_path, source)]
    fields = ingested(table, client, quiet, paths=paths, variables=["ta"], **declared)
    assert float(fields["ta"][2, 1, 1]) == 271.0
    assert float(fields["ta"].min()) == 271.0
