"""Files as archives hand them out, on coarse grids: their names, packing, calendars and oddities.

Each function writes what a user would have downloaded below a directory and returns the paths.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cftime
import netCDF4
import numpy as np
import xarray as xr

LAT, LON = np.linspace(90, -90, 13), np.arange(24) * 15.0


def field(*shape: int, mean: float = 280.0, spread: float = 5.0, seed: int = 0) -> np.ndarray:
    drawn = mean + spread * np.random.default_rng(seed).normal(size=shape)
    return drawn.astype(np.float32)


def land(shape: tuple[int, int]) -> np.ndarray:
    """A continent on a part of each row but the first and the last."""
    mask = np.zeros(shape, dtype=bool)
    mask[1:-1, : shape[1] // 4] = True
    return mask


def create(path: Path, **options: Any) -> netCDF4.Dataset:
    path.parent.mkdir(parents=True, exist_ok=True)
    return netCDF4.Dataset(path, "w", **options)


def variable(
    file: netCDF4.Dataset,
    name: str,
    kind: str,
    dims: tuple[str, ...],
    values: Any,
    fill: Any = None,
    **attrs: Any,
) -> None:
    """A variable whose numbers are stored as they are."""
    for dim, size in zip(dims, np.shape(values), strict=True):
        if dim not in file.dimensions:
            file.createDimension(dim, None if dim == "time" else size)
    made = file.createVariable(name, kind, dims, fill_value=fill)
    made.set_auto_maskandscale(False)
    made.setncatts(attrs)
    made[:] = values


def degrees(file: netCDF4.Dataset, lat: Any, lon: Any, names: Any = ("lat", "lon")) -> None:
    north = {"units": "degrees_north", "standard_name": "latitude", "long_name": "latitude"}
    east = {"units": "degrees_east", "standard_name": "longitude", "long_name": "longitude"}
    variable(file, names[0], "f4", (names[0],), lat, **north)
    variable(file, names[1], "f4", (names[1],), lon, **east)


def era5_of_before(directory: Path, final: int = 31) -> list[str]:
    """ERA5 as CDS gave it until 2024: packed anew in each file, `expver` in the newest one."""
    paths = []
    for month, days in ((1, 31), (2, 28)):
        path = directory / f"era5_2021{month:02d}.nc"
        scale, offset = 0.001 * month, 280.0 - month
        truth = field(days, 13, 24, seed=month)
        packed = np.round((truth - offset) / scale).astype("i2")
        hours = 24 * (np.arange(days) + (month - 1) * 31) + 1060680  # 2021-01-01
        with create(path, format="NETCDF3_64BIT_OFFSET") as file:
            degrees(file, LAT, LON, ("latitude", "longitude"))
            units = {"units": "hours since 1900-01-01 00:00:00.0", "calendar": "gregorian"}
            variable(file, "time", "i4", ("time",), hours, **units)
            dims: tuple[str, ...] = ("time", "latitude", "longitude")
            if month == 2:
                variable(file, "expver", "i4", ("expver",), [1, 5])
                both = np.full((days, 2, 13, 24), -32767, "i2")
                both[:20, 0], both[20:, 1] = packed[:20], packed[20:]
                packed, dims = both, ("time", "expver", "latitude", "longitude")
            attrs = {"scale_factor": scale, "add_offset": offset, "missing_value": np.int16(-32767)}
            name = {"units": "K", "long_name": "2 metre temperature"}
            variable(file, "t2m", "i2", dims, packed, np.int16(-32767), **attrs, **name)
        paths.append(str(path))
    return paths


def era5_of_now(directory: Path) -> str:
    """ERA5 as CDS gives it since 2024: `valid_time`, `pressure_level`, `expver` as text."""
    path = directory / "data_stream-oper_stepType-instant.nc"
    with create(path) as file:
        seconds = 1609459200 + 21600 * np.arange(40)
        times = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"}
        named = {"standard_name": "time", "long_name": "time"}
        variable(file, "valid_time", "i8", ("valid_time",), seconds, **times, **named)
        level = {"units": "hPa", "positive": "down", "stored_direction": "decreasing"}
        named = {"standard_name": "air_pressure", "long_name": "pressure"}
        plev = ("pressure_level",)
        variable(file, "pressure_level", "f8", plev, [850.0, 500.0], **level, **named)
        degrees(file, LAT, LON, ("latitude", "longitude"))
        number = {"units": "1", "standard_name": "realization"}
        variable(file, "number", "i8", (), 0, long_name="ensemble member", **number)
        versions = np.array(["0001"] * 30 + ["0005"] * 10, dtype=object)
        file.createVariable("expver", str, ("valid_time",))[:] = versions
        for name, standard in (("u", "eastward_wind"), ("v", "northward_wind")):
            attrs = {
                "units": "m s**-1",
                "standard_name": standard,
                "GRIB_missingValue": 3.4028234663852886e38,
                "GRIB_stepType": "instant",
                "coordinates": "number valid_time pressure_level latitude longitude expver",
            }
            values = field(40, 2, 13, 24, mean=0.0, seed=ord(name))
            dims = ("valid_time", "pressure_level", "latitude", "longitude")
            variable(file, name, "f4", dims, values, np.float32(np.nan), **attrs)
    return str(path)


def era5_by_date(directory: Path) -> str:
    """Monthly means as CDS gave them in 2024: `date` holds 20210101 and no units."""
    path = directory / "monthly.nc"
    with create(path) as file:
        months = [20210000 + 100 * month + 1 for month in range(1, 13)]
        variable(file, "date", "i8", ("date",), months)
        degrees(file, LAT, LON, ("latitude", "longitude"))
        values = field(12, 13, 24)
        variable(file, "t2m", "f4", ("date", "latitude", "longitude"), values, units="K")
    return str(path)


def cmip6(directory: Path, calendar: str = "noleap") -> list[str]:
    """Monthly means of a CMIP6 model: a folder for each variable, a file for each decade."""
    lat, lon = np.linspace(-82.5, 82.5, 12), np.arange(24) * 15.0
    length = 365 if calendar == "noleap" else 360
    paths = []
    for start in (1850, 1860, 1870):
        edges = [
            cftime.datetime(start + m // 12, m % 12 + 1, 1, calendar=calendar) for m in range(121)
        ]
        numbers = cftime.date2num(edges, "days since 1850-01-01", calendar)
        for name in ("tas", "ta"):
            path = directory / name / "gn" / f"{name}_Amon_M_historical_r1i1p1f1_gn_{start}01.nc"
            with create(path) as file:
                units = {"units": "days since 1850-01-01", "calendar": calendar, "axis": "T"}
                named = {"standard_name": "time", "long_name": "time", "bounds": "time_bnds"}
                middle = (numbers[1:] + numbers[:-1]) / 2
                variable(file, "time", "f8", ("time",), middle, **units, **named)
                both = np.stack([numbers[:-1], numbers[1:]], axis=1)
                variable(file, "time_bnds", "f8", ("time", "bnds"), both)
                degrees(file, lat, lon)
                for axis, values, step in (("lat", lat, 15.0), ("lon", lon, 15.0)):
                    sides = np.stack([values - step / 2, values + step / 2], axis=1)
                    variable(file, f"{axis}_bnds", "f8", (axis, "bnds"), sides)
                    file[axis].bounds = f"{axis}_bnds"
                    file[axis].axis = "Y" if axis == "lat" else "X"
                attrs = {"units": "K", "standard_name": "air_temperature"}
                attrs |= {"cell_methods": "area: time: mean", "missing_value": np.float32(1e20)}
                shape: tuple[int, ...] = (120, 12, 24)
                if name == "tas":
                    height = {"units": "m", "standard_name": "height", "positive": "up"}
                    variable(file, "height", "f8", (), 2.0, axis="Z", **height)
                    kind = file.createVariable("type", "S1", (file.createDimension("c", 4).name,))
                    kind[:] = np.array(list("land"), "S1")
                    kind.standard_name = "area_type"
                    attrs["coordinates"] = "height type"
                    values = field(*shape, seed=start)
                    dims: tuple[str, ...] = ("time", "lat", "lon")
                else:
                    level = np.array([1e5, 92500, 85e3, 7e4, 6e4, 5e4, 4e4, 3e4, 25e3, 2e4])
                    pressure = {"units": "Pa", "standard_name": "air_pressure", "axis": "Z"}
                    variable(file, "plev", "f8", ("plev",), level, positive="down", **pressure)
                    values = field(120, 10, 12, 24, seed=start + 1)
                    values[:, 0, :, :6] = 1e20  # below ground
                    dims = ("time", "plev", "lat", "lon")
                variable(file, name, "f4", dims, values, np.float32(1e20), **attrs)
                file.setncatts({"Conventions": "CF-1.7 CMIP-6.2", "variable_id": name})
            paths.append(str(path))
    assert length
    return paths


def oisst(directory: Path) -> str:
    """NOAA's daily OISST: a file for each day, one level, packed, ice where there is some."""
    lat, lon = np.linspace(-82.5, 82.5, 12), 7.5 + np.arange(24) * 15.0
    for day in range(20):
        path = directory / f"oisst-avhrr-v02r01.200101{day + 1:02d}.nc"
        with create(path) as file:
            units = {
                "units": "days since 1978-01-01 12:00:00",
                "long_name": "Center time of the day",
            }
            variable(file, "time", "f4", ("time",), [8401.0 + day], **units)
            depth = {"units": "meters", "positive": "down", "actual_range": "0, 0"}
            variable(file, "zlev", "f4", ("zlev",), [0.0], **depth)
            degrees(file, lat, lon)
            for name, unit, mean in (("sst", "Celsius", 20.0), ("ice", "%", 50.0)):
                packed = np.round(field(1, 1, 12, 24, mean=mean, seed=day) / 0.01).astype("i2")
                packed[..., land((12, 24))] = -999
                if name == "ice":
                    packed[:, :, 1 + day % 3 : -1] = -999  # the edge moves
                attrs = {"units": unit, "scale_factor": np.float32(0.01)}
                attrs |= {"add_offset": np.float32(0), "valid_min": np.int16(-300)}
                dims = ("time", "zlev", "lat", "lon")
                variable(file, name, "i2", dims, packed, np.int16(-999), **attrs)
    return str(directory / "*.nc")


