"""The pointwise map of every variable: configured, or fitted to the ranks of the training split."""

from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from flows.config.schema import ConfigError, RunConfig
from flows.stages.preprocess.block_sums import extents, histograms
from flows.stages.preprocess.fitting import Fitting
from pipeline.fields.climatology import SeasonalMoments
from pipeline.fields.pointwise.atom import with_atom
from pipeline.fields.pointwise.maps import BOUNDS_OF_UNITS, SIMPLE, Logit, Pointwise
from pipeline.fields.pointwise.normal_scores import NormalScores
from pipeline.fields.pointwise.tail import over_surroundings
from pipeline.sphere.named_grids import grid_of

if TYPE_CHECKING:
    pass


def pointwise_maps(fitting: Fitting) -> dict[str, Pointwise]:
    """The map of each variable; those of ranks have no atom yet (`with_atoms`)."""
    config, fields = fitting.config, fitting.fields
    names = config.source.variables
    wanted = {name: config.source.transform.get(name, "identity") for name in names}
    ranked = [name for name, transform in wanted.items() if transform == "rank"]
    made: dict[str, Pointwise] = {
        name: _logit(config, fields, name) if transform == "logit" else SIMPLE[transform]
        for name, transform in wanted.items()
        if transform != "rank"
    }
    if ranked:
        made |= _fitted_ranks(fitting, ranked)
    return {name: made[name] for name in names}


def _fitted_ranks(fitting: Fitting, names: list[str]) -> dict[str, Pointwise]:
    declared, train = fitting.config.source.bounds, fitting.train
    ranges = fitting.sums(extents, names, spans=train, label="ranges")
    limits, ranged = {}, {}
    for name, parts in zip(names, zip(*ranges, strict=True), strict=True):
        extent = reduce(add, parts)
        smallest, largest = float(extent.least.min()), float(extent.largest.max())
        bounds = _bounds(fitting.config, fitting.fields, name)
        within = name in declared or (bounds is not None and largest <= bounds[1])
        limits[name] = bounds[1] if bounds is not None and within else np.inf
        ranged[name] = (declared[name][0] if name in declared else smallest, extent)
    counts = fitting.sums(histograms, ranged, spans=train, label="ranks")
    smooth = over_surroundings(grid_of(fitting.fields))
    return {
        name: reduce(add, parts).fit(limits[name], smooth)
        for name, parts in zip(names, zip(*counts, strict=True), strict=True)
    }


def with_atoms(
    maps: Mapping[str, Pointwise], moments: SeasonalMoments
) -> tuple[dict[str, Pointwise], SeasonalMoments]:
    """The maps with their atoms placed, and the moments of all variables under them.

    Args:
        moments: of `blocks.seasonal_moments`, indicators after the variables.
    """
    made, channels, indicator = dict(maps), [], len(maps)
    for place, (name, each) in enumerate(maps.items()):
        part = moments.of_channels([place])
        if isinstance(each, NormalScores):
            made[name], part = with_atom(each, part, moments.of_channels([indicator]))
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
