"""What a training of sequences reads: days given the days before them, in folds of time.

Neither pairs of days nor what a day is given cross a gap, the border of a split or that of a fold,
or go from one scenario to another.
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from flows.config.schema import RunConfig, Split
from flows.stages.preprocess.sequence_law import choice_of, sequence_law_of
from flows.stages.splits import Name, course_of, in_courses, part_of
from flows.stages.train.fields import FOLDS, HeldOut, training_series
from flows.stages.trained_model import taken
from pipeline.arrays import FloatArray
from pipeline.diffusion.score import Given
from pipeline.gaussian.baselines import Baseline
from pipeline.gaussian.dynamics import SequenceLaw
from pipeline.gaussian.fit import Series
from pipeline.gaussian.given_past import (
    Innovations,
    days_with_past,
    law_as_chosen,
    sequences_left_out,
)
from pipeline.gaussian.lags import contiguous
from pipeline.scores.intervals import Witnesses
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout
from storage.training.batches import Batches

LOGGER = logging.getLogger("spherescore")
HELD_SEQUENCES, HELD_DAYS = 16, 40  # that a finished training runs to hold their variance


@dataclass(frozen=True, kw_only=True)
class Pasts:
    """Days of a period with the law of sequences, scenario after scenario.

    Attributes:
        course: which days follow each other (flows/stages/splits.course_of).
    """

    x: Series
    condition: FloatArray
    times: NDArray[np.datetime64]
    course: NDArray[np.generic]
    law: SequenceLaw

    @classmethod
    def of(cls, layout: StoreLayout, split: Split, name: Name, normals: xr.Dataset) -> "Pasts":
        x, condition = training_series(layout, split, name, courses=True)
        whitened = artifacts.open_published(layout, "whitened")
        time = in_courses(part_of(whitened["time"], split, name))
        law = sequence_law_of(normals)
        course = course_of(time)
        return cls(x=x, condition=condition, times=time.values, course=course, law=law)

    @property
    def innovations(self) -> Innovations:
        return Innovations(self.x, days_with_past(self.course, self.law.past), self.law)

    def held_out(self, device: torch.device) -> HeldOut:
        """All days that have their past."""
        series = self.innovations
        x, condition = taken(series[:], self.condition[series.days], device)
        return HeldOut(x=x, condition=condition, witnesses=Witnesses(of=self.times[series.days]))

    def spread(self, number: int, device: torch.device) -> Given:
        """What days spread over the period are given."""
        series = self.innovations
        chosen = np.linspace(0, len(series) - 1, number).round().astype(int)
        return taken(series[chosen], self.condition[series.days[chosen]], device)[1]

    def begun(self, device: torch.device) -> tuple[FloatArray, torch.Tensor]:
        """Days that sequences go on from, and the features of the days that follow in the data."""
        days = days_with_past(self.course, self.law.past)
        chosen = days[np.linspace(0, len(days) - 1, HELD_SEQUENCES).round().astype(int)]
        given = Innovations(self.x, chosen, self.law)[:]
        ends = np.array([part.stop - 1 for part in contiguous(self.course)])
        last = ends[np.searchsorted(ends, chosen)]
        after = np.minimum(chosen + np.arange(HELD_DAYS)[:, None], last)
        features = torch.from_numpy(self.condition[after]).to(device)
        return given[:, :1:-1].astype(np.float64), features


def sequence_stretches(
    config: RunConfig, pasts: Pasts, rows: FloatArray, normals: xr.Dataset, device: torch.device
) -> list[tuple[Batches, Baseline]]:
    """Batches of each fold of the training period, and the innovations of the others' law."""
    law, size, seed = pasts.law, config.train.batch, config.run.seed
    fit = law_as_chosen(choice_of(normals))
    lags = law.past, law.layout.degree
    folds = sequences_left_out(pasts.x, rows, pasts.course, FOLDS, fit, lags)
    if not all(fold.about_others for fold in folds):
        LOGGER.info(
            "train: the climatology is not cross-fitted, as some quarter of the training period "
            "has a season that the other three lack"
        )
    edges = np.linspace(0, len(pasts.times), FOLDS + 1).astype(int)
    stretches: list[tuple[Batches, Baseline]] = []
    for number, fold in enumerate(folds):
        features = pasts.condition[edges[number] + fold.series.days]
        few = min(size, len(fold.series))
        batches = Batches(fold.series, features, seed=seed + number, batch=few)
        stretches.append((batches, fold.law.innovations[law.past].to(device)))
    return stretches
