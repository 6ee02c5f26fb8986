"""Observations in the units of a variable, carried into the scaled anomalies that a law is about.

A value v with error e of a variable with a pointwise transform T becomes T(v), with the error
(T(v + e) - T(v - e)) / 2, cell by cell. A value at a bound of its variable (a dry day) says only
that the transformed value lies beyond that of the bound. It is carried as the Gaussian observation
that gives the climatological law of the place the mean and the variance of that law cut there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr, ndtri

from pipeline.arrays import FloatArray
from pipeline.errors import UnusableData
from pipeline.fields.pointwise.maps import SQUEEZE, Amount, Identity, Logit, Pointwise
from pipeline.fields.pointwise.normal_scores import NormalScores
from pipeline.fields.standardisation import Normals
from pipeline.given.functionals import Functionals

__all__ = ["FARTHEST", "Carried", "carry", "refuse_far"]

FARTHEST = 8.0  # climatological standard deviations that an observation may lie from the mean
HALF = 0.5  # of the weight of a point that cells without data may have


@dataclass(frozen=True, kw_only=True, eq=False)
class Carried:
    """Observations as values of functionals of scaled anomalies.

    Attributes:
        values: less the climatology of their time, (row,).
        error: variances, (row,).
        spread: climatological standard deviation of each, weights of its cells, (row,).
    """

    values: FloatArray
    error: FloatArray
    spread: FloatArray


def carry(
    known: Normals,
    functionals: Functionals,
    rows: FloatArray,
    values: FloatArray,
    errors: FloatArray,
) -> Carried:
    """Physical values and errors (row,) of functionals, at one time.

    Args:
        rows: terms of the climatology at that time, (term,).
    Raises:
        UnusableData: If a variable with a transform is observed by more than values at places.
    """
    known = known.at(rows)
    climatology = np.tensordot(rows, known.climatology, axes=(0, 0))
    usual = functionals(climatology)
    scale = known.scale.reshape(len(known.scale), -1)
    weights = functionals.weights.tocsr()
    row = np.repeat(np.arange(len(functionals)), np.diff(weights.indptr))
    spread: FloatArray = np.bincount(
        row,
        np.abs(weights.data) * scale[functionals.variable[row], weights.indices],
        minlength=len(functionals),
    ).astype(np.float64)
    value, error = values.astype(np.float64).copy(), errors.astype(np.float64).copy()
    maps = tuple(known.pointwise(rows).values())
    for place in np.unique(functionals.variable):
        which = np.flatnonzero(functionals.variable == place)
        transform = maps[place]
        if isinstance(transform, Identity):
            continue
        _refuse_means(functionals.of(which), known.variables[place], transform)
        there = _Transformed(known, int(place), functionals.of(which), transform)
        value[which], error[which] = there(values[which], errors[which], usual[which])
    return Carried(values=value - usual, error=np.square(error), spread=spread)


def refuse_far(carried: Carried, name: Callable[[int], str]) -> None:
    """Refuse observations that no field of the training resembles.

    Args:
        name: what a row is, for people.
    Raises:
        UnusableData: Naming the farthest, with the remedy.
    """
    size = np.abs(carried.values) / np.where(carried.spread > 0.0, carried.spread, 1.0)
    worst = int(size.argmax()) if size.size else 0
    if size.size and size[worst] > FARTHEST:
        raise UnusableData(
            f"{name(worst)} lies {size[worst]:.0f} standard deviations from the mean of its place "
            f"and season, more than {FARTHEST:g}: beyond all that the model has seen. Mend its "
            "value or its unit, or leave it out"
        )


class _Transformed:
    """The transform of one variable at the cells of some functionals."""

    def __init__(
        self, known: Normals, place: int, functionals: Functionals, transform: Pointwise
    ) -> None:
        weights = functionals.weights.tocsr()
        self.transform, self.shape = transform, known.grid.shape
        self.cell, self.weight = weights.indices, weights.data
        self.row = np.repeat(np.arange(len(functionals)), np.diff(weights.indptr))
        order = np.argsort(self.cell, kind="stable")
        first = np.searchsorted(self.cell[order], self.cell[order])
        self.layer = np.empty_like(self.cell)
        self.layer[order] = np.arange(len(order)) - first
        self.count = len(functionals)
        self.total = np.bincount(self.row, self.weight, minlength=self.count)
        self.scale = self.mean_of(known.scale[place].ravel()[self.cell])
        self.low, self.high = (
            None if bound is None else self.mean_of(bound.ravel()[self.cell])
            for bound in _bounds(self.transform, self.shape)
        )

    def mean_of(self, numbers: FloatArray) -> FloatArray:
        """Of numbers at the cells of each row, (row,)."""
        summed = np.bincount(self.row, self.weight * numbers, minlength=self.count)
        mean: FloatArray = summed.astype(np.float64) / self.total
        return mean

    def forward(self, values: FloatArray) -> FloatArray:
        """T(v) of each row by the maps of its cells, (row,)."""
        maps = np.full((int(self.layer.max()) + 1, int(np.prod(self.shape))), np.nan)
        maps[self.layer, self.cell] = values[self.row]
        with np.errstate(invalid="ignore"):
            mapped = self.transform.forward(maps.reshape(-1, *self.shape))
        return self.mean_of(mapped.reshape(maps.shape)[self.layer, self.cell])

    def __call__(
        self, values: FloatArray, errors: FloatArray, usual: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Transformed values and errors; of those at a bound, what the bound says."""
        least, most = _limits(self.transform)
        value = self.forward(values)
        upper = np.minimum(values + errors, most)
        lower = np.where(values - errors > least, values - errors, values)
        steps = np.where(lower < values, 2.0, 1.0)
        error = np.abs(self.forward(upper) - self.forward(lower)) / steps
        for beyond, bound, sign in (
            (values <= least, self.low, 1.0),
            (values >= most, self.high, -1.0),
        ):
            if bound is None or not beyond.any():
                continue
            at = sign * (bound - usual)[beyond] / self.scale[beyond]
            mean, deviation = cut_normal(at)
            value[beyond] = usual[beyond] + sign * self.scale[beyond] * mean
            error[beyond] = self.scale[beyond] * deviation
        return value, error