def ncep(directory: Path) -> str:
    """NCEP's reanalysis 1: hours since 1800, packed, latitudes descend with poles."""
    path = directory / "air.2001.nc"
    with create(path, format="NETCDF4_CLASSIC") as file:
        level = {"units": "millibar", "actual_range": np.float32([1000, 10]), "positive": "down"}
        variable(file, "level", "f4", ("level",), [1000.0, 850.0, 500.0], axis="Z", **level)
        degrees(file, LAT, LON)
        hours = 1761936.0 + 24 * np.arange(30)
        named = {"delta_t": "0000-00-01 00:00:00", "avg_period": "0000-00-01 00:00:00"}
        units = {"units": "hours since 1800-01-01 00:00:0.0", "standard_name": "time", "axis": "T"}
        variable(file, "time", "f8", ("time",), hours, **units, **named)
        packed = np.round((field(30, 3, 13, 24) - 477.66) / 0.01).astype("i2")
        attrs = {
            "units": "degK",
            "scale_factor": np.float32(0.01),
            "add_offset": np.float32(477.66),
        }
        attrs |= {"missing_value": np.int16(32766), "valid_range": np.int16([-32765, -10260])}
        attrs |= {"long_name": "mean Daily Air temperature", "var_desc": "Air temperature"}
        dims = ("time", "level", "lat", "lon")
        variable(file, "air", "i2", dims, packed, np.int16(32767), **attrs)
    return str(path)


