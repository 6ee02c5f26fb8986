"""The best Gaussian law we know how to fit: the whole covariance, by season.

    S(phase) = own B(phase) + sample W(phase)

    W    the covariance of all coefficients of the training fields, as they are
    B    the averaged law (pipeline/gaussian/averaged): each order's covariance averaged with its
         neighbours', and then moved towards the channel covariances of each degree

The fields of three years are far fewer than their coefficients, so W alone has no density; together
with B, which knows what hangs together at one order, it knows also what hangs together across
orders: the continents, the storm tracks. Both weigh the training fields by 1 + seasonal
cos(phase - theirs), so the covariance follows the season and stays positive.

How much of what is chosen on validation fields. This law is there to be compared with, by its
density; no score is built on it, because its directions are no scalar formulas. Notation:
docs/mathematics.md, 6.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from pipeline.arrays import FloatArray
from pipeline.gaussian.averaged import averaged_covariance, choose_averages, factor_of
from pipeline.gaussian.moments import ComplexArray, Moments, complex_coordinates, positions

SEASONAL = (0.0, 0.3, 0.5, 0.7)
OWN = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
SAMPLE = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
NODES = 6  # seasons at which S is made; a field has that of the nearest
FIELDS = 1500  # of the training that W is made of, evenly spread, at most
LARGEST_BYTES = 3 << 25  # of the coefficients of training fields; a worker holds ten copies


@dataclass(frozen=True, kw_only=True)
class WholeChoice:
    """What the validation fields chose; see the module."""

    across: FloatArray  # by order
    towards: FloatArray
    seasonal: float
    own: float
    sample: float


@dataclass(frozen=True, kw_only=True)
class WholeLaw:
    """The law of the module, fitted to training fields.

    Attributes:
        x: the fields of W, (field, channel, coefficient), and their season, `phase` [rad].
        moments: of all training fields, weighted by 1, cos and sin of their season.
    """

    x: FloatArray
    phase: FloatArray
    moments: tuple[Moments, Moments, Moments]
    choice: WholeChoice

    @classmethod
    def fit(
        cls, x: FloatArray, phase: FloatArray, held_out: FloatArray, held_out_phase: FloatArray
    ) -> WholeLaw:
        """Fitted to training fields; everything that is chosen is chosen on the held-out ones.

        Args:
            x, held_out: whitened fields, (field, channel, coefficient).
            phase, held_out_phase: season of each [rad].
        """
        thin = np.linspace(0, len(x) - 1, min(FIELDS, len(x))).round().astype(int)
        moments = _seasonal_moments(x, phase)
        across, towards = choose_averages(moments[0], Moments.of(held_out))
        choice = WholeChoice(across=across, towards=towards, seasonal=0.0, own=1.0, sample=0.0)
        law = cls(x=x[thin], phase=phase[thin], moments=moments, choice=choice)
        by_season = [
            replace(law, choice=replace(choice, seasonal=seasonal)) for seasonal in SEASONAL
        ]
        likely = [float(each.log_density(held_out, held_out_phase).mean()) for each in by_season]
        law = by_season[int(np.argmax(likely))]
        pairs = [(own, sample) for own in OWN for sample in SAMPLE]
        table = law._log_densities(held_out, held_out_phase, pairs).mean(axis=1)
        own, sample = pairs[int(table.argmax())]
        return replace(law, choice=replace(law.choice, own=own, sample=sample))

    def log_density(self, x: FloatArray, phase: FloatArray) -> FloatArray:
        """log of the density [nats] of whitened fields given their season, (field,)."""
        pairs = [(self.choice.own, self.choice.sample)]
        density: FloatArray = self._log_densities(x, phase, pairs)[0]
        return density

    def covariance(self, phase: float) -> FloatArray:
        """S at the season of the node nearest to a phase, rows by channel, then coefficient."""
        node = float(_nodes(np.array([phase]))[0])
        size = self.x[0].size
        unit = np.eye(size).reshape(size, *self.x.shape[1:])
        white = _whitened(unit, _factors(self._blocks(node)))
        inverse = white @ white.T
        weighted = self._weighted(node).reshape(len(self.x), -1)
        sample = weighted.T @ weighted / len(self.x)
        whole: FloatArray = self.choice.own * np.linalg.inv(inverse) + self.choice.sample * sample
        return whole

    def _log_densities(
        self, x: FloatArray, phase: FloatArray, pairs: list[tuple[float, float]]
    ) -> FloatArray:
        """For each pair of `own` and `sample` the log of the density, (pair, field).

        In coordinates white under B: the eigenvectors of W there are those of S, and beyond their
        span S is `own` B.
        """
        found, size = np.empty((len(pairs), len(x))), x[0].size
        nodes = _nodes(phase)
        samples = any(sample > 0.0 for _, sample in pairs)
        for node in np.unique(nodes):
            here = np.flatnonzero(nodes == node)
            factors = _factors(self._blocks(float(node)))
            volume = sum(
                (1 if m == 0 else 2) * np.log(np.diagonal(factor).real).sum()
                for m, factor in enumerate(factors)
            )
            white = _whitened(x[here], factors)
            total = np.square(white).sum(axis=1)
            values, along = np.empty(0), np.empty((len(here), 0))
            if samples:
                known = _whitened(self._weighted(float(node)), factors) / len(self.x) ** 0.5
                values, vectors = np.linalg.eigh(known @ known.T)
                seen = values > 1e-9 * values[-1]
                values, vectors = values[seen], vectors[:, seen]
                along = np.square(white @ known.T @ (vectors / np.sqrt(values)))
            for row, (own, sample) in enumerate(pairs):
                variance = own + sample * values
                quadratic = (total - along.sum(axis=1)) / own + (along / variance).sum(axis=1)
                logs = np.log(variance).sum() + (size - len(values)) * np.log(own)
                found[row, here] = -0.5 * (quadratic + logs + size * np.log(2 * np.pi)) - volume
        return found

    def _weighted(self, node: float) -> FloatArray:
        """The fields of W times the roots of their weights at a season."""
        weight = 1 + self.choice.seasonal * np.cos(node - self.phase)
        weighted: FloatArray = self.x * np.sqrt(weight)[:, None, None]
        return weighted

    def _blocks(self, node: float) -> Iterator[ComplexArray]:
        """The covariance B of each order at a season."""
        waves = np.array([1.0, np.cos(node), np.sin(node)])
        waves[1:] *= self.choice.seasonal
        blocks = [
            sum(wave * part.covariance(m) for wave, part in zip(waves, self.moments, strict=True))
            for m in range(self.moments[0].lmax + 1)
        ]
        target = np.tensordot(waves, [part.channel_covariance() for part in self.moments], axes=1)
        for m, (across, towards) in enumerate(
            zip(self.choice.across, self.choice.towards, strict=True)
        ):
            yield averaged_covariance(blocks.__getitem__, target, m, across, towards)


def fields_at_once(coefficients: int) -> int:
    """So many fields of this size can be fitted to; fewer than `FIELDS` make no good law."""
    return LARGEST_BYTES // (8 * coefficients)


def _nodes(phase: FloatArray) -> FloatArray:
    """The seasons nearest to these at which the law is made [rad]."""
    step = 2 * np.pi / NODES
    nodes: FloatArray = step * (np.round(np.asarray(phase) / step) % NODES)
    return nodes


def _seasonal_moments(x: FloatArray, phase: FloatArray) -> tuple[Moments, Moments, Moments]:
    """Moments of fields weighted by 1, cos and sin of their season."""
    plain = Moments.of(x)

    def weighted(wave: FloatArray) -> Moments:
        # Weights between 0 and 2, as a sum of squares has to be of positive ones.
        shifted = Moments.of(x * np.sqrt(1 + wave)[:, None, None])
        return replace(
            shifted,
            blocks=tuple(a - b for a, b in zip(shifted.blocks, plain.blocks, strict=True)),
        )

    return plain, weighted(np.cos(phase)), weighted(np.sin(phase))


def _factors(blocks: Iterator[ComplexArray]) -> list[ComplexArray]:
    return [factor_of(block) for block in blocks]


def _whitened(x: NDArray[np.floating], factors: list[ComplexArray]) -> FloatArray:
    """Fields in coordinates that are white under the law of these factors, (field, coordinate)."""
    flat = x.reshape(len(x), -1).astype(np.float64)
    white, channels, lmax = np.empty_like(flat), x.shape[1], len(factors) - 1
    for m, factor in enumerate(factors):
        plus, minus = positions(channels, lmax, m)
        z = complex_coordinates(flat, channels, lmax, m)
        solved = solve_triangular(factor, z.T, lower=True).T
        white[:, plus] = solved.real if m == 0 else np.sqrt(2) * solved.real
        if m:
            white[:, minus] = np.sqrt(2) * solved.imag
    return white
