"""Days of a gap given the days beside it and what there is of the days themselves.

    y = A z + eta,    eta ~ N(0, R)

of the days z of a window, whose law given the known days is that of a bridge (bridge.py), in the
same way as single days are given observations (pipeline/gaussian/posterior):

    z + C A^T S^-1 (y - A z - eta),    S = R + A C A^T,

with C the covariance of the bridge, which is applied and never stored. S is as large as all values
that are observed in a window together.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, block_diag, cho_solve, cholesky

from pipeline.arrays import FloatArray
from pipeline.errors import UnusableData
from pipeline.given.bridge import Bridge
from pipeline.given.seen import Seen, Summary

__all__ = ["Filling"]

LARGEST_BYTES = 4 << 30  # of the covariance of the observed values
AT_ONCE = 64  # rows


class Filling:
    """The law of the days of a window given known days and observations of others.

    Args:
        seen: what observations see of days of the window, by their places in it.
    Raises:
        UnusableData: If a window has more observed values than can be treated together.
    """

    def __init__(self, bridge: Bridge, seen: Mapping[int, Seen]) -> None:
        self.bridge = bridge
        self.summaries = {day: Summary.of(seen[day]) for day in sorted(seen)}
        ends = np.cumsum([0, *(len(one.operator) for one in self.summaries.values())])
        self.parts = {
            day: slice(int(ends[k]), int(ends[k + 1])) for k, day in enumerate(self.summaries)
        }
        self.count = int(ends[-1])
        if 8 * self.count**2 > LARGEST_BYTES:
            most = int((LARGEST_BYTES / 8) ** 0.5)
            raise UnusableData(
                f"{self.count} values are observed within one gap of {bridge.length} days, and no "
                f"more than {most} can be treated together; give fewer of them, fill a shorter "
                "gap, or lower spectral.lmax"
            )
        noises = [one.noise for one in self.summaries.values()]
        self.roots = [cholesky(noise, lower=True) for noise in noises]
        self.factor = self._factored(block_diag(*noises)) if self.count else np.empty((0, 0))

    def draw(
        self,
        white: NDArray[np.floating],
        before: NDArray[np.floating],
        known: NDArray[np.floating],
        values: Mapping[int, FloatArray],
        error: Mapping[int, FloatArray],
    ) -> FloatArray:
        """Paths (day, draw, channel, coefficient) that have the known days and the values.

        Args:
            white, before, known: as a bridge takes them.
            values: that were observed on days of the window, (row,), as `Seen` has them.
            error: white noise of the rows of each day's summary, (draw, row).
        """
        drawn = self.bridge.draw(white, before, known)
        if not self.count:
            return drawn
        gap = self._observed(values) - self._seen(drawn)
        for root, (day, part) in zip(self.roots, self.parts.items(), strict=True):
            gap[:, part] -= error[day] @ root.T
        return drawn + self._pulled(gap)

    def mean(
        self,
        before: NDArray[np.floating],
        known: NDArray[np.floating],
        values: Mapping[int, FloatArray],
    ) -> FloatArray:
        """The expected days of the window, (day, channel, coefficient)."""
        expected = self.bridge.mean(before, known)
        if not self.count:
            return expected
        gap = self._observed(values) - self._seen(expected[:, None])
        moved: FloatArray = expected + self._pulled(gap)[:, 0]
        return moved

    def log_evidence(
        self,
        before: NDArray[np.floating],
        known: NDArray[np.floating],
        values: Mapping[int, FloatArray],
    ) -> float:
        """log of the density [nats] of the observed values given the known days."""
        if not self.count:
            return 0.0
        expected = self.bridge.mean(before, known)
        gap = (self._observed(values) - self._seen(expected[:, None]))[0]
        more = sum(float(one.values(values[day])[1]) for day, one in self.summaries.items())
        volume = float(np.log(np.diagonal(self.factor)).sum())
        square = float(gap @ cho_solve((self.factor, True), gap))
        return more - 0.5 * square - volume - 0.5 * self.count * float(np.log(2.0 * np.pi))

    def _factored(self, noise: FloatArray) -> FloatArray:
        """The Cholesky factor of S."""
        whole = noise
        for day, part in self.parts.items():
            operator = self.summaries[day].operator
            for start in range(0, len(operator), AT_ONCE):
                rows = np.zeros((self.bridge.length, *operator[start : start + AT_ONCE].shape))
                rows[day] = operator[start : start + AT_ONCE]
                columns = slice(part.start + start, part.start + start + rows.shape[1])
                whole[:, columns] += self._seen(self.bridge.covariance(rows)).T
        try:
            factor: FloatArray = cholesky(0.5 * (whole + whole.T), lower=True, overwrite_a=True)
        except LinAlgError as error:
            raise UnusableData(
                "condition: some observations of a gap follow from others and from the days "
                "beside it, and have no error of their own; give them an error, or leave them out"
            ) from error
        return factor

    def _observed(self, values: Mapping[int, FloatArray]) -> FloatArray:
        """What was observed, as rows of the summaries, (row,)."""
        return np.concatenate([one.values(values[day])[0] for day, one in self.summaries.items()])

    def _seen(self, days: FloatArray) -> FloatArray:
        """A z of paths (day, draw, channel, coefficient), (draw, row)."""
        found = np.empty((days.shape[1], self.count))
        for day, part in self.parts.items():
            operator = self.summaries[day].operator
            found[:, part] = (
                days[day].reshape(days.shape[1], -1) @ operator.reshape(len(operator), -1).T
            )
        return found

    def _pulled(self, gap: FloatArray) -> FloatArray:
        """C A^T S^-1 of gaps (draw, row)."""
        solved = cho_solve((self.factor, True), gap.T).T
        rows = np.zeros((self.bridge.length, len(gap), *self._shape))
        for day, part in self.parts.items():
            rows[day] = np.tensordot(solved[:, part], self.summaries[day].operator, axes=1)
        return self.bridge.covariance(rows)

    @property
    def _shape(self) -> tuple[int, int]:
        return self.bridge.layout.channels, (self.bridge.layout.lmax + 1) ** 2
