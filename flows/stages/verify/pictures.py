"""The pictures of one report, drawn from the store and the line-up of verify."""

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from flows.config.schema import pairs_of, within
from flows.report import figures
from flows.report.compatibility import compatibility_curves
from flows.report.correlations import correlation_curves
from flows.report.maps import Raster
from flows.report.sheet import contact_sheet
from flows.report.time_pictures import MOVING_DAYS, STRIP_DAYS, film_strip, moving_waves
from flows.stages.conditions import conditioned, standard_covariates, with_predictors
from flows.stages.verify.forecasts import Shown
from pipeline.fields.climatology import season_phase
from pipeline.fields.other_grid import placed_normals
from pipeline.fields.standardisation import variables_of
from pipeline.fields.whitening import to_fields
from pipeline.scores.analogues import analogues, with_wind_speed
from pipeline.scores.arena import Arena
from pipeline.scores.score_card import Maps
from pipeline.sphere.named_grids import grid_of
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from storage.conventions.labels import once

SIDE_BY_SIDE = 3


def pictures(
    card: Mapping[str, Any],
    layout: StoreLayout,
    arena: Arena,
    maps: Maps,
    normals: xr.Dataset,
) -> dict[str, str]:
    """Elements by name, as flows.report.page.render takes them.

    Args:
        maps: of the held-out fields and of the model, by variable.
    """
    raster = Raster(arena.area)
    real, generated, expected = gallery(layout, normals)
    theirs = Raster(generated)
    titles = {name: about["long_name"] for name, about in card["variables"].items()}
    made: dict[str, str] = {}
    if len(titles) > figures.MANY:
        sheet = contact_sheet(real, generated, titles, (raster, theirs))
        made["overview"] = figures.image(sheet, "Every variable: real and generated")
    for name, title in titles.items():
        attrs = real[name].attrs
        pair = real[name], generated[name]
        absolute = figures.side_by_side(*pair, (raster, theirs))
        made[f"fields/{name}"] = figures.image(absolute, f"{title}: real and generated")
        if not card["variables"][name]["derived"]:
            usual = zip(pair, expected, strict=True)
            ours, drawn = ((each - mean[name]).assign_attrs(attrs) for each, mean in usual)
            figure = figures.side_by_side(ours, drawn, (raster, theirs), anomaly=True)
            made[f"anomalies/{name}"] = figures.image(figure, f"{title}: departures")
        statistics = figures.statistic_maps(real[name], *maps[name], raster)
        made[f"maps/{name}"] = figures.image(statistics, f"{title}: statistics")
    titles |= wind_titles(normals, titles)
    made["spectra"] = figures.svg(figures.spectrum_ratios(card["spectra"], titles), "Spectra")
    made["ranks"] = figures.svg(figures.rank_histograms(card["ranks"], titles), "Rank histograms")
    splits = figures.certificate_splits(card["certificate"], titles)
    made["certificate"] = figures.svg(splits, "Certificate")
    if "misses" in card.get("time", {}):
        curves = correlation_curves(card["time"], titles)
        made["time"] = figures.svg(curves, "Autocorrelation by lag")
        made |= _films(card, layout, normals, titles)
    made["compatibility"] = figures.svg(compatibility_curves(normals, titles), "Compatibility")
    return made


def _films(
    card: Mapping[str, Any], layout: StoreLayout, normals: xr.Dataset, titles: Mapping[str, str]
) -> dict[str, str]:
    """Real and drawn days of the first variable, one after the other."""
    period = within(pairs_of(card["protocol"]["test"])[0])
    real = artifacts.open_published(layout, "whitened")["x"].sel(time=period)
    name = card.get("time", {}).get("name", "")
    drawn = artifacts.open_published(layout, "states", label=name)["x"].isel(realization=0)
    days = min(MOVING_DAYS, real.sizes["time"], drawn.sizes["time"])
    if days < STRIP_DAYS:
        return {}
    shown = Shown.of(normals)
    pair = [
        shown(x[:days].values.astype(np.float64))[:, 0].reshape(days, *shown.grid.shape)
        for x in (real, drawn)
    ]
    north = np.abs(np.asarray(shown.grid.latitudes) - 45) <= 15
    name = f"{next(iter(titles.values()))}, departures in units of the local deviation"
    strip = film_strip(pair[0][:STRIP_DAYS], pair[1][:STRIP_DAYS], name)
    bands = [maps[:, north].mean(axis=1) for maps in pair]
    waves = moving_waves(bands[0], bands[1], f"{name}, 30-60N")
    return {
        "film strip": figures.image(strip, "Six consecutive days: held out, and drawn"),
        "moving waves": figures.image(waves, "Waves along 30-60N: held out, and drawn"),
    }


