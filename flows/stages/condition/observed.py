"""What is given, as one artifact: observations of all kinds by time, checked against the model.

observed.zarr, a contiguous ragged array of CF
    row_size(time)                      observations of each time
    kind(observation)                   0 a point, 1 a cell of the source's grid, 2 a coefficient
    variable(observation)               place of the variable among those of the model
    lat, lon(observation)               of points [degrees]
    place(observation)                  number of the cell or the coefficient
    value, error(observation)           in the unit of the variable
    withheld(observation)               1 where draws are not given it but compared with it
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from flows.config.schema import RunConfig
from flows.stages.base import published_input
from flows.stages.conditions import conditioned, unseen_of
from flows.stages.content_keys import observed_key
from flows.stages.dates import at_dates, require_seen
from flows.stages.ingest.ingest import open_fields
from pipeline.arrays import FloatArray
from pipeline.errors import UnusableData
from pipeline.fields.pointwise.maps import Identity
from pipeline.fields.standardisation import Normals
from pipeline.given.carried import carry, refuse_far
from pipeline.given.functionals import Functionals, cells, joined, low_degrees, points
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.named_grids import grid_of
from pipeline.sphere.stacked import analysis
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from storage.conventions.times import iso
from storage.sources.observations import read_observations

KIND = "observed"
LOGGER = logging.getLogger("spherescore")
POINT, CELL, COEFFICIENT = 0, 1, 2
COLUMNS = ("kind", "variable", "lat", "lon", "place", "value", "error", "withheld")
PARTLY_MASKED = 0.5  # of the weight of a point that cells without data may have


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Observations of one kind, with its name for people and the ISO day of each."""

    day: np.ndarray
    kind: int
    variable: np.ndarray
    place: np.ndarray
    value: np.ndarray
    error: np.ndarray
    lat: np.ndarray
    lon: np.ndarray
    name: Callable[[int], str]


def publish_observed(config: RunConfig, layout: StoreLayout) -> artifacts.Published:
    """Read, check and publish what is given."""
    key = observed_key(config, layout)
    if done := artifacts.find(layout, KIND, key):
        return artifacts.point_name(layout, done)
    normals = artifacts.open_published(layout, "normals").load()
    known = Normals.of(normals)
    fields = artifacts.open_published(layout, "fields")
    notes: list[str] = []
    parts = [
        *_of_table(config, known, fields, notes),
        *_of_fields(config, known, fields),
        *_of_coarse(config, known, fields, notes),
    ]
    if not parts:
        raise UnusableData(
            "condition: nothing is given; name condition.observations, fields or coarse, or an "
            "event"
        )
    for note in notes:
        LOGGER.info("%s", note)
    dataset = _dataset(config, parts, fields["time"])
    _check(config, dataset, parts, known, normals)
    path = layout.artifact(KIND, key)
    artifacts.create(path, dataset)
    attrs = {
        "figures": {
            "observations": int((dataset["withheld"] == 0).sum()),
            "withheld": int((dataset["withheld"] == 1).sum()),
            "times": dataset.sizes["time"],
        },
        "notes": notes,
        "given": list(config.condition.given),
        "normals_digest": published_input(layout, "normals").digest,
    }
    return artifacts.publish(layout, KIND, key, [], attrs)


def given_at(observed: xr.Dataset, time: int) -> xr.Dataset:
    """The observations of one time, by its place, in memory."""
    ends = np.cumsum(observed["row_size"].values)
    start = int(ends[time] - observed["row_size"].values[time])
    return observed[list(COLUMNS)].isel(observation=slice(start, int(ends[time]))).load()


def functionals_of(rows: xr.Dataset, known: Normals, coarse_lmax: int) -> Functionals:
    """What these observations are of transformed fields, in their order."""
    grid, kind = known.grid, rows["kind"].values
    variable, place = rows["variable"].values.astype(np.intp), rows["place"].values
    parts, order = [], []
    at = np.flatnonzero(kind == POINT)
    if at.size:
        lat, lon = (rows[name].values[at] for name in ("lat", "lon"))
        parts.append(_without_masked(points(grid, lat, lon, variable[at]), known))
        order.append(at)
    for which in np.unique(variable[kind == CELL]):
        at = np.flatnonzero((kind == CELL) & (variable == which))
        parts.append(cells(grid, place[at].astype(np.intp), int(which)))
        order.append(at)
    for which in np.unique(variable[kind == COEFFICIENT]):
        at = np.flatnonzero((kind == COEFFICIENT) & (variable == which))
        parts.append(low_degrees(grid, coarse_lmax, int(which)).of(place[at].astype(np.intp)))
        order.append(at)
    return joined(parts).of(np.argsort(np.concatenate(order)))


