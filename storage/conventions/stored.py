"""A variable of a file with what is known about it: its coordinates, and what is declared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import xarray as xr

from storage.conventions.axes import Axes

__all__ = ["Declared", "Stored"]


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What the configuration says about the files."""

    dims: Mapping[str, str] = field(default_factory=dict)  # coordinate or dimension, by role
    select: Mapping[str, float | str] = field(default_factory=dict)  # one label, by dimension
    samples: str = ""  # what tells members apart, all of which are taken
    units: Mapping[str, str] = field(default_factory=dict)  # by variable
    missing: Mapping[str, float] = field(default_factory=dict)  # by variable
    valid_range: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # by variable
    healpix: str | None = None  # order of cells that the file does not say
    stamps: str | None = None  # what a stamp of time stands for, where no bounds say it
    period: tuple[str, str] | None = None  # first and last day
    drop: tuple[str, ...] = ()  # times, or "first/last", that are left out
    band: bool = False  # whether latitudes may end before the poles


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One variable of a table.

    Attributes:
        key: Its name in the file.
        name: Its name in the configuration, which may have a level.
        where: The file, for messages.
        notes: What is found or put right on the way is added here, in words for the user.
    """

    table: xr.Dataset
    key: str
    name: str
    axes: Axes
    declared: Declared
    where: str
    notes: list[str]

    @property
    def array(self) -> xr.DataArray:
        return self.table[self.key]

    def coordinate(self, role: str) -> xr.Variable | None:
        """The coordinate variable of a role: time, lat, lon, level or member."""
        name = getattr(self.axes, role)
        return None if name is None else self.table.variables[name]
