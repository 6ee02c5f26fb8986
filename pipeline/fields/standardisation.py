"""What a `normals` dataset takes away from fields, and gives back, on arrays without labels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.linalg import get_blas_funcs

from pipeline.arrays import FloatArray
from pipeline.errors import UnusableData
from pipeline.fields.climatology import season_phase
from pipeline.fields.pointwise.labels import pointwise_of
from pipeline.fields.pointwise.maps import Marginal, OutOfBounds, Pointwise
from pipeline.fields.remainder import band_noise, remainder_noise
from pipeline.fields.trend import NO_TREND, Trend, climatology_rows
from pipeline.gaussian.channel_covariance import mix_channels
from pipeline.sphere.fill import harmonic_fill
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.named_grids import grid_of
from pipeline.sphere.pairs import Pairs
from pipeline.sphere.stacked import analysis, synthesis

FIELDS_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class Normals:
    """The arrays of a `normals` dataset that the transformation needs.

    Attributes:
        channels: Names of the channels of x.
        variables: Names of the fields, in the same order.
        pairs: Places of winds (pipeline/sphere/stacked).
        trend: What the climatology depends on besides the season (pipeline/fields/trend).
        transforms: The pointwise map of each variable.
        climatology: Shape (season, variable, *grid), coefficients of the mean, of the harmonics of
            the year, and of what the trend follows.
        scale, mask: Shape (variable, *grid).
        log_scale: How the log of the scale departs from that of `scale` along the terms of the
            climatology beyond the first, shape (term - 1, variable, *grid); of shape (0, ...) where
            the scale is the same at all times (pipeline/fields/scale).
        lmax: the band limit of what is learned.
        factor: L_l, lower triangular, shape (degree, channel, channel), beyond lmax up to the end
            of the Gaussian tail.
        remainder: standard deviation of scaled anomalies beyond the tail, shape (channel, *grid).
        noise_lmax: last degree of the remainder's noise; None where it is white on the grid, which
            is so on the source's own.
        precision: type in which `whiten` works (pipeline/fields/precision.py); all else is float64.
    """

    grid: RingGrid
    channels: tuple[str, ...]
    transforms: tuple[Marginal, ...]
    climatology: FloatArray
    scale: FloatArray
    mask: npt.NDArray[np.bool_]
    lmax: int
    factor: FloatArray
    remainder: FloatArray
    noise_lmax: int | None = None
    precision: str = "float64"
    pairs: Pairs = ()
    variables: tuple[str, ...] = ()
    trend: Trend = NO_TREND
    log_scale: FloatArray = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        if not self.variables:
            object.__setattr__(self, "variables", self.channels)

    @classmethod
    def of(cls, normals: xr.Dataset) -> Normals:
        """Read them from a dataset, loading what is lazy."""
        grid = grid_of(normals)
        return cls(
            grid=grid,
            channels=tuple(map(str, normals["channel"].to_numpy())),
            transforms=pointwise_of(normals, grid.dims),
            climatology=np.ascontiguousarray(
                normals["climatology"].transpose("season", "channel", *grid.dims)
            ),
            scale=normals["scale"].transpose("channel", *grid.dims).to_numpy(),
            mask=normals["mask"].transpose("channel", *grid.dims).to_numpy().astype(bool),
            lmax=int(normals.attrs["lmax"]),
            factor=factor_of(normals),
            remainder=normals["remainder"].transpose("channel", *grid.dims).to_numpy(),
            noise_lmax=normals.attrs.get("noise_lmax"),
            precision=str(normals.attrs.get("precision", "float64")),
            pairs=pairs_of(normals),
            variables=variables_of(normals),
            trend=Trend.of(normals),
            log_scale=log_scale_of(normals),
        )

    def pointwise(self, rows: FloatArray) -> dict[str, Pointwise]:
        """The map of each variable by name, at rows (..., term) of the climatology."""
        maps = (one.at(self.trend.forcing(rows)) for one in self.transforms)
        return dict(zip(self.variables, maps, strict=True))

    @property
    def tail(self) -> int:
        """The last degree that x may have."""
        return len(self.factor) - 1

    @property
    def harmonics(self) -> int:
        """How many harmonics the yearly cycle has."""
        return (len(self.climatology) - 1 - len(self.trend.names)) // 2

    def rows(self, dataset: xr.Dataset) -> FloatArray:
        """Rows (time, term) of the climatology at the times of a dataset."""
        predictors = self.trend.standard(dataset)
        return climatology_rows(season_phase(dataset["time"]), predictors, self.harmonics)

    def scales(self, rows: FloatArray) -> FloatArray:
        """The scale (..., variable, *grid) at rows (..., term) of the climatology."""
        if not len(self.log_scale):
            return self.scale
        changed: FloatArray = np.exp(np.tensordot(rows[..., 1:], self.log_scale, axes=(-1, 0)))
        changed *= self.scale
        return changed

    def at(self, row: FloatArray) -> Normals:
        """The normals of one time, (term,): scale and maps are the same whatever the rows."""
        transforms = tuple(self.pointwise(row).values())
        scale = self.scales(row)
        return replace(self, transforms=transforms, scale=scale, log_scale=np.empty(0))

    def departures(self, values: FloatArray, rows: FloatArray) -> FloatArray:
        """Scaled anomalies of transformed values (time, channel, *grid), NaN where these are.

        In the precision of the values. The mean is taken away first, so that what is left is small
        and so is its rounding.

        Args:
            rows: Terms of the climatology at each time, (time, term).
        """
        mean, waves, inverse, changes = self._removed(values.dtype)
        flat = (values - mean).reshape(len(values), -1)
        product = get_blas_funcs("gemm", (flat,))
        terms = rows.astype(flat.dtype)
        flat = product(-1.0, waves.T, terms.T, beta=1.0, c=flat.T, overwrite_c=True).T
        if len(changes):
            flat *= np.exp(-terms[:, 1:] @ changes)
        scaled: FloatArray = flat.reshape(values.shape)
        scaled *= inverse
        return scaled

    def anomalies(self, values: FloatArray, rows: FloatArray) -> FloatArray:
        """Scaled anomalies of transformed values (time, channel, *grid), holes filled.

        Args:
            rows: Terms of the climatology at each time, (time, term).
        """
        scaled = self.departures(values, rows)
        for channel, mask in enumerate(self.mask):
            if mask.any():
                filled = harmonic_fill(self.grid, mask)(scaled[:, channel])
                filled[:, mask] /= self.scale[channel][mask]
                scaled[:, channel] = filled
        finite = np.isfinite(scaled.sum(axis=(0, *range(2, scaled.ndim))))
        if not finite.all():
            bad = ", ".join(self.variables[i] for i in np.flatnonzero(~finite))
            raise UnusableData(
                f"{bad}: values are missing where training data have them; fill them in the source"
            )
        return scaled

    def _removed(self, dtype: np.dtype[Any]) -> tuple[FloatArray, ...]:
        """The mean, the waves about it (with what rounding left of the mean) as (term, cell of a
        channel), one over the scale, and how its log changes, as the waves are."""
        if dtype not in self._rounded:
            mean = self.climatology[0].astype(dtype)
            waves = self.climatology.copy()
            waves[0] -= mean
            flat = waves.reshape(len(waves), -1).astype(dtype)
            changes = self.log_scale.reshape(len(self.log_scale), self.scale.size).astype(dtype)
            self._rounded[dtype] = mean, flat, (1.0 / self.scale).astype(dtype), changes
        return self._rounded[dtype]

    @cached_property
    def _rounded(self) -> dict[np.dtype[Any], tuple[FloatArray, ...]]:
        return {}

    def whiten(self, fields: Sequence[FloatArray], rows: FloatArray) -> FloatArray:
        """x (time, channel, coefficient), float32, of physical fields (time, *grid) by channel.

        Goes through a few times at once, so that what it needs besides is small.
        """
        x = np.empty((len(rows), len(fields), (self.lmax + 1) ** 2), np.float32)
        inverse = np.linalg.inv(self.factor[: self.lmax + 1])
        step = max(1, FIELDS_AT_ONCE // len(fields))
        for block in (slice(start, start + step) for start in range(0, len(rows), step)):
            parts = [field[block] for field in fields]
            values = transformed(parts, self.pointwise(rows[block]), self.precision)
            scaled = self.anomalies(values, rows[block])
            coefficients = analysis(self.grid, self.lmax, self.pairs, scaled, self.precision)
            x[block] = mix_channels(inverse, coefficients)
        return x

    def unwhiten(
        self, x: FloatArray, rows: FloatArray, white: FloatArray | None = None
    ) -> FloatArray:
        """Physical values (..., channel, *grid), float32, of x (..., channel, coefficient).

        `rows` (..., term) broadcast against the leading axes of x. White noise, if given, becomes
        the remainder that x does not carry: of the result's shape, or with coefficients up to
        `noise_lmax` in place of the grid.
        """
        values = self.synthesis(x)
        if white is not None:
            values += self.remainder_of(white)
        return self.physical(values, rows)

    def analysed(self, scaled: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Coefficients up to the tail of scaled anomalies (time, channel, *grid), and what these
        leave of each cell."""
        coefficients = analysis(self.grid, self.tail, self.pairs, scaled)
        return coefficients, scaled - synthesis(self.grid, self.pairs, coefficients)

    def synthesis(self, x: FloatArray) -> FloatArray:
        """Scaled anomalies (..., channel, *grid) of x (..., channel, coefficient)."""
        coefficients = mix_channels(self.factor, x.astype(np.float64))
        return synthesis(self.grid, self.pairs, coefficients)

    def remainder_of(self, white: FloatArray) -> FloatArray:
        """Scaled anomalies (..., channel, *grid) that x does not carry, of white noise."""
        if self.noise_lmax is None:
            return remainder_noise(white, self.remainder, self.grid, self.tail, self.pairs)
        return self.remainder * band_noise(white, self.grid, self.tail, self.pairs)

    def physical(self, values: FloatArray, rows: FloatArray) -> FloatArray:
        """Physical values, float32, of scaled anomalies (..., channel, *grid), which are used up.

        Args:
            rows: Terms of the climatology, (..., term).
        """
        values *= self.scales(rows)
        values += np.tensordot(rows, self.climatology, axes=(-1, 0))
        axis = values.ndim - 1 - len(self.grid.shape)
        for channel, pointwise in enumerate(self.pointwise(rows).values()):
            part = np.moveaxis(values, axis, 0)[channel]
            part[...] = np.where(self.mask[channel], np.nan, pointwise.inverse(part))
        return values.astype(np.float32)


