"""The `normals` artifact, made of what was fitted; schema: flows/stages/preprocess/normals."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from flows.config.schema import RunConfig
from flows.stages.preprocess.climatology import Removed
from flows.stages.preprocess.laws import Laws, Observed
from flows.stages.preprocess.normals import STORED_AS
from pipeline.arrays import FloatArray
from pipeline.errors import UnusableData
from pipeline.fields.pointwise.labels import pointwise_variables
from pipeline.fields.standardisation import Normals
from pipeline.sphere.coefficients import degrees, orders
from pipeline.sphere.fill import harmonic_fill
from pipeline.sphere.harmonics import plan
from pipeline.sphere.named_grids import grid_of
from pipeline.sphere.stacked import analysis
from storage.conventions.labels import grid_coordinates

FOUR_PI = 4.0 * np.pi


def normals_dataset(
    config: RunConfig,
    fields: xr.Dataset,
    removed: Removed,
    anomalies: Normals,
    observed: Observed,
    laws: Laws,
) -> xr.Dataset:
    """The dataset, but for the trend and the covariates.

    Args:
        anomalies: what is removed, as the transformation to scaled anomalies.
    """
    grid, climatology = anomalies.grid, removed.climatology
    shown = _shown(config, fields, removed)
    static = np.stack([_standard_map(anomalies, values) for values in shown.values()])
    for pair in anomalies.pairs:  # a mean wind is no scalar either
        static[list(pair)] = _standard_wind(anomalies, climatology.coefficients[0][list(pair)])
    dataset = xr.Dataset(
        {
            "climatology": (
                ("channel", "season", *grid.dims),
                climatology.coefficients.swapaxes(0, 1),
            ),
            "scale": (("channel", *grid.dims), climatology.scale),
            "mask": (("channel", *grid.dims), climatology.mask.astype(np.int8)),
            "remainder": (("channel", *grid.dims), observed.remainder),
            "static": (("feature", "coefficient"), static),
            **_scale_variables(removed, grid.dims),
            **_law_variables(laws),
        },
        coords=_coordinates(anomalies, shown, len(laws.beyond)) | grid_coordinates(fields),
        attrs={
            "lmax": anomalies.lmax,
            "grid": grid.describe(),
            "winds": json.dumps(anomalies.pairs),
            "split": json.dumps(
                config.subset(
                    "split.train",
                    "split.validation",
                    "split.train_members",
                    "split.validation_members",
                )
            ),
            "variables": json.dumps(
                {name: _plain(fields[name].attrs) for name in removed.transforms}
            ),
        },
    )
    maps = dict(zip(anomalies.channels, removed.transforms.values(), strict=True))
    return dataset.merge(pointwise_variables(maps, grid.dims), combine_attrs="override")


def _scale_variables(removed: Removed, dims: tuple[str, ...]) -> dict[str, Any]:
    """How the scale changes in time; nothing where it does not."""
    if not len(removed.log_scale):
        return {}
    return {"log_scale": (("channel", "change", *dims), removed.log_scale.swapaxes(0, 1))}


def _shown(config: RunConfig, fields: xr.Dataset, removed: Removed) -> dict[str, FloatArray]:
    """The maps that a network sees, by name: what was removed, and those that the source has."""
    climatology, grid = removed.climatology, grid_of(fields)
    pictures = {
        "climatology": climatology.coefficients[0],
        "log_scale": np.log(climatology.scale),
    }
    shown = {
        f"{name}_{picture}": harmonic_fill(grid, mask)(values) if mask.any() else values
        for picture, all_values in pictures.items()
        for name, values, mask in zip(removed.transforms, all_values, climatology.mask, strict=True)
    }
    for name in config.source.static:
        if name not in fields:
            raise UnusableData(f"source.static: the fields have no map {name!r}")
        shown[name] = fields[name].transpose(*grid.dims).to_numpy().astype(np.float64)
    return shown


def _coordinates(
    anomalies: Normals, shown: Mapping[str, FloatArray], beyond: int
) -> dict[str, Any]:
    channels, lmax = np.asarray(anomalies.channels), anomalies.lmax
    coords: dict[str, Any] = {
        "channel": channels,
        "other_channel": channels,
        "degree": np.arange(lmax + 1),
        "coefficient_degree": ("coefficient", degrees(lmax)),
        "coefficient_order": ("coefficient", orders(lmax)),
        "feature": np.asarray(list(shown)),
    }
    if beyond:
        coords["tail_degree"] = lmax + 1 + np.arange(beyond)
    if anomalies.pairs:
        coords["variable"] = ("channel", np.asarray(anomalies.variables))
    return coords


def _law_variables(laws: Laws) -> dict[str, Any]:
    factor = laws.reference.factor
    variables: dict[str, Any] = {
        "reference_spectrum": (("channel", "degree"), np.square(factor).sum(axis=2).T),
        "reference_factor": (("degree", "channel", "other_channel"), factor),
        "data_spectrum": (("channel", "other_channel", "degree"), laws.data),
    }
    if len(laws.beyond):
        variables["tail_factor"] = (("tail_degree", "channel", "other_channel"), laws.beyond)
    for name, values in laws.reference.arrays().items():
        variables[f"compatibility_{name}"] = (("channel", "degree"), values)
    for name, arrays in laws.baselines.items():
        variables |= baseline_variables(name, arrays)
    return variables | tail_variables(laws.tail)


def tail_variables(arrays: Mapping[str, FloatArray]) -> dict[str, Any]:
    """Arrays of the Gaussian tail as variables; none if there is no tail."""
    return {
        f"tail_{part}": ((f"tail_{part}_0", "complex"), values) for part, values in arrays.items()
    }


def baseline_variables(name: str, arrays: Mapping[str, FloatArray]) -> dict[str, Any]:
    """Arrays of a baseline as variables; those that are no maps get dimensions of their own."""
    variables: dict[str, Any] = {}
    for part, values in arrays.items():
        stored = f"{STORED_AS[name]}_{part}"
        dims = tuple(f"{stored}_{axis}" for axis in range(values.ndim))
        variables[stored] = (("channel", "coefficient") if part == "variance" else dims, values)
    return variables


def _standard_map(anomalies: Normals, values: FloatArray) -> FloatArray:
    """Coefficients of a map brought to area mean 0 and variance 1; a constant map becomes 0."""
    weight = anomalies.grid.area / (4.0 * np.pi)
    values = np.where(np.isfinite(values), values, np.nanmean(values))
    centred = values - (weight * values).sum()
    variance = float((weight * centred**2).sum())
    standard = centred / np.sqrt(variance) if variance > 0.0 else centred
    return plan(anomalies.grid, anomalies.lmax, "float64").analysis(standard)


def _standard_wind(anomalies: Normals, wind: FloatArray) -> FloatArray:
    parts = analysis(anomalies.grid, anomalies.lmax, ((0, 1),), wind)
    mean_square = np.square(parts).sum(axis=1, keepdims=True) / FOUR_PI
    standard: FloatArray = parts / np.sqrt(mean_square)
    return standard


def _plain(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes that are text or numbers, as JSON takes them."""
    plain = {str(k): v.item() if isinstance(v, np.generic) else v for k, v in attributes.items()}
    return {k: v for k, v in plain.items() if isinstance(v, str | int | float)}
