"""What a page shows of a run: drawn fields, and real ones of the same season beside them.

Everything is read when it is asked for, from this disk or from a bucket. Of many realizations an
even choice stands for all where a distribution is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from storage.artifacts.layout import StoreLayout
from storage.artifacts.publishing import open_artifact, published
from storage.errors import IncompleteArtifact

MOST = 200  # realizations whose values at a place or in an area are read
SEASON = 10  # days before and after a date that are its season
KINDS = {"dates": "ensemble", "sequences": "sequences"}  # what is looked at: the artifact
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, eq=False)
class Opened:
    """A run that is looked at.

    Attributes:
        drawn: By `KINDS`, what was drawn, (realization, time, lat, lon) or (..., cell).
        real: The fields that were learned from, (time, ...); None if they are not there.
    """

    root: str
    drawn: dict[str, xr.Dataset]
    real: xr.Dataset | None = None
    _blocks: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_blocks", lru_cache(maxsize=8)(self._read))

    @classmethod
    def of(cls, root: str) -> Opened:
        """Open what a run has published.

        Raises:
            IncompleteArtifact: If nothing was drawn yet.
        """
        layout = StoreLayout(root)
        found = {kind: published(layout, name) for kind, name in KINDS.items()}
        drawn = {kind: open_artifact(one) for kind, one in found.items() if one is not None}
        if not drawn:
            raise IncompleteArtifact(
                f"{layout.name('ensemble')} is not published; run `spherescore generate` first"
            )
        fields = published(layout, "fields")
        return cls(root=root, drawn=drawn, real=open_artifact(fields) if fields else None)

    @property
    def variables(self) -> list[str]:
        first = next(iter(self.drawn.values()))
        return [str(name) for name, one in first.data_vars.items() if "realization" in one.dims]

    def times(self, kind: str) -> list[str]:
        """Dates that were drawn, as people write them."""
        return [dated(one) for one in self.drawn[kind]["time"]]

    def realizations(self, kind: str) -> int:
        return self.drawn[kind].sizes["realization"]

    def field(self, kind: str, name: str, number: int, time: int) -> xr.DataArray:
        """One drawn field."""
        return self.drawn[kind][name].isel(realization=number, time=time).load()

    def sample(self, kind: str, name: str, time: int) -> xr.Dataset:
        """Drawn fields of a date, of `MOST` realizations evenly chosen, (draw, ...).

        Of sequences those of the season of that date are draws, too.
        """
        return self._blocks("drawn", kind, name, time)

    def season(self, kind: str, name: str, time: int) -> xr.Dataset | None:
        """Real fields of the season of a date, of all years, (draw, ...)."""
        if self.real is None or name not in self.real:
            return None
        return self._blocks("real", kind, name, time)

    def real_days(self, kind: str, time: int, count: int) -> Indices:
        """Indices of real days beside a drawn one: of its season, from all years evenly.

        Those beside the days of a sequence follow each other as its own do.
        """
        if self.real is None:
            return np.zeros(0, np.intp)
        start = 0 if kind == "sequences" else time
        last = self.real.sizes["time"] - 1 - (time - start)
        there = self._season_of(self.real, kind, start)
        there = there[there <= last]
        chosen = there[np.linspace(0, len(there) - 1, min(count, len(there))).astype(int)]
        return chosen + (time - start)

    def real_field(self, name: str, index: int) -> xr.DataArray:
        assert self.real is not None
        return self.real[name].isel(time=index).load()

    def _season_of(self, dataset: xr.Dataset, kind: str, time: int) -> Indices:
        day = int(self.drawn[kind]["time"].dt.dayofyear[time])
        apart = np.abs(dataset["time"].dt.dayofyear.to_numpy() - day)
        return np.flatnonzero(np.minimum(apart, 365 - apart) <= SEASON)

    def _read(self, what: str, kind: str, name: str, time: int) -> xr.Dataset:
        """Draws of one variable, with the coordinates of their grid."""
        if what == "real":
            assert self.real is not None
            days = self._season_of(self.real, kind, time)
            return self.real[_whole(self.real, name)].isel(time=days).load().rename(time="draw")
        drawn = self.drawn[kind]
        count = self.realizations(kind)
        even = np.unique(np.linspace(0, count - 1, min(count, MOST)).astype(int))
        times = self._season_of(drawn, kind, time) if kind == "sequences" else [time]
        block = drawn[_whole(drawn, name)].isel(realization=even, time=times).load()
        return block.stack(draw=("realization", "time"), create_index=False)


def by_level(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Variables by what stands before the @ and after it; "" where a name says no level."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        base, _, level = name.partition("@")
        found.setdefault(base, {})[level] = name
    return found


def dated(time: xr.DataArray) -> str:
    """The date of a time, with its hour where that is not noon or midnight."""
    text = str(time.dt.strftime("%Y-%m-%d %H:%M").item())
    return text[:10] if text[11:] in ("00:00", "12:00") else text


def _whole(dataset: xr.Dataset, name: str) -> list[str]:
    """A variable and what says which grid it is on."""
    mappings = [str(k) for k, v in dataset.variables.items() if "grid_mapping_name" in v.attrs]
    return [name, *(one for one in mappings if one in dataset.data_vars)]