def cut_normal(at: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The Gaussian observation of a standard normal number that says as much as "below `at`" does.

    Mean and standard deviation of the error; together with N(0, 1) they give the mean and the
    variance of the law cut at `at`.
    """
    density = np.exp(-0.5 * at**2 - 0.5 * np.log(2.0 * np.pi) - log_ndtr(at))
    mean, variance = -density, 1.0 - at * density - density**2
    precision = np.maximum(1.0 / np.maximum(variance, 1e-12) - 1.0, 1e-6)
    return mean / np.maximum(variance, 1e-12) / precision, 1.0 / np.sqrt(precision)


def _limits(transform: Pointwise) -> tuple[float, float]:
    """The lowest and the largest value of a variable."""
    if isinstance(transform, Logit | NormalScores):
        return transform.low, transform.high
    return (0.0, np.inf) if isinstance(transform, Amount) else (-np.inf, np.inf)


def _bounds(
    transform: Pointwise, shape: tuple[int, ...]
) -> tuple[FloatArray | None, FloatArray | None]:
    """Transformed values beyond which a variable is at its bounds, in each cell."""
    if isinstance(transform, Amount):
        return np.zeros(shape), None
    if isinstance(transform, Logit):
        edge = np.log(SQUEEZE) - np.log1p(-SQUEEZE)
        return np.full(shape, edge), np.full(shape, -edge)
    if isinstance(transform, NormalScores):
        return ndtri(np.clip(transform.share, 1e-6, 1.0 - 1e-6)), None
    return None, None


def _refuse_means(functionals: Functionals, name: str, transform: Pointwise) -> None:
    whole = functionals.weights.sum(axis=1)
    many = np.diff(functionals.weights.tocsr().indptr) > 4
    if (many | (np.abs(whole - 1.0) > 1e-6)).any():
        raise UnusableData(
            f"{name} is modelled by the {transform.name} of its values, so a mean of it over many "
            "cells is no linear observation: observe it at points, or leave it out"
        )
