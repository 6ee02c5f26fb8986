"""The ladder of Gaussian laws of sequences, in held-out nats per day over independent days.

    python -m deploy.bench.sequences ROOT --train 2000-01-01:2002-12-31 \\
        --validation 2003-01-01:2003-12-31

reads the whitened fields of a run. Every law is fitted to the training periods (several `--train`
add up, no pair of days crosses their borders), its taper and shrinkage are chosen on the validation
period, and it is judged there or on `--test`, on the same days: those that have `PAST` days before
them. Prints a table; the m-block law of single days is the zero.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import reduce
from operator import add

import numpy as np
import torch
import xarray as xr

from pipeline.gaussian.dynamics_fit import REACHES, choose_sequence, fit_alone, fit_sequence
from pipeline.gaussian.fit import Moments, choose_shrinkage, fit_m_block
from pipeline.gaussian.lags import LagMoments, contiguous
from pipeline.scores.intervals import mean_interval
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout

PAST = 3


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("root")
    asked.add_argument("--train", action="append", required=True, help="first:last, inclusive")
    asked.add_argument("--validation", required=True)
    asked.add_argument("--test")
    asked.add_argument("--degree", type=int, help="block degree, lmax if left out")
    given = asked.parse_args()
    torch.set_num_threads(1)
    x = artifacts.open_published(StoreLayout(given.root), "whitened")["x"]
    train = reduce(add, (lags_of(x, period, given.degree) for period in given.train))
    validation = lags_of(x, given.validation, given.degree)
    judged = part_of(x, given.test or given.validation).values.astype(np.float64)
    zero = single_days(x, given.train, given.validation, judged)[PAST:]
    print(f"{train.samples} training days, judged on {len(judged) - PAST}", flush=True)
    for name, past, alone, tapered in rungs():
        began = time.monotonic()
        lags, chosen_on = train.up_to(past), validation.up_to(past)
        choice = choose_sequence(
            lags, chosen_on, alone=alone, reaches=REACHES if tapered else (np.inf,)
        )
        law = fit_alone(lags, choice) if alone else fit_sequence(lags, choice)
        seconds = time.monotonic() - began
        tell(name, law.log_density(judged)[PAST:] - zero, seconds, choice)


def rungs() -> list[tuple[str, int, bool, bool]]:
    """Name, days that are looked back, whether coefficients follow themselves alone, taper."""
    return [
        ("independent days, tapered", 0, False, True),
        ("AR(1) of each coefficient", 1, True, True),
        *((f"VAR({p}), shrunk only", p, False, False) for p in range(1, PAST + 1)),
        *((f"VAR({p})", p, False, True) for p in range(1, PAST + 1)),
    ]


def part_of(x: xr.DataArray, period: str) -> xr.DataArray:
    first, last = period.split(":")
    return x.sel(time=slice(first, last))


def lags_of(x: xr.DataArray, period: str, degree: int | None) -> LagMoments:
    part = part_of(x, period)
    return LagMoments.of_stretches(
        part.values.astype(np.float64), contiguous(part["time"].values), PAST, degree
    )


def single_days(
    x: xr.DataArray, train: list[str], validation: str, judged: np.ndarray
) -> np.ndarray:
    """Log-density of days under the m-block law that the project fits to single days."""
    sums = reduce(add, (Moments.of(part_of(x, period).values) for period in train))
    law = fit_m_block(sums, choose_shrinkage(sums, Moments.of(part_of(x, validation).values)))
    return law.log_density(torch.from_numpy(judged)).numpy()


def tell(name: str, gain: np.ndarray, seconds: float, choice: dict[str, np.ndarray]) -> None:
    found = mean_interval(gain)
    chosen = {key: np.round(value, 3).tolist() for key, value in choice.items()}
    line = f"{name:28s} {gain.mean():8.1f} [{found.low:.0f}, {found.high:.0f}] nats per day"
    print(f"{line}  ({seconds:.0f} s)", flush=True)
    print("    " + json.dumps(chosen), flush=True)


if __name__ == "__main__":
    main()
