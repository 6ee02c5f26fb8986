"""Gaussian laws beside each other on validation fields: what each step of the ladder is worth.

    python -m deploy.bench.gaussian_laws RUN.toml

The run must have been preprocessed. Every law is fitted to the training split. What a law lets the
held-out fields choose is chosen on every second month of the validation split and measured on the
other months, and the other way round; the test split is not looked at. Prints log-likelihood over
the m-block law [nats per field], with a 95 % interval, and the seconds of a fit.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import xarray as xr

from flows.config.schema import read_config, within
from pipeline.arrays import FloatArray
from pipeline.gaussian import averaged, whole
from pipeline.gaussian.baselines import MBlock
from pipeline.gaussian.fit import BASELINES, Moments, choose, fit
from pipeline.scores.intervals import mean_interval
from storage.artifacts import publishing as artifacts

MONTH = 30  # days
GROUPS = 16  # of inflation
BLOCK_DEGREES = (10, 15, 21, 26)  # below lmax 31


@dataclass(frozen=True)
class Split:
    """Whitened fields and their season."""

    x: FloatArray
    phase: FloatArray

    @classmethod
    def of(cls, whitened: xr.Dataset) -> "Split":
        return cls(whitened["x"].values.astype(np.float64), whitened["phase"].values)

    def part(self, chosen: FloatArray) -> "Split":
        return Split(self.x[chosen], self.phase[chosen])


Law = Callable[[Split, Split, Split], FloatArray]  # train, chosen on, measured on: log density


def main() -> int:
    config = read_config(sys.argv[1])
    whitened = artifacts.open_published(config.layout, "whitened")
    train, validation = (
        Split.of(whitened.sel(time=within(period)))
        for period in (config.split.train, config.split.validation)
    )
    print(f"{len(train.x)} training fields {train.x.shape[1:]}, {len(validation.x)} held out")
    month = np.arange(len(validation.x)) // MONTH % 2
    reference = _measured(baseline("m-block"), train, validation, month)[0]
    print("| law | nats over the m-block law | 95 % | seconds |\n|---|---|---|---|")
    for name, law in laws().items():
        density, seconds = _measured(law, train, validation, month)
        found = mean_interval(density - reference, season=validation.phase)
        interval = f"{found.low:.1f} to {found.high:.1f}"
        print(f"| {name} | {found.value:+.1f} | {interval} | {seconds:.0f} |", flush=True)
    return 0


def laws() -> Mapping[str, Law]:
    """The ladder, from the least to all of it; what it lets be chosen is named."""
    none: dict[str, Any] = {"ACROSS": (0.0,), "SEASONAL": (0.0,), "OWN": (1.0,), "SAMPLE": (0.0,)}
    across = {**none, "ACROSS": averaged.ACROSS}
    sample = {"OWN": whole.OWN, "SAMPLE": whole.SAMPLE}
    return {
        **{name: baseline(name) for name in BASELINES if name != "m-block"},
        **{
            f"{name}, block degree {degree}": baseline(name, degree)
            for name in ("m-block", "averaged")
            for degree in BLOCK_DEGREES
        },
        f"m-block, {GROUPS} inflation factors": inflated,
        "averaged, by season": wholes(**across | {"SEASONAL": whole.SEASONAL}),
        "m-block and the whole covariance": wholes(**none | sample),
        "averaged, and the whole covariance": wholes(**across | sample),
        "averaged, by season, and the whole covariance": wholes(),
    }


def baseline(name: str, degree: int | None = None) -> Law:
    def density(train: Split, chosen: Split, measured: Split) -> FloatArray:
        moments = Moments.of(train.x, degree)
        law = fit(name, moments, choose(name, moments, Moments.of(chosen.x, degree)))
        return law.log_density(torch.from_numpy(measured.x)).numpy()

    return density


def inflated(train: Split, chosen: Split, measured: Split) -> FloatArray:
    """Variances times factors that the held-out fields ask for, by place among all variances."""
    moments = Moments.of(train.x)
    law = fit("m-block", moments, choose("m-block", moments, Moments.of(chosen.x)))
    assert isinstance(law, MBlock)
    s = law.variance.numpy()
    place = s.ravel().argsort().argsort().reshape(s.shape) * GROUPS // s.size
    asked = law.rotate(torch.from_numpy(chosen.x)).square().mean(dim=0).numpy() / s
    factor = np.bincount(place.ravel(), asked.ravel()) / np.bincount(place.ravel())
    wider = MBlock(law.vectors.numpy(), s * np.maximum(factor, 1e-3)[place])
    return wider.log_density(torch.from_numpy(measured.x)).numpy()


def wholes(**grids: Any) -> Law:
    def density(train: Split, chosen: Split, measured: Split) -> FloatArray:
        with _grids(grids):
            law = whole.WholeLaw.fit(train.x, train.phase, chosen.x, chosen.phase)
        return law.log_density(measured.x, measured.phase)

    return density


@contextmanager
def _grids(grids: Mapping[str, Any]) -> Iterator[None]:
    orders = {"ACROSS": grids.get("ACROSS", averaged.ACROSS)}
    seasons = {"SEASONAL": whole.SEASONAL, **grids}
    seasons.pop("ACROSS", None)
    with patch.multiple(averaged, **orders), patch.multiple(whole, **seasons):
        yield


def _measured(
    law: Law, train: Split, held_out: Split, month: FloatArray
) -> tuple[FloatArray, float]:
    """Log density of each held-out field, chosen on the other months; seconds of one fit."""
    began, density = time.monotonic(), np.empty(len(held_out.x))
    for half in (0, 1):
        chosen, measured = held_out.part(month != half), held_out.part(month == half)
        density[month == half] = law(train, chosen, measured)
    return density, (time.monotonic() - began) / 2


if __name__ == "__main__":
    sys.exit(main())
