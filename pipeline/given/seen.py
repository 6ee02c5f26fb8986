"""What functionals of fields see of a law: its learned coefficients, and what is drawn beside them.

    functional of scaled anomalies = A x + T e + w C^1/2 n

x are the whitened coefficients up to lmax, e the white noise of the Gaussian tail, whose regression
on x is in A already, and n the noise of the remainder, of covariance C in the cells. Tail and
remainder are Gaussian given x, so for x they are errors of the observations, and once x is drawn
they are drawn given the observations by Matheron's rule: nothing is lost by going in two steps.
The remainders of the two components of a wind are taken as independent between cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import ducc0
import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.linalg.lapack import dpstrf

from pipeline.arrays import FloatArray
from pipeline.errors import UnusableData
from pipeline.fields.remainder import remainder, white_deviation
from pipeline.fields.standardisation import Normals
from pipeline.gaussian.channel_covariance import mix_channels
from pipeline.gaussian.conditional_tail import GaussianTail
from pipeline.given.functionals import Functionals
from pipeline.sphere.coefficients import from_complex
from pipeline.sphere.grid import IntArray, RingGrid
from pipeline.sphere.harmonics import plan
from pipeline.sphere.rings import ring_geometry

__all__ = ["Seen", "Summary", "synthesis_adjoint"]

LARGEST_BYTES = 4 << 30  # of the observed rows
EXACT = 1e-12  # part of its variance that an observation without error may err by
AT_ONCE = 256  # rows


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What observations see, with their errors.

    Attributes:
        functionals: what is observed of transformed fields.
        error: variance of the errors of scaled anomalies, (row,); independent of each other.
        operator: A, (row, channel, coefficient), on whitened fields.
        beyond: T, (row, channel, coefficient beyond lmax), or None without a tail.
    """

    known: Normals
    tail: GaussianTail | None
    functionals: Functionals
    error: FloatArray
    operator: FloatArray
    beyond: FloatArray | None

    @classmethod
    def of(
        cls,
        known: Normals,
        tail: GaussianTail | None,
        functionals: Functionals,
        error: FloatArray,
    ) -> Seen:
        """What these functionals of transformed fields see, with error variances (row,).

        Raises:
            ValueError: If the scale of the normals changes in time: take `Normals.at` a time.
        """
        if len(known.log_scale):
            raise ValueError("the scale changes in time, so what is seen does: take known.at(row)")
        size = (known.tail + 1) ** 2
        wanted = 8 * len(functionals) * len(known.channels) * size
        if wanted > LARGEST_BYTES:
            raise UnusableData(
                f"{len(functionals)} observations of {len(known.channels)} x {size} coefficients "
                f"take {wanted / 2**30:.1f} GiB, the limit is {LARGEST_BYTES / 2**30:.0f} GiB: "
                "give fewer observations, or coarser ones"
            )
        scaled = _scaled(functionals, known)
        rows: FloatArray = np.zeros((len(functionals), len(known.channels), size))
        for place in np.unique(functionals.variable):
            which = np.flatnonzero(functionals.variable == place)
            for some in np.array_split(which, -(-len(which) // AT_ONCE)):
                maps = scaled.weights[some].toarray().reshape(len(some), *known.grid.shape)
                rows[some] = _of_variable(known, int(place), maps)
        rows = mix_channels(known.factor.transpose(0, 2, 1), rows)
        low = (known.lmax + 1) ** 2
        operator, beyond = rows[..., :low], None
        if tail is not None:
            through, beyond = tail.adjoint(rows[..., low:])
            operator = operator + through
        own = np.square(operator).sum(axis=(1, 2))
        error = np.maximum(error, EXACT * np.where(own > 0.0, own, 1.0))
        return cls(
            known=known,
            tail=tail,
            functionals=scaled,
            error=error,
            operator=np.ascontiguousarray(operator),
            beyond=beyond,
        )

    @cached_property
    def blocks(self) -> tuple[tuple[IntArray, FloatArray], ...]:
        """Rows that err together, and the covariance of their errors as x sees them."""
        found = []
        for place in np.unique(self.functionals.variable):
            rows = np.flatnonzero(self.functionals.variable == place)
            weights = self.functionals.weights[rows]
            covariance = np.diag(self.error[rows])
            for start in range(0, len(rows), AT_ONCE):
                some = weights[start : start + AT_ONCE].toarray()
                covariance[start : start + AT_ONCE] += (weights @ self.spread(place, some).T).T
            found.append((rows, covariance))
        if self.beyond is None:
            return tuple(found)
        tail = self.beyond.reshape(len(self.error), -1)
        whole = tail @ tail.T
        for rows, covariance in found:
            whole[np.ix_(rows, rows)] += covariance
        return ((np.arange(len(self.error)), whole),)

    @cached_property
    def noise(self) -> FloatArray:
        """Covariance of all that is no part of A x, (row, row)."""
        whole = np.zeros((len(self.error), len(self.error)))
        for rows, covariance in self.blocks:
            whole[np.ix_(rows, rows)] = covariance
        return whole

    @cached_property
    def roots(self) -> tuple[FloatArray, ...]:
        """Lower Cholesky factors of the blocks."""
        return tuple(cholesky(covariance, lower=True) for _, covariance in self.blocks)

    def complete(
        self,
        values: FloatArray,
        x: FloatArray,
        tail_white: FloatArray | None,
        remainder_noise: FloatArray,
        error: FloatArray,
    ) -> tuple[FloatArray, FloatArray]:
        """What is drawn beside x, given x and the observed values.

        Args:
            values: scaled anomalies that were observed, (row,) or (draw, row).
            x: draws given the same values, (draw, channel, coefficient).
            tail_white: white noise of the tail, (draw, channel, coefficient beyond lmax).
            remainder_noise: draws of the remainder, (draw, channel, *grid).
            error: white noise, (draw, row).
        Returns:
            White noise of the tail, if there is one, and remainder, that agree with them.
        """
        number = len(self.error)
        left = values - x.reshape(len(x), -1) @ self.operator.reshape(number, -1).T
        left -= self.functionals(remainder_noise) + np.sqrt(self.error) * error
        if self.beyond is not None and tail_white is not None:
            flat = self.beyond.reshape(number, -1)
            left -= tail_white.reshape(len(x), -1) @ flat.T
        pull = np.empty_like(left)
        for (rows, _), root in zip(self.blocks, self.roots, strict=True):
            pull[:, rows] = cho_solve((root, True), left[:, rows].T).T
        moved = remainder_noise.copy()
        for place in np.unique(self.functionals.variable):
            rows = np.flatnonzero(self.functionals.variable == place)
            maps = (self.functionals.weights[rows].T @ pull[:, rows].T).T
            spread = self.spread(place, maps).reshape(len(x), *self.known.grid.shape)
            moved[:, place] += spread
        if self.beyond is None or tail_white is None:
            return np.empty(0), moved
        return tail_white + (pull @ flat).reshape(tail_white.shape), moved

    def spread(self, variable: int, maps: FloatArray) -> FloatArray:
        """The covariance C of a variable's remainder on maps (row, cell)."""
        deviation = self.known.remainder[variable].ravel()
        if any(variable in pair for pair in self.known.pairs):
            alone: FloatArray = deviation**2 * maps
            return alone
        grid, lmax = self.known.grid, self.known.tail
        factor = deviation / white_deviation(grid, lmax).ravel()
        shaped = (factor * maps).reshape(len(maps), *grid.shape)
        harmonics = plan(grid, lmax, "float64")
        through = shaped - harmonics.analysis_adjoint(harmonics.synthesis_adjoint(shaped))
        spread: FloatArray = factor * remainder(through, grid, lmax).reshape(len(maps), -1)
        return spread


@dataclass(frozen=True, kw_only=True, eq=False)
class Summary:
    """Observations with no more rows than there are coefficients, that say the same of x.

    Attributes:
        operator: (row, channel, coefficient).
        noise: (row, row).
        to: carries values (..., observation) to those of the rows; None: they are the same.
        nats: what the log-density of the observed values has beyond that of the rows', apart from
            the part that depends on them (`left`).
    """

    operator: FloatArray
    noise: FloatArray
    to: FloatArray | None = None
    seen: Seen | None = None
    nats: float = 0.0

    @classmethod
    def of(cls, seen: Seen) -> Summary:
        """The same observations, or as many sufficient statistics as there are coefficients."""
        count, size = len(seen.error), seen.operator[0].size
        if count <= size:
            return cls(operator=seen.operator, noise=seen.noise)
        flat = seen.operator.reshape(count, size)
        white, nats = np.empty_like(flat), 0.0
        for (rows, _), root in zip(seen.blocks, seen.roots, strict=True):
            white[rows] = solve_triangular(root, flat[rows], lower=True)
            nats -= np.log(np.diagonal(root)).sum()
        factor, order, rank, _ = dpstrf(white.T @ white, lower=0)
        order, upper = order - 1, np.triu(factor)[:rank]
        operator = np.zeros((rank, size))
        operator[:, order] = upper
        first = solve_triangular(upper[:, :rank], white[:, order[:rank]].T, trans="T")
        return cls(
            operator=operator.reshape(rank, *seen.operator.shape[1:]),
            noise=np.eye(rank),
            to=first,
            seen=seen,
            nats=float(nats) - (count - rank) / 2 * np.log(2.0 * np.pi),
        )

    def values(self, observed: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values of the rows (..., row), and what the log-density has beyond theirs (...)."""
        if self.to is None or self.seen is None:
            return observed, np.zeros(observed.shape[:-1])
        white = np.empty_like(observed)
        for (rows, _), root in zip(self.seen.blocks, self.seen.roots, strict=True):
            part = observed[..., rows].reshape(-1, len(rows)).T
            solved = solve_triangular(root, part, lower=True).T
            white[..., rows] = solved.reshape(*observed.shape[:-1], len(rows))
        found = white @ self.to.T
        left = np.square(white).sum(axis=-1) - np.square(found).sum(axis=-1)
        return found, self.nats - 0.5 * left


def _scaled(functionals: Functionals, known: Normals) -> Functionals:
    """The same functionals of scaled anomalies."""
    weights = functionals.weights.copy().tocsr()
    scale = known.scale.reshape(len(known.scale), -1)
    row = np.repeat(np.arange(len(functionals)), np.diff(weights.indptr))
    weights.data = weights.data * scale[functionals.variable[row], weights.indices]
    return Functionals(weights=weights, variable=functionals.variable)


def _of_variable(known: Normals, place: int, maps: FloatArray) -> FloatArray:
    """What maps (row, *grid) of one variable are as rows of coefficients, (row, channel, ...)."""
    rows = np.zeros((len(maps), len(known.channels), (known.tail + 1) ** 2))
    for east, north in known.pairs:
        if place in (east, north):
            parts = np.zeros((len(maps), 2, *known.grid.shape))
            parts[:, 0 if place == east else 1] = maps
            rows[:, [east, north]] = synthesis_adjoint(known.grid, known.tail, parts)
            return rows
    rows[:, place] = synthesis_adjoint(known.grid, known.tail, maps[:, None])[:, 0]
    return rows


def synthesis_adjoint(grid: RingGrid, lmax: int, maps: FloatArray) -> FloatArray:
    """The transposed matrix of synthesis on maps: (row, part, (lmax + 1)**2).

    Args:
        maps: (row, 1, *grid) of a scalar, (row, 2, *grid) of the eastward and northward wind.
    """
    count, parts = maps.shape[:2]
    flat = np.empty((count, parts, grid.size))
    flat[..., grid.ring_positions] = maps.reshape(count, parts, -1)
    if parts == 2:  # ducc0 has southward and eastward
        flat = np.stack([-flat[:, 1], flat[:, 0]], axis=1)
    alm = ducc0.sht.adjoint_synthesis(
        map=flat, lmax=lmax, spin=parts - 1, nthreads=1, **ring_geometry(grid)
    )
    rows = from_complex(alm)
    if parts == 2:
        rows[..., 0] = 0.0
    return rows
