"""Raw data sets, opened lazily under our names: dims (time, lat, lon), float32, known units.

The order of the grid is the source's; what is put right on the way (order of times, repeated
times or meridians, units of single files) is in the report, and what cannot be put right is
refused with the file, the value and the remedy.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from scipy.io import netcdf_file

from storage.axes import (
    SourceError,
    check_latitudes,
    check_longitudes,
    find_coordinate,
    find_gaps,
    require_dimension,
)
from storage.files import sha256_of
from storage.labels import label
from storage.values import Missing, examine, in_unit, mask_declared, missing_values

__all__ = [
    "Missing",
    "SourceError",
    "SourceReport",
    "missing_values",
    "open_source",
    "resolve",
    "source_digest",
]

SMALL_BYTES = 1 << 20

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_KEPT_ATTRS = ("standard_name", "long_name", "units", "cell_methods", "comment")


@dataclass(frozen=True)
class SourceReport:
    """What was found and what was put right; `missing` is empty if values were not checked."""

    files: tuple[str, ...]
    notes: tuple[str, ...]
    gaps: tuple[str, ...]
    missing: Mapping[str, Missing] = field(default_factory=dict)


def open_source(
    paths: str | Sequence[str],
    variables: Sequence[str],
    *,
    units: Mapping[str, str] | None = None,
    missing: Mapping[str, float] | None = None,
    valid_range: Mapping[str, tuple[float, float]] | None = None,
    allow_gaps: bool = False,
    static: Sequence[str] = (),
    check_values: bool = True,
) -> tuple[xr.Dataset, SourceReport]:
    """Open files as one data set.

    Args:
        paths: Files or patterns, NetCDF or Zarr; times are joined, whatever the order of files.
        variables: Fields with dims time, lat, lon in any order.
        units: The true unit of a variable, where the file's attribute is wrong or missing.
        missing: The value that stands for missing. Where it lies within the range of the other
            values (land as exact 0), only cells that hold it at every time count as missing.
        valid_range: Bounds to judge values by, instead of those known for the standard_name.
        allow_gaps: Accept gaps in time, and list them in the report.
        static: Maps with dims lat, lon.
        check_values: Read all values once, to find undeclared fills and missing values. Without
            it only metadata are read, and the variables in `missing`.
    Returns:
        Dask-backed float32 fields, NaN where missing, with time, lat, lon and, where the source
        has them, time bounds as coordinate; and the report.
    Raises:
        SourceError: If the input is not usable; the message names file, value and remedy.
    """
    files = resolve(paths)
    for name in (*variables, *static):
        if not _NAME.fullmatch(name):
            raise SourceError(f"variable name {name!r} has characters that names must not have")
    notes: list[str] = []
    parts = [_open_file(file, variables, static, dict(units or {}), notes) for file in files]
    dataset = _join(parts, files, variables, notes)
    gaps = find_gaps(dataset["time"])
    if gaps and not allow_gaps:
        more = f" and {len(gaps) - 5} more" if len(gaps) > 5 else ""
        raise SourceError(
            f"{files[0].name}: {len(gaps)} gaps in time: {'; '.join(gaps[:5])}{more}; "
            "add the missing files, or set allow_gaps = true in [source]"
        )
    try:
        dataset = mask_declared(dataset, dict(missing or {}), notes)
        names = (*variables, *static)
        found = examine(dataset, names, dict(valid_range or {})) if check_values else {}
    except SourceError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreadable(files, (*variables, *static), error) from error
    report = SourceReport(tuple(map(str, files)), tuple(dict.fromkeys(notes)), tuple(gaps), found)
    return label(dataset), report


def resolve(paths: str | Sequence[str]) -> list[Path]:
    """The files that paths and patterns name, each once.

    Raises:
        SourceError: For URLs, and for a path that names nothing.
    """
    found: list[Path] = []
    for path in [paths] if isinstance(paths, str) else paths:
        if "::" in path or "://" in path:
            raise SourceError(f"{path}: sources are local files; download it first")
        matches = sorted(glob.glob(path))
        if not matches:
            raise SourceError(f"{path}: no such file (looked from {Path.cwd()})")
        found += [Path(match) for match in matches]
    return list(dict.fromkeys(found))


def source_digest(paths: str | Sequence[str]) -> str:
    """sha256 of the contents of all files; their names and times do not count."""
    files: list[Path] = []
    for path in resolve(paths):
        files += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = "".join(pool.map(sha256_of, files))
    return hashlib.sha256(digests.encode()).hexdigest()


def _open_file(
    file: Path,
    variables: Sequence[str],
    static: Sequence[str],
    units: Mapping[str, str],
    notes: list[str],
) -> xr.Dataset:
    raw = _decode(file)
    absent = [name for name in (*variables, *static) if name not in raw.variables]
    if absent:
        raise SourceError(
            f"{file}: no variable {absent[0]!r}; there are {', '.join(map(str, raw.data_vars))}"
        )
    where = file.name
    roles = {role: find_coordinate(raw, role, where) for role in ("time", "lat", "lon")}
    names = {require_dimension(raw, name, role, where): role for role, name in roles.items()}
    bounds = _bounds(raw, roles["time"])
    dataset = raw[[*variables, *static, *bounds]].reset_coords(drop=True).rename(names)
    kept, found = check_longitudes(np.asarray(dataset["lon"].values, dtype=float), where)
    notes += [*check_latitudes(np.asarray(dataset["lat"].values, dtype=float), where), *found]
    dataset = dataset.isel(lon=slice(0, kept))
    if dataset["time"].isnull().any():
        raise SourceError(f"{where}: a time is missing; repair the time axis")
    for name in variables:
        dataset[name] = _tidy(dataset[name], ("time", "lat", "lon"), units.get(name), where, notes)
    for name in static:
        dataset[name] = _tidy(dataset[name], ("lat", "lon"), units.get(name), where, notes)
    if bounds:
        dataset = dataset.rename({bounds[0]: "time_bnds"}).set_coords("time_bnds")
        edge = next(dim for dim in dataset["time_bnds"].dims if dim != "time")
        dataset = dataset.rename({edge: "bnds"}) if edge != "bnds" else dataset
        dataset["time"].attrs["bounds"] = "time_bnds"
    return dataset


def _decode(file: Path) -> xr.Dataset:
    try:
        if not file.is_dir():
            _require_whole_classic(file)
        engine = "zarr" if file.is_dir() else None
        raw = xr.open_dataset(file, engine=engine, decode_times=False, chunks={})
        # Small variables, read at once: bounds stored time by time are a thousand Dask tasks.
        with xr.open_dataset(file, engine=engine, decode_times=False) as plain:
            small = {
                name: variable.load()
                for name, variable in plain.data_vars.items()
                if variable.ndim < 3 and variable.nbytes < SMALL_BYTES
            }
        raw = raw.assign(small)
        rhythm = [n for n, v in raw.variables.items() if _is_monthly(v)]
        if rhythm:
            raise SourceError(
                f"{file}: {rhythm[0]} is in '{raw[rhythm[0]].attrs['units']}', and months have no "
                "fixed length; convert it first, e.g. cdo -setreftime,1970-01-01,00:00:00,days"
            )
    except SourceError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise SourceError(f"{file} cannot be opened, truncated or corrupt? ({error})") from error
    try:
        return xr.decode_cf(raw, mask_and_scale=False)
    except (ValueError, OverflowError) as error:
        raise SourceError(
            f"{file}: the times cannot be decoded ({error}); set units and calendar of the time "
            "variable, e.g. ncatted -a units,time,o,c,'days since 1970-01-01'"
        ) from error


def _require_whole_classic(file: Path) -> None:
    # netCDF-C reads what a truncated classic file lacks as zeros; scipy does not find the bytes.
    with file.open("rb") as stream:
        magic = stream.read(4)
    if magic in (b"CDF\x01", b"CDF\x02"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            netcdf_file(file, mmap=True).close()


def _is_monthly(variable: xr.Variable) -> bool:
    return bool(
        re.match(r"\s*(months?|years?)\s+since", str(variable.attrs.get("units", "")))
    ) and (variable.attrs.get("calendar", "standard") != "360_day")


def _bounds(raw: xr.Dataset, time: str | None) -> list[str]:
    name = raw[time].attrs.get("bounds", raw[time].encoding.get("bounds")) if time else None
    return [str(name)] if name in raw.variables else []


def _tidy(
    array: xr.DataArray, dims: tuple[str, ...], unit: str | None, where: str, notes: list[str]
) -> xr.DataArray:
    """One variable with our dims and type; attributes other than the kept ones are dropped."""
    single = [dim for dim in array.dims if dim not in dims and array.sizes[dim] == 1]
    if single:
        array = array.squeeze(single, drop=True)
        notes.append(f"{array.name}: dimension {', '.join(map(str, single))} of size 1 dropped")
    if set(array.dims) != set(dims):
        raise SourceError(
            f"{where}: {array.name} has dims {array.dims}, expected {dims}; "
            "select one level, or give another variable"
        )
    if array.dims != dims:
        notes.append(f"{array.name}: dims {array.dims} put in the order {dims}")
    if array.dtype.kind not in "fiu":
        raise SourceError(f"{where}: {array.name} has type {array.dtype}; fields are numbers")
    attrs = {name: array.attrs[name] for name in _KEPT_ATTRS if name in array.attrs}
    if unit is not None and unit != attrs.get("units"):
        notes.append(f"{array.name}: unit {attrs.get('units')!r} is declared to be {unit!r}")
        attrs["units"] = unit
    if not str(attrs.get("units", "")).strip():
        raise SourceError(
            f"{where}: {array.name} has no units; declare them: "
            f'[source] units = {{ {array.name} = "..." }}'
        )
    tidy = array.transpose(*dims).astype(np.float32)
    tidy.attrs, tidy.encoding = attrs, {}
    return tidy


def _join(
    parts: list[xr.Dataset], files: list[Path], variables: Sequence[str], notes: list[str]
) -> xr.Dataset:
    first = parts[0]
    for part, file in zip(parts[1:], files[1:], strict=True):
        for name in ("lat", "lon"):
            same = part[name].shape == first[name].shape
            if not same or not np.allclose(part[name], first[name], atol=1e-4):
                raise SourceError(f"{file.name}: {name} differs from that of {files[0].name}")
        if type(part["time"].values[0]) is not type(first["time"].values[0]):
            raise SourceError(f"{file.name}: its calendar differs from that of {files[0].name}")
    aligned = [
        _in_units_of(first, part, file, variables, notes).assign_coords(
            lat=first["lat"], lon=first["lon"]
        )
        for part, file in zip(parts, files, strict=True)
    ]
    joined = first
    if len(parts) > 1:
        joined = xr.concat(
            aligned, "time", data_vars="minimal", coords="minimal", compat="override", join="exact"
        )
    return _drop_repeats(_sort(joined, notes), variables, notes)


def _in_units_of(
    first: xr.Dataset, part: xr.Dataset, file: Path, variables: Sequence[str], notes: list[str]
) -> xr.Dataset:
    converted = part.copy()
    for name in variables:
        old, new = part[name].attrs["units"], first[name].attrs["units"]
        if old != new:
            converted[name] = in_unit(part[name], new, file.name)
            notes.append(f"{file.name}: {name} converted from {old} to {new}")
    return converted


def _sort(dataset: xr.Dataset, notes: list[str]) -> xr.Dataset:
    time = dataset["time"].values
    if (time[1:] >= time[:-1]).all():
        return dataset
    notes.append("times were not in order, sorted")
    return dataset.isel(time=np.argsort(time, kind="stable"))


def _drop_repeats(dataset: xr.Dataset, variables: Sequence[str], notes: list[str]) -> xr.Dataset:
    time = dataset["time"].values
    repeats = 1 + np.flatnonzero(time[1:] == time[:-1])
    if not len(repeats):
        return dataset
    for name in variables:
        one = dataset[name].isel(time=repeats - 1).values
        other = dataset[name].isel(time=repeats).values
        equal = ((one == other) | (np.isnan(one) & np.isnan(other))).all(axis=(1, 2))
        if not equal.all():
            when = time[repeats[int(np.argmin(equal))]]
            raise SourceError(
                f"time {when} occurs twice with different values of {name}; remove one of them"
            )
    notes.append(
        f"{len(repeats)} repeated times with equal values dropped, first {time[repeats[0]]}"
    )
    return dataset.isel(time=np.setdiff1d(np.arange(len(time)), repeats))


def _unreadable(files: list[Path], names: Sequence[str], error: Exception) -> SourceError:
    """The error of the first file that does not read through."""
    for file in files:
        try:
            raw: Any = xr.open_zarr(file) if file.is_dir() else xr.open_dataset(file)
            with raw:
                for name in names:
                    np.asarray(raw[name].values)
        except (OSError, RuntimeError, ValueError) as cause:
            return SourceError(f"{file} cannot be read through, truncated or corrupt? ({cause})")
    return SourceError(f"{files[0]} cannot be read through ({error})")
