"""How weather goes on: spells, means of days, what differs from its own reverse, and what travels.

Shapes: `days` (day, channel, cell), consecutive, anomalies in units of the usual deviation of each
cell. All are means over cells with their area. Notation: docs/mathematics.md, 10.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from pipeline.arrays import FloatArray

MEANS = (1, 2, 5, 10, 30)  # days of a mean
EXTREME = 0.1  # part of the days that are cold or dry, and hot or wet
LONGEST = 60  # days, beyond which a spell counts as that long
WINDOW = 64  # days of a spectrum in time
WAVES = 10  # orders m of a spectrum
OCTAVES = (1, 3, 5, 9, 17, 32)  # of cycles in a window; where each begins, and the last ends


def variance_of_means(days: FloatArray, area: FloatArray) -> FloatArray:
    """Variance of means of n days, n in `MEANS`, over the area: (n, channel); NaN if too short."""
    found = np.full((len(MEANS), days.shape[1]), np.nan)
    for place, n in enumerate(MEANS):
        whole = len(days) // n
        if whole > 1:
            means = days[: whole * n].reshape(whole, n, *days.shape[1:]).mean(axis=1)
            found[place] = np.average(np.square(means).mean(axis=0), axis=-1, weights=area)
    return found


def irreversibility(days: FloatArray) -> FloatArray:
    """E[x_k^2 x_{k+1} - x_k x_{k+1}^2] of each cell, (channel, cell).

    It is zero for every Gaussian law, and for every law that is the same read backwards.
    """
    now, then = days[:-1], days[1:]
    found: FloatArray = (now * then * (now - then)).mean(axis=0)
    return found


def spell_lengths(extreme: NDArray[np.bool_]) -> FloatArray:
    """Distribution function of the lengths of runs of true days, all cells pooled, 1 ... `LONGEST`.

    Args:
        extreme: (day, cell). Runs at both ends of the record count as far as they are seen.
    """
    edges = np.zeros((1, extreme.shape[1]), dtype=np.int8)
    steps = np.diff(np.concatenate([edges, extreme.astype(np.int8), edges]), axis=0)
    begin, end = np.nonzero(steps.T == 1)[1], np.nonzero(steps.T == -1)[1]
    counts = np.bincount(np.minimum(end - begin, LONGEST), minlength=LONGEST + 1)[1:]
    found: FloatArray = np.cumsum(counts) / max(1, counts.sum())
    return found


def spells(days: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Lengths of spells below `low` and above `high` (channel, cell): (2, channel, length)."""
    each = range(days.shape[1])
    return np.stack(
        [
            np.stack([spell_lengths(days[:, c] < low[c]) for c in each]),
            np.stack([spell_lengths(days[:, c] > high[c]) for c in each]),
        ]
    )


def energy_distance(one: FloatArray, other: FloatArray) -> FloatArray:
    """Of distribution functions over days, last axis: 2 integral (F - G)^2 [days]."""
    found: FloatArray = 2 * np.square(one - other).sum(axis=-1)
    return found


def travelling_power(days: FloatArray) -> FloatArray:
    """Power of waves by order and frequency, (channel, order m = 1 ... `WAVES`, frequency).

    Negative frequencies travel east: f(lon - omega t). Windows of `WINDOW` days overlap by half.

    Args:
        days: on rings of one latitude band, (day, channel, ring, lon).
    Raises:
        ValueError: If there are fewer days than a window.
    """
    if len(days) < WINDOW:
        raise ValueError(f"a spectrum in time needs {WINDOW} days; got {len(days)}")
    waves = np.fft.fft(days, axis=-1)[..., 1 : WAVES + 1] / days.shape[-1]
    taper = np.hanning(WINDOW)[:, None, None, None]
    parts = [
        np.square(np.abs(np.fft.fft(taper * waves[start : start + WINDOW], axis=0)))
        for start in range(0, len(days) - WINDOW + 1, WINDOW // 2)
    ]
    power: FloatArray = np.mean(parts, axis=0).mean(axis=2)  # (frequency, channel, order)
    return np.moveaxis(power, 0, -1)


def halves(days: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The symmetric and the antisymmetric part about the equator, on its northern rings.

    Args:
        days: on rings of a band that is the same north and south, (day, channel, ring, lon).
    """
    rings = days.shape[2] // 2
    north, south = days[:, :, :rings], days[:, :, ::-1][:, :, :rings]
    return (north + south) / 2, (north - south) / 2


def octaves(power: FloatArray) -> FloatArray:
    """Mean power in octaves of the frequency, westward and then eastward: (..., order, octave).

    Single frequencies of few windows are mostly noise. The frequency zero is left out: it holds
    what stands still, and the mean of a window.
    """
    pairs = list(itertools.pairwise(OCTAVES))
    west = [power[..., a:b].mean(axis=-1) for a, b in pairs]
    east = [power[..., WINDOW - b + 1 : WINDOW - a + 1].mean(axis=-1) for a, b in pairs]
    return np.stack([*west, *east], axis=-1)


def power_distance(power: FloatArray, truth: FloatArray) -> FloatArray:
    """Root mean square over orders and octaves of the logarithm of a ratio of powers, (...,)."""
    ratio = np.log(octaves(power) / octaves(truth))
    found: FloatArray = np.sqrt(np.square(ratio).mean(axis=(-1, -2)))
    return found


def eastward_share(power: FloatArray) -> FloatArray:
    """Part of the power at moving frequencies that travels east, (channel, order)."""
    half = WINDOW // 2
    east, west = power[..., half + 1 :].sum(axis=-1), power[..., 1:half].sum(axis=-1)
    share: FloatArray = east / (east + west)
    return share
