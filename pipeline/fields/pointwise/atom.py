"""The score of values at the lower bound (dry days) under `NormalScores`.

The mean and the variance of a cell's scores depend on where the atom is put. It is put where a
Gaussian field with the climatology and the scale of the scores is at the bound as often as the
training data are, all seasons together.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import ndtr

from pipeline.arrays import FloatArray
from pipeline.fields.climatology import SeasonalMoments, design
from pipeline.fields.pointwise.normal_scores import NormalScores

__all__ = ["with_atom"]

PHASES = 24  # of the year, at which the climatology is asked for
SHALLOWEST, DEEPEST = 0.02, 16.0  # how far below the lowest score the atom may lie
HALVINGS = 24


def with_atom(
    ranks: NormalScores, scores: SeasonalMoments, at_bound: SeasonalMoments
) -> tuple[NormalScores, SeasonalMoments]:
    """Put the atom where a Gaussian field is at the bound as often as the training data are.

    Args:
        scores: Moments of the scores (one channel) with the atom of `ranks`.
        at_bound: Moments of the indicator of values at the bound.
    Returns:
        The map with its new atom, and the moments of the scores under it.
    """
    gram = np.linalg.inv(scores.gram)
    of_scores = np.tensordot(gram, scores.cross[:, 0], axes=1)
    of_bound = np.tensordot(gram, at_bound.cross[:, 0], axes=1)
    phases = design(2.0 * np.pi * np.arange(PHASES) / PHASES, scores.harmonics)
    seasons = phases.shape[1]
    threshold, count = ranks.scores[0], at_bound.square[0]

    def moved(depth: FloatArray) -> SeasonalMoments:
        atom = threshold - depth
        square = scores.square[0] + (np.square(atom) - np.square(ranks.atom)) * count
        cross = scores.cross[:, 0] + (atom - ranks.atom) * at_bound.cross[:, 0]
        return replace(scores, cross=cross[:, None], square=square[None])

    def frequency(depth: FloatArray) -> FloatArray:
        moments, coefficients = (
            moved(depth),
            of_scores + (threshold - depth - ranks.atom) * of_bound,
        )
        explained = np.einsum("s...,s...->...", coefficients, moments.cross[:, 0])
        variance = np.maximum((moments.square[0] - explained) / scores.count, 1e-12)
        total: FloatArray = np.zeros_like(threshold)
        variance += np.square(coefficients[seasons:]).sum(axis=0)  # predictors have variance one
        for waves in phases:
            mean = np.tensordot(waves, coefficients[:seasons], axes=1)
            total += ndtr((threshold - mean) / np.sqrt(variance)) / PHASES
        return total

    shallow, deep = np.full_like(threshold, SHALLOWEST), np.full_like(threshold, DEEPEST)
    for _ in range(HALVINGS):
        middle = 0.5 * (shallow + deep)
        often = frequency(middle) >= ranks.share
        shallow, deep = np.where(often, shallow, middle), np.where(often, middle, deep)
    return replace(ranks, atom=threshold - deep), moved(deep)
