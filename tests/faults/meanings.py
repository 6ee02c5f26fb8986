"""Inputs that are well formed and wrong: values, times, grids, series, configurations."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from tests.faults.inputs import PLAIN2, PLAIN3, add, case, netcdf, source, store
from tests.storage.imitations import regular

Change = Callable[[xr.Dataset], xr.Dataset]


def changed(change: Change) -> Callable[[Path, random.Random], Any]:
    return lambda d, r: source(netcdf(d / "a.nc", change(regular(20))))


def valued(value: float, where: Any = (3, 1, 2)) -> Change:
    def change(made: xr.Dataset) -> xr.Dataset:
        made.ta.values[where] = value
        return made

    return change


def timed(times: Any, **attrs: Any) -> Change:
    def change(made: xr.Dataset) -> xr.Dataset:
        numbers = np.asarray(times, dtype=float)
        known = {"units": "days since 2000-01-01", "standard_name": "time", **attrs}
        made = made.isel(time=slice(0, numbers.size))
        return made.assign_coords(time=("time", numbers, known))

    return change


def placed(**coords: Any) -> Change:
    def change(made: xr.Dataset) -> xr.Dataset:
        for name, values in coords.items():
            made = made.assign_coords({name: (name, np.asarray(values), made[name].attrs)})
        return made

    return change


def without(*attrs: str) -> Change:
    def change(made: xr.Dataset) -> xr.Dataset:
        for name in attrs:
            made.ta.attrs.pop(name, None)
        return made

    return change


def _object(made: xr.Dataset) -> xr.Dataset:
    made["ta"] = made.ta.astype(str)
    return made


def _curvilinear(made: xr.Dataset) -> xr.Dataset:
    lat, lon = np.meshgrid(made.lat.values + 0.5, made.lon.values, indexing="ij")
    lat += 0.1 * np.sin(np.deg2rad(lon))
    found = made.drop_vars(["lat", "lon"]).rename(lat="y", lon="x")
    return found.assign_coords(
        lat=(("y", "x"), lat, {"units": "degrees_north"}),
        lon=(("y", "x"), lon, {"units": "degrees_east"}),
    )


def _stations(made: xr.Dataset) -> xr.Dataset:
    return made.stack(station=("lat", "lon")).reset_index("station")


DAYS = np.arange(20.0)
WRONG: dict[str, Change] = {
    "NaN everywhere": lambda m: m.assign(ta=m.ta.where(False)),
    "one value is missing": valued(np.nan),
    "one value is infinite": valued(np.inf),
    "one value is minus infinity": valued(-np.inf),
    "an undeclared 9.97e36": valued(9.969209968386869e36),
    "an undeclared 1e20": valued(1e20),
    "an undeclared -999": valued(-999.0),
    "an undeclared -9999 in a map": valued(-9999.0, (slice(None), 0, 0)),
    "absolute zero": valued(0.0),
    "a value of another unit": valued(15.0),
    "the largest float": valued(3.4e38),
    "times that repeat with other values": timed(np.where(DAYS == 7, 6.0, DAYS)),
    "a gap in time": timed(np.where(DAYS > 7, DAYS + 30, DAYS)),
    "a time that is NaN": timed(np.where(DAYS == 7, np.nan, DAYS)),
    "a time that is infinite": timed(np.where(DAYS == 7, np.inf, DAYS)),
    "a time of 1e30": timed(np.where(DAYS == 7, 1e30, DAYS)),
    "times without units": timed(DAYS, units=""),
    "times since nothing": timed(DAYS, units="days since yesterday"),
    "times since the month 13": timed(DAYS, units="days since 2000-13-01"),
    "times of another calendar": timed(DAYS, calendar="mayan"),
    "parts of months": timed(DAYS + 0.3, units="months since 2000-01-01"),
    "times since the year 0": timed(DAYS, units="days since 0000-01-01"),
    "no time": lambda m: m.isel(time=slice(0, 0)),
    "no dimension of time": lambda m: m.isel(time=0, drop=True),
    "a region": placed(lat=[10.0, 11, 12, 13], lon=np.arange(8.0)),
    "half of the globe": placed(lon=np.arange(8) * 22.5),
    "latitudes beyond the poles": placed(lat=[-100.0, -30, 30, 100]),
    "latitudes that repeat": placed(lat=[-60.0, -60, 20, 60]),
    "latitudes out of order": placed(lat=[-60.0, 20, -20, 60]),
    "latitudes that are NaN": placed(lat=[np.nan] * 4),
    "longitudes out of order": placed(lon=np.array([0, 90, 45, 135, 180, 225, 270, 315.0])),
    "longitudes that are infinite": placed(lon=np.full(8, np.inf)),
    "longitudes that all are 0": placed(lon=np.zeros(8)),
    "a curvilinear grid": _curvilinear,
    "a list of stations": _stations,
    "no units": without("units"),
    "text in place of numbers": _object,
    "no latitudes": lambda m: m.isel(lat=slice(0, 0)),
    "no such variable": lambda m: m.rename(ta="tas"),
    "a single latitude": lambda m: m.isel(lat=slice(0, 1)),
}
for _name, _change in WRONG.items():
    add(_name, changed(_change), 10)


def two(first: Change, second: Change) -> Callable[[Path, random.Random], Any]:
    def make(d: Path, r: random.Random) -> Any:
        netcdf(d / "0.nc", first(regular(20)))
        netcdf(d / "1.nc", second(regular(20, "2000-01-21", seed=1)))
        return source(d / "*.nc")

    return make


def _same(made: xr.Dataset) -> xr.Dataset:
    return made


def _celsius(made: xr.Dataset) -> xr.Dataset:
    made["ta"] = (made.ta - 273.15).assign_attrs({**made.ta.attrs, "units": "degC"})
    return made


def _as(unit: str) -> Change:
    def change(made: xr.Dataset) -> xr.Dataset:
        made.ta.attrs["units"] = unit
        return made

    return change


add("a unit that no other file has", two(_same, _as("furlong")), 10)
add("Celsius said to be Kelvin in one file", two(_same, lambda m: _celsius(m).pipe(_as("K"))), 10)
add("a grid that no other file has", two(_same, lambda m: m.isel(lat=slice(0, 3))), 10)
add("calendars that differ", two(_same, timed(DAYS + 20, calendar="360_day")), 10)
add("a file that overlaps with other values", two(_same, timed(DAYS + 10)), 10)
add("a file of nothing", two(_same, lambda m: m.isel(time=slice(0, 0))), 10)
add("a file without the variable", two(_same, lambda m: m.rename(ta="other")), 10)

add("Celsius in one file", two(_same, _celsius), 0)
add("files out of order", two(timed(DAYS + 20), timed(DAYS)), 0)
add("latitudes that descend", changed(lambda m: m.isel(lat=slice(None, None, -1))), 0)
add("times that descend", changed(lambda m: m.isel(time=slice(None, None, -1))), 0)
add("longitudes from -180", changed(placed(lon=np.arange(8) * 45.0 - 180)), 0)
add("the same value everywhere", changed(lambda m: m.assign(ta=m.ta * 0 + 280)), 0)
add("one time", changed(lambda m: m.isel(time=slice(0, 1))), 10)
add("a calendar of 360 days", changed(timed(DAYS, calendar="360_day")), 0)
add("whole months", changed(timed(DAYS, units="months since 2000-01-01")), 10)  # no split
add("a repeated time with equal values", two(_same, lambda m: regular(20)), 0)


@case("a declared fill value", 0)
def _(d: Path, r: random.Random) -> Any:
    made = valued(-999.0, (slice(None), 0, 0))(regular(20))
    return source(netcdf(d / "a.nc", made), missing={"ta": -999.0}, fill="harmonic")


@case("a declared gap", 0)
def _(d: Path, r: random.Random) -> Any:
    made = timed(np.where(DAYS > 7, DAYS + 2, DAYS))(regular(20))
    return source(netcdf(d / "a.nc", made), allow_gaps=True)


@case("a name with an umlaut and a blank", 0)
def _(d: Path, r: random.Random) -> Any:
    return source(netcdf(d / "Größe 1.nc"))


def _codecs3(d: Path, **encoding: Any) -> Any:
    return source(store(d / "a.zarr", encoding={"ta": encoding}, **PLAIN3))


@case("Zarr 3 in shards", 0)
def _(d: Path, r: random.Random) -> Any:
    return _codecs3(d, chunks=(1, 4, 8), shards=(5, 4, 8))


@case("Zarr 3 by gzip", 0)
def _(d: Path, r: random.Random) -> Any:
    from zarr.codecs import Crc32cCodec, GzipCodec

    return _codecs3(d, compressors=[GzipCodec(), Crc32cCodec()])


@case("Zarr 3 by Blosc", 0)
def _(d: Path, r: random.Random) -> Any:
    from zarr.codecs import BloscCodec

    return _codecs3(d, compressors=BloscCodec())


@case("Zarr 2 with filters", 0)
def _(d: Path, r: random.Random) -> Any:
    import numcodecs as n

    packed = [n.FixedScaleOffset(offset=280, scale=100, dtype="<f4", astype="<i2"), n.Shuffle(2)]
    return source(store(d / "a.zarr", encoding={"ta": {"filters": packed}}, **PLAIN2))


for _kind in ("zlib", "zstd", "bzip2"):
    add(
        f"NetCDF4 packed by {_kind}",
        lambda d, r, k=_kind: source(
            netcdf(d / "a.nc", encoding={"ta": {"compression": k, "chunksizes": (5, 4, 8)}})
        ),
        0,
    )
add(
    "NetCDF4 with checksums",
    lambda d, r: source(netcdf(d / "a.nc", encoding={"ta": {"fletcher32": True}})),
    0,
)
add("NetCDF4 in a group", lambda d, r: source(netcdf(d / "a.nc", group="G"), group="G"), 0)


# ------------------------------------------------------------------ what a time stands for


def ended(first: float = 0.0, instant: bool = False) -> Change:
    """Daily means stamped at the end of their bounds, with an instant before them."""

    def change(made: xr.Dataset) -> xr.Dataset:
        stop = first + np.arange(made.sizes["time"]) + (not instant)
        made = timed(stop, bounds="time_bnds")(made)
        start = np.maximum(stop - 1, first)
        return made.assign(time_bnds=(("time", "nv"), np.stack([start, stop], axis=1)))

    return change


def cubed(made: xr.Dataset, units: str = "hours") -> xr.Dataset:
    """Twenty starts with two leads."""
    both = xr.concat([made, made + 1], "lead_time").transpose("time", "lead_time", ...)
    both["ta"].attrs = made.ta.attrs
    return both.assign_coords(lead_time=("lead_time", [0, 6], {"units": units} if units else {}))


def texts(*words: str) -> Change:
    def change(made: xr.Dataset) -> xr.Dataset:
        text = [f"2000-01-{day + 1:02d}T12:00:00" for day in range(20)]
        text[: len(words)] = words
        return made.assign_coords(time=("time", np.array(text, dtype="S19")))

    return change


def hollow(*places: int, cells: Any = slice(None)) -> Change:
    def change(made: xr.Dataset) -> xr.Dataset:
        made.ta.values[list(places), cells] = np.nan
        return made

    return change


def declared(change: Change, **more: Any) -> Callable[[Path, random.Random], Any]:
    return lambda d, r: source(netcdf(d / "a.nc", change(regular(20))), **more)


def _unwritten(made: xr.Dataset) -> xr.Dataset:
    return placed(lon=np.where(np.arange(8) == 3, 9.97e36, np.arange(8) * 45.0))(made)


add("days at the end of their bounds", changed(ended()), 0)
add(
    "an instant before days that are stamped at their end",
    lambda d, r: source(netcdf(d / "a.nc", ended(instant=True)(regular(21)))),
    0,
)
add("days stamped at their end, undeclared", two(ended(), timed(DAYS + 21)), 10)
add("a day twice, two hours apart", two(_same, timed(DAYS + 12 + 1 / 12)), 10)
add("hours in float32", changed(lambda m: _in_float32(m)), 0)
add("a lead that is selected", declared(cubed, select={"lead_time": 6}), 0)
add("a lead without a unit", declared(lambda m: cubed(m, ""), select={"lead_time": 6}), 10)
add("times as text", changed(texts()), 0)
add("times as text that is no date", changed(texts("soon")), 10)
add("a calendar of THIRTY_DAY_MONTHS", changed(timed(DAYS, calendar="THIRTY_DAY_MONTHS")), 0)
add("a time that was never written", changed(timed(np.where(DAYS == 7, 9.97e36, DAYS))), 10)
add("a longitude that was never written", changed(_unwritten), 10)
add("empty maps", changed(hollow(3, 4)), 10)
add("empty maps with a fill", declared(hollow(3, 4), fill=0.0), 10)
add("empty maps that are dropped", declared(hollow(3, 4), drop=["2000-01-04/2000-01-05"]), 0)
add("empty maps, all dropped", declared(hollow(3, 7), drop=["empty"]), 0)
add("a fill that no temperature has", declared(hollow(3, cells=0), fill=0.0), 10)
add("a mask that moves, masked", declared(hollow(3, cells=0), fill="mask-ever"), 0)


def _in_float32(made: xr.Dataset) -> xr.Dataset:
    hours = 36500 + np.arange(20) + np.arange(20) % 2 / 24
    found = timed(hours, units="days since 1900-01-25")(made)
    return found.assign_coords(time=("time", hours.astype("f4"), found.time.attrs))


# ------------------------------------------------------------------ series along time


def series(d: Path, text: str | bytes, name: str = "index.csv") -> Any:
    path = d / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return source(netcdf(d / "a.nc"), covariates={"nino34": str(path)})


ROWS = "time,nino34\n2000-01-01,0.5\n2000-01-10,1.5\n2000-02-01,2.5\n"
add("a series", lambda d, r: series(d, ROWS), 0)
for _name, _text in {
    "is empty": "",
    "has a head only": "time,nino34\n",
    "has no times": "nino34\n1\n2\n",
    "has another name": "time,nino12\n2000-01-01,1\n",
    "has a word among its values": ROWS.replace("1.5", "warm"),
    "lacks a value": ROWS.replace("1.5", ""),
    "has an infinite value": ROWS.replace("1.5", "inf"),
    "has no date among its times": ROWS.replace("2000-01-10", "soon"),
    "has the month 13": ROWS.replace("2000-01-10", "2000-13-10"),
    "lacks a time": ROWS.replace("2000-01-10", ""),
    "ends too early": "time,nino34\n1990-01-01,1\n1990-02-01,2\n",
    "has a quote that does not end": ROWS.replace("1.5", '"1.5'),
    "has more fields in a row": ROWS.replace("1.5", "1.5,7,8,9"),
    "has zeros between its letters": ROWS.encode("utf-16"),
    "is not text": bytes(range(256)),
    "has the same time twice with other values": ROWS + "2000-01-10,9.5\n",
    "has a value of 400 digits": ROWS.replace("1.5", "1" * 400),
    "has complex values": ROWS.replace("1.5", "1+2j"),
}.items():
    add(f"a series that {_name}", lambda d, r, t=_text: series(d, t), 10)
add("a series that is a pickle", lambda d, r: series(d, b"\x80\x05]\x94.", "index.pkl"), 10)
add("a series at an address", lambda d, r: _covariate(d, "http://user:pw@example.org/a.csv"), 60)
add("a series at another address", lambda d, r: _covariate(d, "dods://example.org/a.nc"), 10)
add("a series that is a device", lambda d, r: _covariate(d, "/dev/zero"), 60)
add("a series that is not there", lambda d, r: _covariate(d, str(d / "none.csv")), 10)


@case("a series that is a pipe", 60)
def _(d: Path, r: random.Random) -> Any:
    os.mkfifo(d / "index.csv")
    return _covariate(d, str(d / "index.csv"))


@case("a series in NetCDF", 0)
def _(d: Path, r: random.Random) -> Any:
    index = regular(40).ta.mean(("lat", "lon")).to_dataset(name="nino34")
    index.to_netcdf(d / "index.nc")
    return _covariate(d, str(d / "index.nc"))


def _covariate(d: Path, path: str) -> Any:
    return source(netcdf(d / "a.nc"), covariates={"nino34": path})


# ------------------------------------------------------------------ configurations

BASE = """[run]
root = "ROOT"
[source]
paths = ["PATH"]
variables = ["ta"]
[split]
train = ["2000-01-01", "2000-01-10"]
validation = ["2000-01-11", "2000-01-15"]
test = ["2000-01-16", "2000-01-20"]
[spectral]
lmax = 1
[train]
steps = 2
[generate]
realizations = 2
times = ["2000-01-16"]
[cluster]
workers = 1
"""


def config(change: Callable[[str], str | bytes]) -> Callable[[Path, random.Random], Any]:
    def make(d: Path, r: random.Random) -> bytes:
        netcdf(d / "a.nc")
        text = change(BASE)
        raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        return raw.replace(b"ROOT", str(d / "run").encode()).replace(
            b"PATH", str(d / "a.nc").encode()
        )

    return make


def instead(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return change


def _later_test(text: str) -> str:
    return text.replace("2000-01-16", "2010-01-16").replace("2000-01-20", "2010-01-20")


add("a configuration", config(lambda t: t), 0)
add("a split without data", config(_later_test), 10)
for _name, _edit in {
    "is empty": lambda t: "",
    "is no TOML": lambda t: "{ json: 1 }",
    "is binary": lambda t: bytes(range(256)),
    "is UTF-16": lambda t: t.encode("utf-16"),
    "ends in a string": lambda t: t[:20],
    "is a hundred thousand brackets": lambda t: "a = " + "[" * 100_000,
    "has a table a hundred thousand deep": lambda t: "[" + "a." * 100_000 + "a]",
    "has a number of 10,000 digits": instead("lmax = 1", "lmax = " + "1" * 10_000),
    "has a key of a megabyte": lambda t: t + "k" * (1 << 20) + " = 1\n",
    "has 20 MB of comments": lambda t: t + "# comment\n" * 2_000_000,
    "says a key twice": instead("lmax = 1", "lmax = 1\nlmax = 2"),
    "says a table twice": lambda t: t + "[run]\nseed = 1\n",
    "has an unknown key": instead("lmax = 1", "lmax = 1\nlmaks = 2"),
    "has an unknown table": lambda t: t + "[extra]\na = 1\n",
    "lacks a table": instead('[split]\ntrain = ["2000-01-01", "2000-01-10"]\n', ""),
    "has a number in place of text": instead('root = "ROOT"', "root = 7"),
    "has text in place of a number": instead("lmax = 1", 'lmax = "1"'),
    "has true in place of a number": instead("lmax = 1", "lmax = true"),
    "has a fraction in place of a number": instead("lmax = 1", "lmax = 1.5"),
    "has NaN": instead("steps = 2", "steps = 2\nlearning_rate = nan"),
    "has infinity": instead("steps = 2", "steps = 2\nlearning_rate = inf"),
    "has a negative number": instead("lmax = 1", "lmax = -1"),
    "has an lmax of 10^18": instead("lmax = 1", "lmax = 1000000000000000000"),
    "has a tail of 10^18": instead("lmax = 1", "lmax = 1\ntail = 1000000000000000000"),
    "has a tail that ends before it begins": instead("lmax = 1", "lmax = 9\ntail = 2"),
    "has a seed of 2^64": instead("[source]", "seed = 18446744073709551616\n[source]"),
    "has a million workers": instead("workers = 1", "workers = 1000000"),
    "has no workers": instead("workers = 1", "workers = 0"),
    "has memory of nothing": instead("workers = 1", 'workers = 1\nmemory = "0GiB"'),
    "has memory of words": instead("workers = 1", 'workers = 1\nmemory = "lots"'),
    "has no realizations": instead("realizations = 2", "realizations = 0"),
    "has the day 2000-13-45": instead('2000-01-16"]', '2000-13-45"]'),
    "has a time in place of a day": instead('2000-01-16"]', '2000-01-16T99"]'),
    "has periods that overlap": instead("2000-01-11", "2000-01-05"),
    "has a period that ends before it begins": instead("2000-01-15", "2000-01-02"),
    "has a zero in a path": instead("ROOT", "a\\u0000b"),
    "has a line break in a path": instead("ROOT", "a\\nb"),
    "has an escape in a path": instead("ROOT", "a\\u001b[2Jb"),
    "has a root that is empty": instead("ROOT", ""),
    "has a root of 100,000 letters": instead("ROOT", "a" * 100_000),
    "has half a letter": instead("ROOT", "a\udc80b"),
    "has an unknown unit of memory": instead("workers = 1", 'workers = 1\nmemory = "1 XB"'),
    "has a range upside down": instead(
        'variables = ["ta"]', 'variables = ["ta"]\nvalid_range = { ta = [400.0, 100.0] }'
    ),
    "has a range of NaN": instead(
        'variables = ["ta"]', 'variables = ["ta"]\nvalid_range = { ta = [nan, 100.0] }'
    ),
    "has no variables": instead('variables = ["ta"]', "variables = []"),
    "has a variable twice": instead('variables = ["ta"]', 'variables = ["ta", "ta"]'),
    "has a grid of nonsense": instead("realizations = 2", 'realizations = 2\ngrid = "x:y:z"'),
    "has a grid of 10^18 cells": instead(
        "realizations = 2", 'realizations = 2\ngrid = "latlon:1000000000x1000000000"'
    ),
}.items():
    add(f"a configuration that {_name}", config(_edit), 2)
