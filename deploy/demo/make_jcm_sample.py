#!/usr/bin/env python
"""How jcm-t21-daily.nc was made: daily means simulated with the JCM climate model, packed.

    pip install jcm netcdf4        # jcm 3.0.0, Apache-2.0; brings jax, dinosaur and xarray
    JAX_PLATFORMS=cpu python make_jcm_sample.py --trunc 21 --years 3 --out jcm-t21-daily.nc

Needs no network: sea surface temperature, sea ice, land and orography (an observed climatology on
a 96 x 48 Gaussian grid) are in the jcm wheel, which interpolates them to the other truncations.
The first `--spinup-days` from an isothermal atmosphere at rest are thrown away. Sigma levels are
interpolated to pressure linearly in ln p; below the lowest level temperature follows 6.5 K/km and
wind is constant.
"""

import argparse
import importlib.resources
import sys
from importlib.metadata import version
from typing import Any

import numpy as np
import xarray as xr

GRAVITY = 9.80665  # m s-2
DRY_AIR = 287.05  # J kg-1 K-1
LAPSE_RATE = 0.0065  # K m-1
CHUNK_DAYS = 30  # simulated at once; the spin-up is a multiple of it
EPOCH = np.datetime64("1979-01-01")

# name: (standard_name, long_name, units, pressure [Pa] or None, step of the int16 packing or None)
VARIABLES: dict[str, tuple[str, str, str, float | None, float | None]] = {
    "zg500": ("geopotential_height", "geopotential height at 500 hPa", "m", 50000.0, 0.5),
    "ta850": ("air_temperature", "air temperature at 850 hPa", "K", 85000.0, 0.02),
    "ua850": ("eastward_wind", "eastward wind at 850 hPa", "m s-1", 85000.0, 0.02),
    "va850": ("northward_wind", "northward wind at 850 hPa", "m s-1", 85000.0, 0.02),
    "pr": (
        "precipitation_flux",
        "precipitation (large-scale + convective)",
        "kg m-2 s-1",
        None,
        None,
    ),
}
PR_MANTISSA_BITS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trunc", type=int, default=21)
    parser.add_argument("--start", default="2000-01-01", help="first saved day")
    parser.add_argument("--years", type=float, default=3)
    parser.add_argument("--days", type=int, help="instead of --years")
    parser.add_argument("--spinup-days", type=int, default=120)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    if arguments.spinup_days % CHUNK_DAYS:
        parser.error(f"--spinup-days must be a multiple of {CHUNK_DAYS}")

    first = np.datetime64(arguments.start)
    days = arguments.days or round(arguments.years * 365.25)
    daily, terrain = simulate(arguments.trunc, first, days, arguments.spinup_days)
    described = describe(daily, terrain, first, arguments.trunc, arguments.spinup_days)
    packed, encoding = pack(described)
    packed.to_netcdf(arguments.out, format="NETCDF4", encoding=encoding, unlimited_dims=["time"])


def simulate(
    trunc: int, first: np.datetime64, days: int, spinup_days: int
) -> tuple[xr.Dataset, Any]:
    """Run the model; return the wanted daily means, dims (time, lat, lon), and its terrain."""
    from jcm.forcing import ForcingData
    from jcm.model import Model
    from jcm.physics.speedy.speedy_coords import get_speedy_coords
    from jcm.terrain import TerrainData

    boundary = importlib.resources.files("jcm") / "data/bc/t30/clim"
    coords = get_speedy_coords(layers=8, spectral_truncation=trunc)
    terrain = TerrainData.from_file(str(boundary / "terrain.nc"), coords)
    forcing = ForcingData.from_file(str(boundary / "forcing.nc"), coords)
    start = str(first - np.timedelta64(spinup_days, "D"))
    model = Model(coords=coords, terrain=terrain, start_time=start)

    parts = []
    for done in range(0, spinup_days + days, CHUNK_DAYS):
        advance = model.resume if done else model.run
        state = advance(
            forcing=forcing, save_interval=1.0, total_time=float(CHUNK_DAYS), output_averages=True
        ).to_xarray()
        if done >= spinup_days:
            parts.append(wanted(state))
        print(f"{done + CHUNK_DAYS - spinup_days} of {days} days", file=sys.stderr, flush=True)
    return xr.concat(parts, "time").isel(time=slice(0, days)), terrain


def wanted(state: xr.Dataset) -> xr.Dataset:
    """The variables of the sample from the model's own output on sigma levels."""
    surface = ("time", "lat", "lon")
    pressure = state["normalized_surface_pressure"].transpose(*surface).values * 1e5
    order = np.argsort(state["hybrid_b_full"].values)
    sigma = state["hybrid_b_full"].values[order]
    log_p = np.log(sigma)[None, :, None, None] + np.log(pressure)[:, None]

    def at(name: str, level: float) -> np.ndarray:
        values = state[name].transpose("time", "level", "lat", "lon").values[:, order]
        return to_pressure(values, log_p, np.log(level), warming=name == "temperature")

    rain = state["surface_exchange.precipitation"].transpose(*surface).values
    fields = {
        "zg500": at("geopotential", 50000.0) / GRAVITY,
        "ta850": at("temperature", 85000.0),
        "ua850": at("u_wind", 85000.0),
        "va850": at("v_wind", 85000.0),
        "pr": np.maximum(rain, 0.0),
    }
    return xr.Dataset(
        {name: (surface, values.astype("float32")) for name, values in fields.items()},
        coords={"lat": state.lat.values, "lon": state.lon.values},
    )


