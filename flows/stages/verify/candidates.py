"""Who is scored against what: the held-out truth, the candidates, the climatological reference.

`model` and the Gaussian baselines come in as generated fields. `noise-floor` are the training
fields of the same calendar days, `band-limit` those fields cut to lmax: a perfect draw of what the
score model learns, without the remainder. The last two are absent if the training period lacks the
season of the held-out dates or holds it only once. Where members are split, the truth of a date is
the first member of the test, and the noise floor the members that were learned from.
"""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from flows.config.schema import RunConfig
from flows.stages.conditions import conditioned_as_observed, with_predictors
from flows.stages.splits import part_of
from pipeline.fields.climatology import season_phase
from pipeline.fields.standardisation import variables_of
from pipeline.fields.whitening import color, to_fields, to_whitened
from pipeline.scores.analogues import analogues, with_wind_speed
from pipeline.scores.bootstrap import date_weights
from pipeline.scores.intervals import block_of
from pipeline.scores.score_card import FLOOR, Arena, Sample
from pipeline.sphere.named_grids import grid_of
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from storage.conventions.labels import once

SLOW_DEGREES = 5  # whose coefficients say how long dates hang together
REPLICATES = 100
WINDOW = (-15.0, -10.0, -5.0, 0.0, 5.0, 10.0, 15.0)  # days, of the climatological reference


def held_out_times(fields: xr.Dataset, config: RunConfig) -> xr.DataArray:
    """`verify.dates` times of the test period, as evenly spread as its times allow."""
    times = once(part_of(fields["time"], config.split, "test"))
    number = min(config.verify.dates, times.size)
    if number < 2:
        raise artifacts.IncompleteArtifact(
            f"split.test {config.split.spoken('test')} holds {times.size} "
            "times; verification needs at least 2"
        )
    chosen = np.linspace(0, times.size - 1, number).round().astype(int)
    return times.isel(time=chosen).reset_coords(drop=True)


def line_up(
    config: RunConfig,
    layout: StoreLayout,
    normals: xr.Dataset,
    dates: xr.DataArray,
    ensembles: Mapping[str, xr.Dataset],
) -> tuple[Arena, dict[str, Sample], xr.Dataset | None]:
    """What is scored against what: truth, candidates, and draws of the climatology.

    Args:
        ensembles: Generated fields (realization, time, *grid) at `dates`, by candidate.
    """
    names, split = list(variables_of(normals)), config.split
    every = artifacts.open_published(layout, "fields")[names]
    every_x = artifacts.open_published(layout, "whitened")
    fields, whitened = (once(part_of(each, split, "test")) for each in (every, every_x))

    def scaled(x: xr.DataArray) -> xr.DataArray:
        scaled = color(x, normals).transpose(..., "time", "channel", "coefficient")
        return scaled.assign_coords(variable=("channel", names))

    conditions = conditioned_as_observed(dates, artifacts.open_published(layout, "fields"), normals)
    truth = Sample(
        fields=with_wind_speed(fields.sel(time=dates["time"]).load()),
        coefficients=scaled(whitened["x"].sel(time=dates["time"]).load()),
    )
    still = xr.zeros_like(whitened["x"].sel(time=dates["time"]))
    expected = with_wind_speed(to_fields(still, normals))
    candidates = {
        name: Sample(
            fields=with_wind_speed(ensemble[names]),
            coefficients=scaled(_whiten(ensemble, conditions, normals)),
        )
        for name, ensemble in ensembles.items()
    }
    phase = season_phase(dates)
    past, past_x = (part_of(each, split, "train") for each in (every, every_x[["x"]]))
    if not split.by_members:
        past, past_x = once(past), once(past_x)
    weather = past["member"].to_numpy() if split.by_members else None
    seasons = season_phase(past["time"])
    floor, floor_x = (analogues(each, seasons, phase, weather=weather) for each in (past, past_x))
    climatology = None
    if floor is not None and floor_x is not None and floor.sizes["realization"] > 1:
        at = {"time": dates.values}
        x = floor_x["x"].assign_coords(at)
        candidates[FLOOR] = Sample(
            fields=with_wind_speed(floor.assign_coords(at)), coefficients=scaled(x)
        )
        at_dates = with_predictors(x.assign_coords(phase=("time", phase)), conditions)
        cut = to_fields(at_dates, normals)
        candidates["band-limit"] = Sample(
            fields=with_wind_speed(cut), coefficients=scaled(_whiten(cut, conditions, normals))
        )
        window = analogues(past, seasons, phase, offsets=WINDOW, weather=weather)
        assert window is not None
        climatology = with_wind_speed(window.assign_coords(at))
    grid = grid_of(fields)
    area = xr.DataArray(grid.area, dims=grid.dims).assign_coords(
        {name: fields[name] for name in ("lat", "lon", "cell", "crs") if name in fields.coords}
    )
    block = memory_of(truth.coefficients)
    weights = date_weights(
        dates.size,
        block=block,
        replicates=REPLICATES,
        generator=np.random.default_rng(config.run.seed),
    )
    arena = Arena(truth=truth, expected=expected, area=area, weights=weights, block=block)
    return arena, candidates, climatology


def memory_of(coefficients: xr.DataArray) -> int:
    """Dates that are drawn together: by the memory of the largest scales of the held-out fields."""
    slow = coefficients.isel(coefficient=coefficients["degree"].values <= SLOW_DEGREES)
    series = slow.transpose("time", "channel", "coefficient").values.astype(np.float64)
    scale = series.std(axis=0)
    return block_of(series / np.where(scale > 0.0, scale, 1.0))


def spacing(dates: xr.DataArray) -> float:
    """Mean days between neighbouring dates."""
    span = dates.values[-1] - dates.values[0]
    days = span / np.timedelta64(1, "D") if isinstance(span, np.timedelta64) else span.days
    return float(days) / (dates.size - 1)


def _whiten(ensemble: xr.Dataset, conditions: xr.Dataset, normals: xr.Dataset) -> xr.DataArray:
    ensemble = with_predictors(ensemble, conditions)
    members = [
        to_whitened(ensemble.isel(realization=number, drop=True), normals)["x"]
        for number in range(ensemble.sizes["realization"])
    ]
    return xr.concat(members, "realization")
