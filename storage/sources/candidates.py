"""What fields a set of files has, asked before anybody has named one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import xarray as xr

from storage.conventions.axes import UnsafeSource, find_axes, is_pressure, samples_name
from storage.conventions.levels import nominal, said
from storage.conventions.stated_values import ZERO_FILL
from storage.guards.named_files import resolve
from storage.sources.formats.opening import UNREADABLE, open_tables
from storage.sources.formats.reading import PLAIN, Reading
from storage.sources.inspection import inspect
from storage.sources.pieces import Declared, Piece, take

__all__ = ["Content", "contents", "names_with_dims"]


@dataclass(frozen=True, kw_only=True)
class Content:
    """A variable of a source, or one level of it, that could be a field.

    Attributes:
        name: As `source.variables` names it.
        shape: Sizes of its grid; empty if it was refused.
        series: Whether it has times; else it is a map.
        refused: Why it cannot be taken as it is; "" if it can.
        samples: What tells its members apart; "" if it has none.
        files: Those that have it.
        declared: What the configuration has to say of it, and why, by key of `[source]`.
    """

    name: str
    shape: tuple[int, ...] = ()
    series: bool = True
    refused: str = ""
    samples: str = ""
    files: tuple[str, ...] = ()
    declared: Mapping[str, tuple[bool | str, str]] = field(default_factory=dict)

    @property
    def kind(self) -> tuple[tuple[int, ...], str]:
        """What variables that are taken together have in common."""
        return self.shape, self.samples


def contents(paths: Sequence[str], reading: Reading = PLAIN) -> list[Content]:
    """Variables of the files with at least two dimensions, each once; metadata alone are read.

    Raises:
        UnsafeSource, SourceError: If a file is none that can be read.
    """
    with inspect(paths, (), reading=asdict(reading)) as looking:
        looking.wait()
    found: dict[str, Content] = {}
    for file in resolve(paths):
        for one in _candidates(file, reading):
            known = found.get(one.name, one)
            better = one if known.refused and not one.refused else known
            files = dict.fromkeys((*known.files, file))
            found[one.name] = replace(better, files=tuple(files))
    return list(found.values())


def names_with_dims(paths: Sequence[str], reading: Reading = PLAIN) -> list[str]:
    """All variables of the first file as `name(dim, dim)`."""
    return [
        f"{name}({', '.join(map(str, variable.dims))})"
        for table in open_tables(resolve(paths)[0], reading)
        for name, variable in table.data_vars.items()
    ]


def _candidates(file: str, reading: Reading) -> Iterator[Content]:
    for table in open_tables(file, reading):
        for name, variable in table.data_vars.items():
            plain = variable.dtype.kind in "fiu" and variable.ndim > 1
            plain = plain or "GRIB_gridType" in variable.attrs  # one-dimensional where reduced
            if why := table.encoding.get("refused", {}).get(str(name)):
                yield Content(name=str(name), refused=why)
            elif plain and not _is_bounds(table, str(name)):
                yield from _contents(table, str(name), Path(file).name)


def _contents(table: xr.Dataset, name: str, where: str) -> Iterator[Content]:
    zeros = 'Zarr 2 says that 0 is missing, its default; are they values? else "missing"'
    said = {"zarr_fill": ("value", zeros)} if ZERO_FILL in table[name].encoding else {}
    try:
        yield from _as_declared(table, name, where, Declared(), said)
    except UnsafeSource:
        raise
    except UNREADABLE as error:
        refused = Content(name=name, refused=" ".join(str(error).split()))
        try:
            rows = {"band": (True, "latitudes end before the poles; the rest is missing")}
            yield from _as_declared(table, name, where, Declared(band=True), {**said, **rows})
        except UNREADABLE:
            yield refused


def _as_declared(
    table: xr.Dataset,
    name: str,
    where: str,
    declared: Declared,
    said: Mapping[str, tuple[bool | str, str]],
) -> list[Content]:
    axes = find_axes(table, name, {}, where)
    if axes.time is None and (found := _map(table, name, where, declared)):
        return [replace(found, declared=said)]
    names, samples = [name], ""
    if axes.level is not None and table[axes.level].size > 1:
        names = [f"{name}@{level}" for level in _levels(table[axes.level])]
    if axes.member is not None and table[axes.member].size > 1:
        samples = samples_name(table, axes.member)
        table = table.isel({table[axes.member].dims[0]: 0})
    return [
        Content(name=one, shape=_shape(piece), samples=samples, declared=said)
        for one in names
        for piece in take(table, one, declared, where, [])
    ]


def _map(table: xr.Dataset, name: str, where: str, declared: Declared) -> Content | None:
    """A variable without time as a map; None if it has more dimensions than a map."""
    try:
        (piece,) = take(table, name, declared, where, [], static=True)
    except UnsafeSource:
        raise
    except UNREADABLE:
        return None
    return Content(name=name, shape=_shape(piece), series=False)


def _shape(piece: Piece) -> tuple[int, ...]:
    return tuple(piece.data.shape[-len(piece.grid.names) :])


def _levels(coordinate: xr.DataArray) -> list[str]:
    """Each level as it is written after @."""
    values = np.asarray(coordinate.values, dtype=np.float64).ravel()
    if is_pressure(coordinate):
        return [said(coordinate[i : i + 1]).split()[0] for i in range(values.size)]
    unit = str(coordinate.name) if nominal(coordinate) else ""
    return [f"{value:.10g}{unit}" for value in values]


def _is_bounds(table: xr.Dataset, name: str) -> bool:
    return name.lower().endswith(("bounds", "bnds")) or any(
        name == str(variable.attrs.get(key))
        for variable in table.variables.values()
        for key in ("bounds", "climatology")
    )
