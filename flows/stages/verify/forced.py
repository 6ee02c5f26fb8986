"""What forcing does, in draws beside the days of the test period.

    first        the scenario that responses are counted from
    days, dates  by scenario, its test days, and the held-out dates among them that are drawn
    responses    by scenario and variable, see pipeline/scores/response

The truth is all days of the test period, the model the draws that everything is scored by, which
lie at dates of a scenario that are evenly spread over it, and the floor one half of the days,
stretches of `STRETCH` by turns, against the other half. Draws of scenarios lie at different dates.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from flows.cluster.map_units import map_units
from flows.progress import Progress
from flows.stages.splits import part_of
from flows.stages.verify.candidates import Inputs, Known
from pipeline.arrays import FloatArray
from pipeline.fields.standardisation import variables_of
from pipeline.scores.maps import equal_area_bands
from pipeline.scores.response import Climate, climate_of, response
from pipeline.sphere.named_grids import grid_of
from storage.artifacts import publishing as artifacts
from storage.conventions.labels import member_numbers

if TYPE_CHECKING:
    from distributed import Client

STRETCH = 10  # days of a half that follow each other
BANDS = 8
FEWEST = 2  # held-out dates of a scenario
VALUES = 1 << 22  # in memory at once
OWNERS = ("model", "truth", "one", "other")


@dataclass(frozen=True)
class Told:
    """Whose statistics of which variable under which scenario."""

    owner: str
    scenario: int
    variable: str

    def __str__(self) -> str:
        return f"{self.variable} of {self.owner}, scenario {self.scenario}"


def responses(inputs: Inputs, client: "Client", progress: Progress) -> dict[str, Any] | None:
    """What the report says of forcing; None for a source without scenarios, or with one of them
    alone among the held-out dates."""
    known = inputs.known
    if "member" not in known.dates.coords:
        return None
    drawn = {name: _drawn(known, n).size for name, n in _numbers(known).items()}
    days = {name: len(_rows(known, "truth", n)) for name, n in _numbers(known).items()}
    numbers = {name: n for name, n in _numbers(known).items() if drawn[name] >= FEWEST}
    if len(numbers) < 2:
        return None
    names = list(variables_of(known.normals))
    units = [Told(who, n, v) for v in names for n in numbers.values() for who in OWNERS]
    told_by = map_units(client, partial(told, inputs), units, progress, label="response")
    found = dict(zip(units, told_by, strict=True))
    first, *others = numbers
    area = grid_of(known.fields).area.ravel()

    def of(scenario: str, variable: str) -> dict[str, Climate]:
        return {who: found[Told(who, numbers[scenario], variable)] for who in OWNERS}

    return {
        "first": first,
        "days": {name: days[name] for name in numbers},
        "dates": {name: drawn[name] for name in numbers},
        "responses": {
            name: {v: response(of(name, v), of(first, v), area) for v in names} for name in others
        },
    }


def told(inputs: Inputs, unit: Told) -> Climate:
    """The statistics of a unit. Runs on a worker."""
    known = inputs.known
    grid = grid_of(known.fields)
    latitude = np.broadcast_to(grid.coordinates[0], grid.shape).ravel()
    area: FloatArray = grid.area.ravel()
    band = equal_area_bands(latitude, area, min(BANDS, len(np.unique(latitude))))
    if unit.owner == "model":
        whole = artifacts.open_artifact(inputs.drawn)[unit.variable]
        dates = _drawn(known, unit.scenario)
        fields = whole.sizes["realization"] * dates.size
        return climate_of(_of_draws(whole, dates), fields, area, band)
    rows = _rows(known, unit.owner, unit.scenario)
    return climate_of(_read(known.fields[unit.variable], rows), len(rows), area, band)


def _numbers(known: Known) -> dict[str, int]:
    return member_numbers(known.everything["member"])


def _drawn(known: Known, scenario: int) -> np.ndarray:
    """Which of the held-out dates are of a scenario."""
    return np.flatnonzero(known.dates["member"].to_numpy() == scenario)


def _rows(known: Known, owner: str, scenario: int) -> np.ndarray:
    """Places in the record of the test days of a scenario, all or those of a half."""
    along = known.everything["time"]
    places = along.copy(data=np.arange(along.size))
    test = part_of(places, known.inputs.config.split, "test")
    rows = test.values[test["member"].to_numpy() == scenario]
    if owner == "truth":
        return rows
    half = np.arange(len(rows)) // STRETCH % 2
    return rows[half == (owner == "other")]


def _read(record: xr.DataArray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Some fields at a time, (field, cell)."""
    step = max(1, VALUES // record.isel(time=0).size)
    for start in range(0, len(rows), step):
        values = record.isel(time=rows[start : start + step]).values
        yield values.reshape(len(values), -1)


def _of_draws(whole: xr.DataArray, dates: np.ndarray) -> Iterator[np.ndarray]:
    for number in range(whole.sizes["realization"]):
        yield from _read(whole.isel(realization=number), dates)
