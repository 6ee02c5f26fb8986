"""What a change of forcing does to a climate, in drawn fields beside real ones.

A response is a statistic under one scenario less that under another: of the mean and the standard
deviation of each cell, and of the 99.9 % quantile in bands of equal area. How far that of the draws
is from that of the real fields stands beside the floor, how far that of one half of the real days
is from that of the other half.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.arrays import FloatArray

__all__ = ["Climate", "climate_of", "response"]

TAIL = 0.001  # of all values of a band lie above the quantile
SPARE = 16  # values kept beyond those that the quantile needs

IntArray = npt.NDArray[np.integer]


@dataclass(frozen=True, kw_only=True)
class Climate:
    """Statistics of the fields of one scenario.

    Attributes:
        mean, deviation: of each cell, (cell,); NaN where there are no values.
        extreme: 99.9 % quantile of all values of a band, (band,).
    """

    mean: FloatArray
    deviation: FloatArray
    extreme: FloatArray


def climate_of(
    blocks: Iterable[npt.NDArray[np.floating]], fields: int, area: FloatArray, band: IntArray
) -> Climate:
    """Statistics of fields that are read a few at a time.

    Args:
        blocks: (field, cell) each, `fields` of them together; a cell has values always or never.
        area, band: of each cell.
    """
    about = total = squares = None
    none: tuple[FloatArray, FloatArray] = (np.empty(0), np.empty(0))
    tops = [none] * (int(band.max()) + 1)
    for block in blocks:
        values = np.asarray(block, np.float64)
        if about is None:
            about = values[0]
            total, squares = np.zeros_like(about), np.zeros_like(about)
        total = total + (values - about).sum(axis=0)
        squares = squares + np.square(values - about).sum(axis=0)
        tops = [_top(top, values, area, band == k, fields) for k, top in enumerate(tops)]
    assert about is not None and total is not None and squares is not None
    variance = (squares - np.square(total) / fields) / max(1, fields - 1)
    there = np.isfinite(about)
    whole = [fields * area[(band == k) & there].sum() for k in range(len(tops))]
    return Climate(
        mean=about + total / fields,
        deviation=np.sqrt(np.maximum(variance, 0.0)),
        extreme=np.array([_quantile(*top, each) for top, each in zip(tops, whole, strict=True)]),
    )


def response(
    under: Mapping[str, Climate], before: Mapping[str, Climate], area: FloatArray
) -> dict[str, dict[str, float]]:
    """Responses of "model" and "truth", and of the halves "one" and "other" of the truth.

    Args:
        under, before: by owner, the climate under a scenario and under the first one.
    Returns:
        By statistic: `size` of the response of the truth, `error` of that of the model and `floor`
        of one half against the other, root mean squares over cells or bands; of `global`, the mean
        over the globe, `truth`, `model` and `floor`, the absolute difference of the halves.
    """
    table = {}
    for name in ("mean", "deviation", "extreme"):
        found = {who: getattr(under[who], name) - getattr(before[who], name) for who in under}
        weights = area if name != "extreme" else np.ones(len(found["truth"]))
        table[name] = {
            "size": _size(found["truth"], weights),
            "error": _size(found["model"] - found["truth"], weights),
            "floor": _size(found["one"] - found["other"], weights),
        }
        if name == "mean":
            middle = {who: _average(each, weights) for who, each in found.items()}
    floor = abs(middle["one"] - middle["other"])
    table["global"] = {"truth": middle["truth"], "model": middle["model"], "floor": floor}
    return table


def _top(
    known: tuple[FloatArray, FloatArray],
    values: FloatArray,
    area: FloatArray,
    mine: npt.NDArray[np.bool_],
    fields: int,
) -> tuple[FloatArray, FloatArray]:
    """The largest values of a band and their areas, as many as its quantile can need."""
    part = values[:, mine]
    areas = np.broadcast_to(area[mine], part.shape)
    there = np.isfinite(part)
    value = np.concatenate([known[0], part[there]])
    size = np.concatenate([known[1], areas[there]])
    smallest = area[mine].min() if mine.any() else 1.0
    most = int(1.5 * TAIL * fields * area[mine].sum() / smallest) + SPARE
    if len(value) <= most:
        return value, size
    kept = np.argpartition(value, len(value) - most)[-most:]
    return value[kept], size[kept]


def _quantile(value: FloatArray, size: FloatArray, whole: float) -> float:
    """The value above which a thousandth of the area of all fields lies."""
    if not len(value):
        return float("nan")
    order = np.argsort(value)[::-1]
    middle = np.cumsum(size[order]) - size[order] / 2
    return float(np.interp(TAIL * whole, middle, value[order]))


def _average(values: FloatArray, weights: FloatArray) -> float:
    there = np.isfinite(values)
    return float(np.average(values[there], weights=weights[there]))


def _size(values: FloatArray, weights: FloatArray) -> float:
    return float(np.sqrt(_average(np.square(values), weights)))
