"""The best Gaussian law we know how to fit, beside the laws that a model can start from.

It is fitted to the training split and chosen on the validation split, on one worker; what comes
back is what it says of each test field, and in words what was chosen.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr

from flows.config.schema import RunConfig
from flows.stages.preprocess.block_sums import opened
from flows.stages.splits import part_of
from pipeline.arrays import FloatArray
from pipeline.gaussian.whole import FIELDS, WholeLaw, fields_at_once
from storage.artifacts import publishing as artifacts

WHOLE = "whole"  # its name in scores.json


@dataclass(frozen=True, kw_only=True)
class BestGaussian:
    """What the law says of the test fields.

    Attributes:
        log_density: [nats], (field,); None if it was not fitted.
        choice: what the validation split chose, or `why` it was not fitted; ready for JSON.
    """

    log_density: FloatArray | None
    choice: dict[str, Any]


def best_gaussian(
    config: RunConfig, whitened: artifacts.Published, kind: str = WHOLE
) -> BestGaussian:
    """Fit the law and ask it about the test period. Runs on a worker."""
    torch.set_num_threads(1)
    dataset = opened(whitened)
    most = fields_at_once(dataset["x"][0].size)
    train = part_of(dataset["x"], config.split, "train")
    if most < min(FIELDS, train.sizes["time"]):
        why = (
            f"{min(FIELDS, train.sizes['time'])} training fields of {train[0].size} coefficients "
            f"are more than {kind} covariances are made of here"
        )
        return BestGaussian(log_density=None, choice={"why": why})
    law = WholeLaw.fit(
        *_series(part_of(dataset, config.split, "train"), most),
        *_series(part_of(dataset, config.split, "validation"), most),
    )
    tested = part_of(dataset, config.split, "test")
    parts = [
        law.log_density(tested["x"][rows].values, tested["phase"][rows].values)
        for rows in (slice(k, k + FIELDS) for k in range(0, tested.sizes["time"], FIELDS))
    ]
    choice = {name: np.round(value, 3).tolist() for name, value in asdict(law.choice).items()}
    return BestGaussian(log_density=np.concatenate(parts), choice=choice)


def _series(known: xr.Dataset, most: int) -> tuple[FloatArray, FloatArray]:
    """Fields of a split, evenly thinned to what fits, and their season."""
    times = known.sizes["time"]
    kept = known.isel(time=np.linspace(0, times - 1, min(most, times)).round().astype(int))
    return kept["x"].values, kept["phase"].values
