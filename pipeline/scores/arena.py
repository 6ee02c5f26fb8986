"""What is scored against what, read a few fields and a few cells at a time.

Nothing here holds all dates of all realizations: whoever scores asks for the part that is needed,
and the largest array has `NUMBERS` numbers or so, however many dates and realizations there are.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import xarray as xr

from pipeline.arrays import FloatArray
from pipeline.scores.analogues import wind_speeds
from pipeline.scores.bootstrap import Blocks
from pipeline.scores.maps import IntArray, equal_area_bands

__all__ = ["CLIMATOLOGY", "FLOOR", "NUMBERS", "TRUTH", "Arena", "Fields", "Sample", "Variable"]

FLOOR = "noise-floor"
TRUTH, CLIMATOLOGY = "the truth", "the climatology"
BAND_SAMPLE = 10_000  # values that share one 99.9 % quantile: ten lie above it, often of one storm
NUMBERS = 1 << 25  # in one array, unless the cells of one latitude need more


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Physical fields at the held-out dates, in memory or on disk.

    Attributes:
        dataset: (realization, time, *grid); or a record (time, *grid) that `rows` choose from.
        rows: the place in the record of each field, (realization, date).
    """

    dataset: xr.Dataset
    rows: IntArray | None = None

    @property
    def realizations(self) -> int:
        return int(self.dataset.sizes["realization"]) if self.rows is None else len(self.rows)

    @property
    def dates(self) -> int:
        return int(self.dataset.sizes["time"]) if self.rows is None else self.rows.shape[1]

    @cached_property
    def speeds(self) -> dict[str, tuple[str, str]]:
        """Wind speeds, and the two components that each is made of when it is read."""
        return wind_speeds(self.dataset)

    @property
    def names(self) -> list[str]:
        """The variables, with the wind speeds."""
        return [*map(str, self.dataset.data_vars), *self.speeds]

    def read(
        self,
        name: str,
        grid: Sequence[str],
        realizations: slice = slice(None),
        dates: slice = slice(None),
        cells: IntArray | None = None,
    ) -> FloatArray:
        """Values (realization, date, cell) of one variable, as they are stored.

        Args:
            grid: dimensions of the grid; cells count along them, the last one fastest.
            cells: those that are wanted, ascending; all of them if None.
        """
        if name in self.speeds:
            east, north = (
                self.read(one, grid, realizations, dates, cells) for one in self.speeds[name]
            )
            return np.hypot(east, north)
        if cells is not None and _scattered(self.dataset.sizes, grid, cells):
            # Of cells that lie all over the grid whole fields are read, so not many at once.
            count = range(*dates.indices(self.dates))
            if len(count) > 1:
                days = (slice(day, day + 1) for day in count)
                parts = [self.read(name, grid, realizations, day, cells) for day in days]
                return np.concatenate(parts, axis=1)
        field, places = self.dataset[name], None
        if self.rows is None:
            field = field.isel(realization=realizations, time=dates)
        else:
            wanted = self.rows[realizations, dates]
            unique, places = np.unique(wanted, return_inverse=True)
            field, places = field.isel(time=unique), places.reshape(wanted.shape)
        field = field.transpose("realization", "time", *grid, missing_dims="ignore")
        first, inner = 0, int(np.prod([field.sizes[dim] for dim in grid[1:]]))
        if cells is not None:
            first = int(cells[0]) // inner
            field = field.isel({grid[0]: slice(first, int(cells[-1]) // inner + 1)})
        values = field.values.reshape(*field.shape[: -len(grid)], -1)
        if cells is not None:
            values = values[..., cells - first * inner]
        return values if places is None else values[places]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One candidate, or the held-out fields as one realization.

    Attributes:
        x: coefficients (realization, time, channel, coefficient), to be multiplied with the
            arena's `factor` to be those of scaled anomalies.
        power: mean squares of the latter by degree, (realization, time, channel, degree).
    """

    fields: Fields
    x: xr.DataArray
    power: xr.DataArray


@dataclass(frozen=True)
class Variable:
    """A variable with the cells where its truth is never missing.

    Attributes:
        valid: bits of these cells, packed; None if all of them are.
    """

    name: str
    valid: bytes | None = None

    def cells(self, size: int) -> IntArray:
        if self.valid is None:
            return np.arange(size)
        bits = np.unpackbits(np.frombuffer(self.valid, np.uint8), count=size)
        return np.flatnonzero(bits)


@dataclass(frozen=True, kw_only=True)
class Arena:
    """All that is compared, and how.

    Attributes:
        truth: The held-out fields, as one realization.
        expected: The seasonal climatology in physical units, as one realization.
        candidates: By name; `FLOOR`, if there, is what the others are divided by.
        climatology: Draws of the climatological law, the reference of the CRPS.
        years: of these draws, (realization, date): those of one year are one weather, never paired.
        area: Quadrature weights on the grid, with its coordinates.
        weights: Date weights (replicate, date) of pipeline/scores/bootstrap.py.
        block: Dates that hang together, as in the weights.
        factor: by degree, (degree, channel, channel): makes scaled anomalies of x; None if x are.
    """

    truth: Sample
    expected: Fields
    candidates: Mapping[str, Sample]
    area: xr.DataArray
    weights: FloatArray
    block: int
    climatology: Fields | None = None
    years: IntArray | None = None
    factor: FloatArray | None = None

    @property
    def dates(self) -> int:
        return int(self.weights.shape[1])

    @property
    def blocks(self) -> Blocks:
        return Blocks(dates=self.dates, block=self.block)

    @property
    def fewest(self) -> int:
        """Realizations of the smallest candidate."""
        return min(int(sample.x.sizes["realization"]) for sample in self.candidates.values())

    @property
    def channels(self) -> list[str]:
        return [str(name) for name in self.truth.x["channel"].values]

    @property
    def modelled(self) -> list[str]:
        """Names of the fields, in the order of the channels."""
        named = self.truth.x.coords.get("variable", self.truth.x["channel"])
        return [str(name) for name in named.values]

    def fields_of(self, owner: str) -> Fields:
        """Those of a candidate, of the truth or of the climatology."""
        if owner == CLIMATOLOGY:
            assert self.climatology is not None
            return self.climatology
        return (self.truth if owner == TRUTH else self.candidates[owner]).fields

    def variable(self, name: str) -> Variable:
        """A variable and where it is valid; the held-out fields are read a few at a time."""
        step, valid = max(1, NUMBERS // self.area.size), np.ones(self.area.size, bool)
        for start in range(0, self.dates, step):
            dates = slice(start, start + step)
            values = self.truth.fields.read(name, self._grid, dates=dates)
            valid &= np.isfinite(values).all(axis=(0, 1))
        return Variable(name, None if valid.all() else np.packbits(valid).tobytes())

    def cells(self, variable: Variable) -> tuple[IntArray, FloatArray, FloatArray]:
        """The valid cells of a variable, their area and their latitude."""
        cells = variable.cells(self.area.size)
        latitude = self.area["lat"].broadcast_like(self.area).transpose(*self._grid)
        return cells, self.area.values.ravel()[cells], latitude.values.ravel()[cells]

    def bands(self, variable: Variable) -> IntArray:
        """The band of each valid cell; those of one share a 99.9 % quantile: ten values beyond it.

        These are values, not dates: neighbouring cells of one storm count one by one, so that the
        quantile is less certain than ten independent events would make it.
        """
        cells, area, latitude = self.cells(variable)
        number = self.dates * len(cells) // BAND_SAMPLE
        return equal_area_bands(latitude, area, int(np.clip(number, 1, len(np.unique(latitude)))))

    def ensemble(
        self,
        owner: str,
        name: str,
        cells: IntArray,
        realizations: slice = slice(None),
        dates: slice = slice(None),
    ) -> FloatArray:
        """Values (realization, date, cell), float64, of valid cells.

        Raises:
            ValueError: If some are missing.
        """
        return _whole(
            self.fields_of(owner).read(name, self._grid, realizations, dates, cells), name, owner
        )

    def usual(self, name: str, cells: IntArray, dates: slice = slice(None)) -> FloatArray:
        """The seasonal course at the dates, (date, cell), float64."""
        values = self.expected.read(name, self._grid, dates=dates, cells=cells)
        return _whole(values[0], name, CLIMATOLOGY)

    def on_grid(self, variable: Variable, values: FloatArray) -> xr.DataArray:
        """Values of the valid cells as a map, NaN elsewhere."""
        full = np.full(self.area.size, np.nan, values.dtype)
        full[variable.cells(self.area.size)] = values
        return self.area.copy(data=full.reshape(self.area.shape))

    @property
    def _grid(self) -> tuple[str, ...]:
        return tuple(map(str, self.area.dims))


def _scattered(sizes: Mapping[Hashable, int], grid: Sequence[str], cells: IntArray) -> bool:
    """Whether the cells are less than half of those between the first and the last of them."""
    inner = int(np.prod([sizes[dim] for dim in grid[1:]]))
    rows = int(cells[-1]) // inner - int(cells[0]) // inner + 1
    return 2 * len(cells) < rows * inner


def _whole(values: npt.NDArray[np.floating], name: str, owner: str) -> FloatArray:
    if not np.isfinite(values).all():
        raise ValueError(
            f"{owner} has {np.count_nonzero(~np.isfinite(values))} missing values of {name} "
            "in cells where the held-out fields have none"
        )
    return values.astype(np.float64)
