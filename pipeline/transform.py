"""The one seam of labels and harmonics: physical fields to whitened coefficients and exactly back.

    x = L_l^-1 analysis((transform(value) - climatology(season, trend)) / scale),    L_l L_l^T = Q_l

Whitened: x(time, channel, coefficient), float32, with coordinates phase(time) [rad], degree and
order(coefficient). L_l is diagonal, sqrt(q_l) of each channel, unless the channels of the reference
covary (joint.py); then x of a channel is what it has beyond the channels before it. What is taken
away comes from the `normals` artifact (schema: flows/normals), and `to_fields` gives just that
back. Masked cells are filled before the analysis, with fluctuations as large as those of the data,
and empty again afterwards. Both directions are
lazy on Dask-backed input and eager otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.linalg import get_blas_funcs

from pipeline.channels import Pairs, analysis, synthesis
from pipeline.climatology import UnusableData, season_phase
from pipeline.coefficients import degrees, lmax_of, orders
from pipeline.joint import mix_channels
from pipeline.masks import harmonic_fill
from pipeline.pointwise import OutOfBounds, Pointwise
from pipeline.pointwise_labels import pointwise_of
from pipeline.remainder import band_noise, remainder_noise
from pipeline.sphere import FloatArray, RingGrid
from pipeline.trend import NO_TREND, PREFIX, Trend, climatology_rows

__all__ = [
    "Normals",
    "color",
    "grid_of",
    "label_whitened",
    "pairs_of",
    "stack_variables",
    "to_fields",
    "to_whitened",
    "variables_of",
    "whiten",
    "whitened_block",
]

FIELDS_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class Normals:
    """The arrays of a `normals` dataset that the transformation needs.

    Attributes:
        channels: Names of the channels of x.
        variables: Names of the fields, in the same order.
        pairs: Places of winds (pipeline/channels).
        trend: What the climatology depends on besides the season (pipeline/trend).
        transforms: The pointwise map of each variable.
        climatology: Shape (season, variable, *grid).
        scale, mask: Shape (variable, *grid).
        lmax: the band limit of what is learned.
        factor: L_l, lower triangular, shape (degree, channel, channel), beyond lmax up to the end
            of the Gaussian tail.
        remainder: standard deviation of scaled anomalies beyond the tail, shape (channel, *grid).
        noise_lmax: last degree of the remainder's noise; None where it is white on the grid, which
            is so on the source's own.
        precision: type in which `whiten` works (pipeline/precision.py); all else is float64.
    """

    grid: RingGrid
    channels: tuple[str, ...]
    transforms: tuple[Pointwise, ...]
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
            factor=_factor(normals),
            remainder=normals["remainder"].transpose("channel", *grid.dims).to_numpy(),
            noise_lmax=normals.attrs.get("noise_lmax"),
            precision=str(normals.attrs.get("precision", "float64")),
            pairs=pairs_of(normals),
            variables=variables_of(normals),
            trend=Trend.of(normals),
        )

    @property
    def pointwise(self) -> dict[str, Pointwise]:
        """The map of each variable by name."""
        return dict(zip(self.variables, self.transforms, strict=True))

    @property
    def tail(self) -> int:
        """The last degree that x may have."""
        return len(self.factor) - 1

    def rows(self, dataset: xr.Dataset) -> FloatArray:
        """Rows (time, term) of the climatology at the times of a dataset."""
        return climatology_rows(season_phase(dataset["time"]), self.trend.standard(dataset))

    def anomalies(self, values: FloatArray, rows: FloatArray) -> FloatArray:
        """Scaled anomalies, holes filled, of transformed values (time, channel, *grid).

        In the precision of the values. The mean is taken away first, so that what is left is small
        and so is its rounding.

        Args:
            rows: Terms of the climatology at each time, (time, term).
        """
        mean, waves, inverse = self._removed(values.dtype)
        flat = (values - mean).reshape(len(values), -1)
        product = get_blas_funcs("gemm", (flat,))
        terms = rows.astype(flat.dtype)
        flat = product(-1.0, waves.T, terms.T, beta=1.0, c=flat.T, overwrite_c=True).T
        scaled: FloatArray = flat.reshape(values.shape)
        scaled *= inverse
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

    def _removed(self, dtype: np.dtype[Any]) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The mean, the waves about it (with what rounding left of the mean) as (term, cell of a
        channel), and one over the scale."""
        if dtype not in self._rounded:
            mean = self.climatology[0].astype(dtype)
            waves = self.climatology.copy()
            waves[0] -= mean
            flat = waves.reshape(len(waves), -1).astype(dtype)
            self._rounded[dtype] = mean, flat, (1.0 / self.scale).astype(dtype)
        return self._rounded[dtype]

    @cached_property
    def _rounded(self) -> dict[np.dtype[Any], tuple[FloatArray, FloatArray, FloatArray]]:
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
            values = _stacked(parts, self.pointwise, self.precision)
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
        coefficients = mix_channels(self.factor, x.astype(np.float64))
        values = synthesis(self.grid, self.pairs, coefficients)
        if white is not None and self.noise_lmax is None:
            values += remainder_noise(white, self.remainder, self.grid, self.tail, self.pairs)
        elif white is not None:
            values += self.remainder * band_noise(white, self.grid, self.tail, self.pairs)
        values *= self.scale
        values += np.tensordot(rows, self.climatology, axes=(-1, 0))
        axis = x.ndim - 2
        for channel, pointwise in enumerate(self.transforms):
            part = np.moveaxis(values, axis, 0)[channel]
            part[...] = np.where(self.mask[channel], np.nan, pointwise.inverse(part))
        return values.astype(np.float32)


