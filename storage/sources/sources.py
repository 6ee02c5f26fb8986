"""Raw data sets, opened lazily under our names: dims (time, lat, lon) or (time, cell), float32,
known units.

The order of the grid is the source's; what is put right on the way (order of times, repeated
times or meridians, units of single files) is in the report, and what cannot be put right is
refused with the file, the value and the remedy. docs/inputs.md lists what happens to what.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from storage.conventions.axes import SourceError, UnsafeSource
from storage.conventions.labels import label
from storage.conventions.levels import said, split_name
from storage.conventions.stated_values import explained
from storage.conventions.times import find_gaps
from storage.guards.named_files import resolve, told_apart
from storage.sources.empty_maps import require_values_at_all_times
from storage.sources.formats.opening import UNREADABLE, open_tables
from storage.sources.formats.reading import Reading
from storage.sources.inspection import inspect
from storage.sources.joins import Series, in_order, join_in_time, merge, numbered, on_one_grid
from storage.sources.pieces import Declared, Piece, take
from storage.sources.survey import survey_of
from storage.sources.values import Missing, Settled, judge, missing_values, settle

__all__ = [
    "Missing",
    "SourceError",
    "SourceReport",
    "UnsafeSource",
    "look",
    "missing_values",
    "open_source",
    "unreadable",
]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(@-?[0-9][A-Za-z0-9_.+-]*)?")


@dataclass(frozen=True)
class SourceReport:
    """What was found and what was put right; `missing` is empty if values were not checked."""

    files: tuple[str, ...]
    notes: tuple[str, ...]
    gaps: tuple[str, ...]
    missing: Mapping[str, Missing] = field(default_factory=dict)
    fills: Mapping[str, float] = field(default_factory=dict)  # declared; missing at every place
    origins: Mapping[str, Any] = field(default_factory=dict)  # number of the file of each time
    masks: Mapping[str, Any] = field(default_factory=dict)  # cells that are always missing


def open_source(
    paths: str | Sequence[str] | Mapping[str, Sequence[str]],
    variables: Sequence[str],
    *,
    units: Mapping[str, str] | None = None,
    missing: Mapping[str, float] | None = None,
    valid_range: Mapping[str, tuple[float, float]] | None = None,
    allow_gaps: bool = False,
    static: Sequence[str] = (),
    dims: Mapping[str, str] | None = None,
    select: Mapping[str, float | str] | None = None,
    samples: str = "",
    period: tuple[str, str] | None = None,
    drop: Sequence[str] = (),
    stamps: str | None = None,
    healpix: str | None = None,
    group: str = "",
    grib: Mapping[str, int | str] | None = None,
    zarr_fill: str | None = None,
    band: bool = False,
    check_values: bool = True,
) -> tuple[xr.Dataset, SourceReport]:
    """Open files as one data set.

    Args:
        paths: Files, patterns or addresses; each may have some of the variables at some times.
            A mapping has those of each scenario by its name: scenarios are members, in its order.
        variables: Names of fields; `t@850` is t at the level of 850 hPa.
        units: The true unit of a variable, where the file's attribute is wrong or missing.
        missing: The value that stands for missing. Where it lies within the range of the other
            values (land as exact 0), only cells that hold it at every time count as missing.
        valid_range: Bounds to judge values by, instead of those known for the standard_name.
        allow_gaps: Accept gaps in time, and list them in the report.
        static: Maps without time.
        dims: Coordinate or dimension by role (time, lat, lon, level, member, cell), where the
            files do not say it.
        select: One label of a dimension that is none of time, grid and level.
        samples: A dimension, scalar coordinate or global attribute that tells members apart, all of
            which are taken: a time for each, `member` is their label, or its place among them.
        period: First and last day to take, ISO dates.
        drop: Times that are left out, as text that their ISO dates begin with, or "first/last".
        stamps: What a stamp of time stands for: a "day" or "month" that it lies in, one that ends
            there ("day-end", "month-end"), or the instant as it is ("kept"). None: as bounds say.
        healpix: Order of HEALPix cells, "ring" or "nested", where the files do not say it.
        group: The group in NetCDF or Zarr files.
        grib: Keys of eccodes that GRIB messages have to have, where several stand for one field.
        zarr_fill: What a fill value of 0 stands for in Zarr 2: "value" or "missing".
        band: Accept latitudes that do not reach the poles; the rows beyond them are missing.
        check_values: Read all values once, to find undeclared fills and missing values. Without
            it only metadata are read.
    Returns:
        Dask-backed float32 fields, NaN where missing, with time, lat, lon (and cell, crs) and,
        where the source has them, time bounds as coordinate; and the report.
    Raises:
        SourceError: If the input is not usable; the message names file, value and remedy.
    """
    named = paths if isinstance(paths, Mapping) else {"": paths}
    of_file = [(file, name or None) for name, one in named.items() for file in resolve(one)]
    files = [file for file, _ in of_file]
    for name in (*variables, *static):
        if not _NAME.fullmatch(name):
            raise SourceError(f"variable name {name!r} has characters that names must not have")
    declared = Declared(
        dims=dict(dims or {}),
        select=dict(select or {}),
        samples=samples,
        units=dict(units or {}),
        missing=dict(missing or {}),
        valid_range=dict(valid_range or {}),
        healpix=healpix,
        stamps=stamps,
        period=period,
        drop=tuple(drop),
        band=band,
    )
    reading = Reading(group=group, grib=dict(grib or {}), zarr_fill=zarr_fill or "")
    notes: list[str] = []
    names = (*variables, *static)
    with _naming_the_file(files, names, reading):
        pieces, attrs = _collect(of_file, variables, static, declared, reading, notes)
        first = pieces[variables[0]][0]
        pieces = {name: on_one_grid(found, first, notes) for name, found in pieces.items()}
        labels = {piece.member for name in variables for piece in pieces[name]}
        members = in_order(named, labels) if "" not in named else numbered(labels, notes)
        series = {
            name: join_in_time(pieces[name], name, members, declared, notes) for name in variables
        }
        dataset = merge(series, {name: pieces[name][0] for name in static}, first.grid)
        dataset = dataset.assign_attrs(attrs)
    (one, *_) = series.values()
    gaps = _gaps(one, apart="" not in named)
    if gaps and not allow_gaps:
        more = f" and {len(gaps) - 5} more" if len(gaps) > 5 else ""
        counted = f"{len(gaps)} gap{'s' * (len(gaps) > 1)}"
        where = Path(files[0]).name if len(files) == 1 else f"{len(files)} files"
        raise SourceError(
            f"{where}: {counted} in time: {'; '.join(gaps[:5])}{more}; "
            "add the missing files, or set allow_gaps = true in [source]"
        )
    with _naming_the_file(files, names, reading), explained(notes):
        settled = look(dataset, names, missing or {}, valid_range or {}, notes, check_values)
    origins = {name: one.records.file for name, one in series.items()}
    require_values_at_all_times(dataset["time"], settled.empty, files, origins, reading.group)
    report = SourceReport(
        tuple(files),
        tuple(dict.fromkeys(notes)),
        tuple(gaps),
        settled.missing,
        settled.fills,
        origins,
        settled.masks,
    )
    return label(settled.fields), report


def _gaps(one: Series, *, apart: bool) -> list[str]:
    """Gaps in the times of a source, or in those of each scenario by itself."""
    if not apart:
        return find_gaps(np.unique(np.concatenate([one.records.times, one.dropped])))
    return [
        f"{label}: {gap}"
        for label, number in one.members.items()
        for gap in find_gaps(
            np.unique(
                np.concatenate([one.records.times[one.records.member == number], one.dropped])
            )
        )
    ]


@contextmanager
def _naming_the_file(
    files: Sequence[str], names: Sequence[str], reading: Reading
) -> Iterator[None]:
    """Errors of the libraries that read files become ones that name the file and its fault."""
    try:
        yield
    except UNREADABLE as error:
        if hasattr(error, "exit_code"):
            raise
        raise unreadable(files, names, reading, error) from error


def look(
    dataset: xr.Dataset,
    names: Sequence[str],
    missing: Mapping[str, float],
    valid_range: Mapping[str, tuple[float, float]],
    notes: list[str],
    everything: bool = True,
) -> Settled:
    """Read the values once, a few times together, or none.

    Raises:
        SourceError: If values look like a fill value that nobody declared, or lie outside the
            valid range.
    """
    for key, table in (("missing", missing), ("valid_range", valid_range)):
        if strangers := set(table) - set(names):
            raise SourceError(
                f"source.{key} names {min(strangers)!r}, which is not among the variables"
            )
    looked = list(names) if everything else []
    surveys = {name: survey_of(dataset[name], missing.get(name)) for name in looked}
    settled = settle(dataset, surveys, missing, notes)
    for name in looked:
        judge(dataset[name], surveys[name], valid_range.get(name))
    return settled


def _collect(
    of_file: Sequence[tuple[str, str | None]],
    variables: Sequence[str],
    static: Sequence[str],
    declared: Declared,
    reading: Reading,
    notes: list[str],
) -> tuple[dict[str, list[Piece]], dict[str, Any]]:
    """The pieces of every variable, from whatever file has them; attributes of the first file.

    Args:
        of_file: each file with the scenario that it is of, if there are some.
    """
    files = [file for file, _ in of_file]
    pieces: dict[str, list[Piece]] = {name: [] for name in (*variables, *static)}
    attrs: dict[str, Any] = {}
    seen: dict[str, list[str]] = {}
    known: set[str] = set()
    for number, ((file, scenario), where) in enumerate(
        zip(of_file, told_apart(files), strict=True)
    ):
        useful = False
        tables = open_tables(file, reading)
        for table in tables:
            notes += table.encoding.get("notes", ())
            attrs = attrs or {str(k): v for k, v in table.attrs.items()}
            for name in pieces:
                _require_stored(table, split_name(name)[0], file)
                found = take(table, name, declared, where, notes, static=name in static)
                pieces[name] += [_of_file(piece, number, scenario) for piece in found]
                base = split_name(name)[0]
                useful |= base in table.variables
                if not found and base in table.variables:
                    seen.setdefault(name, []).append(f"{where}: {_levels(table, base)}")
            listed = seen.setdefault("", [])
            listed += [str(n) for n in table.data_vars if n not in listed]
            known |= {str(n) for n in (*table.variables, *table.dims)}
        if not useful and len(files) > 1:
            there = ", ".join(str(name) for table in tables for name in table.data_vars)
            raise SourceError(
                f"{file}: none of the variables {', '.join(pieces)} is there; there are {there}. "
                "Take the file out of source.paths"
            )
    if strangers := [dim for dim in declared.select if dim not in known]:
        raise SourceError(
            f"source.select names {strangers[0]!r}, which is no dimension or coordinate of the "
            f"files; they have {', '.join(sorted(known))}"
        )
    for name, found in pieces.items():
        if not found:
            raise _absent(files, name, seen)
    for name in variables:
        _require_of_each(name, pieces[name], of_file)
    return pieces, attrs


def _require_of_each(
    name: str, pieces: Sequence[Piece], of_file: Sequence[tuple[str, str | None]]
) -> None:
    """Refuse a variable that a scenario lacks, and fields that are of two scenarios."""
    owners: dict[str, str] = {}
    scenarios = {scenario: file for file, scenario in of_file if scenario is not None}
    for piece in pieces if scenarios else ():
        file, scenario = of_file[piece.file]
        other = owners.setdefault(file, str(scenario))
        if other != scenario:
            raise SourceError(
                f"{file} is a file of the scenarios {other} and {scenario}, which would have the "
                f"same {name} under two forcings; give each files of its own"
            )
    for scenario, file in scenarios.items():
        if scenario not in owners.values():
            raise SourceError(
                f"the scenario {scenario} has no {name}, which others have: none of its files, "
                f"such as {file}, holds it. Add a file that does, or take {name} out of "
                "source.variables"
            )


def _of_file(piece: Piece, number: int, scenario: str | None) -> Piece:
    """A piece with the number of its file, and the scenario that the file is of as its member."""
    return replace(piece, file=number, member=scenario or piece.member)


def _require_stored(table: xr.Dataset, name: str, file: str) -> None:
    if why := table.encoding.get("refused", {}).get(name):
        raise SourceError(f"{file}: {why}")


def _levels(table: xr.Dataset, base: str) -> str:
    from storage.conventions.axes import find_axes

    level = find_axes(table, base, {}, "").level
    return f"{base} has the levels {said(table[level])}" if level else f"{base} has no levels"


def _absent(files: Sequence[str], name: str, seen: Mapping[str, Sequence[str]]) -> SourceError:
    if name in seen:
        return SourceError(f"no {name}; {'; '.join(dict.fromkeys(seen[name][:3]))}")
    known = list(seen.get("", []))
    close = difflib.get_close_matches(split_name(name)[0], known, n=1)
    hint = f" (is it {close[0]!r}?)" if close else ""
    return SourceError(
        f"{files[0]}: no variable {name!r}; there are {', '.join(known) or 'none'}{hint}"
    )


def unreadable(
    files: Sequence[str], names: Sequence[str], reading: Reading, error: Exception
) -> Exception:
    """The error of the first file that does not read through, found by a child process."""
    try:
        inspect(files, names, reading=asdict(reading), whole=True).wait()
    except SourceError as found:
        return found
    if type(error) is RuntimeError:
        return error  # of the cluster
    return SourceError(
        f"{Path(files[0]).name}: every file reads through, but what they hold cannot be put "
        f"together ({type(error).__name__}: {' '.join(str(error).split())}); try them one by one"
    )
