"""An ensemble as NetCDF4 files: one for each variable and realization, whole or not there.

    <directory>/<variable>/<variable>_realization-<number>.nc

or, as CMIP names them, with realization 0 as r1:

    <institution>/<model>/<experiment>/r1i1p1f1/<table>/<variable>/<gn | gr>/v<date>/
        <variable>_<table>_<model>_<experiment>_r1i1p1f1_<gn | gr>_<first>-<last>.nc

A file is written under another name, made durable and renamed. It says which ensemble it is of
(`ensemble_digest`), so that what is there already is not written again. Values are float32,
compressed, chunked by time, which is unlimited; there is a _FillValue only where cells are masked.
With CMIP's names go CMIP's units and standard names (storage.conventions.cmip); a level is a scalar
coordinate.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import dask
import netCDF4
import numpy as np
import xarray as xr

from storage.artifacts.published import Published
from storage.artifacts.publishing import open_artifact
from storage.conventions.cmip import CmipVariable, cmip_variable, table_of
from storage.conventions.labels import GRID_MAPPING
from storage.conventions.levels import split_name
from storage.conventions.quantities import conversion
from storage.errors import NameConflict
from storage.places.files import beside_of, inventory, move_into_place

__all__ = ["Cmip", "ExportedFile", "is_written", "planned_files", "write_netcdf"]

FILL = np.float32(1e20)
COMPRESSION = {"zlib": True, "complevel": 1, "shuffle": True}
BOUNDS = {"time": "time_bnds", "lat": "lat_bnds", "lon": "lon_bnds"}
EPOCH = "days since 1850-01-01"
DATES = {"yr": "%Y", "mon": "%Y%m", "day": "%Y%m%d", "fx": "%Y%m%d"}  # hours: to the minute


@dataclass(frozen=True, kw_only=True)
class Cmip:
    """Who made what, for CMIP's names: parts without underscores and slashes."""

    institution: str
    model: str
    experiment: str

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", value):
                raise ValueError(
                    f"CMIP's {name} has letters, digits, hyphens and dots only; got {value!r}"
                )

    @classmethod
    def named(cls, text: str) -> Cmip:
        """Read the names from "institution/model/experiment"."""
        parts = text.split("/")
        if len(parts) != 3:
            raise ValueError(f'expected "institution/model/experiment", got {text!r}')
        return cls(institution=parts[0], model=parts[1], experiment=parts[2])


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """A file to be written, its path below the directory of the export."""

    path: str
    variable: str
    realization: int
    attrs: Mapping[str, Any]
    cmip: CmipVariable | None = None  # name, unit and standard name that it gets

    @property
    def name(self) -> str:
        """What the variable is called in the file."""
        return str(self.attrs.get("variable_id", self.variable))

    def __str__(self) -> str:
        return self.path


def planned_files(ensemble: xr.Dataset, cmip: Cmip | None = None) -> list[ExportedFile]:
    """All files of an ensemble, as `open_artifact` gives it."""
    numbers = [int(number) for number in ensemble["realization"].values]
    files = []
    known = _cmip_names(ensemble) if cmip is not None else {}
    for name in map(str, ensemble.data_vars):
        for number in numbers:
            if cmip is None:
                path, attrs = f"{name}/{name}_realization-{number}.nc", dict[str, Any]()
            else:
                path, attrs = _as_cmip(ensemble, name, *known[name], number, cmip)
            turned = known[name][1] if known else None
            files.append(
                ExportedFile(path=path, variable=name, realization=number, attrs=attrs, cmip=turned)
            )
    return files


