"""What a model need not learn of each cell: pointwise map, trend, season, scale, mask."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np

from flows.stages.conditions import trend_of
from flows.stages.preprocess.block_sums import (
    scale_fit,
    scale_sums,
    seasonal_moments,
    squares_in_holes,
)
from flows.stages.preprocess.fitting import Fitting
from flows.stages.preprocess.marginals import pointwise_maps, with_atoms
from flows.stages.preprocess.wind_pairs import wind_pairs
from pipeline.arrays import FloatArray
from pipeline.errors import UnusableData
from pipeline.fields.climatology import Climatology, SeasonalMoments
from pipeline.fields.pointwise.forced import ForcedScores
from pipeline.fields.pointwise.maps import Marginal
from pipeline.fields.scale import STEPS, Tried, chosen_scale, stepped
from pipeline.fields.standardisation import Normals
from pipeline.fields.trend import Trend
from pipeline.sphere.named_grids import grid_of
from pipeline.sphere.pairs import Pairs, channel_names, in_pairs


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What is taken away from the fields of each variable, in this order.

    Attributes:
        log_scale: as `Normals` have it.
        smoothed_to: the degree to which its maps are smoothed, -1 where the scale does not change.
    """

    transforms: Mapping[str, Marginal]
    pairs: Pairs
    trend: Trend
    climatology: Climatology
    log_scale: FloatArray
    smoothed_to: tuple[int, ...]

    def anomalies(self, fitting: Fitting) -> Normals:
        """Normals with a flat reference: they make scaled anomalies, not yet whitened."""
        climatology, transforms = self.climatology, self.transforms
        return Normals(
            grid=grid_of(fitting.fields),
            channels=channel_names(tuple(transforms), self.pairs),
            variables=tuple(transforms),
            pairs=self.pairs,
            trend=self.trend,
            transforms=tuple(transforms.values()),
            climatology=climatology.coefficients,
            scale=climatology.scale,
            mask=climatology.mask,
            lmax=fitting.lmax,
            factor=np.tile(np.eye(len(transforms)), (fitting.tail + 1, 1, 1)),
            remainder=np.zeros_like(climatology.scale),
            log_scale=self.log_scale,
        )


def fit_removed(fitting: Fitting) -> Removed:
    """Fit to the training times what is taken away from all fields.

    Raises:
        UnusableData: If cells are missing and nothing says how to fill them.
    """
    config, fields = fitting.config, fitting.fields
    pairs = wind_pairs(config, fields)
    trend = trend_of(fields, config)
    maps = pointwise_maps(fitting, trend)
    transforms, moments = with_atoms(maps, _moments(fitting, maps, trend))
    if any(isinstance(one, ForcedScores) for one in transforms.values()):
        again = _moments(fitting, transforms, trend)
        moments = SeasonalMoments.beside([again.of_channels([k]) for k in range(len(transforms))])
    climatology = moments.fit().with_winds(pairs)
    _refuse_masks(fitting, transforms, climatology)
    removed = _with_scale(
        fitting,
        Removed(
            transforms=transforms,
            pairs=pairs,
            trend=trend,
            climatology=climatology,
            log_scale=np.empty(0),
            smoothed_to=(-1,) * len(transforms),
        ),
    )
    climatology = removed.climatology
    if not climatology.mask.any():
        return removed
    anomalies = removed.anomalies(fitting)
    squares = fitting.sums(squares_in_holes, anomalies, spans=fitting.train, label="holes")
    scale = in_pairs(reduce(add, squares) / moments.count, pairs)
    return replace(removed, climatology=climatology.with_holes(scale))


def _moments(fitting: Fitting, maps: Mapping[str, Marginal], trend: Trend) -> SeasonalMoments:
    subject = maps, trend, fitting.harmonics
    parts = fitting.sums(seasonal_moments, *subject, spans=fitting.train, label="climatology")
    return reduce(add, parts)


def _with_scale(fitting: Fitting, removed: Removed) -> Removed:
    """The same with a scale that follows the season and the trend, where that is likelier."""
    constant = found = removed.anomalies(fitting)
    if len(constant.climatology) == 1:
        return removed
    for _ in range(STEPS):
        sums = fitting.sums(scale_sums, found, spans=fitting.train, label="scale")
        found = stepped(found, reduce(add, sums))
    subject = constant.scale, found
    train, validation = (
        reduce(add, fitting.sums(scale_fit, *subject, spans=spans, label=label))
        for spans, label in (
            (fitting.train, "scales"),
            (fitting.validation, "scales on validation times"),
        )
    )
    known, to = chosen_scale(Tried.of(*subject), train, validation)
    climatology = replace(removed.climatology, scale=known.scale)
    return replace(
        removed, climatology=climatology, log_scale=known.log_scale, smoothed_to=tuple(to)
    )


def _refuse_masks(
    fitting: Fitting, transforms: Mapping[str, Marginal], climatology: Climatology
) -> None:
    for name, mask in zip(transforms, climatology.mask, strict=True):
        if mask.any() and fitting.config.source.fill_of(name) == "refuse":
            raise UnusableData(
                f"{name} is missing in {int(mask.sum())} of {mask.size} cells at all times; "
                f'declare source.fill = {{ {name} = "harmonic" }} to fill them for the transform'
            )
