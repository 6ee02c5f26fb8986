"""What a training reads: whitened fields in stretches, each with the linear part of the others."""

import logging
from dataclasses import dataclass, replace

import torch
import xarray as xr
from torch import Tensor

from flows.config.schema import RunConfig, Split
from flows.processes.machine import SERIES_SHARE, machine_memory
from flows.stages.conditions import condition_of
from flows.stages.preprocess.normals import refit
from flows.stages.splits import Name, in_courses, part_of, witnesses
from flows.stages.train.judging import spread_over
from flows.stages.trained_model import tensors_of
from pipeline.arrays import FloatArray
from pipeline.diffusion.score import Given
from pipeline.fields.standardisation import Normals
from pipeline.gaussian.fit import Baseline, Series, left_out
from pipeline.scores.intervals import Witnesses
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from storage.training.batches import Batches

LOGGER = logging.getLogger("spherescore")
FOLDS = 4  # stretches of the training period, each trained on with the law of the others


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The fields of the validation split, their conditions, and their independent witnesses."""

    x: Tensor
    condition: Given
    witnesses: Witnesses

    @classmethod
    def of(cls, layout: StoreLayout, split: Split, device: torch.device) -> "HeldOut":
        whitened = artifacts.open_published(layout, "whitened")
        fields = part_of(whitened, split, "validation")
        x, condition = tensors_of(fields)
        return cls(
            x=x.to(device), condition=condition.to(device), witnesses=witnesses(fields, split)
        )

    def spread(self, number: int) -> "HeldOut":
        """So many of the fields, evenly spread over them."""
        rows = spread_over(number, len(self.x))
        if len(rows) == len(self.x):
            return self
        among = replace(self.witnesses, of=self.witnesses.of[rows])
        return HeldOut(x=self.x[rows], condition=self.condition[rows], witnesses=among)


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
    about_others = []
    degree = min(int(normals.attrs["block_degree"]), int(normals.attrs["lmax"]))
    # One fold after the other: each holds the moments of the others until its law is fitted.
    for number, fold in enumerate(left_out(x, rows, FOLDS, degree)):
        about_others.append(fold.about_others)
        fields, seasons = fold.departures(x, rows), condition[fold.stretch]
        batches = Batches(fields, seasons, seed=seed + number, batch=min(size, len(fields)))
        law = refit(normals, baseline.name, fold.moments)
        stretches.append((batches, law.to(baseline.variance.device)))
    if not all(about_others):
        LOGGER.info(
            "train: the climatology is not cross-fitted, as some quarter of the training fields "
            "has a season that the other three lack; more dates, or split.train_members where "
            "there are members, would mend that"
        )
    return stretches


def training_series(
    layout: StoreLayout, split: Split, name: Name = "train", *, courses: bool = False
) -> tuple[Series, FloatArray]:
    """Whitened fields of a split, (time, channel, coefficient), and their conditions.

    In memory if they take a quarter of it at most; else each batch is read when its turn comes.

    Args:
        courses: Scenario after scenario, where there are some; else in order of time.
    """
    whitened = _learned(layout, split, name, courses)
    x = whitened["x"]
    in_memory = x.nbytes <= machine_memory() * SERIES_SHARE
    return (x.values if in_memory else x), condition_of(whitened)


def climatology_terms(
    layout: StoreLayout, split: Split, normals: xr.Dataset, *, courses: bool = False
) -> FloatArray:
    """The terms of the climatology at the times that are learned from, (time, term).

    Args:
        courses: as of `training_series`.
    """
    return Normals.of(normals).rows(_learned(layout, split, "train", courses))


def _learned(layout: StoreLayout, split: Split, name: Name, courses: bool) -> xr.Dataset:
    part = part_of(artifacts.open_published(layout, "whitened"), split, name)
    return in_courses(part) if courses else part
