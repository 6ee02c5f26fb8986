"""How days follow each other: what the law of sequences knows, and what its draws do.

    past, days            days that a day is drawn given; held-out days of the ladder
    ladder                gain in log-density over days drawn by themselves [nats per day], with its
                          95 % interval: AR(1) of each coefficient, then the linear law by how many
                          days before are known, all exact; `model`: the learned law, J_G over the
                          last of them added
    certificate           J_G of the learned law per day, see flows/stages/verify/path_certificate
    lags, degrees         of the autocorrelations
    truth, model, floor   autocorrelation (lag, channel, degree) of held-out days, of drawn
                          sequences, and of training days in stretches as long as the held-out ones
    misses                {model, floor}: root mean square over degrees of the difference from the
                          truth, (lag, channel)
    channels, name        of variables; of the sequences
    weather               how weather goes on, see flows/stages/verify/weather
    forecasts             see flows/stages/verify/forecasts; absent for short test periods

All from `lags` to `weather` are absent where no sequences were drawn.
"""

from functools import reduce
from operator import add
from typing import Any

import numpy as np
import xarray as xr

from flows.config.schema import RunConfig
from flows.stages.preprocess.sequence_law import choice_of, sequence_law_of
from flows.stages.splits import course_of, in_courses, part_of
from flows.stages.verify.path_certificate import PathCertificate
from flows.stages.verify.weather import weather
from pipeline.arrays import FloatArray
from pipeline.gaussian.dynamics import SequenceLaw
from pipeline.gaussian.dynamics_fit import fit_alone
from pipeline.gaussian.lags import LagMoments, contiguous
from pipeline.scores.intervals import mean_interval
from pipeline.scores.temporal import autocorrelation, lag_products, misses
from storage.artifacts import publishing as artifacts
from storage.artifacts.layout import StoreLayout

LAGS = 30
MEMBERS, DAYS = 8, 1024  # of drawn sequences that are looked at


def in_time(
    config: RunConfig,
    layout: StoreLayout,
    normals: xr.Dataset,
    learned: PathCertificate | None = None,
) -> dict[str, Any] | None:
    """What the report says of sequences; None for a run of single days."""
    if not config.sequence.past:
        return None
    whitened = artifacts.open_published(layout, "whitened")["x"]
    truth = _stretches(in_courses(part_of(whitened, config.split, "test")))
    train = _stretches(in_courses(part_of(whitened, config.split, "train")))
    alone = _alone(normals, train)
    nats = learned.nats if learned is not None else None
    found = {"past": config.sequence.past, **_ladder(normals, truth, alone, nats)}
    if learned is not None:
        found["certificate"] = learned.summary
    told = config.generate.reported
    states = artifacts.published(layout, "states", told.name) if told else None
    if states is None:
        return found
    drawn = artifacts.open_artifact(states)["x"].isel(
        realization=slice(0, MEMBERS), time=slice(0, DAYS)
    )
    length = max(len(part) for part in truth)
    lags = min(LAGS, length - 1, drawn.sizes["time"] - 1)
    real = autocorrelation(lag_products(part, lags) for part in truth if len(part) > lags)
    model = autocorrelation(
        lag_products(drawn.isel(realization=number).values.astype(np.float64), lags)
        for number in range(drawn.sizes["realization"])
    )
    floors = [
        autocorrelation([lag_products(part[start : start + length], lags)])
        for part in train
        for start in range(0, len(part) - length + 1, length)
    ]
    missed = {"model": misses(model, real).tolist()}
    if floors:
        squares = [np.square(misses(floor, real)) for floor in floors]
        missed["floor"] = np.sqrt(np.mean(squares, axis=0)).tolist()
    series = [drawn[k].values.astype(np.float64) for k in range(drawn.sizes["realization"])]
    law = sequence_law_of(normals)
    return found | {
        "name": told.name if told else "",
        "weather": weather(normals, law, truth, train, series, learned is not None),
        "lags": lags,
        "degrees": int(normals.attrs["lmax"]),
        "channels": [str(name) for name in normals["channel"].values],
        "truth": _rounded(real),
        "model": _rounded(model),
        "misses": missed,
    }


def _alone(normals: xr.Dataset, train: list[FloatArray]) -> SequenceLaw:
    """AR(1) of each coefficient, as regular as the law of sequences."""
    law = sequence_law_of(normals)
    sums = [LagMoments.of(part, 1, degree=law.layout.degree) for part in train]
    return fit_alone(reduce(add, sums), choice_of(normals))


def _ladder(
    normals: xr.Dataset, truth: list[FloatArray], alone: SequenceLaw, learned: FloatArray | None
) -> dict[str, Any]:
    """Nats per day that each day before is worth, on days that have all of them.

    Args:
        learned: what the learned law adds to the linear one, (day,).
    """
    law = sequence_law_of(normals)
    parts = [part for part in truth if len(part) > law.past]

    def nats_of(one: SequenceLaw, days: int) -> FloatArray:
        found = [one.log_density(part, at_most=days)[law.past :] for part in parts]
        return np.concatenate(found)

    zero = nats_of(law, 0)
    nats = {"AR(1)": nats_of(alone, 1)}
    nats |= {str(days): nats_of(law, days) for days in range(1, law.past + 1)}
    if learned is not None:
        nats["model"] = nats[str(law.past)] + learned
    rungs = {}
    for name, each in nats.items():
        interval = mean_interval(each - zero)
        rungs[name] = {"nats": interval.value, "low": interval.low, "high": interval.high}
    return {"days": len(zero), "ladder": rungs}


def _stretches(part: xr.DataArray) -> list[FloatArray]:
    """The days of a split that follow each other."""
    days = part.values.astype(np.float64)
    return [days[stretch] for stretch in contiguous(course_of(part))]


def _rounded(values: FloatArray) -> list[Any]:
    rounded: list[Any] = np.round(values, 4).tolist()
    return rounded