def variables_of(normals: xr.Dataset) -> tuple[str, ...]:
    """Names of the fields, one for each channel; those of the channels where there are no winds."""
    names = normals["variable"] if "variable" in normals.coords else normals["channel"]
    return tuple(map(str, names.to_numpy()))


def pairs_of(normals: xr.Dataset) -> Pairs:
    """Places of the winds among the variables."""
    return tuple((east, north) for east, north in json.loads(normals.attrs.get("winds", "[]")))


def log_scale_of(normals: xr.Dataset) -> FloatArray:
    """`Normals.log_scale` of a dataset."""
    if "log_scale" not in normals:
        return np.empty(0)
    dims = grid_of(normals).dims
    return np.ascontiguousarray(normals["log_scale"].transpose("change", "channel", *dims))


def factor_of(normals: xr.Dataset) -> FloatArray:
    """L_l, up to the end of the Gaussian tail: (degree, channel, other_channel)."""
    dims = ("channel", "other_channel")
    learned = normals["reference_factor"].transpose("degree", *dims).to_numpy()
    if "tail_factor" not in normals:
        return learned
    tail = normals["tail_factor"].transpose("tail_degree", *dims).to_numpy()
    return np.concatenate([learned, tail])


def transformed(
    fields: Sequence[FloatArray],
    transforms: Mapping[str, Pointwise],
    dtype: npt.DTypeLike = np.float64,
) -> FloatArray:
    """Transformed fields, in memory: (time, channel, *grid).

    Raises:
        UnusableData: If a field has values that its transform does not take.
    """
    values = np.stack(fields, axis=1, dtype=dtype)
    for channel, (name, pointwise) in enumerate(transforms.items()):
        if pointwise.name == "identity":
            continue
        try:
            values[:, channel] = pointwise.forward(values[:, channel])
        except OutOfBounds as error:
            raise UnusableData(
                f"{name}: {error}; declare source.bounds.{name}, mend the values in the source, "
                "or take another source.transform"
            ) from error
    return values
