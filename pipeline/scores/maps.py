"""Maps of an ensemble's marginal law, and their errors against held-out fields.

Shapes: `ensemble` (realization, date, cell), `truth` (date, cell), `area` (cell). Each
realization is reduced over the same dates as the truth, so that skewness and quantiles carry the
same small-sample bias on both sides. `weights` and rows: pipeline/scores/bootstrap.py.

Realizations come one after the other, and what is kept of them are sums: the memory of a part of
the sphere does not depend on how many there are, and parts of the sphere add up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from pipeline.arrays import FloatArray
from pipeline.scores.bootstrap import fair_sum, mean_over_dates

IntArray = npt.NDArray[np.integer]

TAIL = 1e-3  # the 99.9 % quantile
MIDDLES = 1 << 24  # numbers of a table of replicates and largest values


@dataclass(frozen=True)
class Moments:
    """Per cell over dates; leading axes as the values', dates replaced by replicates."""

    mean: FloatArray
    deviation: FloatArray
    skewness: FloatArray


def moments(values: FloatArray, weights: FloatArray) -> Moments:
    """Mean, sd and skewness over dates: (..., date, cell) -> (..., replicate, cell).

    The variance has the divisor n - 1; the skewness m3 / m2^1.5 is 0 in cells that never vary.
    """
    size = weights.sum(axis=1)[:, None]
    origin = values.mean(axis=-2, keepdims=True)
    centred = values - origin
    square = centred * centred
    first, second, third = (weights @ power / size for power in (centred, square, square * centred))
    m2 = np.maximum(second - first**2, 0.0)
    m3 = third - first * (3 * second - 2 * first**2)
    root = np.sqrt(m2)
    cube = root * m2
    varies = (m2 > 1e-12 * second) & (cube > 0)
    skewness = np.divide(m3, cube, out=np.zeros_like(m3), where=varies)
    return Moments(origin + first, root * np.sqrt(size / (size - 1)), skewness)


def standardised(values: FloatArray) -> FloatArray:
    """(..., date, cell) by each cell's own mean and standard deviation over dates."""
    centred = values - values.mean(axis=-2, keepdims=True)
    deviation = values.std(axis=-2, ddof=1, keepdims=True)
    result: FloatArray = np.divide(
        centred, deviation, out=np.zeros_like(centred), where=deviation > 0
    )
    return result


def upper_quantile(values: FloatArray, area: FloatArray, weights: FloatArray) -> FloatArray:
    """The 99.9 % quantile of all values (date, cell) together, weighted by area and date.

    Returns:
        (replicate,), linear between the middles of the weighted steps.
    """
    return pooled_quantile(lambda: [(values, area)], values.size, float(area.sum()), weights)


Part = tuple[FloatArray, FloatArray]  # values (date, cell) of some cells, and their area