def write_netcdf(ensemble: Published, directory: Path, file: ExportedFile) -> dict[str, Any]:
    """Write a file of an ensemble, a few times of it in memory.

    Returns:
        `path`, `size` [bytes] and `sha256`.
    Raises:
        NameConflict: If something has its name that is no export of an ensemble.
    """
    target = directory / file.path
    if is_written(ensemble, target):
        return next(inventory(directory, [target]))
    fields = _opened(ensemble)
    field = _named(fields, file).assign_attrs(_attrs(ensemble, fields, file))
    beside = beside_of(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with dask.config.set(scheduler="synchronous"):
            field.to_netcdf(
                beside,
                engine="netcdf4",
                format="NETCDF4",
                unlimited_dims=["time"],
                encoding=_encodings(field, file.name),
            )
        move_into_place(beside, target)
    finally:
        beside.unlink(missing_ok=True)
    return next(inventory(directory, [target]))


def is_written(ensemble: Published, target: Path) -> bool:
    """Whether a file of this ensemble is there; that of another ensemble will be replaced.

    Raises:
        NameConflict: If something has the name that is no export of an ensemble.
    """
    if not target.exists():
        return False
    try:
        with netCDF4.Dataset(target) as found:
            return str(found.getncattr("ensemble_digest")) == ensemble.digest
    except (OSError, AttributeError) as error:
        raise NameConflict(
            f"{target} is there and is no export of an ensemble ({error}); move it away, or export "
            "to another directory"
        ) from error


def _cmip_names(ensemble: xr.Dataset) -> dict[str, tuple[str, CmipVariable | None]]:
    """CMIP's name of each variable, with what it takes; its own letters where CMIP has none."""
    found: dict[str, tuple[str, CmipVariable | None]] = {}
    for name in map(str, ensemble.data_vars):
        known, plain = cmip_variable(name, ensemble[name].attrs), re.sub(r"[^A-Za-z0-9]", "", name)
        level = split_name(name)[1]
        at = "" if known is None or known.at_surface else re.sub(r"[^A-Za-z0-9]", "", level or "")
        found[name] = (plain, None) if known is None else (known.name + at, known)
    taken = Counter(new for new, _ in found.values())
    return {
        name: (new, known) if taken[new] == 1 else (re.sub(r"[^A-Za-z0-9]", "", name), None)
        for name, (new, known) in found.items()
    }


def _as_cmip(
    ensemble: xr.Dataset,
    name: str,
    variable: str,
    known: CmipVariable | None,
    number: int,
    cmip: Cmip,
) -> tuple[str, dict[str, Any]]:
    frequency, grid = str(ensemble.attrs["frequency"]), _grid_label(ensemble)
    table, variant = table_of(known, frequency), f"r{number + 1}i1p1f1"
    version = "v" + re.sub(r"\D", "", str(ensemble.attrs["date_created"]))[:8]
    layout = DATES.get(frequency.lstrip("0123456789") or frequency, "%Y%m%d%H%M")
    ends = [ensemble["time"].isel(time=at).dt.strftime(layout).item() for at in (0, -1)]
    parts = (variable, table, cmip.model, cmip.experiment, variant, grid, "-".join(ends))
    folders = (
        *(cmip.institution, cmip.model, cmip.experiment, variant),
        *(table, variable, grid, version),
    )
    attrs = {
        "institution_id": cmip.institution,
        "source_id": cmip.model,
        "experiment_id": cmip.experiment,
        "variant_label": variant,
        "realization_index": np.int32(number + 1),
        "initialization_index": np.int32(1),
        "physics_index": np.int32(1),
        "forcing_index": np.int32(1),
        "table_id": table,
        "variable_id": variable,
        "grid_label": grid,
        "frequency": frequency,
        "realm": "atmos" if known is None else known.realm,
        "product": "model-output",
        "original_name": name,
    }
    return "/".join((*folders, "_".join(parts) + ".nc")), attrs


def _grid_label(ensemble: xr.Dataset) -> str:
    return "gn" if ensemble.attrs.get("grid_origin", "source") == "source" else "gr"


def _attrs(ensemble: Published, fields: xr.Dataset, file: ExportedFile) -> dict[str, Any]:
    ours = (
        "figures",
        "seconds",
        *(f"artifact_{what}" for what in ("kind", "key", "digest", "seal")),
    )
    kept = {name: value for name, value in fields.attrs.items() if name not in ours}
    return kept | dict(file.attrs) | {"ensemble_digest": ensemble.digest}


def _named(fields: xr.Dataset, file: ExportedFile) -> xr.Dataset:
    """One field with what describes it; xarray forgets what only an encoding names."""
    others = [name for name in fields.data_vars if name != file.variable]
    field = fields.drop_vars(others).sel(realization=file.realization).drop_encoding()
    field = _with_level(_converted(field, file), file)
    field = field.reset_coords([n for n in (*BOUNDS.values(), GRID_MAPPING) if n in field.coords])
    for name in set(field.data_vars) - {file.variable}:
        field[name].encoding["coordinates"] = None
    described = {name: {"bounds": bounds} for name, bounds in BOUNDS.items()}
    described[file.variable] = {"grid_mapping": GRID_MAPPING}
    for name, attrs in described.items():
        there = {role: named for role, named in attrs.items() if named in field.variables}
        field[name] = field[name].assign_attrs(there)
    return field.drop_attrs(deep=False).rename({file.variable: file.name})


def _converted(field: xr.Dataset, file: ExportedFile) -> xr.Dataset:
    """The field in CMIP's unit, if CMIP knows the variable."""
    known, values = file.cmip, field[file.variable]
    if known is None:
        return field
    if (known.scale, known.offset) != (1.0, 0.0):
        changed = values.astype(np.float64) * known.scale + known.offset
        values = changed.astype(np.float32).assign_attrs(values.attrs)
    attrs = {"standard_name": known.standard_name, "units": known.units}
    return field.assign({file.variable: values.assign_attrs(attrs)})


def _with_level(field: xr.Dataset, file: ExportedFile) -> xr.Dataset:
    """The field with its level as a scalar coordinate: a pressure, or CMIP's height."""
    attrs = dict(field[file.variable].attrs)
    value, unit = attrs.get("level"), str(attrs.get("level_units", ""))
    pascal = None if attrs.get("level_kind") else conversion(unit, "Pa")
    if value is not None and pascal is not None:
        name, number = "plev", float(value) * pascal[0]
        about = {"standard_name": "air_pressure", "units": "Pa", "positive": "down", "axis": "Z"}
    elif value is not None and file.cmip is not None and file.cmip.at_surface:
        name, number = "height", float(value)
        about = {"standard_name": "height", "units": "m", "positive": "up", "axis": "Z"}
    else:
        return field
    values = field[file.variable].copy(deep=False)
    values.attrs = {k: v for k, v in attrs.items() if k not in ("level", "level_units")}
    return field.assign({file.variable: values}).assign_coords({name: ((), number, about)})


def _encodings(field: xr.Dataset, name: str) -> dict[str, dict[str, Any]]:
    encodings: dict[str, dict[str, Any]] = {}
    for each in map(str, field.variables):
        encodings[each] = {"_FillValue": None}
    values = field[name]
    masked = bool(values.isel(time=0).isnull().any())
    encodings[name] = {
        "dtype": "float32",
        "_FillValue": FILL if masked else None,
        "chunksizes": tuple(1 if d == "time" else n for d, n in values.sizes.items()),
        **COMPRESSION,
    }
    times = {"units": EPOCH, "calendar": values["time"].dt.calendar, "dtype": "float64"}
    encodings["time"] |= times
    if "time_bnds" in field.variables:
        encodings["time_bnds"] |= times
    return encodings


@lru_cache(maxsize=1)
def _opened(ensemble: Published) -> xr.Dataset:
    return open_artifact(ensemble, chunks={"realization": 1, "time": 8})
