"""The law of sequences in preprocess: lag sums on the workers, one fit, arrays of `normals`.

    sequence_regression(entry, complex: 2)         K on 1 ... past days before (pipeline/gaussian/
    sequence_beyond_regression(entry, complex: 2)  dynamics), and what is new in a day given 0 ...
    sequence_vectors_0, ..._beyond_0, _variance_0  past of them
    sequence_reach, _shrinkage(order), _beyond_shrinkage   what the validation times chose
    sequence_remainder_persistence(channel)        of the noise beyond the tail, and of the tail
    sequence_tail_persistence(tail_order)          (pipeline/gaussian/persistence)
    attrs: past, sequence_degree (the block degree)

Times that do not follow each other are never paired: neither across gaps nor across the border of
a split, nor those of two scenarios.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import xarray as xr

from flows.stages.preprocess.block_sums import Span, anomalous
from flows.stages.preprocess.fitting import Fitting, cut
from flows.stages.preprocess.normals import tail_of
from flows.stages.splits import SPLITS, Name, course_of, in_courses, spans_of
from pipeline.arrays import FloatArray, Sums
from pipeline.errors import UnusableData
from pipeline.fields.standardisation import Normals, factor_of
from pipeline.gaussian.channel_covariance import mix_channels
from pipeline.gaussian.conditional_tail import GaussianTail
from pipeline.gaussian.dynamics import SequenceLaw
from pipeline.gaussian.dynamics_fit import choose_sequence, fit_sequence
from pipeline.gaussian.lags import LagMoments, block_degree, contiguous
from pipeline.gaussian.persistence import persistence
from pipeline.sphere.coefficients import orders
from storage.artifacts import publishing as artifacts

PREFIX = "sequence_"


@dataclass(frozen=True, kw_only=True)
class Seen(Sums):
    """What is summed over days.

    Attributes:
        lags: of whitened coefficients up to lmax.
        remainder: products of what coefficients leave of neighbouring days, and squares,
            (2, channel).
        tail: the same of the tail less what the learned degrees say of it, (2, order).
    """

    lags: LagMoments
    remainder: FloatArray
    tail: FloatArray


@dataclass(frozen=True, kw_only=True)
class Whitening:
    """The way from scaled anomalies to whitened coefficients, tail included.

    Attributes:
        inverse: of the factor of each degree, up to the end of the tail.
        tail: the law of the degrees beyond lmax, if there are some.
    """

    anomalies: Normals
    inverse: FloatArray
    tail: GaussianTail | None


def with_sequence_law(dataset: xr.Dataset, fitting: Fitting, anomalies: Normals) -> xr.Dataset:
    """`normals` with the law of sequences that the configuration asks for; as they are if none is.

    Args:
        anomalies: the same normals as the transformation to scaled anomalies.
    """
    past = fitting.config.sequence.past
    if not past:
        return dataset
    whitening = Whitening(
        anomalies=anomalies, inverse=np.linalg.inv(factor_of(dataset)), tail=tail_of(dataset)
    )
    splits = [_spans(fitting, name, past) for name in SPLITS[:2]]
    found = fitting.sums(seen_in, whitening, past, spans=splits[0] + splits[1], label="sequences")
    train, validation = (
        reduce(add, part) for part in (found[: len(splits[0])], found[len(splits[0]) :])
    )
    choice = choose_sequence(train.lags, validation.lags)
    law = fit_sequence(train.lags, choice)
    arrays = {**law.to_arrays(), **choice, "remainder_persistence": persistence(*train.remainder)}
    if whitening.tail is not None:
        arrays["tail_persistence"] = persistence(*train.tail)
    variables = {PREFIX + name: (_dims(name, values), values) for name, values in arrays.items()}
    return dataset.assign(variables).assign_attrs(past=past, sequence_degree=law.layout.degree)


def sequence_law_of(normals: xr.Dataset) -> SequenceLaw:
    """The law of sequences, as it was fitted.

    Raises:
        UnusableData: If there is none.
    """
    if not normals.attrs.get("past"):
        raise UnusableData("these normals hold no law of sequences: set sequence.past")
    names = [str(name).removeprefix(PREFIX) for name in normals if str(name).startswith(PREFIX)]
    return SequenceLaw.from_arrays(
        int(normals.attrs["lmax"]),
        int(normals.attrs["sequence_degree"]),
        int(normals.attrs["past"]),
        {name: normals[PREFIX + name].values for name in names},
    )


def choice_of(normals: xr.Dataset) -> dict[str, FloatArray]:
    """Reach and shrinkage of the law of sequences, as the validation times chose them."""
    return {
        name: normals[PREFIX + name].values for name in ("reach", "shrinkage", "beyond_shrinkage")
    }


@dataclass(frozen=True)
class Follow:
    """Days that follow each other.

    Attributes:
        span: where they stand, those before them included.
        before: how many of the first are known, but not counted.
    """

    span: Span
    before: int

    def __str__(self) -> str:
        return str(self.span)


def seen_in(
    source: artifacts.Published, whitening: Whitening, past: int, block: int, part: Follow
) -> Seen:
    """Sums over a span, given the days before it. Runs on a worker."""
    kept: tuple[FloatArray, FloatArray, FloatArray] | None = None
    total, counted = None, 0
    for x, left, rest in _coefficients(source, whitening, block, part.span):
        new = len(x)
        if kept is not None:
            x, left, rest = (
                np.concatenate(both) for both in zip(kept, (x, left, rest), strict=True)
            )
        known = len(x) - new
        # In the first block the days before the span are known, too: they are not counted.
        skipped = known + max(0, min(new, part.before - counted))
        counted += new
        if skipped < len(x):
            sums = Seen(
                lags=LagMoments.of(
                    x,
                    past,
                    before=skipped,
                    degree=block_degree(x.shape[1], whitening.anomalies.lmax, past),
                ),
                remainder=_neighbours(left, skipped),
                tail=_neighbours(rest, skipped),
            )
            total = sums if total is None else total + sums
        kept = x[-past:], left[-past:], rest[-past:]
    assert total is not None
    return total


def _coefficients(
    source: artifacts.Published, whitening: Whitening, block: int, span: Span
) -> Iterator[tuple[FloatArray, FloatArray, FloatArray]]:
    """Some days at a time: x, what the coefficients leave, and the tail less its mean."""
    anomalies, tail = whitening.anomalies, whitening.tail
    size = (anomalies.lmax + 1) ** 2
    for values, rows in anomalous(source, anomalies, block, span):
        scaled = anomalies.anomalies(values, rows)
        coefficients, left = anomalies.analysed(scaled)
        whole = mix_channels(whitening.inverse, coefficients)
        x, rest = whole[..., :size], whole[..., size:]
        if tail is not None:
            rest = rest - tail.draw(x, np.zeros_like(rest))
        yield x, left.reshape(*left.shape[:2], -1), _by_order(rest, anomalies)


def _by_order(rest: FloatArray, anomalies: Normals) -> FloatArray:
    """Coefficients of the tail (day, channel, coefficient) as (day, order, what is of it)."""
    order = np.abs(orders(anomalies.tail)[(anomalies.lmax + 1) ** 2 :])
    if not order.size:
        return np.empty((len(rest), 0, 0))
    sorted_rest = rest[..., np.argsort(order, kind="stable")]
    counts = np.bincount(order, minlength=anomalies.tail + 1)
    width = int(counts.max())
    padded = np.zeros((len(rest), len(counts), rest.shape[1] * width))
    edges = np.concatenate([[0], np.cumsum(counts)])
    for m, (a, b) in enumerate(itertools.pairwise(edges)):
        part = sorted_rest[..., a:b].reshape(len(rest), -1)
        padded[:, m, : part.shape[1]] = part
    return padded


def _neighbours(values: FloatArray, before: int) -> FloatArray:
    """Sums of products of neighbouring days and of squares, (2, part), of (day, part, place)."""
    first = max(before, 1)
    later, earlier = values[first:], values[first - 1 : -1]
    products = np.einsum("kpc,kpc->p", later, earlier)
    return np.stack([products, np.einsum("kpc,kpc->p", values[before:], values[before:])])


def _spans(fitting: Fitting, name: Name, past: int) -> list[Follow]:
    """Spans of a split whose times follow each other, cut where blocks are."""
    found, time = [], fitting.fields["time"]
    number = time.copy(data=np.arange(time.size))
    for period in spans_of(time, fitting.config.split, name):
        rows = in_courses(number.isel(time=period))
        for part in contiguous(course_of(rows)):
            places = rows.values[part]
            only = tuple(np.unique(rows["member"].values[part])) if "member" in rows.coords else ()
            begin = 0 if only else int(places[0])  # blocks are those of the record
            for start, stop in cut(slice(begin, begin + len(places)), len(places), fitting.block):
                first = max(begin, start - past)
                last = int(places[stop - 1 - begin])
                span = Span(int(places[first - begin]), last + 1, only)
                found.append(Follow(span, start - first))
    return found


def _dims(name: str, values: FloatArray) -> tuple[str, ...]:
    """Dimensions of an array that is no map: its own."""
    return tuple(f"{PREFIX}{name}_{axis}" for axis in range(values.ndim))
