"""Maps of an ensemble's marginal law, and their errors against held-out fields.

Shapes: `ensemble` (realization, date, cell), `truth` (date, cell), `area` (cell). Each
realization is reduced over the same dates as the truth, so that skewness and quantiles carry the
same small-sample bias on both sides. `weights` and rows: pipeline/scores/bootstrap.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from pipeline.arrays import FloatArray
from pipeline.scores.bootstrap import fair_rms, fair_root, fair_square, mean_over_dates

IntArray = npt.NDArray[np.integer]

TAIL = 1e-3  # the 99.9 % quantile


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
    target = TAIL * weights.sum(axis=1) * area.sum()
    found, waiting = np.empty(len(weights)), np.arange(len(weights))
    kept = max(16, int(2 * TAIL * values.size))
    while len(waiting):
        # Only the top matters; of small cells, and in some replicates, more of it.
        kept = min(2 * kept, values.size)
        order = np.argpartition(values, values.size - kept, axis=None)[-kept:]
        order = order[np.argsort(values.ravel()[order])[::-1]]
        date, cell = np.unravel_index(order, values.shape)
        share = weights[waiting][:, date] * area[cell]
        middle, top = np.cumsum(share, axis=1) - share / 2, values[date, cell]
        reached = (middle[:, -1] >= target[waiting]) | (kept == values.size)
        found[waiting[reached]] = _interpolated(middle[reached], target[waiting[reached]], top)
        waiting = waiting[~reached]
    return found


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


def _both_tails(
    values: FloatArray, area: FloatArray, band: IntArray, weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The tail of each band, and that of the whole sphere."""
    z = standardised(values)
    return tails(z, area, band, weights), upper_quantile(z, area, weights)


def map_statistics(
    values: FloatArray, shift: FloatArray, area: FloatArray, band: IntArray
) -> dict[str, FloatArray]:
    """Mean, sd, skewness and q999 as `map_errors` compares them: (..., date, cell) -> (..., cell).

    Args:
        shift: (date, cell), the seasonal course; see `map_errors`.
    """
    once = np.ones((1, len(shift)))
    departures = values - shift
    found = moments(departures, once)
    flat = departures.reshape(-1, *shift.shape)
    shape = np.stack([tails(standardised(each), area, band, once)[0][band] for each in flat])
    mean, deviation = found.mean[..., 0, :] + shift.mean(axis=0), found.deviation[..., 0, :]
    high = mean + deviation * shape.reshape(mean.shape)
    return {"mean": mean, "sd": deviation, "skewness": found.skewness[..., 0, :], "q999": high}


def map_errors(
    ensemble: FloatArray,
    truth: FloatArray,
    shift: FloatArray,
    area: FloatArray,
    band: IntArray,
    weights: FloatArray,
) -> dict[str, FloatArray]:
    """Area-weighted rmse of the maps of mean, sd, skewness and q999, and the pooled tail ratio.

    Args:
        shift: (date, cell), the seasonal course; standard deviation, skewness and the shape of
            the tail are those of values minus `shift`, which is common to all candidates.
    Returns:
        Rows (replicate,) by score; `tail` is the 99.9 % quantile of standardised values pooled
        over the sphere, as a ratio to the truth's.
    """
    departures, target = ensemble - shift, truth - shift
    members = [_both_tails(member, area, band, weights) for member in departures]
    theirs, pooled = map(np.stack, zip(*members, strict=True))
    ours, whole = _both_tails(target, area, band, weights)
    sums = {name: np.zeros(len(weights)) for name in ("mean", "sd", "skewness", "q999")}
    for part in _cell_blocks(len(area), len(ensemble) * len(weights)):
        a, b = moments(departures[..., part], weights), moments(target[..., part], weights)
        course, here = mean_over_dates(shift[:, part], weights), band[part]
        high_a = course + a.mean + a.deviation * theirs[..., here]
        high_b = course + b.mean + b.deviation * ours[:, here]
        for name, x, y in (
            ("mean", a.mean, b.mean),
            ("sd", a.deviation, b.deviation),
            ("skewness", a.skewness, b.skewness),
            ("q999", high_a, high_b),
        ):
            sums[name] += fair_square(x, y) @ area[part]
    scores = {name: fair_root(total / area.sum()) for name, total in sums.items()}
    scores["tail"] = pooled.mean(axis=0) / whole
    return scores


def correlation_errors(
    ensembles: Sequence[FloatArray],
    truths: Sequence[FloatArray],
    shifts: Sequence[FloatArray],
    area: FloatArray,
    weights: FloatArray,
) -> FloatArray:
    """Area-weighted rmse of the maps of correlation of each two variables: (pair, replicate).

    Args:
        ensembles, truths, shifts: of each variable, as `map_errors` takes them; correlated are
            values minus `shifts`.
    """
    pairs = list(combinations(range(len(truths)), 2))
    total = np.zeros((len(pairs), len(weights)))
    for part in _cell_blocks(len(area), len(ensembles[0]) * len(weights)):
        a, b = (
            [
                _Centred.of(values[..., part] - shift[:, part].astype(np.float64), weights)
                for values, shift in zip(each, shifts, strict=True)
            ]
            for each in (ensembles, truths)
        )
        for pair, (i, j) in enumerate(pairs):
            found, true = (one[i].correlation(one[j], weights) for one in (a, b))
            total[pair] += fair_square(found, true) @ area[part]
    return fair_root(total / area.sum())


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


def spectrum_error(ensemble: FloatArray, truth: FloatArray, weights: FloatArray) -> FloatArray:
    """Rms over coefficients of the logarithm of the ratio of power spectra: (replicate,).

    Args:
        ensemble: Power of degree 0, 1, ... (realization, date, degree), all positive; truth
            without the first axis. Degree l counts 2 l + 1 times, which makes the sampling noise
            of all degrees alike.
    """
    theirs = np.stack([np.log(mean_over_dates(member, weights)) for member in ensemble])
    ours = np.log(mean_over_dates(truth, weights))
    return fair_rms(theirs, ours, 2.0 * np.arange(truth.shape[-1]) + 1)


def _cell_blocks(cells: int, rows: int, limit: int = 2**16) -> Iterator[slice]:
    """So many cells that arrays (row, cell) of them stay in the cache."""
    step = max(64, limit // rows)
    return (slice(start, start + step) for start in range(0, cells, step))