WITHOUT_DIRECTION = re.compile(r"\b(eastward|northward|zonal|meridional) ", re.IGNORECASE)


def wind_titles(normals: xr.Dataset, titles: Mapping[str, str]) -> dict[str, str]:
    """What the two parts of each wind are called, by channel."""
    channels, variables = map(str, normals["channel"].values), variables_of(normals)
    return {
        channel: f"{channel.rpartition(':')[2]} part of {WITHOUT_DIRECTION.sub('', titles[name])}"
        for channel, name in zip(channels, variables, strict=True)
        if channel != name
    }


def gallery(
    layout: StoreLayout, normals: xr.Dataset, number: int = SIDE_BY_SIDE
) -> tuple[xr.Dataset, xr.Dataset, tuple[xr.Dataset, xr.Dataset]]:
    """Real fields of the season of the ensemble's first date, generated ones, and what is usual.

    Returns:
        Dims (time, *grid), (realization, *grid), and twice (*grid): on the grid of the real fields
        and on that of the generated ones. Wind speed is added to each.
    """
    names = list(variables_of(normals))
    ensemble = artifacts.open_published(layout, "ensemble")[names].isel(time=[0])
    given = json.loads(ensemble.attrs["config"])["generate"]["covariates"]
    fields = _like_forced(artifacts.open_published(layout, "fields"), given, normals)[names]
    phase = season_phase(ensemble["time"])
    # Same calendar day in other years; of a short record also days around it.
    seasons = season_phase(fields["time"])
    found = analogues(fields["time"], seasons, phase, offsets=(0.0, 10.0, -10.0))
    days = [] if found is None else list(dict.fromkeys(found.rows.ravel().tolist()))
    real = fields.isel(time=sorted(days[:number])).load()
    still = xr.DataArray(
        np.zeros((1, len(names), normals.sizes["coefficient"]), np.float32),
        dims=("time", "channel", "coefficient"),
        coords={"phase": ("time", phase), "time": ensemble["time"]},
    )
    conditions = conditioned(ensemble["time"], given, normals)
    still = with_predictors(still, conditions)
    generated = ensemble.isel(time=0, drop=True, realization=slice(number)).load()
    there = grid_of(generated)
    placed = normals if there == grid_of(normals) else placed_normals(normals, there)
    usual = [with_wind_speed(to_fields(still, each).isel(time=0)) for each in (normals, placed)]
    return with_wind_speed(real), with_wind_speed(generated), (usual[0], usual[1])


def _like_forced(fields: xr.Dataset, given: Mapping[str, float], normals: xr.Dataset) -> xr.Dataset:
    """The fields, each time once: of several scenarios those whose covariates are nearest."""
    known = [name for name in given if name in fields]
    if "member" not in fields.coords or not known:
        return once(fields)
    member = fields["member"].to_numpy()
    series = {name: fields[name].to_numpy() for name in known}
    rows = standard_covariates(series, fields.sizes["time"], normals)
    asked = standard_covariates(given, 1, normals)
    away = np.nansum(np.square(rows - asked), axis=1)
    numbers = np.unique(member)
    nearest = numbers[np.argmin([away[member == number].mean() for number in numbers])]
    return once(fields.isel(time=np.flatnonzero(member == nearest)))


def readme_picture(layout: StoreLayout, variable: str, path: str, *, anomaly: bool = False) -> None:
    """Draw the picture of the README from a finished run."""
    normals = artifacts.open_published(layout, "normals").load()
    real, generated, expected = gallery(layout, normals)
    usual = zip((real, generated), expected, strict=True)
    pair = [each[variable] - (mean[variable] if anomaly else 0.0) for each, mean in usual]
    pair = [each.assign_attrs(real[variable].attrs) for each in pair]
    figures.readme_picture(pair[0], pair[1], path, anomaly=anomaly)