def to_pressure(values: np.ndarray, log_p: np.ndarray, target: float, warming: bool) -> np.ndarray:
    """Interpolate (time, level, lat, lon) to ln p = `target`, linearly in ln p.

    Below the lowest level the value is that of the lowest level, or warms by the standard lapse
    rate; geopotential at 500 hPa never lies there.
    """
    below = np.clip((log_p < target).sum(1), 1, log_p.shape[1] - 1)[:, None]

    def pick(array: np.ndarray, level: np.ndarray) -> np.ndarray:
        return np.take_along_axis(array, level, 1)[:, 0]

    upper, lower = pick(log_p, below - 1), pick(log_p, below)
    weight = (target - upper) / (lower - upper)
    inside = pick(values, below - 1) * (1 - weight) + pick(values, below) * weight
    under = pick(values, below)
    if warming:
        under = under * np.exp((target - lower) * DRY_AIR * LAPSE_RATE / GRAVITY)
    return np.where(weight > 1.0, under, inside)


def describe(
    daily: xr.Dataset, terrain: Any, first: np.datetime64, trunc: int, spinup_days: int
) -> xr.Dataset:
    """Add the time axis with bounds, the fixed maps and CF attributes."""
    out = daily.copy()
    start = (first - EPOCH).astype("timedelta64[D]").astype(int)
    days = start + np.arange(out.sizes["time"])
    out = out.assign_coords(time=("time", days + 0.5))
    out["time"].attrs = {
        "standard_name": "time",
        "long_name": "time",
        "axis": "T",
        "bounds": "time_bnds",
        "units": f"days since {EPOCH} 00:00:00",
        "calendar": "standard",
    }
    out["time_bnds"] = (("time", "bnds"), np.stack([days, days + 1], 1).astype("float64"))
    out["lat"].attrs = {
        "standard_name": "latitude",
        "long_name": "latitude (Gaussian)",
        "units": "degrees_north",
        "axis": "Y",
    }
    out["lon"].attrs = {
        "standard_name": "longitude",
        "long_name": "longitude",
        "units": "degrees_east",
        "axis": "X",
    }
    for name, (standard_name, long_name, units, level, _) in VARIABLES.items():
        out[name].attrs = {
            "standard_name": standard_name,
            "long_name": long_name,
            "units": units,
            "cell_methods": "time: mean",
        }
        if level is not None:
            out[name].attrs["coordinates"] = f"p{level / 100:.0f}"
            attrs = {"standard_name": "air_pressure", "units": "Pa", "positive": "down"}
            out[f"p{level / 100:.0f}"] = ((), level, attrs)
    for name, values, standard_name, long_name, units in (
        ("sftlf", terrain.fmask, "land_area_fraction", "land fraction", "1"),
        ("orog", terrain.orog, "surface_altitude", "orography", "m"),
    ):
        grid = np.asarray(values).reshape(out.sizes["lon"], out.sizes["lat"]).T.astype("float32")
        attrs = {"standard_name": standard_name, "long_name": long_name, "units": units}
        out[name] = (("lat", "lon"), grid, attrs)
    out.attrs = {
        "Conventions": "CF-1.8",
        "title": f"JCM {version('jcm')} (SPEEDY physics) T{trunc} daily means",
        "source": f"jcm {version('jcm')}, dinosaur {version('dinosaur')}, T{trunc}L8, "
        "prescribed monthly SST, sea-ice and land climatology",
        "license": "CC0-1.0",
        "history": f"make_jcm_sample.py --trunc {trunc} --spinup-days {spinup_days}; "
        f"packed to int16 (pr: {PR_MANTISSA_BITS} mantissa bits)",
        "comment": f"spin-up of {spinup_days} d from an isothermal rest state dropped; "
        "sigma to pressure linear in ln p",
    }
    return out


def pack(daily: xr.Dataset) -> tuple[xr.Dataset, dict[str, dict[str, Any]]]:
    """Fit the file to a repository: int16 with scale and offset, rounded mantissas for rain.

    The step of each packed variable is far below what the model resolves; the offset is the mean,
    to one decimal. Rain spans five orders of magnitude, so its relative precision is kept instead.

    Returns:
        The dataset to write and the encoding that packs it.
    """
    packed = daily.copy()
    packed["pr"] = daily["pr"].copy(data=round_mantissa(daily["pr"].values, PR_MANTISSA_BITS))
    shape = (min(122, daily.sizes["time"]), daily.sizes["lat"], daily.sizes["lon"])
    deflated = {"zlib": True, "complevel": 9, "shuffle": True}
    encoding: dict[str, dict[str, Any]] = {
        name: {"_FillValue": None} for name in ("lat", "lon", "time", "time_bnds")
    }
    for name, (*_, step) in VARIABLES.items():
        encoding[name] = {**deflated, "chunksizes": shape, "dtype": "float32", "_FillValue": None}
        if step is not None:
            encoding[name] |= {
                "dtype": "int16",
                "_FillValue": np.int16(-32768),
                "scale_factor": step,
                "add_offset": float(np.float32(round(float(daily[name].mean()), 1))),
            }
    for name in ("sftlf", "orog"):
        encoding[name] = {**deflated, "_FillValue": None}
    return packed, encoding


def round_mantissa(values: np.ndarray, bits: int) -> np.ndarray:
    """Round float32 to `bits` of its 23 mantissa bits, half to even; the rest become zeros."""
    drop = 23 - bits
    raw = values.astype("float32").view("uint32")
    half = np.uint32((1 << (drop - 1)) - 1) + ((raw >> np.uint32(drop)) & np.uint32(1))
    keep = np.uint32(0xFFFFFFFF ^ ((1 << drop) - 1))
    return ((raw + half) & keep).view("float32")


if __name__ == "__main__":
    main()
