"""Intervals of means over days that hang together.

*Blocks are of times, not of fields.* Fields that share a time (the members of an ensemble) become
one number; runs of consecutive times are what varies independently. How long they must be follows
from the series itself: the block that Politis & White choose has the smallest mean square error of
the variance, which is still too small by a third where the memory is long, so blocks here are
`LONGER` times as long. With as few blocks as are left, Student's t says how wide 95 % is. So an
interval covers what it says, 92 to 98 % of the time, for 184 days in a row with e-folding times of
0, 5 and 10 days (tests/pipeline/scores/test_intervals.py).

References:
    Politis & White (2004), Automatic block-length selection for the dependent bootstrap,
    Econometric Reviews 23, 53-70; corrected by Patton, Politis & White (2009), 28, 372-375.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from pipeline.arrays import FloatArray

CONFIDENCE = 0.95
LONGER = 3.0
FEWEST_BLOCKS = 3


@dataclass(frozen=True, kw_only=True)
class Interval:
    """The mean of a series of times, its standard error, and the 95 % interval about it.

    Attributes:
        block: consecutive times that were kept together.
    """

    value: float
    standard_error: float
    low: float
    high: float
    block: int


@dataclass(frozen=True, kw_only=True)
class Witnesses:
    """What of some fields is an independent witness of their mean.

    Attributes:
        of: for each field its time, (field,); or its member, where the members are a sample and
            the dates are given.
        exchangeable: whether they have no order, as members have none.
    """

    of: npt.NDArray[np.generic]
    exchangeable: bool = False

    def interval(self, values: FloatArray, season: FloatArray) -> Interval:
        """That of the mean of values, one for each field; about their season where times vary."""
        return mean_interval(
            values,
            self.of,
            None if self.exchangeable else season,
            exchangeable=self.exchangeable,
        )


def mean_interval(
    values: FloatArray,
    times: npt.NDArray[np.generic] | None = None,
    season: FloatArray | None = None,
    *,
    exchangeable: bool = False,
) -> Interval:
    """The interval of the mean of values, one for each field.

    With seasons it is that of the mean over just these seasons: a yearly cycle of the values is no
    chance, and would pass for a memory of months.

    Args:
        values: (field,), in order of time unless `times` are given.
        times: of the fields, in any order; those of equal times are no independent witnesses.
        season: of the fields, as the phase of the year [rad].
        exchangeable: whether `times` are something without an order, each for itself.
    """
    columns = np.asarray(values, np.float64)[:, None]
    if season is not None:
        columns = np.stack([columns[:, 0], np.cos(season), np.sin(season)], axis=1)
    series, terms = about_season(of_times(columns, times))
    block = 1 if exchangeable else block_of(series)
    error = float(standard_errors(series, block, terms))
    width = student_width(len(series), block, terms) * error
    mean = float(np.mean(values))
    return Interval(
        value=mean, standard_error=error, low=mean - width, high=mean + width, block=block
    )


def about_season(columns: FloatArray) -> tuple[FloatArray, int]:
    """The first column about its regression on the others and a mean, and how many these are."""
    series, waves = columns[:, 0], columns[:, 1:] - columns[:, 1:].mean(axis=0)
    terms = int(np.linalg.matrix_rank(waves, tol=1e-6 * len(waves))) if waves.size else 0
    if terms == 0 or len(series) < 10 * terms:
        return series, 0
    centred = series - series.mean()
    return centred - waves @ np.linalg.lstsq(waves, centred, rcond=1e-6)[0], terms


def of_times(values: FloatArray, times: npt.NDArray[np.generic] | None = None) -> FloatArray:
    """One row for each time, in order, with the mean of all values: (field, ...) to (time, ...).

    Times with more fields count for more, as they do in the mean.
    """
    if times is None:
        return values
    _, place, fields = np.unique(times, return_inverse=True, return_counts=True)
    mean = values.mean(axis=0)
    sums = np.zeros((len(fields), *values.shape[1:]))
    np.add.at(sums, place, values - mean)
    result: FloatArray = mean + sums / fields.mean()
    return result


def block_of(series: FloatArray) -> int:
    """Times to keep together, so that an interval of the mean covers what it says.

    Args:
        series: (time,) or (time, feature), whose autocovariances are pooled.
    """
    times = len(series)
    most = min(3 * np.sqrt(times), times / FEWEST_BLOCKS)
    return int(np.clip(round(LONGER * politis_white(series)), 1, max(1, most)))


def politis_white(series: FloatArray) -> float:
    """The length of the blocks of a circular bootstrap that Politis & White choose.

    Args:
        series: (time,) or (time, feature).
    """
    columns = series.reshape(len(series), -1)
    times = len(columns)
    if times < 4:
        return 1.0
    quiet = max(5, int(np.ceil(np.sqrt(np.log10(times)))))
    most = min(int(np.ceil(np.sqrt(times))) + quiet, times - 1)
    centred = columns - columns.mean(axis=0)
    covariance = np.array(
        [np.vdot(centred[: times - lag], centred[lag:]) for lag in range(most + 1)]
    )
    if not covariance[0] > 0.0:
        return 1.0
    seen = np.abs(covariance[1:] / covariance[0]) >= 2 * np.sqrt(np.log10(times) / times)
    last = min(2 * max(1, _memory(seen, quiet)), most)
    lag = np.arange(1, last + 1)
    tapered = np.minimum(1.0, 2 * (1 - lag / last)) * covariance[1 : last + 1]  # flat top
    spectrum = covariance[0] + 2 * tapered.sum()
    if not spectrum > 0.0:
        return 1.0
    length = (1.5 * (2 * (lag * tapered).sum() / spectrum) ** 2 * times) ** (1 / 3)
    return float(np.clip(length, 1.0, min(3 * np.sqrt(times), times / FEWEST_BLOCKS)))


def standard_errors(series: FloatArray, block: int, terms: int = 0) -> FloatArray:
    """Standard errors of means over time, (time, ...) to (...), by circular blocks.

    It is what a circular block bootstrap tends to with its replicates, without their chance, and
    without the part that too few blocks hide, or the `terms` that were fitted to the series.
    """
    times = len(series)
    if times < 2:
        return np.full(series.shape[1:], np.nan)
    block = min(block, times - 1)
    centred = series - series.mean(axis=0)
    sums = np.cumsum(np.concatenate([0 * centred[:1], centred, centred[:block]]), axis=0)
    means = (sums[block : block + times] - sums[:times]) / block
    variance = block / times * np.square(means).mean(axis=0) * hidden(times, block, terms)
    error: FloatArray = np.sqrt(variance)
    return error


def hidden(times: int, block: int, terms: int = 0) -> float:
    """The ratio of the variance between blocks to that about what was fitted to them.

    That is their mean, and `terms` more; a fifth of the variance is left at least.
    """
    share = min(block, times - 1) / times
    return 1 / (1 - share) / max(1 - terms * share, 0.2)


def student_width(times: int, block: int, terms: int = 0) -> float:
    """Standard errors from the value to the end of a 95 % interval, for so few blocks."""
    return float(stdtrit(max(1.0, times / block - 1 - terms), (1 + CONFIDENCE) / 2))


def _memory(seen: npt.NDArray[np.bool_], quiet: int) -> int:
    """The lag after which `quiet` lags in a row are not seen; the last that is, if none are."""
    for lag in range(len(seen) - quiet + 1):
        if not seen[lag : lag + quiet].any():
            return lag
    return int(np.flatnonzero(seen)[-1]) + 1 if seen.any() else 0