def conditions_of(config: RunConfig, observed: xr.Dataset, normals: xr.Dataset) -> xr.Dataset:
    """The condition of what is drawn at the times of the observations."""
    return conditioned(observed["time"], config.generate.covariates, normals)


def coarse_lmax_of(config: RunConfig, grid: RingGrid, lmax: int) -> int:
    """The last degree that fields on a coarser grid tell."""
    told = config.condition.coarse_lmax
    return min(lmax, (max(grid.points) - 1) // 3 if told is None else told)


def _of_table(
    config: RunConfig, known: Normals, fields: xr.Dataset, notes: list[str]
) -> list[Rows]:
    if config.condition.observations is None:
        return []
    units = {name: str(fields[name].attrs.get("units", "1")) for name in known.variables}
    calendar = str(fields["time"].dt.calendar)
    table = read_observations(
        config.condition.observations, units, config.condition.error, calendar
    )
    if table.left_out:
        notes.append(f"{table.where}: {table.left_out} rows have no value and are left out")
    places = {name: place for place, name in enumerate(known.variables)}
    return [
        Rows(
            day=table.day,
            kind=POINT,
            variable=np.array([places[str(name)] for name in table.variable]),
            place=np.full(len(table.value), -1),
            value=table.value,
            error=table.error,
            lat=table.lat,
            lon=table.lon,
            name=table.name,
        )
    ]


def _of_fields(config: RunConfig, known: Normals, fields: xr.Dataset) -> list[Rows]:
    found = []
    for name, there, errors in _opened(config, known, fields, "fields"):
        if (grid := grid_of(there.to_dataset(name=name))) != known.grid:
            raise UnusableData(
                f"condition.fields: {name} is on {grid.describe()}, the model on "
                f"{known.grid.describe()}; give fields of another grid as condition.coarse"
            )
        values = there.transpose("time", *known.grid.dims).values.reshape(there.sizes["time"], -1)
        place = known.variables.index(name)
        seen = np.isfinite(values) & ~known.mask[place].ravel()
        time, cell = np.nonzero(seen)
        found.append(
            _rows(there, time, CELL, place, cell, values[seen].astype(np.float64), errors, name)
        )
    return found


def _of_coarse(
    config: RunConfig, known: Normals, fields: xr.Dataset, notes: list[str]
) -> list[Rows]:
    found = []
    for name, there, error in _opened(config, known, fields, "coarse"):
        place = known.variables.index(name)
        transform = known.transforms[place]
        if not isinstance(transform, Identity) or any(place in pair for pair in known.pairs):
            why = (
                "a wind" if isinstance(transform, Identity) else f"modelled by its {transform.name}"
            )
            raise UnusableData(
                f"condition.coarse: {name} is {why}, so its coarse field is no linear observation; "
                "take it out of the files, or observe it at points"
            )
        grid = grid_of(there.to_dataset(name=name))
        lmax = coarse_lmax_of(config, grid, known.lmax)
        values = there.transpose("time", *grid.dims).values.astype(np.float64)
        if not np.isfinite(values).all():
            raise UnusableData(
                f"condition.coarse: {name} has missing values; fill them, or give what is there "
                "as observations"
            )
        coefficients = analysis(grid, lmax, (), values[:, None])[:, 0]
        size = coefficients.shape[1]
        time, number = np.divmod(np.arange(coefficients.size), size)
        # A field of white errors has this deviation in each of its coefficients.
        each = error * np.sqrt(4.0 * np.pi / size)
        found.append(
            _rows(there, time, COEFFICIENT, place, number, coefficients.ravel(), each, name)
        )
    return found


def _opened(
    config: RunConfig, known: Normals, fields: xr.Dataset, key: str
) -> list[tuple[str, xr.DataArray, float]]:
    """Variables of files, read and checked as the source is, in its units, with their errors."""
    paths = getattr(config.condition, key)
    if not paths:
        return []
    source = replace(
        config.source, paths=paths, scenarios=(), period=None, drop=(), static=(), covariates={},
        trend=(), samples="", allow_gaps=True,
    )  # fmt: skip
    there, _ = open_fields(source)
    found = []
    for name in known.variables:
        wanted, has = (str(one[name].attrs.get("units", "1")) for one in (fields, there))
        if wanted != has:
            raise UnusableData(
                f"condition.{key}: {name} is in {has!r}, the model has it in {wanted!r}; convert "
                f"the files, or say what they hold in source.units.{name}"
            )
        if key == "fields" and name not in config.condition.error:
            raise UnusableData(
                f"condition.fields: {name} has no error; give its standard deviation as "
                f"condition.error.{name}, 0 where it is exact"
            )
        found.append((name, there[name].load(), config.condition.error.get(name, 0.0)))
    return found


def _rows(
    there: xr.DataArray,
    time: np.ndarray,
    kind: int,
    variable: int,
    place: np.ndarray,
    value: np.ndarray,
    error: float,
    name: str,
) -> Rows:
    day = np.array([str(one)[:10] for one in iso(there["time"].values)])[time]
    what = {CELL: "cell", COEFFICIENT: "coefficient"}[kind]
    nowhere = np.full(len(place), np.nan)
    return Rows(
        day=day,
        kind=kind,
        variable=np.full(len(place), variable),
        place=place,
        value=value,
        error=np.full(len(place), error),
        lat=nowhere,
        lon=nowhere,
        name=lambda row: f"{name} at {what} {place[row]} on {day[row]}",
    )


def _dataset(config: RunConfig, parts: Sequence[Rows], source: xr.DataArray) -> xr.Dataset:
    """All rows by time, those of a time in the order of the parts."""
    day = np.concatenate([part.day for part in parts])
    order = np.argsort(day, kind="stable")
    days, sizes = np.unique(day, return_counts=True)
    times = at_dates([str(one) for one in days], source, "the times of what is given")
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])[order]
        for name in ("variable", "lat", "lon", "place", "value", "error")
    }
    kind = np.concatenate([np.full(len(part.day), part.kind) for part in parts])[order]
    withheld = _withheld(config, sizes)
    kinds = {"kind": (kind, "i1"), "variable": (columns.pop("variable"), "i2")}
    kinds |= {"place": (columns.pop("place"), "i4")}
    kinds |= {"withheld": (withheld, "i1")}
    kinds |= {name: (values, "f8") for name, values in columns.items()}
    return xr.Dataset(
        {"row_size": ("time", sizes.astype("i4"), {"sample_dimension": "observation"})}
        | {name: ("observation", values.astype(dtype)) for name, (values, dtype) in kinds.items()},
        coords={"time": times},
    )


