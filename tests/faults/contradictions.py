"""Inputs that say two things of themselves, or lose what they hold; and their benign twins."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tests.faults.inputs import PLAIN2, PLAIN3, add, case, netcdf, source, store
from tests.storage.conventions.test_dimensions import hybrid
from tests.storage.conventions.test_grids import bent, cells, cf
from tests.storage.imitations import days, regular
from tests.storage.sources.test_zarr import plain_store, rain

Made = dict[str, Any]


def accumulations(path: Path) -> Path:
    """0-6 h and 3-6 h, which cfgrib takes for one."""
    from tests.storage.sources.test_formats import message

    with path.open("wb") as file:
        for date in range(20000101, 20000121):
            for interval in ("0-6", "3-6"):
                message(file, "tp", date, stepRange=interval, seed=date + int(interval[0]))
    return path


def longer(made: xr.Dataset) -> xr.Dataset:
    """Twenty days, as the configurations of the lane ask for."""
    again = made.isel(time=np.arange(20) % made.sizes["time"])
    return again.assign_coords(time=("time", days(20), made.time.attrs))


def grib(d: Path, **more: Any) -> Made:
    return source(accumulations(d / "a.grib"), variables=["tp"], **more)


add("GRIB accumulations that end together", lambda d, r: grib(d), 10)
add("GRIB accumulations that are chosen", lambda d, r: grib(d, grib={"stepRange": "3-6"}), 0)
add(
    "nominal axes beside true positions",
    lambda d, r: source(netcdf(d / "a.nc", longer(bent()))),
    10,
)
add(
    "nominal axes that are declared",
    lambda d, r: source(netcdf(d / "a.nc", longer(bent())), dims={"lat": "yh", "lon": "xh"}),
    0,
)


def _two_orders(d: Path) -> Path:
    made = cf(cells("nested"), "ring").assign_coords(
        cell_ids=("cell", range(192), {"grid_name": "healpix", "indexing_scheme": "nested"})
    )
    return netcdf(d / "a.nc", longer(made))


add("HEALPix cells in two orders", lambda d, r: source(_two_orders(d)), 10)
add("HEALPix cells of a declared order", lambda d, r: source(_two_orders(d), healpix="nested"), 0)


def _beyond(d: Path, **more: Any) -> Made:
    made = regular(20)
    made.ta.values[3, 1, 2] = 350.0
    made.ta.attrs["valid_max"] = 330.0
    return source(netcdf(d / "a.nc", made), **more)


add("a value beyond the valid range of its file", lambda d, r: _beyond(d), 10)
add("a valid range that is declared", lambda d, r: _beyond(d, valid_range={"ta": [200, 360]}), 0)


def _levels(d: Path, name: str) -> Made:
    made = hybrid(formula_terms="a: hyam b: hybm p0: P0 ps: PS")
    return source(netcdf(d / "a.nc", longer(made)), variables=[name])


add("hybrid levels taken for pressures", lambda d, r: _levels(d, "ta@850"), 10)
add("hybrid levels by their name", lambda d, r: _levels(d, "ta@850lev"), 0)


def _dry(d: Path, **more: Any) -> Made:
    return source(plain_store(d / "a.zarr", longer(rain(None))), variables=["pr"], **more)


add("zeros of Zarr 2 that nobody explains", lambda d, r: _dry(d), 10)
add("zeros of Zarr 2 that are values", lambda d, r: _dry(d, zarr_fill="value"), 0)


def _band(d: Path, **more: Any) -> Made:
    made = regular(20, lat=[-40.0, -20, 0, 20, 40])
    return source(netcdf(d / "a.nc", made), **more)


add("a band of latitudes", lambda d, r: _band(d), 10)
add("a declared band of latitudes", lambda d, r: _band(d, band=True, fill="harmonic"), 0)


@case("a reference without some of its chunks", 10)
def _(d: Path, r: random.Random) -> Made:
    path = store(d / "a.zarr", encoding={"ta": {"_FillValue": -9.0}}, **PLAIN2)
    refs: dict[str, Any] = {}
    for file in path.rglob("*"):
        key = file.relative_to(path).as_posix()
        if file.is_file() and not key.startswith("ta/1."):
            small = file.name.startswith(".z")
            refs[key] = file.read_text() if small else [str(file), 0, file.stat().st_size]
    (d / "refs.json").write_text(json.dumps({"refs": refs}))
    return source(d / "refs.json")


@case("a zip file without some of its chunks", 10)
def _(d: Path, r: random.Random) -> Made:
    import shutil

    path = store(d / "a.zarr", encoding={"ta": {"_FillValue": -9.0}}, **PLAIN3)
    for chunk in (path / "ta/c/1").rglob("*"):
        if chunk.is_file():
            chunk.unlink()
    shutil.make_archive(str(path), "zip", path)
    return source(f"{path}.zip")


@case("files whose names look like patterns", 0)
def _(d: Path, r: random.Random) -> Made:
    return source(netcdf(d / "x[1].nc"))


@case("files in any depth", 0)
def _(d: Path, r: random.Random) -> Made:
    for k, folder in enumerate(("a", "a/b", "a/b/c")):
        (d / folder).mkdir()
        netcdf(d / folder / "x.nc", regular(7, f"2000-01-{1 + 7 * k:02d}", seed=k))
    return source(d / "**" / "*.nc")