def whiten(coefficients: xr.DataArray, normals: xr.Dataset) -> xr.DataArray:
    """x of coefficients of scaled anomalies, dims (..., channel, coefficient), in memory."""
    return _mixed(coefficients, np.linalg.inv(_factor(normals)))


def color(x: xr.DataArray, normals: xr.Dataset) -> xr.DataArray:
    """Undo `whiten`."""
    return _mixed(x, _factor(normals))


def variables_of(normals: xr.Dataset) -> tuple[str, ...]:
    """Names of the fields, one for each channel; those of the channels where there are no winds."""
    names = normals["variable"] if "variable" in normals.coords else normals["channel"]
    return tuple(map(str, names.to_numpy()))


def pairs_of(normals: xr.Dataset) -> Pairs:
    """Places of the winds among the variables."""
    return tuple((east, north) for east, north in json.loads(normals.attrs.get("winds", "[]")))


def grid_of(dataset: xr.Dataset) -> RingGrid:
    """The grid of a dataset with dimensions (lat, lon), or (cell) on HEALPix.

    Cells are in ring order, unless a grid mapping with that `indexing_scheme` says nested.
    """
    if "cell" in dataset.dims:
        cells = dataset.sizes["cell"]
        nside = round((cells / 12) ** 0.5)
        if 12 * nside**2 != cells:
            raise ValueError(f"a HEALPix map has 12 nside^2 cells; dimension cell has {cells}")
        mappings = [v.attrs for v in dataset.variables.values() if "grid_mapping_name" in v.attrs]
        schemes = {a.get("indexing_scheme") for a in mappings}
        return RingGrid.healpix(nside, "nested" if "nested" in schemes else "ring")
    if not {"lat", "lon"} <= set(dataset.dims):
        raise ValueError(f"fields need dimensions (lat, lon) or (cell); got {tuple(dataset.dims)}")
    return RingGrid.from_coordinates(dataset["lat"].to_numpy(), dataset["lon"].to_numpy())


def stack_variables(fields: xr.Dataset, transforms: Mapping[str, Pointwise]) -> FloatArray:
    """Transformed variables in this order, in memory, float64: (time, channel, *grid).

    Raises:
        UnusableData: If a variable has values that its transform does not take.
    """
    return _stacked(_arrays(fields, tuple(transforms)), transforms)


def whitened_block(fields: xr.Dataset, known: Normals) -> FloatArray:
    """The x of `to_whitened` as an array (time, channel, coefficient), in memory."""
    return known.whiten(_arrays(fields, known.variables), known.rows(fields))


def to_whitened(fields: xr.Dataset, normals: xr.Dataset) -> xr.Dataset:
    """Whitened coefficients x of the fields that `normals` describes.

    Args:
        fields: Variables (time, *grid) by channel name; others are ignored.
            Chunked along time only.
    """
    known = Normals.of(normals)
    if absent := [name for name in known.variables if name not in fields]:
        raise ValueError(
            f"fields lack {', '.join(absent)}; they hold {', '.join(map(str, fields))}"
        )
    if (grid := grid_of(fields)) != known.grid:
        raise ValueError(f"fields are on {grid.describe()}, normals on {known.grid.describe()}")
    rows = xr.DataArray(known.rows(fields), dims=("time", "term"), coords={"time": fields["time"]})
    x = xr.apply_ufunc(
        _whiten,
        _chunked_like(rows, fields[known.variables[0]]),
        *(fields[name] for name in known.variables),
        kwargs={"normals": known},
        input_core_dims=[["term"], *([list(grid.dims)] * len(known.channels))],
        output_core_dims=[["channel", "coefficient"]],
        dask="parallelized",
        output_dtypes=[np.float32],
        dask_gufunc_kwargs={
            "output_sizes": {"channel": len(known.channels), "coefficient": (known.lmax + 1) ** 2}
        },
    )
    return label_whitened(x, rows, known.channels, known.trend)