def hadisst(directory: Path) -> str:
    """HadISST: land -1e30, cells under ice -1000, latitudes descend, months in days since 1870."""
    path = directory / "HadISST_sst.nc"
    lat, lon = np.linspace(82.5, -82.5, 12), -172.5 + np.arange(24) * 15.0
    with create(path, format="NETCDF4_CLASSIC") as file:
        edges = np.cumsum([0] + [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] * 3)
        units = {
            "units": "days since 1870-1-1 0:0:0",
            "calendar": "gregorian",
            "bounds": "time_bnds",
        }
        middle = np.floor((edges[1:] + edges[:-1]) / 2) + 0.5
        variable(file, "time", "f4", ("time",), middle, standard_name="time", **units)
        variable(file, "time_bnds", "f4", ("time", "nv"), np.stack([edges[:-1], edges[1:]], 1))
        degrees(file, lat, lon, ("latitude", "longitude"))
        values = field(36, 12, 24, mean=15.0)
        values[::2, 0] = -1000.0
        values[:, land((12, 24))] = -1e30
        attrs = {"units": "C", "standard_name": "sea_surface_temperature"}
        attrs |= {"missing_value": np.float32(-1e30), "cell_methods": "time: lat: lon: mean"}
        dims = ("time", "latitude", "longitude")
        variable(file, "sst", "f4", dims, values, np.float32(-1e30), **attrs)
    return str(path)