def _withheld(config: RunConfig, sizes: np.ndarray) -> np.ndarray:
    """Which rows are withheld, at random; each time keeps one."""
    ends = np.cumsum(sizes)
    random = np.random.default_rng(config.run.seed).random(int(ends[-1]))
    for start, end in zip(ends - sizes, ends, strict=True):
        random[start + random[start:end].argmax()] = 1.0
    return random < config.condition.withheld


def _check(
    config: RunConfig,
    dataset: xr.Dataset,
    parts: Sequence[Rows],
    known: Normals,
    normals: xr.Dataset,
) -> None:
    """Refuse what the model cannot be given: strange seasons, masked places, unlikely values."""
    require_seen(dataset["time"], unseen_of(normals), "the times of what is given")
    conditions = conditions_of(config, dataset, normals)
    rows = known.rows(conditions.assign_coords(time=dataset["time"]))
    day = np.concatenate([part.day for part in parts])
    order = np.argsort(day, kind="stable")
    firsts = np.cumsum([0, *(len(part.day) for part in parts)])
    ends = np.cumsum(dataset["row_size"].values)
    lmax = coarse_degree(dataset)
    for time in range(dataset.sizes["time"]):
        given = given_at(dataset, time)
        start = int(ends[time]) - given.sizes["observation"]

        def name(row: int, start: int = start) -> str:
            number = int(order[start + row])
            which = int(np.searchsorted(firsts, number, side="right")) - 1
            return parts[which].name(number - int(firsts[which]))

        functionals = functionals_of(given, known, lmax)
        refuse_masked(functionals, name)
        carried = carry(
            known, functionals, rows[time], given["value"].values, given["error"].values
        )
        refuse_far(carried, name)


def coarse_degree(observed: xr.Dataset) -> int:
    """The last degree of the coefficients that are given; 0 if none are."""
    at = observed["kind"].values == COEFFICIENT
    last = int(observed["place"].values[at].max()) if at.any() else 0
    return int(np.sqrt(last + 1)) - 1 if at.any() else 0


def _without_masked(functionals: Functionals, known: Normals) -> Functionals:
    """Points beside cells without data see the others alone."""
    weights = functionals.weights.tocsr().copy()
    mask = known.mask.reshape(len(known.mask), -1)
    row = np.repeat(np.arange(len(functionals)), np.diff(weights.indptr))
    weights.data = np.where(mask[functionals.variable[row], weights.indices], 0.0, weights.data)
    total: FloatArray = np.asarray(weights.sum(axis=1)).ravel()
    good = total >= PARTLY_MASKED
    weights.data = weights.data / np.where(good, total, np.inf)[row]
    return Functionals(weights=weights, variable=functionals.variable)


def refuse_masked(functionals: Functionals, name: Callable[[int], str]) -> None:
    total = np.asarray(abs(functionals.weights).sum(axis=1)).ravel()
    if (total == 0.0).any():
        row = int((total == 0.0).argmax())
        raise UnusableData(
            f"{name(row)} lies where the model has no data of this variable (its cells are "
            "masked): leave it out, or observe a variable that is known there"
        )