def label_whitened(
    x: xr.DataArray, rows: xr.DataArray, channels: tuple[str, ...], trend: Trend = NO_TREND
) -> xr.Dataset:
    """The `whitened` dataset of x (time, channel, coefficient), with the season and the predictors
    of its times."""
    lmax = lmax_of(x.sizes["coefficient"])
    phase = season_phase(rows["time"])
    named = xr.Dataset(
        {"x": x.transpose("time", "channel", "coefficient").drop_vars(_scalars(x))},
        coords={
            "time": rows["time"],
            "phase": ("time", phase, {"units": "rad", "long_name": "phase of the year"}),
            "channel": ("channel", np.asarray(channels)),
            "degree": ("coefficient", degrees(lmax)),
            "order": ("coefficient", orders(lmax)),
        },
    )
    return named.assign_coords(trend.coordinates(rows.to_numpy()[:, -len(trend.names) :]))


def to_fields(
    x: xr.DataArray, normals: xr.Dataset, white: xr.DataArray | None = None
) -> xr.Dataset:
    """Physical fields of whitened coefficients; undoes `to_whitened`.

    Args:
        white: White noise with the dims of x, but the grid's for `coefficient`; it becomes the
            remainder (pipeline/remainder.py). For normals that were placed on another grid, with
            `noise_coefficient` instead. None: the fields have no scales beyond lmax.
        x: Dims (..., channel, coefficient), any lmax up to the tail of `normals`, with a coordinate
            `phase` [rad] on its time dimension, and those of the trend if `normals` have one.
    Returns:
        One variable per channel, dims (..., *grid), float32, with the source's attributes and grid
        coordinates.
    """
    known = Normals.of(normals)
    rows = _rows(x, known)
    x = x.drop_vars(["phase", *(name for name in x.coords if str(name).startswith(PREFIX))])
    noise_dims = known.grid.dims if known.noise_lmax is None else ("noise_coefficient",)
    values = xr.apply_ufunc(
        _unwhiten,
        x,
        _chunked_like(rows, x),
        *([] if white is None else [white]),
        kwargs={"normals": known},
        input_core_dims=[
            ["channel", "coefficient"],
            ["term"],
            *([] if white is None else [["channel", *noise_dims]]),
        ],
        output_core_dims=[["channel", *known.grid.dims]],
        dask="parallelized",
        output_dtypes=[np.float32],
        dask_gufunc_kwargs={
            "output_sizes": dict(zip(known.grid.dims, known.grid.shape, strict=True)),
            "allow_rechunk": False,
        },
    )
    attributes: dict[str, Any] = json.loads(normals.attrs.get("variables", "{}"))
    variables = {}
    for index, name in enumerate(known.variables):
        field = values.isel(channel=index, drop=True)
        variables[name] = field.drop_vars(_scalars(field)).assign_attrs(attributes.get(name, {}))
    names = {*known.grid.dims, "lat", "lon", "crs"} & {*normals.coords}
    return xr.Dataset(variables).assign_coords({name: normals[name] for name in names})


def _rows(x: xr.DataArray, known: Normals) -> xr.DataArray:
    """Rows (..., term) of the climatology at the times of x, as its coordinates say."""
    phase = x.coords["phase"].drop_vars("phase")
    rows = climatology_rows(phase.to_numpy(), known.trend.given(phase))
    kept = {name: phase.coords[name] for name in phase.dims if name in phase.coords}
    return xr.DataArray(rows, dims=(*phase.dims, "term"), coords=kept)


def _whiten(rows: FloatArray, *fields: FloatArray, normals: Normals) -> FloatArray:
    return normals.whiten(fields, rows)


def _unwhiten(
    x: FloatArray, rows: FloatArray, white: FloatArray | None = None, *, normals: Normals
) -> FloatArray:
    return normals.unwhiten(x, rows, white)


def _arrays(fields: xr.Dataset, names: Sequence[str]) -> list[FloatArray]:
    dims = grid_of(fields).dims
    return [fields[name].transpose("time", *dims).to_numpy() for name in names]


def _stacked(
    fields: Sequence[FloatArray],
    transforms: Mapping[str, Pointwise],
    dtype: npt.DTypeLike = np.float64,
) -> FloatArray:
    """Transformed fields: (time, channel, *grid)."""
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


def _factor(normals: xr.Dataset) -> FloatArray:
    dims = ("channel", "other_channel")
    learned = normals["reference_factor"].transpose("degree", *dims).to_numpy()
    if "tail_factor" not in normals:
        return learned
    tail = normals["tail_factor"].transpose("tail_degree", *dims).to_numpy()
    return np.concatenate([learned, tail])


def _mixed(x: xr.DataArray, matrices: FloatArray) -> xr.DataArray:
    ordered = x.transpose(..., "channel", "coefficient").astype(np.float64)
    return ordered.copy(data=mix_channels(matrices, ordered.to_numpy()))


def _chunked_like(small: xr.DataArray, large: xr.DataArray) -> xr.DataArray:
    """`small` in the chunks of `large` when that is lazy."""
    return (
        small.chunk({dim: large.chunksizes[dim] for dim in small.dims if dim in large.chunksizes})
        if large.chunks
        else small
    )


def _scalars(array: xr.DataArray) -> list[Any]:
    """Coordinates without dimension: pressure levels and the like, true of one variable only."""
    return [name for name, coord in array.coords.items() if coord.ndim == 0]