def pooled_quantile(
    parts: Callable[[], Iterable[Part]], size: int, area: float, weights: FloatArray
) -> FloatArray:
    """`upper_quantile` of values that come in parts of the cells, (replicate,).

    Args:
        parts: gives all parts, each time that it is called.
        size, area: number of values, and area of the cells, of all parts together.
    """
    target = TAIL * weights.sum(axis=1) * area
    found, waiting = np.empty(len(weights)), np.arange(len(weights))
    kept = max(16, int(2 * TAIL * size))
    while len(waiting):
        # Only the top matters; of small cells, and in some replicates, more of it.
        kept = min(2 * kept, size)
        top = _Top.of(parts(), kept)
        left = []
        for rows in np.array_split(waiting, -(-len(waiting) * kept // MIDDLES)):
            share = weights[rows][:, top.date] * top.area
            middle = np.cumsum(share, axis=1) - share / 2
            reached = (middle[:, -1] >= target[rows]) | (kept == size)
            inside = rows[reached]
            found[inside] = _interpolated(middle[reached], target[inside], top.value)
            left.append(rows[~reached])
        waiting = np.concatenate(left)
    return found


@dataclass(frozen=True)
class _Top:
    """The largest values of all parts, descending, with their dates and areas."""

    value: FloatArray
    date: IntArray
    area: FloatArray

    @classmethod
    def of(cls, parts: Iterable[Part], kept: int) -> _Top:
        top = cls(np.empty(0), np.empty(0, np.intp), np.empty(0))
        for values, area in parts:
            most = min(kept, values.size)
            place = np.argpartition(values, values.size - most, axis=None)[-most:]
            date, cell = np.unravel_index(place, values.shape)
            more = values[date, cell], date, area[cell]
            known = (top.value, top.date, top.area)
            joined = [np.concatenate(pair) for pair in zip(known, more, strict=True)]
            if len(joined[0]) > kept:
                best = np.argpartition(joined[0], -kept)[-kept:]
                joined = [each[best] for each in joined]
            top = cls(*joined)
        order = np.argsort(top.value)[::-1]
        return cls(top.value[order], top.date[order], top.area[order])


def _interpolated(steps: FloatArray, target: FloatArray, values: FloatArray) -> FloatArray:
    """The value at which each row of ascending steps (row, value) reaches the target."""
    row = np.arange(len(steps))
    after = np.clip((steps < target[:, None]).sum(axis=1), 1, steps.shape[1] - 1)
    low, high = steps[row, after - 1], steps[row, after]
    share = np.divide(target - low, high - low, out=np.zeros_like(low), where=high > low)
    first, last = values[after - 1], values[after]
    result: FloatArray = first + np.clip(share, 0.0, 1.0) * (last - first)
    return result


def equal_area_bands(latitude: FloatArray, area: FloatArray, bands: int) -> IntArray:
    """The band, counted from the south, of each cell; bands have nearly equal area."""
    order = np.argsort(latitude, kind="stable")
    middle = np.cumsum(area[order]) - area[order] / 2
    band = np.empty(len(area), dtype=np.int64)
    band[order] = np.minimum(bands * middle / area.sum(), bands - 1).astype(np.int64)
    return band


def tails(z: FloatArray, area: FloatArray, band: IntArray, weights: FloatArray) -> FloatArray:
    """99.9 % quantile of `standardised` values, pooled within each band: (replicate, band).

    A quantile beyond the reach of a cell's dates is shared by the cells of a band, as in regional
    frequency analysis: a cell's own is its mean + standard deviation times this number. The
    standardisation is that of the whole sample in every replicate.
    """
    columns = [
        upper_quantile(z[:, band == b], area[band == b], weights) for b in range(band.max() + 1)
    ]
    return np.stack(columns, axis=1)


@dataclass(frozen=True, kw_only=True)
class MapSquares:
    """Errors of the maps of some cells.

    Attributes:
        squares: by statistic, sum over the cells of area times squared error, without the noise of
            a finite ensemble, (replicate,).
        truth, ensemble: the maps, by statistic, (cell,); that of the ensemble is a mean of its
            realizations, each of all dates.
    """

    squares: dict[str, FloatArray]
    truth: dict[str, FloatArray]
    ensemble: dict[str, FloatArray]


STATISTICS = ("mean", "sd", "skewness", "q999")


def map_squares(
    members: Iterable[FloatArray],
    truth: FloatArray,
    shift: FloatArray,
    area: FloatArray,
    band: IntArray,
    weights: FloatArray,
) -> MapSquares:
    """Mean, sd, skewness and q999 of the members of an ensemble against those of the truth.

    Args:
        members: (date, cell) each, all cells of some bands; they are looked at one by one.
        shift: (date, cell), the seasonal course; standard deviation, skewness and the shape of
            the tail are those of values minus `shift`, which is common to all candidates.
    """
    ours = map_statistics(truth, shift, area, band, weights)
    total = {name: np.zeros_like(each) for name, each in ours.items()}
    squares = {name: np.zeros(len(weights)) for name in ours}
    number = 0
    for member in members:
        number += 1
        for name, each in map_statistics(member, shift, area, band, weights).items():
            each -= ours[name]
            total[name] += each
            squares[name] += np.square(each) @ area
    course = shift.mean(axis=0)

    def shown(maps: dict[str, FloatArray]) -> dict[str, FloatArray]:
        return {name: each[0] + (course if name == "mean" else 0.0) for name, each in maps.items()}

    return MapSquares(
        squares={
            name: fair_sum(np.square(total[name]) @ area, squares[name], number) for name in ours
        },
        truth=shown(ours),
        ensemble=shown({name: each + total[name] / number for name, each in ours.items()}),
    )


def map_statistics(
    values: FloatArray, shift: FloatArray, area: FloatArray, band: IntArray, weights: FloatArray
) -> dict[str, FloatArray]:
    """`STATISTICS` of values (date, cell), (replicate, cell) each; see `map_squares`."""
    departures = values - shift
    shape = tails(standardised(departures), area, band, weights)
    found: dict[str, FloatArray] = {
        name: np.empty((len(weights), len(area))) for name in STATISTICS
    }
    for part in cell_blocks(len(area), len(weights)):
        known = moments(departures[:, part], weights)
        course = mean_over_dates(shift[:, part], weights)
        found["mean"][:, part], found["sd"][:, part] = known.mean, known.deviation
        found["skewness"][:, part] = known.skewness
        found["q999"][:, part] = course + known.mean + known.deviation * shape[:, band[part]]
    return found


Several = Sequence[FloatArray]  # one for each variable, (date, cell)


def correlation_squares(
    members: Iterable[Several],
    truths: Several,
    shifts: Several,
    area: FloatArray,
    weights: FloatArray,
) -> FloatArray:
    """Sum over some cells of area times the squared error of the correlation of each two variables,
    without the noise of a finite ensemble: (pair, replicate).

    Args:
        members: of an ensemble, looked at one by one.
        shifts: as `map_squares` takes them; correlated are values minus `shifts`.
    """
    pairs = list(combinations(range(len(truths)), 2))
    total = np.zeros((len(pairs), len(weights), len(area)))
    squares, number = np.zeros((len(pairs), len(weights))), 0
    for member in members:
        number += 1
        for part, found in _correlations(member, shifts, pairs, weights):
            for pair, each in enumerate(found):
                total[pair, :, part] += each
                squares[pair] += np.square(each) @ area[part]
    # Of the differences d_r = c_r - c: their sum, and the sum of their squares.
    for part, found in _correlations(truths, shifts, pairs, weights):
        for pair, each in enumerate(found):
            both = number * each - 2 * total[pair, :, part]
            squares[pair] += (each * both) @ area[part]
            total[pair, :, part] -= number * each
    return fair_sum(np.square(total) @ area, squares, number)


def _correlations(
    values: Several, shifts: Several, pairs: Sequence[tuple[int, int]], weights: FloatArray
) -> Iterator[tuple[slice, Iterator[FloatArray]]]:
    """Block by block of the cells, the correlation of each pair, (replicate, cell)."""
    for part in cell_blocks(values[0].shape[1], len(weights)):
        known = [
            _Centred.of(one[:, part] - shift[:, part], weights)
            for one, shift in zip(values, shifts, strict=True)
        ]
        yield part, (known[i].correlation(known[j], weights) for i, j in pairs)


def correlation(x: FloatArray, y: FloatArray, weights: FloatArray) -> FloatArray:
    """Correlation of two variables over dates, (..., date, cell) to (..., replicate, cell)."""
    return _Centred.of(x, weights).correlation(_Centred.of(y, weights), weights)


@dataclass(frozen=True)
class _Centred:
    """Values about their mean over all dates, and what replicates have of them, per cell."""

    values: FloatArray
    mean: FloatArray
    deviation: FloatArray

    @classmethod
    def of(cls, values: FloatArray, weights: FloatArray) -> _Centred:
        size = weights.sum(axis=1)[:, None]
        x = values - values.mean(axis=-2, keepdims=True)
        mean = weights @ x / size
        variance = weights @ x**2 / size - mean**2
        return cls(x, mean, np.sqrt(np.maximum(variance, 0.0)))

    def correlation(self, other: _Centred, weights: FloatArray) -> FloatArray:
        products = weights @ (self.values * other.values) / weights.sum(axis=1)[:, None]
        scale = self.deviation * other.deviation
        covariance = products - self.mean * other.mean
        result: FloatArray = np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0)
        return result


def cell_blocks(cells: int, rows: int, limit: int = 2**16) -> Iterator[slice]:
    """So many cells that arrays (row, cell) of them stay in the cache."""
    step = max(64, limit // rows)
    return (slice(start, min(start + step, cells)) for start in range(0, cells, step))
