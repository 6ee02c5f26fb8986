"""The `normals` artifact: what preprocess takes away from the fields, as labelled arrays.

normals.zarr, float64
    climatology(channel, season, *grid)  coefficients of 1, cos, sin, ... of the season
    scale(channel, *grid)  mask(channel, *grid: 1 = missing)
    log_scale(channel, change, *grid)    coefficients of the log of the scale on the terms after the
                                         first, where it follows them (pipeline/fields/scale)
    transform(channel), bounds, rank_*   pointwise maps (pipeline/fields/pointwise/labels)
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
    isotropic_variance, channels_*, mblock_*, averaged_*   arrays of the baselines
    (pipeline/gaussian/baselines), and
    mblock_shrinkage, averaged_across, averaged_towards    what the validation times chose
    covariate_mean, covariate_scale(covariate)         where the source has covariates
    attrs: lmax, block_degree (up to which laws know the degrees of an order together, at most the
        last one of the tail), samples, split,
        grid, variables (JSON: CF attributes by channel), reference (JSON),
        unseen (JSON: parts of the year without training times, pipeline/fields/seasons),
        precision in which fields are whitened, float32_error that decided it
        (pipeline/fields/precision)
"""

import xarray as xr

from pipeline.gaussian.conditional_tail import GaussianTail
from pipeline.gaussian.fit import BASELINES, Baseline, Moments, baseline_from_arrays, fit

STORED_AS = {
    "isotropic": "isotropic",
    "channels": "channels",
    "m-block": "mblock",
    "averaged": "averaged",
}
CHOSEN = {"m-block": ("shrinkage",), "averaged": ("across", "towards")}


def tail_of(normals: xr.Dataset) -> GaussianTail | None:
    """The law of the degrees beyond lmax, if some are drawn."""
    if "tail_degree" not in normals:
        return None
    return GaussianTail.from_arrays(
        channels=normals.sizes["channel"],
        lmax=int(normals.attrs["lmax"]),
        last=int(normals["tail_degree"][-1]),
        degree=max(int(normals.attrs["block_degree"]), int(normals.attrs["lmax"])),
        regression=normals["tail_regression"].values,
        root=normals["tail_root"].values,
    )


def baseline_of(normals: xr.Dataset, name: str) -> Baseline:
    """The Gaussian law of this name, as it was fitted."""
    arrays = {part: normals[f"{STORED_AS[name]}_{part}"].values for part in BASELINES[name].parts}
    return baseline_from_arrays(name, arrays)


def refit(normals: xr.Dataset, name: str, moments: Moments) -> Baseline:
    """The law of this name fitted to other moments, with what the validation times chose."""
    stored = {part: normals[f"{STORED_AS[name]}_{part}"].values for part in CHOSEN.get(name, ())}
    return fit(name, moments, stored)
