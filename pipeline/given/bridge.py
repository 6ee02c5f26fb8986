"""Days that a record lacks, given the days that it has before and after them: exact draws.

Under the law of sequences (pipeline/gaussian/dynamics) the days of a window are, given the days
before it,

    z = M o + L e,    e white,

with L lower triangular in time. A path z that is drawn so becomes one that has the known days
K z = k of the window by Matheron's rule,

    z + L L^H K^H P^-1 (k - K z),    P = K L L^H K^H,

order by order. L is one run of the autoregression and L^H one of its adjoint backwards, so a window
of any length takes memory and time in proportion to its days; P is as large as the known days. A
law that looks back p days knows nothing beyond p days in a row on either side, so a window ends
with them and the answer is that of the whole record. Notation: docs/mathematics.md, 11.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky

from pipeline.arrays import FloatArray
from pipeline.gaussian.dynamics import Innovations, SequenceLaw
from pipeline.gaussian.lags import OrderLayout
from pipeline.gaussian.moments import ComplexArray, positions

__all__ = ["Bridge", "Window", "windows_of"]


@dataclass(frozen=True, kw_only=True)
class Window:
    """Days of a record that are drawn together.

    Attributes:
        start: number of the first of them, which is unknown.
        before: known days right before it that the law looks back at.
        known: which of its days are known, in order of time.
    """

    start: int
    before: int
    known: tuple[bool, ...]

    @property
    def stop(self) -> int:
        return self.start + len(self.known)

    @property
    def days(self) -> range:
        """Numbers of its days."""
        return range(self.start, self.stop)


def windows_of(known: Sequence[bool], wanted: Sequence[int], past: int) -> list[Window]:
    """Windows that hold the wanted days, each ended by `past` known days in a row, or by the end.

    Args:
        known: of all days of a record, whether they are known.
        wanted: numbers of unknown days that are to be drawn.
    """
    found: list[Window] = []
    day, last = 0, len(known)
    while day < last:
        if known[day]:
            day += 1
            continue
        start, run = day, 0
        before = next((n for n in range(past) if start <= n or not known[start - n - 1]), past)
        while day < last and run < past:
            run = run + 1 if known[day] else 0
            day += 1
        window = Window(start=start, before=before, known=tuple(known[start:day]))
        if any(number in window.days for number in wanted):
            found.append(window)
        if run == past:
            day -= past  # known days may stand before the next window, too
            while day < last and known[day]:
                day += 1
    return found


class Bridge:
    """The law of the days of a window given those of them that are known, and days before it.

    Args:
        law: of sequences.
        before: known days right before the window; all further ones are of no use beyond
            `law.past`, and a record that begins with the window has none.
        known: which days of the window are known.
    """

    def __init__(self, law: SequenceLaw, *, before: int, known: Sequence[bool]) -> None:
        if before > law.past:
            raise ValueError(f"this law looks back {law.past} days; it was given {before}")
        self.layout, self.length = law.layout, len(known)
        self.places = np.flatnonzero(known)
        orders = [
            _Order.of(law, m, before=before, length=self.length, known=self.places)
            for m in range(law.layout.degree + 1)
        ]
        if law.layout.places:
            orders.append(_Order.beyond(law, before=before, length=self.length, known=self.places))
        self.orders = orders

    def draw(
        self,
        white: NDArray[np.floating],
        before: NDArray[np.floating],
        known: NDArray[np.floating],
    ) -> FloatArray:
        """Paths (day, draw, channel, coefficient) that have the known days.

        Args:
            white: white noise of that shape, of the known days, too.
            before: the days before the window, the last one last, (day, channel, coefficient).
            known: the known days of the window, in order of time, (day, channel, coefficient).
        """
        noise, past, held = (self._split(x) for x in (white, before[:, None], known[:, None]))
        paths = [
            order.path(*parts) for order, *parts in zip(self.orders, noise, past, held, strict=True)
        ]
        drawn = self._join(paths)
        drawn[self.places] = known[:, None]
        return drawn

    def mean(self, before: NDArray[np.floating], known: NDArray[np.floating]) -> FloatArray:
        """The expected days of the window, (day, channel, coefficient)."""
        return self.draw(np.zeros((self.length, 1, *self._shape)), before, known)[:, 0]

    def covariance(self, rows: NDArray[np.floating]) -> FloatArray:
        """The covariance of the days of the window, applied to rows (day, row, channel,
        coefficient); 0 on known days."""
        parts = [
            order.spread(part) for order, part in zip(self.orders, self._split(rows), strict=True)
        ]
        found = self._join(parts)
        found[self.places] = 0.0
        return found

    def log_evidence(self, before: NDArray[np.floating], known: NDArray[np.floating]) -> float:
        """log of the density [nats] of the known days of the window, given those before it."""
        past, held = (self._split(x) for x in (before[:, None], known[:, None]))
        return math.fsum(
            order.log_density(*parts) for order, *parts in zip(self.orders, past, held, strict=True)
        )

    @property
    def _shape(self) -> tuple[int, int]:
        return self.layout.channels, (self.layout.lmax + 1) ** 2

    def _split(self, x: NDArray[np.floating]) -> list[ComplexArray]:
        """Coordinates of each order, then those beyond, (day, place, coordinate, row)."""
        if not len(x):
            one = np.zeros((1, *x.shape[1:]))
            return [part[:0] for part in self._split(one)]
        blocks, beyond = self.layout.split(x)
        columns = [block[:, None].swapaxes(-1, -2) for block in blocks]
        return [*columns, np.moveaxis(beyond, 1, -1)][: len(self.orders)]

    def _join(self, parts: list[ComplexArray]) -> FloatArray:
        blocks = [part[:, 0].swapaxes(-1, -2) for part in parts[: self.layout.degree + 1]]
        none = np.empty((*blocks[0].shape[:2], 0, self.layout.channels), np.complex128)
        beyond = np.moveaxis(parts[-1], -1, 1) if self.layout.places else none
        return self.layout.join(blocks, beyond)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Order:
    """The days of a window in the coordinates of one order, or of all places beyond the orders.

    Attributes:
        regressions: of a day on j = 1 ... past days before it, the earliest first,
            (place, n, j n).
        roots: of the covariance of what is new in a day given 0 ... past days, (place, n, n).
        weight: of a coordinate in a log-density: 1, and 1/2 where it is real, (place,).
        factor: Cholesky factor of P, lower triangular, (place, known n, known n).
    """

    before: int
    length: int
    known: NDArray[np.intp]
    regressions: tuple[ComplexArray, ...]
    roots: tuple[ComplexArray, ...]
    weight: FloatArray
    factor: list[ComplexArray]

    @classmethod
    def of(
        cls, law: SequenceLaw, m: int, *, before: int, length: int, known: NDArray[np.intp]
    ) -> _Order:
        """Those of an order up to the block degree."""
        regressions = tuple(blocks[m][None] for blocks in law.blocks)
        roots = tuple(_root_of(new, law.layout, m)[None] for new in law.innovations)
        weight = np.array([1.0 if m else 0.5])
        return cls._made(before, length, known, regressions, roots, weight)

    @classmethod
    def beyond(
        cls, law: SequenceLaw, *, before: int, length: int, known: NDArray[np.intp]
    ) -> _Order:
        """Those of all places beyond it."""
        weight = np.where(law.layout.beyond_orders() == 0, 0.5, 1.0)
        roots = tuple(_root_beyond(new, law.layout) for new in law.innovations)
        return cls._made(before, length, known, law.beyond, roots, weight)

    @classmethod
    def _made(
        cls,
        before: int,
        length: int,
        known: NDArray[np.intp],
        regressions: tuple[ComplexArray, ...],
        roots: tuple[ComplexArray, ...],
        weight: FloatArray,
    ) -> _Order:
        about = {"before": before, "length": length, "known": known, "weight": weight}
        open_ = cls(**about, regressions=regressions, roots=roots, factor=[])  # type: ignore[arg-type]
        places, n = roots[0].shape[:2]
        unit = np.zeros((length, places, n, len(known) * n), np.complex128)
        for number, day in enumerate(known):
            unit[day, :, :, number * n : (number + 1) * n] = np.eye(n)
        back = open_.backward(unit)
        gram = sum(
            (part.conj().swapaxes(-1, -2) @ part for part in back),
            start=np.zeros((places, unit.shape[-1], unit.shape[-1]), np.complex128),
        )
        factor = [cholesky(each, lower=True) for each in gram]
        return cls(**about, regressions=regressions, roots=roots, factor=factor)  # type: ignore[arg-type]

    def path(self, white: ComplexArray, past: ComplexArray, held: ComplexArray) -> ComplexArray:
        """Draws (day, place, n, draw) that have the known days."""
        drawn = self.forward(white, past)
        return drawn + self._pulled(held - drawn[self.known])

    def spread(self, rows: ComplexArray) -> ComplexArray:
        """The covariance of the days given the known ones, applied to rows."""
        free = self.forward(self.backward(rows))
        return free - self._pulled(free[self.known])

    def log_density(self, past: ComplexArray, held: ComplexArray) -> float:
        """Of the known days, of one row."""
        if not len(self.known):
            return 0.0
        mean = self.forward(np.zeros((self.length, *held.shape[1:]), np.complex128), past)
        left = self._stacked(held - mean[self.known])
        total = 0.0
        for factor, gap, weight in zip(self.factor, left, self.weight, strict=True):
            solved = cho_solve((factor, True), gap)
            square = float(np.vdot(gap, solved).real)
            volume = 2.0 * float(np.log(np.diagonal(factor).real).sum())
            total -= weight * (square + volume + len(factor) * math.log(2.0 * math.pi))
        return total

    def forward(self, white: ComplexArray, past: ComplexArray | None = None) -> ComplexArray:
        """M o + L e; L e without a past."""
        days: list[ComplexArray] = [] if past is None else list(past)
        if past is None:
            days = [np.zeros(white.shape[1:], np.complex128)] * self.before
        for number, noise in enumerate(white):
            looked = self._looked(number)
            new = self.roots[looked] @ noise
            for back, regression in self._lags(looked):
                new = new + regression @ days[len(days) - back]
            days.append(new)
        return np.stack(days[self.before :])

    def backward(self, rows: ComplexArray) -> ComplexArray:
        """L^H of rows (day, place, n, row)."""
        total, found = rows.copy(), np.empty_like(rows)
        for number in reversed(range(self.length)):
            looked = self._looked(number)
            found[number] = self.roots[looked].conj().swapaxes(-1, -2) @ total[number]
            for back, regression in self._lags(looked):
                if number >= back:
                    total[number - back] += regression.conj().swapaxes(-1, -2) @ total[number]
        return found

    def _looked(self, number: int) -> int:
        """How many days a day of the window is drawn given."""
        return min(self.before + number, len(self.regressions))

    def _lags(self, looked: int) -> list[tuple[int, ComplexArray]]:
        """The regression on each of so many days, by how far they lie back."""
        if not looked:
            return []
        whole = self.regressions[looked - 1]
        parts = np.split(whole, looked, axis=-1)
        return [(looked - place, part) for place, part in enumerate(parts)]

    def _pulled(self, gap: ComplexArray) -> ComplexArray:
        """How the days move where the known ones are to move by `gap`, (known, place, n, row)."""
        if not len(self.known):
            return np.zeros((self.length, *gap.shape[1:]), np.complex128)
        flat = self._stacked(gap)
        solved = np.stack(
            [
                cho_solve((factor, True), each)
                for factor, each in zip(self.factor, flat, strict=True)
            ]
        )
        rows = np.zeros((self.length, *gap.shape[1:]), np.complex128)
        number, places, n, count = gap.shape
        rows[self.known] = np.moveaxis(solved.reshape(places, number, n, count), 1, 0)
        return self.forward(self.backward(rows))

    def _stacked(self, gap: ComplexArray) -> ComplexArray:
        """(known, place, n, row) as (place, known n, row)."""
        return np.moveaxis(gap, 0, 1).reshape(gap.shape[1], -1, gap.shape[-1])


def _root_of(new: Innovations, layout: OrderLayout, m: int) -> ComplexArray:
    """A root of the covariance of an order."""
    sizes = [layout.size(order) ** 2 for order in range(m + 1)]
    vectors = new.low.vectors.cpu().numpy()[sum(sizes[:m]) : sum(sizes)]
    plus, _ = positions(layout.channels, layout.degree, m)
    deviation = np.sqrt(new.low.variance.cpu().numpy().ravel()[plus])
    n = layout.size(m)
    root: ComplexArray = (vectors[:, 0] + 1j * vectors[:, 1]).reshape(n, n) * deviation
    return root


def _root_beyond(new: Innovations, layout: OrderLayout) -> ComplexArray:
    """Roots of the covariances of the places beyond the block degree."""
    parts = new.beyond.cpu().numpy()
    deviation = np.sqrt(new.variance.cpu().numpy()[:, new.plus.cpu().numpy()]).T
    root: ComplexArray = (parts[..., 0] + 1j * parts[..., 1]) * deviation[:, None, :]
    return root
