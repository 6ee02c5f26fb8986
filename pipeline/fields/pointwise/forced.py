"""Normal scores under a forcing: a distribution in each world that was seen, and of those between.

Rain of a control and of a warmer world, ranked together, differs in more than the mean and the
deviation of its scores, and what a law of two numbers cannot say is lost: a fifth of the response
of the mean. Here each world has ranks of its own, so the scores are normal in all of them, and what
the forcing does lies in the values. Of a world between, the values at each level, the share at the
bound and the tail are those of a straight line along the covariates of the trend, fitted to the
worlds and weighted by their times: with one world more than there are covariates it goes through
all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pipeline.arrays import FloatArray
from pipeline.fields.pointwise.normal_scores import NormalScores
from pipeline.fields.pointwise.tail import LARGEST_SHAPE, LEAST_SHAPE, RankTail

__all__ = ["ForcedScores", "ScoresAtTimes", "Worlds"]

MOST_WORLDS = 8  # series of a forcing have a value of their own at each time
FEWEST_TIMES = 100  # of a world, for ranks of its own
KEPT = 4  # worlds whose map stays in memory


@dataclass(frozen=True, kw_only=True, eq=False)
class Worlds:
    """The covariates that training times have, (world, covariate)."""

    forcing: FloatArray

    @classmethod
    def of(cls, standard: FloatArray) -> Worlds:
        """Of covariates (time, covariate) in standard units.

        One world where their values are not few, or where these do not determine a straight line.
        """
        found, counts = np.unique(np.round(standard, 9), axis=0, return_counts=True)
        design = np.column_stack([np.ones(len(found)), found])
        few = 1 < len(found) <= MOST_WORLDS and counts.min() >= FEWEST_TIMES
        if few and np.linalg.matrix_rank(design) == design.shape[1]:
            return cls(forcing=found)
        return cls(forcing=np.zeros((1, standard.shape[1])))

    def __len__(self) -> int:
        return len(self.forcing)

    def places(self, forcing: FloatArray) -> npt.NDArray[np.intp]:
        """Of the worlds nearest to covariates (time, covariate), (time,)."""
        away = np.square(forcing[:, None] - self.forcing).sum(axis=-1)
        nearest: npt.NDArray[np.intp] = away.argmin(axis=1)
        return nearest


@dataclass(frozen=True, kw_only=True, eq=False)
class ForcedScores:
    """The maps between values and normal scores in several worlds.

    Attributes:
        maps: of each world, with the same levels and bounds.
        forcing: the covariates of each world in standard units, (world, covariate).
        times: of each world, its weight in the straight line.
    """

    maps: tuple[NormalScores, ...]
    forcing: FloatArray
    times: FloatArray
    name: str = "rank"

    @property
    def low(self) -> float:
        return self.maps[0].low

    @property
    def high(self) -> float:
        return self.maps[0].high

    @property
    def middle(self) -> NormalScores:
        """The map where all covariates are zero, their mean over the training times."""
        return self._between(np.zeros(self.forcing.shape[1]))

    def at(self, forcing: FloatArray) -> NormalScores | ScoresAtTimes:
        """The map at covariates (covariate,), or at those (..., covariate) of several times."""
        if forcing.ndim > 1:
            return ScoresAtTimes(forced=self, forcing=forcing)
        key = forcing.tobytes()
        if key not in self._made:
            if len(self._made) >= KEPT:
                self._made.clear()
            self._made[key] = self._between(forcing)
        return self._made[key]

    def with_depth(self, depth: FloatArray) -> ForcedScores:
        """The atom so far below the lowest score of each world, (*grid)."""
        maps = (replace(one, atom=one.scores[0] - depth) for one in self.maps)
        return replace(self, maps=tuple(maps))

    @cached_property
    def _made(self) -> dict[bytes, NormalScores]:
        return {}

    def _between(self, forcing: FloatArray) -> NormalScores:
        design = np.column_stack([np.ones(len(self.maps)), self.forcing])
        root = np.sqrt(self.times)[:, None]
        share_of_each = np.linalg.pinv(root * design) * root.ravel()
        weights = np.concatenate([[1.0], forcing]) @ share_of_each

        def line(parts: Sequence[FloatArray | float]) -> FloatArray:
            return np.tensordot(weights, np.stack(parts), axes=1)

        first = self.maps[0]
        quantiles = line([one.quantiles for one in self.maps])
        scale = line([one.tail.scale for one in self.maps])
        least = min(float(one.tail.scale.min()) for one in self.maps)
        shape = float(line([one.tail.shape for one in self.maps]))
        made = replace(
            first,
            quantiles=np.maximum.accumulate(np.maximum(quantiles, self.low), axis=0),
            share=np.clip(line([one.share for one in self.maps]), 0.0, first.levels[-1]),
            slope=max(float(line([one.slope for one in self.maps])), np.finfo(float).tiny),
            tail=RankTail(
                scale=np.maximum(scale, least),
                shape=float(np.clip(shape, LEAST_SHAPE, LARGEST_SHAPE)),
            ),
        )
        depth = line([one.scores[0] - one.atom for one in self.maps])
        return replace(made, atom=made.scores[0] - depth)


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoresAtTimes:
    """The maps of some times, with the covariates (..., covariate) of values (..., *grid)."""

    forced: ForcedScores
    forcing: FloatArray
    name: str = "rank"

    def forward(self, values: FloatArray) -> FloatArray:
        return self._mapped("forward", values)

    def inverse(self, values: FloatArray) -> FloatArray:
        return self._mapped("inverse", values)

    def at_bound(self, scores: FloatArray) -> npt.NDArray[np.bool_]:
        """Whether scores (..., *grid) are those of values at the lower bound."""
        return self._mapped("at_bound", scores).astype(bool)

    def at(self, forcing: FloatArray) -> ScoresAtTimes:
        return self

    def _mapped(self, way: str, values: FloatArray) -> FloatArray:
        grid = self.forced.maps[0].share.shape
        leading = values.shape[: values.ndim - len(grid)]
        count = self.forcing.shape[-1]
        forcing = np.broadcast_to(self.forcing, (*leading, count)).reshape(-1, count)
        flat = values.reshape(-1, *grid)
        mapped = np.empty_like(flat)
        worlds, place = np.unique(forcing, axis=0, return_inverse=True)
        for number, world in enumerate(worlds):
            there = place.ravel() == number
            mapped[there] = getattr(self.forced.at(world), way)(flat[there])
        return mapped.reshape(values.shape)
