"""A HEALPix ensemble at all its refinement levels: each parent the mean of its four children.

    <directory>/pyramid.zarr      groups by refinement level, 6 ... 0; cells in nested order

Masked children do not count, and a parent is masked where all of its children are. A group is a
dataset with its own grid mapping, cells and coordinates; all together open as a DataTree. The store
is made under another name and renamed when it is whole.
"""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import dask.array as da
import healpy
import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr

from storage.artifacts.published import Published
from storage.artifacts.publishing import open_artifact
from storage.conventions.labels import GRID_MAPPING, label
from storage.errors import NameConflict, NoPyramid
from storage.places.files import beside_of, make_durable, make_tree_durable

__all__ = ["NAME", "NoPyramid", "parents", "write_pyramid"]

NAME = "pyramid.zarr"
TIMES_AT_ONCE = 8


def write_pyramid(ensemble: Published, directory: Path) -> bool:
    """Write all levels, a few fields in memory; False if they are there already.

    Raises:
        NoPyramid: If the ensemble is not on HEALPix, or its nside is no power of two.
        NameConflict: If something else has the name.
    """
    fields = open_artifact(ensemble)
    if "cell" not in fields.dims:
        raise NoPyramid(
            f"a pyramid needs HEALPix cells; the ensemble is on {fields.attrs.get('grid', 'rings')}"
            ': draw it with [generate] grid = "healpix:64:nested"'
        )
    if "refinement_level" not in fields[GRID_MAPPING].attrs:
        raise NoPyramid(
            f"a pyramid needs HEALPix cells with nside a power of two; the ensemble has "
            f'{fields.sizes["cell"]} cells: draw it with [generate] grid = "healpix:64:nested"'
        )
    target = directory / NAME
    if target.exists():
        if _ensemble_of(target) == ensemble.digest:
            return False
        shutil.rmtree(target)
    beside = beside_of(target)
    try:
        _write(fields, ensemble.digest, beside)
        make_tree_durable(beside)
        os.rename(beside, target)
        make_durable(directory)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return True


def parents(children: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Means (..., cell / 4) of fours of nested cells (..., cell); NaN do not count."""
    four = children.reshape(*children.shape[:-1], -1, 4)
    known = np.isfinite(four)
    total = np.where(known, four, 0.0).sum(axis=-1, dtype=np.float64)
    count = known.sum(axis=-1)
    mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    means: npt.NDArray[np.floating] = mean.astype(children.dtype)
    return means


def _write(fields: xr.Dataset, digest: str, store: Path) -> None:
    top = int(fields[GRID_MAPPING].attrs["refinement_level"])
    nested = fields[GRID_MAPPING].attrs["indexing_scheme"] == "nested"
    cells = np.arange(fields.sizes["cell"])
    order = cells if nested else healpy.nest2ring(2**top, cells)
    zarr.open_group(store, mode="w").attrs.update(
        {**fields.attrs, "ensemble_digest": digest, "refinement_levels": list(range(top, -1, -1))}
    )
    for level in range(top, -1, -1):
        _template(fields, level).to_zarr(
            store, group=str(level), mode="w", compute=False, consolidated=False
        )
    root = zarr.open_group(store, mode="r+")
    for name in map(str, fields.data_vars):
        for realization in range(fields.sizes["realization"]):
            for start in range(0, fields.sizes["time"], TIMES_AT_ONCE):
                times = slice(start, start + TIMES_AT_ONCE)
                block = fields[name].isel(realization=realization, time=times).values[:, order]
                for level in range(top, -1, -1):
                    array = root[f"{level}/{name}"]
                    assert isinstance(array, zarr.Array)
                    array[realization, times] = block
                    block = parents(block) if level else block
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr says that consolidated metadata are not in its spec
        zarr.consolidate_metadata(store)


def _template(fields: xr.Dataset, level: int) -> xr.Dataset:
    """The dataset of one level, its fields still empty."""
    cells = np.arange(12 * 4**level)
    lon, lat = healpy.pix2ang(2**level, cells, nest=True, lonlat=True)
    mapping = {
        "grid_mapping_name": "healpix", "indexing_scheme": "nested", "refinement_level": level
    }  # fmt: skip
    shape = (fields.sizes["realization"], fields.sizes["time"], cells.size)
    chunks = (1, min(TIMES_AT_ONCE, shape[1]), shape[2])
    kept = [name for name in ("time_bnds",) if name in fields.variables]
    dataset: xr.Dataset = xr.Dataset(
        {
            str(name): (
                ("realization", "time", "cell"),
                da.zeros(shape, dtype=array.dtype, chunks=chunks),
                array.attrs,
            )
            for name, array in fields.data_vars.items()
        },
        coords={
            **{name: fields[name].variable for name in ("realization", "time", *kept)},
            "cell": cells,
            "lat": ("cell", lat),
            "lon": ("cell", lon),
            GRID_MAPPING: ((), np.int32(0), mapping),
        },
    )
    dataset = label(dataset)
    for name, variable in dataset.variables.items():
        grid = {"grid_mapping": GRID_MAPPING} if name in fields.data_vars else {}
        bounds = {"bounds": "time_bnds"} if name == "time" and kept else {}
        variable.encoding = {**grid, **bounds}
    return dataset


def _ensemble_of(store: Path) -> Any:
    try:
        return zarr.open_group(store, mode="r").attrs["ensemble_digest"]
    except (OSError, KeyError, ValueError) as error:
        raise NameConflict(
            f"{store} is there and is no pyramid of an ensemble ({error}); move it away, or export "
            "to another directory"
        ) from error