def gpcp(directory: Path) -> str:
    """GPCP's monthly precipitation: bounds along `nbnd`, a fill value, no standard name."""
    path = directory / "precip.mon.mean.nc"
    lat, lon = np.linspace(-82.5, 82.5, 12), 7.5 + np.arange(24) * 15.0
    with create(path) as file:
        days = (np.datetime64("1979-01") + np.arange(37)).astype("datetime64[D]").astype(float)
        units = {"units": "days since 1800-01-01 00:00:0.0", "bounds": "time_bnds"}
        days += 62091
        variable(file, "time", "f8", ("time",), days[:-1], axis="T", **units)
        variable(file, "time_bnds", "f8", ("time", "nbnd"), np.stack([days[:-1], days[1:]], 1))
        degrees(file, lat, lon)
        for axis, values in (("lat", lat), ("lon", lon)):
            sides = np.stack([values - 7.5, values + 7.5], axis=1)
            variable(file, f"{axis}_bnds", "f4", (axis, "nbnd"), sides, units="degrees")
        values = np.abs(field(36, 12, 24, mean=2.0, spread=1.0))
        attrs = {"units": "mm/day", "long_name": "Average Monthly Rate of Precipitation"}
        attrs |= {"valid_range": np.float32([0, 70]), "missing_value": np.float32(-9.96921e36)}
        variable(file, "precip", "f4", ("time", "lat", "lon"), values, **attrs)
    return str(path)


