"""What a training reads: whitened fields in stretches, each with the linear part of the others."""

import logging
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from flows.config.schema import Period, RunConfig, within
from flows.processes.machine import SERIES_SHARE, machine_memory
from flows.stages.conditions import condition_of
from flows.stages.preprocess.normals import refit
from flows.stages.trained_model import tensors_of
from pipeline.arrays import FloatArray
from pipeline.diffusion.score import Given
from pipeline.fields.standardisation import Normals
from pipeline.gaussian.fit import Baseline, Series, left_out
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from storage.training.batches import Batches

LOGGER = logging.getLogger("spherescore")
FOLDS = 4  # stretches of the training period, each trained on with the law of the others


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The fields of the validation period, their conditions and their times."""

    x: Tensor
    condition: Given
    times: NDArray[np.datetime64]

    @classmethod
    def of(cls, layout: StoreLayout, period: Period, device: torch.device) -> "HeldOut":
        fields = artifacts.open_published(layout, "whitened").sel(time=within(period))
        x, condition = tensors_of(fields)
        return cls(x=x.to(device), condition=condition.to(device), times=fields["time"].values)


def stretches_of(
    config: RunConfig,
    x: Series,
    condition: FloatArray,
    rows: FloatArray,
    baseline: Baseline,
    normals: xr.Dataset,
) -> list[tuple[Batches, Baseline]]:
    """Batches of each stretch of the training period, and the linear part fitted without it.

    Its fields are about the climatology of the others, too, where these tell one.
    """
    size, seed = config.train.batch, config.run.seed
    stretches: list[tuple[Batches, Baseline]] = []
    folds = left_out(x, rows, FOLDS)
    if not all(fold.about_others for fold in folds):
        LOGGER.info(
            "train: the climatology is not cross-fitted, as some quarter of the training period "
            "has a season that the other three lack"
        )
    for number, fold in enumerate(folds):
        fields, seasons = fold.departures(x, rows), condition[fold.stretch]
        batches = Batches(fields, seasons, seed=seed + number, batch=min(size, len(fields)))
        law = refit(normals, baseline.name, fold.moments)
        stretches.append((batches, law.to(baseline.variance.device)))
    return stretches


def training_series(layout: StoreLayout, period: Period) -> tuple[Series, FloatArray]:
    """Whitened fields of a period, (time, channel, coefficient), and their conditions.

    In memory if they take a quarter of it at most; else each batch is read when its turn comes.
    """
    whitened = artifacts.open_published(layout, "whitened").sel(time=within(period))
    x = whitened["x"]
    in_memory = x.nbytes <= machine_memory() * SERIES_SHARE
    return (x.values if in_memory else x), condition_of(whitened)


def climatology_terms(layout: StoreLayout, period: Period, normals: xr.Dataset) -> FloatArray:
    """The terms of the climatology at the times of a period, (time, term)."""
    whitened = artifacts.open_published(layout, "whitened").sel(time=within(period))
    return Normals.of(normals).rows(whitened)
