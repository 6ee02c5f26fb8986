"""Inputs of few dates and many members, of seasons that were not learned, of leads and zeros."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tests.faults.inputs import add, netcdf, source
from tests.faults.meanings import BASE, config, instead
from tests.storage.imitations import days, regular
from tests.storage.sources.test_forecasts import HOURS

Made = dict[str, Any]
LABELS = ("r1", "r2", "r10", "r20")
BY_MEMBERS = """train = ["2000-01-01", "2000-01-20"]
validation = ["2000-01-01", "2000-01-20"]
test = ["2000-01-01", "2000-01-20"]
train_members = ["r1"]
validation_members = ["r2"]
test_members = ["r10", "r20"]
"""


def membered() -> xr.Dataset:
    """Twenty days of four members, in no order of their labels."""
    made = regular(20)
    parts = [made.ta + k for k in range(len(LABELS))]
    both = xr.concat(parts, "realization").transpose("time", "realization", ...)
    both.attrs = made.ta.attrs
    found = made.assign(ta=both)
    return found.assign_coords(realization=("realization", list(LABELS)))


def sampled(d: Path, samples: str) -> Made:
    return source(netcdf(d / "a.nc", membered()), samples=samples)


def by_members(old: str = "", new: str = "") -> Callable[[Path, random.Random], bytes]:
    """The configuration of a split by members, with something else in it."""

    def make(d: Path, r: random.Random) -> bytes:
        netcdf(d / "a.nc", membered())
        head, rest = BASE.split("[split]\n")
        tail = rest[rest.index("[spectral]") :]
        text = f'{head}samples = "realization"\n[split]\n{BY_MEMBERS.replace(old, new)}{tail}'
        text = text.replace("ROOT", str(d / "run")).replace("PATH", str(d / "a.nc"))
        return text.encode()

    return make


add("members that are samples", lambda d, r: sampled(d, "realization"), 0)
add("members of a name that there is not", lambda d, r: sampled(d, "number"), 10)
add("a split by members", by_members("\n", "\n"), 0)
add("a split by members that there are not", by_members('"r20"', '"r3"'), 10)
add("a member in two splits", by_members('"r10"', '"r1"'), 2)
add("one member alone to score on", by_members('"r10", "r20"', '"r10"'), 2)

add(
    "dates of a season that was not learned",
    config(instead('times = ["2000-01-16"]', 'times = ["2000-07-16"]')),
    10,
)
add(
    "dates of a season that was learned, of another year",
    config(instead('times = ["2000-01-16"]', 'times = ["2031-01-05"]')),
    0,
)
add(
    "more harmonics than a season determines",
    config(instead("lmax = 1", "lmax = 1\nharmonics = 2")),
    10,
)


def _overlapping(d: Path, **more: Any) -> Made:
    """An analysis, and the forecast of two days before."""
    paths = []
    for hours in (0.0, 48.0):
        made = regular(20)
        made["ta"] = (made.ta + hours / 48).assign_attrs(made.ta.attrs)
        started = days(20) - np.timedelta64(int(hours), "h")
        made = made.assign_coords(time=("time", started, made.time.attrs))
        made.time.attrs["standard_name"] = "forecast_reference_time"
        made = made.assign_coords(forecast_period=((), hours, HOURS))
        paths.append(netcdf(d / f"{hours:g}.nc", made))
    return source(*paths, **more)


add("an analysis beside its forecast", lambda d, r: _overlapping(d), 10)
add("an analysis that is chosen", lambda d, r: _overlapping(d, select={"forecast_period": 0}), 0)


def _zeros(d: Path, **more: Any) -> Made:
    """Two rows of cells that are 0 at all times, as land is in some records of the sea."""
    made = regular(20)
    made.ta.values[:, 1:3] = 0.0
    made.ta.attrs = {"units": "1", "long_name": "SST, degK"}
    return source(netcdf(d / "a.nc", made), **more)


add("zeros that stand for land", lambda d, r: _zeros(d, missing={"ta": 0.0}, fill="harmonic"), 0)
add("zeros of land without a policy", lambda d, r: _zeros(d, missing={"ta": 0.0}), 10)


def _series_in_months(d: Path) -> Made:
    units = {"units": "months since 1999-12-15", "standard_name": "time"}
    index = xr.Dataset(
        {"nino34": ("time", [0.5, 1.5, 2.5])}, coords={"time": ("time", [0.0, 1.0, 2.0], units)}
    )
    index.to_netcdf(d / "index.nc")
    return source(netcdf(d / "a.nc"), covariates={"nino34": str(d / "index.nc")})


add("a series in months since", lambda d, r: _series_in_months(d), 0)


def _of_360_days(d: Path) -> Made:
    times = xr.date_range("2000-01-01", periods=20, calendar="360_day", use_cftime=True)
    made = regular(20).drop_vars("time").assign_coords(time=times)
    return source(netcdf(d / "a.nc", made), period=["2000-01-01", "2000-12-31"])


add("a period to 31 December in a calendar of 360 days", lambda d, r: _of_360_days(d), 0)