def nextgems(directory: Path) -> str:
    """ICON on HEALPix as hackathon catalogues have it: `crs` of size one, no positions."""
    cells = 12 * 8**2
    attrs = {"grid_mapping_name": "healpix", "healpix_nside": 8, "healpix_order": "nest"}
    times = np.datetime64("2020-01-20", "ns") + np.arange(24) * np.timedelta64(3, "h")
    described = {"units": "K", "standard_name": "tas", "long_name": "temperature in 2m"}
    dataset = xr.Dataset(
        {
            "tas": (("time", "cell"), field(24, cells), {**described, "grid_mapping": "crs"}),
            "pr": (
                ("time", "cell"),
                np.abs(field(24, cells, mean=0.0, spread=1e-5)),
                {"units": "kg m-2 s-1", "standard_name": "pr", "grid_mapping": "crs"},
            ),
        },
        coords={"time": times, "crs": ("crs", [np.nan], attrs)},
    )
    path = directory / "ngc4008_P1D_3.zarr"
    encoding = {name: {"chunks": (8, cells // 4)} for name in ("tas", "pr")}
    dataset.to_zarr(path, zarr_format=2, consolidated=True, encoding=encoding)
    return str(path)


def weatherbench(directory: Path) -> str:
    """WeatherBench 2: names that begin with digits, (time, level, longitude, latitude)."""
    lat, lon = np.linspace(-87.1875, 87.1875, 32), np.arange(64) * 5.625
    times = np.datetime64("2018-01-01", "ns") + np.arange(28) * np.timedelta64(6, "h")
    dataset = xr.Dataset(
        {
            "2m_temperature": (
                ("time", "longitude", "latitude"),
                field(28, 64, 32),
                {"units": "K", "long_name": "2 metre temperature", "short_name": "t2m"},
            ),
            "temperature": (
                ("time", "level", "longitude", "latitude"),
                field(28, 3, 64, 32, seed=1),
                {"units": "K", "standard_name": "air_temperature", "short_name": "t"},
            ),
        },
        coords={"time": times, "level": [500, 700, 850], "longitude": lon, "latitude": lat},
    )
    path = directory / "era5-6h-64x32_equiangular_conservative.zarr"
    dataset.to_zarr(path, zarr_format=2, consolidated=True)
    return str(path)


def merra2(directory: Path) -> str:
    """MERRA-2: a file for each day, 1e15 for missing, minutes since its own midnight."""
    lon = -180 + np.arange(24) * 15.0
    for day in range(10):
        path = directory / f"MERRA2_400.tavg1_2d_slv_Nx.200101{day + 1:02d}.nc4"
        with create(path) as file:
            degrees(file, LAT[::-1], lon)
            units = {"units": f"minutes since 2001-01-{day + 1:02d} 00:30:00"}
            odd = {"begin_date": np.int32(20010101 + day), "begin_time": np.int32(3000)}
            minutes = np.arange(24, dtype="i4") * 60
            variable(file, "time", "i4", ("time",), minutes, time_increment=10000, **units, **odd)
            values = field(24, 13, 24, seed=day)
            values[:, land((13, 24))] = 1e15
            fills = {"missing_value": np.float32(1e15), "fmissing_value": np.float32(1e15)}
            attrs = {"units": "K", "standard_name": "sea_surface_skin_temperature", **fills}
            attrs |= {"vmax": np.float32(1e15), "valid_range": np.float32([-1e15, 1e15])}
            variable(
                file, "TSKINWTR", "f4", ("time", "lat", "lon"), values, np.float32(1e15), **attrs
            )
    return str(directory / "*.nc4")


def ceres(directory: Path) -> str:
    """CERES EBAF: a climatology along `ctime` beside the series, a sentence as standard name."""
    path = directory / "CERES_EBAF_Ed4.2_Subset.nc"
    lat, lon = np.linspace(-82.5, 82.5, 12), 7.5 + np.arange(24) * 15.0
    with create(path) as file:
        degrees(file, lat, lon)
        months = np.datetime64("2000-03") + np.arange(24)
        days = (months.astype("datetime64[D]") - np.datetime64("2000-03-01")).astype(int) + 14
        units = {"units": "days since 2000-03-01 00:00:00", "long_name": "Time"}
        variable(file, "time", "i4", ("time",), days, **units)
        twelve = np.arange(12) * 30 + 15
        variable(file, "ctime", "i4", ("ctime",), twelve, climatology="climatology_bounds", **units)
        said = "Top of The Atmosphere Longwave Flux, All-Sky conditions, Monthly Means"
        attrs = {"units": "W m-2", "standard_name": said, "CF_name": "toa_outgoing_longwave_flux"}
        attrs |= {"valid_min": "      0.00000", "valid_max": "       400.000"}
        values = field(24, 12, 24, mean=230.0)
        variable(
            file, "toa_lw_all_mon", "f4", ("time", "lat", "lon"), values, np.float32(-999), **attrs
        )
        mean = field(12, 12, 24, mean=230.0)
        dims = ("ctime", "lat", "lon")
        variable(file, "toa_lw_all_clim", "f4", dims, mean, np.float32(-999), units="W m-2")
    return str(path)


def cesm(directory: Path) -> str:
    """CESM's history: the time of a month is its end, no leap days, hybrid levels, weights."""
    path = directory / "b.e21.BHIST.f09_g17.cam.h0.TS.000101-000212.nc"
    lat, lon = np.linspace(-90, 90, 13), np.arange(24) * 15.0
    edges = np.cumsum([0] + [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] * 2).astype(float)
    with create(path, format="NETCDF3_64BIT_OFFSET") as file:
        units = {"units": "days since 0001-01-01 00:00:00", "calendar": "noleap"}
        variable(file, "time", "f8", ("time",), edges[1:], bounds="time_bnds", **units)
        both = np.stack([edges[:-1], edges[1:]], axis=1)
        variable(
            file, "time_bnds", "f8", ("time", "nbnd"), both, long_name="time interval endpoints"
        )
        variable(file, "lat", "f8", ("lat",), lat, units="degrees_north", long_name="latitude")
        variable(file, "lon", "f8", ("lon",), lon, units="degrees_east", long_name="longitude")
        variable(file, "gw", "f8", ("lat",), np.cos(np.deg2rad(lat)), long_name="latitude weights")
        hybrid = {
            "units": "hPa",
            "positive": "down",
            "formula_terms": "a: hyam b: hybm p0: P0 ps: PS",
        }
        named = {"standard_name": "atmosphere_hybrid_sigma_pressure_coordinate"}
        variable(file, "lev", "f8", ("lev",), [510.5, 859.5, 992.6], **hybrid, **named)
        variable(file, "ilev", "f8", ("ilev",), [300.0, 700.0, 950.0, 1000.0], **hybrid, **named)
        variable(file, "hyam", "f8", ("lev",), [0.1, 0.05, 0.0])
        variable(file, "P0", "f8", (), 1e5, units="Pa")
        variable(file, "date", "i4", ("time",), 10201 + 100 * np.arange(24), long_name="YYYYMMDD")
        variable(file, "datesec", "i4", ("time",), np.zeros(24))
        attrs = {"units": "K", "long_name": "Surface temperature", "cell_methods": "time: mean"}
        variable(file, "TS", "f4", ("time", "lat", "lon"), field(24, 13, 24), **attrs)
        values = field(24, 3, 13, 24, mean=0.0)
        winds = {"units": "m/s", "cell_methods": "time: mean", "mdims": np.int32(1)}
        variable(file, "U", "f4", ("time", "lev", "lat", "lon"), values, **winds)
        variable(file, "V", "f4", ("time", "lev", "lat", "lon"), values[::-1], **winds)
    return str(path)


def jra55(directory: Path) -> str:
    """JRA-55 converted by NCL: names from GRIB, the date once as number and twice as text."""
    path = directory / "anl_surf125.011_tmp.1958010100_1958013118.nc"
    with create(path) as file:
        hours = 1384992.0 + 6 * np.arange(40)
        units = {"units": "hours since 1800-01-01 00:00", "long_name": "initial time"}
        variable(file, "initial_time0_hours", "f8", ("initial_time0_hours",), hours, **units)
        encoded = {"units": "yyyymmddhh.hh_frac", "long_name": "initial time encoded as double"}
        dims = ("initial_time0_hours",)
        variable(file, "initial_time0_encoded", "f8", dims, 1958010100.0 + np.arange(40), **encoded)
        north = {"units": "degrees_north", "GridType": "Latitude/Longitude", "La1": np.float32(90)}
        variable(file, "g0_lat_1", "f4", ("g0_lat_1",), LAT, **north)
        variable(file, "g0_lon_2", "f4", ("g0_lon_2",), LON, units="degrees_east")
        attrs = {"units": "K", "long_name": "Temperature", "level": np.int32(2)}
        dims = (*dims, "g0_lat_1", "g0_lon_2")
        variable(file, "TMP_GDS0_HTGL", "f4", dims, field(40, 13, 24), np.float32(1e20), **attrs)
    return str(path)


def berkeley(directory: Path) -> str:
    """Berkeley Earth: the month as a decimal year, a climatology beside the anomalies."""
    path = directory / "Land_and_Ocean_LatLong1.nc"
    lat, lon = np.linspace(-82.5, 82.5, 12), -172.5 + np.arange(24) * 15.0
    with create(path) as file:
        degrees(file, lat, lon, ("latitude", "longitude"))
        years = 1990 + (np.arange(36) + 0.5) / 12
        named = {"units": "year A.D.", "standard_name": "time", "long_name": "Time"}
        variable(file, "time", "f8", ("time",), years, **named)
        variable(
            file, "land_mask", "f8", ("latitude", "longitude"), np.ones((12, 24)), units="none"
        )
        attrs = {"units": "degree C", "standard_name": "surface_temperature_anomaly"}
        dims = ("time", "latitude", "longitude")
        variable(
            file,
            "temperature",
            "f4",
            dims,
            field(36, 12, 24, mean=0.0),
            np.float32(np.nan),
            **attrs,
        )
        dims = ("month_number", "latitude", "longitude")
        variable(file, "climatology", "f4", dims, field(12, 12, 24), **attrs)
    return str(path)


def ferret(directory: Path, year: str = "0000") -> str:
    """A climatology as Ferret writes it: hours since the year 0, `modulo`, capital units."""
    path = directory / "coads_climatology.cdf"
    with create(path, format="NETCDF3_CLASSIC") as file:
        lon = 7.5 + np.arange(24) * 15.0
        even = {"units": "degrees_east", "modulo": " ", "point_spacing": "even"}
        variable(file, "COADSX", "f8", ("COADSX",), lon, **even)
        variable(
            file, "COADSY", "f8", ("COADSY",), np.linspace(-82.5, 82.5, 12), units="degrees_north"
        )
        units = {"units": f"hour since {year}-01-01 00:00:00"}
        modulo = {"modulo": " "} if year == "0000" else {}
        variable(file, "TIME", "f8", ("TIME",), 366 + 730.485 * np.arange(12), **units, **modulo)
        attrs = {
            "units": "DEG C",
            "long_name": "AIR TEMPERATURE",
            "missing_value": np.float32(-1e34),
        }
        dims = ("TIME", "COADSY", "COADSX")
        variable(file, "AIRT", "f4", dims, field(12, 12, 24, mean=10), np.float32(-1e34), **attrs)
    return str(path)
