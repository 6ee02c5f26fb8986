"""The recipes of docs/recipes.md run as they stand."""

import ast
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline.sphere.named_grids import grid_coordinates, grid_named
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from storage.conventions.labels import label_ensemble
from storage.export.netcdf import planned_files, write_netcdf
from storage.export.pyramid import write_pyramid

PAGE = Path(__file__).parent.parent / "docs" / "recipes.md"
RECIPES = re.findall(r"^## ([^\n]*)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.S | re.M)
BLOCKS = [
    pytest.param(block, id=f"{re.split(r'[:,]', title)[0]}-{number}")
    for title, text in RECIPES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", text, re.S))
]


def publish(root: Path, grid: str, kind: str = "ensemble", days: int = 3) -> artifacts.Published:
    where = grid_named(grid)
    time = xr.date_range("2001-07-14T12:00", periods=days, freq="D")
    shape, dims = (2, days, *where.shape), ("realization", "time", *where.dims)
    values = np.random.default_rng(0).standard_normal(shape).astype("f4")
    half = np.timedelta64(12, "h")
    about = {
        "ta": {"standard_name": "air_temperature", "units": "K"},
        "pr": {"standard_name": "precipitation_flux", "units": "kg m-2 s-1"},
    }
    source = xr.Dataset(
        {name: ("time", np.zeros(days), attrs) for name, attrs in about.items()},
        coords={
            "time": ("time", time, {"bounds": "time_bnds"}),
            "time_bnds": (("time", "bnds"), time.values[:, None] + np.array([-half, half])),
        },
    )
    fields = xr.Dataset(
        {"ta": (dims, 280 + values), "pr": (dims, values**2)},
        coords={"time": time, **grid_coordinates(where)},
    )
    ensemble = label_ensemble(fields, source, realizations=range(2))
    layout, shards = StoreLayout(str(root)), {"realization": 1, "time": days}
    path = layout.artifact(kind, "e" * 64)
    artifacts.create(path, ensemble, chunks=shards, shards=shards)
    units = artifacts.plan_units({str(k): n for k, n in ensemble.sizes.items()}, shards)
    for unit in units:
        artifacts.write_unit(path, unit, ensemble.reset_coords(drop=True).isel(unit.region))
    return artifacts.publish(layout, kind, "e" * 64, units, {"id": "recipes"})


def publish_fields(root: Path) -> None:
    """Two years of days on the grid of `publish`, which a run would have learned from."""
    where = grid_named("gaussian:12x24")
    time = xr.date_range("2000-01-01T12:00", "2001-12-31T12:00", freq="D")
    values = np.random.default_rng(1).standard_normal((len(time), *where.shape)).astype("f4")
    coordinates, dims = {"time": time, **grid_coordinates(where)}, ("time", *where.dims)
    rain = {"standard_name": "precipitation_flux", "units": "kg m-2 s-1"}
    warmth = {"standard_name": "air_temperature", "units": "K"}
    fields = xr.Dataset(
        {"pr": (dims, values**2, rain), "ta": (dims, 280 + values, warmth)}, coordinates
    )
    layout, shards = StoreLayout(str(root)), {"time": len(time)}
    path = layout.artifact("fields", "f" * 64)
    artifacts.create(path, fields, chunks=shards, shards=shards)
    (unit,) = artifacts.plan_units(shards, shards)
    artifacts.write_unit(path, unit, fields)
    artifacts.publish(layout, "fields", "f" * 64, [unit], {"id": "recipes"})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what the page speaks of."""
    place = tmp_path_factory.mktemp("recipes")
    rings = publish(place / "runs" / "demo", "gaussian:12x24")
    publish(place / "runs" / "demo", "gaussian:12x24", "sequences", days=12)
    cells = publish(place / "runs" / "cells", "healpix:8:nested")
    publish_fields(place / "runs" / "demo")
    (place / "out").mkdir()
    for file in planned_files(artifacts.open_artifact(rings)):
        write_netcdf(rings, place / "out", file)
    write_pyramid(cells, place / "out")
    return place


def packages(block: str) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Import)]
    return {alias.name for node in nodes for alias in node.names}


@pytest.mark.parametrize("block", BLOCKS)
def test_the_recipe_runs_without_a_warning(block, place, monkeypatch):
    for name in packages(block) & {"xdggs", "hvplot.xarray"}:
        pytest.importorskip(name, reason="`make test` installs it")
    if 'engine="spherescore"' in block and "spherescore" not in xr.backends.list_engines():
        pytest.skip("the environment was made before the engine; `make test` renews it")
    monkeypatch.chdir(place)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said: dict[str, object] = {}
        exec(block, said)
    made = {k: v for k, v in said.items() if isinstance(v, xr.DataArray | xr.Dataset)}
    assert made
    for name, value in made.items():
        arrays = value.data_vars.values() if isinstance(value, xr.Dataset) else [value]
        assert all(array.size for array in arrays), name


def test_no_page_tells_people_to_read_through_a_name():
    """Through one zarr reads two ensembles if another is published meanwhile."""
    for page in (PAGE, PAGE.parent.parent / "README.md"):
        for line in page.read_text().splitlines():
            if "open_zarr(" in line or "open_datatree(" in line:
                assert "realpath" in line or '"out/' in line, f"{page.name}: {line}"


def test_the_page_has_recipes():
    assert len(BLOCKS) > 7
