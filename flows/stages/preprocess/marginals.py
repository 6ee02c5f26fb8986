"""The pointwise map of every variable: configured, or fitted to the ranks of the training split."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from flows.config.schema import ConfigError, RunConfig
from flows.stages.preprocess.block_sums import added, extents, histograms
from flows.stages.preprocess.fitting import Fitting
from flows.stages.splits import part_of
from pipeline.fields.climatology import SeasonalMoments
from pipeline.fields.pointwise.atom import with_atom
from pipeline.fields.pointwise.forced import ForcedScores, Worlds
from pipeline.fields.pointwise.maps import BOUNDS_OF_UNITS, SIMPLE, Logit, Marginal
from pipeline.fields.pointwise.normal_scores import NormalScores
from pipeline.fields.pointwise.tail import over_surroundings
from pipeline.fields.trend import Trend
from pipeline.sphere.named_grids import grid_of


def pointwise_maps(fitting: Fitting, trend: Trend) -> dict[str, Marginal]:
    """The map of each variable; those of ranks have no atom yet (`with_atoms`)."""
    config, fields = fitting.config, fitting.fields
    names = config.source.variables
    wanted = {name: config.source.transform.get(name, "identity") for name in names}
    ranked = [name for name, transform in wanted.items() if transform == "rank"]
    made: dict[str, Marginal] = {
        name: _logit(config, fields, name) if transform == "logit" else SIMPLE[transform]
        for name, transform in wanted.items()
        if transform != "rank"
    }
    if ranked:
        made |= _fitted_ranks(fitting, trend, ranked)
    return {name: made[name] for name in names}


def _fitted_ranks(fitting: Fitting, trend: Trend, names: list[str]) -> dict[str, Marginal]:
    declared, train = fitting.config.source.bounds, fitting.train
    times = part_of(fitting.fields, fitting.config.split, "train")
    worlds = Worlds.of(trend.forcing(trend.standard(times)))
    seen = trend, worlds
    ranges = fitting.sums(extents, names, *seen, spans=train, label="ranges")
    limits, ranged = {}, {}
    for name, extent in zip(names, added(ranges), strict=True):
        smallest = float(min(one.least.min() for one in extent))
        largest = float(max(one.largest.max() for one in extent))
        bounds = _bounds(fitting.config, fitting.fields, name)
        within = name in declared or (bounds is not None and largest <= bounds[1])
        limits[name] = bounds[1] if bounds is not None and within else np.inf
        ranged[name] = (declared[name][0] if name in declared else smallest, extent)
    counts = fitting.sums(histograms, ranged, *seen, spans=train, label="ranks")
    smooth = over_surroundings(grid_of(fitting.fields))
    made: dict[str, Marginal] = {}
    for name, of_worlds in zip(names, added(counts), strict=True):
        each = [one.times for one in of_worlds]
        maps = tuple(one.fit(limits[name], smooth, min(each)) for one in of_worlds)
        made[name] = (
            ForcedScores(maps=maps, forcing=worlds.forcing, times=np.asarray(each, float))
            if len(worlds) > 1
            else maps[0]
        )
    return made


def with_atoms(
    maps: Mapping[str, Marginal], moments: SeasonalMoments
) -> tuple[dict[str, Marginal], SeasonalMoments]:
    """The maps with their atoms placed, and the moments of all variables under them.

    In worlds of their own values at the bound lie as far below the lowest score of each as they do
    in the middle one, and the second moments are those of the middle one.

    Args:
        moments: of `blocks.seasonal_moments`, indicators after the variables.
    """
    made, channels, indicator = dict(maps), [], len(maps)
    for place, (name, each) in enumerate(maps.items()):
        part = moments.of_channels([place])
        if isinstance(each, NormalScores):
            made[name], part = with_atom(each, part, moments.of_channels([indicator]))
            indicator += 1
        elif isinstance(each, ForcedScores):
            middle, part = with_atom(each.middle, part, moments.of_channels([indicator]))
            made[name] = each.with_depth(middle.scores[0] - middle.atom)
            indicator += 1
        channels.append(part)
    return made, SeasonalMoments.beside(channels)


def _logit(config: RunConfig, fields: xr.Dataset, name: str) -> Logit:
    bounds = _bounds(config, fields, name)
    if bounds is None:
        raise ConfigError(
            f"source.transform.{name}: a logit needs bounds, and those of unit "
            f"{fields[name].attrs.get('units', '(none)')!r} are not known; declare "
            f"source.bounds.{name} = [lowest, highest]"
        )
    return Logit(low=bounds[0], high=bounds[1])


def _bounds(config: RunConfig, fields: xr.Dataset, name: str) -> tuple[float, float] | None:
    """Declared bounds, or those of fractions and percentages."""
    units = str(fields[name].attrs.get("units", ""))
    return config.source.bounds.get(name) or BOUNDS_OF_UNITS.get(units)
