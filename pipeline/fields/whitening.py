"""The one seam of labels and harmonics: physical fields to whitened coefficients and exactly back.

    x = L_l^-1 analysis((transform(value) - climatology) / scale),    L_l L_l^T = Q_l,

climatology and scale of the season and the trend of each time.

Whitened: x(time, channel, coefficient), float32, with coordinates phase(time) [rad], degree and
order(coefficient). L_l is diagonal, sqrt(q_l) of each channel, unless the channels of the reference
covary (joint.py); then x of a channel is what it has beyond the channels before it. What is taken
away comes from the `normals` artifact (schema: flows/stages/preprocess/normals), and `to_fields`
gives just that back. Masked cells are filled before the analysis, with fluctuations as large as
those of the data, and empty again afterwards. Both directions are
lazy on Dask-backed input and eager otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from pipeline.arrays import FloatArray
from pipeline.fields.climatology import season_phase
from pipeline.fields.pointwise.maps import Pointwise
from pipeline.fields.standardisation import Normals, factor_of, transformed
from pipeline.fields.trend import NO_TREND, PREFIX, Trend, climatology_rows
from pipeline.gaussian.channel_covariance import mix_channels
from pipeline.sphere.coefficients import degrees, lmax_of, orders
from pipeline.sphere.named_grids import grid_of

__all__ = [
    "color",
    "label_whitened",
    "stack_variables",
    "to_fields",
    "to_whitened",
    "whiten",
    "whitened_block",
]


def whiten(coefficients: xr.DataArray, normals: xr.Dataset) -> xr.DataArray:
    """x of coefficients of scaled anomalies, dims (..., channel, coefficient), in memory."""
    return _mixed(coefficients, np.linalg.inv(factor_of(normals)))


def color(x: xr.DataArray, normals: xr.Dataset) -> xr.DataArray:
    """Undo `whiten`."""
    return _mixed(x, factor_of(normals))


def stack_variables(fields: xr.Dataset, transforms: Mapping[str, Pointwise]) -> FloatArray:
    """Transformed variables in this order, in memory, float64: (time, channel, *grid).

    Raises:
        UnusableData: If a variable has values that its transform does not take.
    """
    return transformed(_arrays(fields, tuple(transforms)), transforms)


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
            remainder (pipeline/fields/remainder.py). For normals that were placed on another grid,
            with `noise_coefficient` instead. None: the fields have no scales beyond lmax.
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
    rows = climatology_rows(phase.to_numpy(), known.trend.given(phase), known.harmonics)
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
