"""The `normals` artifact: what preprocess takes away from the fields, as labelled arrays.

normals.zarr, float64
    climatology(channel, season, *grid)  coefficients of 1, cos, sin, cos 2, sin 2 of the season
    scale(channel, *grid)  mask(channel, *grid: 1 = missing)
    transform(channel), bounds, rank_*   pointwise maps (pipeline/fields/pointwise_labels)
    remainder(channel, *grid)            standard deviation of scaled anomalies beyond the tail
    reference_spectrum(channel, degree)  data_spectrum(channel, other_channel, degree)
    reference_factor(degree, channel, other_channel)   Cholesky factor of the reference covariance
    tail_factor(tail_degree, channel, other_channel)   the same of the data beyond lmax, up to
                                         spectral.tail, where that is larger
    tail_regression, tail_root(entry, complex: 2)      their law given the degrees up to lmax
                                         (pipeline/gaussian/conditional_tail.py)
    compatibility_ratio, _kl, _fisher(channel, degree) data over reference power; Gaussian
                                         divergence and Fisher information up to each degree
    static(feature, coefficient)         standardised maps: climatology, log scale, source.static
    isotropic_variance, channels_*, mblock_*, eof_*    arrays of the baselines
    (pipeline/gaussian/baselines), and
    mblock_shrinkage, eof_choice         what the validation times chose
    covariate_mean, covariate_scale(covariate)         where the source has covariates
    attrs: lmax, samples, split, grid, variables (JSON: CF attributes by channel), reference (JSON),
        precision in which fields are whitened, float32_error that decided it
        (pipeline/fields/precision)
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from flows.config.schema import RunConfig
from pipeline.arrays import FloatArray
from pipeline.errors import UnusableData
from pipeline.fields.climatology import Climatology
from pipeline.fields.pointwise import Pointwise
from pipeline.fields.pointwise_labels import pointwise_variables
from pipeline.fields.standardisation import Normals
from pipeline.gaussian.conditional_tail import GaussianTail
from pipeline.gaussian.fit import BASELINES, Baseline, Moments, baseline_from_arrays, fit
from pipeline.sphere.coefficients import degrees, orders
from pipeline.sphere.fill import harmonic_fill
from pipeline.sphere.harmonics import plan
from pipeline.sphere.stacked import analysis
from storage.conventions.labels import grid_coordinates

FOUR_PI = 4.0 * np.pi
STORED_AS = {"isotropic": "isotropic", "channels": "channels", "m-block": "mblock", "eof": "eof"}
CHOSEN = {"m-block": "shrinkage", "eof": "choice"}


def normals_dataset(
    config: RunConfig,
    fields: xr.Dataset,
    transforms: Mapping[str, Pointwise],
    climatology: Climatology,
    anomalies: Normals,
    spectra: Mapping[str, FloatArray],
    verdict: Mapping[str, FloatArray],
) -> xr.Dataset:
    """The dataset, but for its baselines (`baseline_variables`).

    Args:
        anomalies: the same climatology as the transformation to scaled anomalies.
        spectra: `factor` (degree, channel, channel), `tail` (degrees beyond lmax, channel,
            channel), `data` (channel, channel, degree) and `remainder` (channel, *grid).
        verdict: `ratio`, `kl` and `fisher` (channel, degree).
    """
    grid, lmax, factor = anomalies.grid, config.spectral.lmax, spectra["factor"]
    shown = {
        "climatology": climatology.coefficients[0],
        "log_scale": np.log(climatology.scale),
    }
    maps = {
        f"{name}_{picture}": harmonic_fill(grid, mask)(values) if mask.any() else values
        for picture, all_values in shown.items()
        for name, values, mask in zip(transforms, all_values, climatology.mask, strict=True)
    }
    for name in config.source.static:
        if name not in fields:
            raise UnusableData(f"source.static: the fields have no map {name!r}")
        maps[name] = fields[name].transpose(*grid.dims).to_numpy().astype(np.float64)
    channels = np.asarray(anomalies.channels)
    coords: dict[str, Any] = {
        "channel": channels,
        "other_channel": channels,
        "degree": np.arange(lmax + 1),
        "coefficient_degree": ("coefficient", degrees(lmax)),
        "coefficient_order": ("coefficient", orders(lmax)),
        "feature": np.asarray(list(maps)),
    }
    tail = {}
    if len(spectra["tail"]):
        tail["tail_factor"] = (("tail_degree", "channel", "other_channel"), spectra["tail"])
        coords["tail_degree"] = lmax + 1 + np.arange(len(spectra["tail"]))
    coords |= grid_coordinates(fields)
    seasonal = climatology.coefficients.swapaxes(0, 1)
    static = np.stack([_standard_map(anomalies, values) for values in maps.values()])
    for pair in anomalies.pairs:  # a mean wind is no scalar either
        wind = climatology.coefficients[0][list(pair)]
        parts = analysis(grid, lmax, ((0, 1),), wind)
        static[list(pair)] = parts / np.sqrt(np.square(parts).sum(axis=1, keepdims=True) / FOUR_PI)
    if anomalies.pairs:
        coords["variable"] = ("channel", np.asarray(anomalies.variables))
    dataset = xr.Dataset(
        {
            "climatology": (("channel", "season", *grid.dims), seasonal),
            "scale": (("channel", *grid.dims), climatology.scale),
            "mask": (("channel", *grid.dims), climatology.mask.astype(np.int8)),
            "remainder": (("channel", *grid.dims), spectra["remainder"]),
            "reference_spectrum": (("channel", "degree"), np.square(factor).sum(axis=2).T),
            "reference_factor": (("degree", "channel", "other_channel"), factor),
            "data_spectrum": (("channel", "other_channel", "degree"), spectra["data"]),
            "static": (("feature", "coefficient"), static),
            **tail,
            **{f"compatibility_{n}": (("channel", "degree"), v) for n, v in verdict.items()},
        },
        coords=coords,
        attrs={
            "lmax": lmax,
            "grid": grid.describe(),
            "winds": json.dumps(anomalies.pairs),
            "split": json.dumps(config.subset("split.train", "split.validation")),
            "variables": json.dumps({name: _plain(fields[name].attrs) for name in transforms}),
        },
    )
    pointwise = pointwise_variables(
        dict(zip(channels, transforms.values(), strict=True)), grid.dims
    )
    return dataset.merge(pointwise, combine_attrs="override")


def tail_variables(arrays: Mapping[str, FloatArray]) -> dict[str, Any]:
    """Arrays of the Gaussian tail as variables; none if there is no tail."""
    return {
        f"tail_{part}": ((f"tail_{part}_0", "complex"), values) for part, values in arrays.items()
    }


def tail_of(normals: xr.Dataset) -> GaussianTail | None:
    """The law of the degrees beyond lmax, if some are drawn."""
    if "tail_degree" not in normals:
        return None
    return GaussianTail.from_arrays(
        channels=normals.sizes["channel"],
        lmax=int(normals.attrs["lmax"]),
        last=int(normals["tail_degree"][-1]),
        regression=normals["tail_regression"].values,
        root=normals["tail_root"].values,
    )


def baseline_variables(name: str, arrays: Mapping[str, FloatArray]) -> dict[str, Any]:
    """Arrays of a baseline as variables; those that are no maps get dimensions of their own."""
    variables: dict[str, Any] = {}
    for part, values in arrays.items():
        stored = f"{STORED_AS[name]}_{part}"
        dims = tuple(f"{stored}_{axis}" for axis in range(values.ndim))
        variables[stored] = (("channel", "coefficient") if part == "variance" else dims, values)
    return variables


def baseline_of(normals: xr.Dataset, name: str) -> Baseline:
    """The Gaussian law of this name, as it was fitted."""
    arrays = {part: normals[f"{STORED_AS[name]}_{part}"].values for part in BASELINES[name].parts}
    return baseline_from_arrays(name, arrays)


def refit(normals: xr.Dataset, name: str, moments: Moments) -> Baseline:
    """The law of this name fitted to other moments, with what the validation times chose."""
    part = CHOSEN.get(name)
    return fit(name, moments, {part: normals[f"{STORED_AS[name]}_{part}"].values} if part else {})


def _standard_map(anomalies: Normals, values: FloatArray) -> FloatArray:
    """Coefficients of a map brought to area mean 0 and variance 1; a constant map becomes 0."""
    weight = anomalies.grid.area / (4.0 * np.pi)
    values = np.where(np.isfinite(values), values, np.nanmean(values))
    centred = values - (weight * values).sum()
    variance = float((weight * centred**2).sum())
    standard = centred / np.sqrt(variance) if variance > 0.0 else centred
    return plan(anomalies.grid, anomalies.lmax, "float64").analysis(standard)


def _plain(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes that are text or numbers, as JSON takes them."""
    plain = {str(k): v.item() if isinstance(v, np.generic) else v for k, v in attributes.items()}
    return {k: v for k, v in plain.items() if isinstance(v, str | int | float)}
