"""CMIP's names of common variables: their standard names and units, and who else calls them what.

`t2m` in K, `air_temperature` at 2 m in degC and `T2M` are all CMIP's `tas` in K. What is not in the
table, or in a unit that does not convert (`tp` in m, accumulated over a time nobody states), keeps
its own name and unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from storage.conventions.levels import split_name
from storage.conventions.quantities import conversion

__all__ = ["CmipVariable", "cmip_variable", "standard_name_of", "table_of"]

GRAVITY = 9.80665  # [m s-2], of geopotential height

# name: (standard name, unit, names elsewhere); the order decides between equal standard names.
_TABLE: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "ta": ("air_temperature", "K", ("t", "temperature", "air")),
    "tas": ("air_temperature", "K", ("t2m", "2t", "2m_temperature", "trefht", "tmp2m")),
    "tasmax": ("air_temperature", "K", ("mx2t", "tmax")),
    "tasmin": ("air_temperature", "K", ("mn2t", "tmin")),
    "ts": ("surface_temperature", "K", ("skt", "skin_temperature")),
    "tos": ("sea_surface_temperature", "degC", ("sst", "sea_surface_temperature")),
    "ua": ("eastward_wind", "m s-1", ("u", "uwnd", "u_component_of_wind")),
    "va": ("northward_wind", "m s-1", ("v", "vwnd", "v_component_of_wind")),
    "uas": ("eastward_wind", "m s-1", ("u10", "10u", "u10m", "10m_u_component_of_wind")),
    "vas": ("northward_wind", "m s-1", ("v10", "10v", "v10m", "10m_v_component_of_wind")),
    "sfcWind": ("wind_speed", "m s-1", ("si10", "10m_wind_speed")),
    "wap": ("lagrangian_tendency_of_air_pressure", "Pa s-1", ("w", "omega", "vertical_velocity")),
    "zg": ("geopotential_height", "m", ("gh", "z", "hgt", "geopotential")),
    "hus": ("specific_humidity", "1", ("q", "shum", "specific_humidity")),
    "huss": ("specific_humidity", "1", ("q2m",)),
    "hur": ("relative_humidity", "%", ("r", "rhum", "relative_humidity")),
    "hurs": ("relative_humidity", "%", ("r2",)),
    "psl": ("air_pressure_at_mean_sea_level", "Pa", ("msl", "slp", "mean_sea_level_pressure")),
    "ps": ("surface_air_pressure", "Pa", ("sp", "pres", "surface_pressure")),
    "pr": ("precipitation_flux", "kg m-2 s-1", ("precip", "prate", "mtpr", "avg_tprate")),
    "prsn": ("snowfall_flux", "kg m-2 s-1", ("msr",)),
    "evspsbl": ("water_evapotranspiration_flux", "kg m-2 s-1", ()),
    "clt": ("cloud_area_fraction", "%", ("tcc", "total_cloud_cover")),
    "prw": ("atmosphere_mass_content_of_water_vapor", "kg m-2", ("tcwv", "pwat")),
    "rlut": ("toa_outgoing_longwave_flux", "W m-2", ("olr", "ulwrf")),
    "rsut": ("toa_outgoing_shortwave_flux", "W m-2", ()),
    "rsdt": ("toa_incoming_shortwave_flux", "W m-2", ()),
    "rsds": ("surface_downwelling_shortwave_flux_in_air", "W m-2", ("msdwswrf",)),
    "rlds": ("surface_downwelling_longwave_flux_in_air", "W m-2", ("msdwlwrf",)),
    "hfss": ("surface_upward_sensible_heat_flux", "W m-2", ()),
    "hfls": ("surface_upward_latent_heat_flux", "W m-2", ()),
    "tauu": ("surface_downward_eastward_stress", "Pa", ()),
    "tauv": ("surface_downward_northward_stress", "Pa", ()),
    "siconc": ("sea_ice_area_fraction", "%", ("ci", "icec", "sic", "ice", "sea_ice_cover")),
    "sos": ("sea_surface_salinity", "1e-3", ("sss",)),
    "zos": ("sea_surface_height_above_geoid", "m", ("ssh",)),
    "snd": ("surface_snow_thickness", "m", ()),
    "mrsos": ("mass_content_of_water_in_soil_layer", "kg m-2", ()),
    "orog": ("surface_altitude", "m", ()),
    "sftlf": ("land_area_fraction", "%", ()),
}
_AT_THE_SURFACE = {"ta": "tas", "ua": "uas", "va": "vas", "hus": "huss", "hur": "hurs"}
_LEVELLED = (*_AT_THE_SURFACE, "zg", "wap")  # nothing without the level that they are of
_MANY_THINGS = ("ulwrf", "pres", "temperature")  # names that only a standard name makes clear
_EXTREMES = {"maximum": "tasmax", "minimum": "tasmin"}
_NEAR_THE_SURFACE = (*_AT_THE_SURFACE.values(), "tasmax", "tasmin", "sfcWind")
_SAME = {
    "air_pressure_at_sea_level": "air_pressure_at_mean_sea_level",
    "sea_surface_skin_temperature": "surface_temperature",
    "lwe_precipitation_rate": "precipitation_flux",
    "geopotential": "geopotential_height",
}
_REALMS = {
    **dict.fromkeys(("tos", "sos", "zos"), "ocean"),
    **{"siconc": "seaIce", "snd": "landIce", "mrsos": "land"},
}
_TABLES: Mapping[str, Mapping[str, str]] = {  # by frequency and realm
    "mon": {
        **{"atmos": "Amon", "ocean": "Omon", "seaIce": "SImon"},
        **{"land": "Lmon", "landIce": "LImon"},
    },
    "day": {
        **{"atmos": "day", "ocean": "Oday", "seaIce": "SIday"},
        **{"land": "day", "landIce": "Eday"},
    },
    "yr": {"atmos": "Eyr", "ocean": "Oyr"},
    "6hr": {"atmos": "6hrPlev"},
    "3hr": {"atmos": "3hr", "ocean": "3hr", "land": "3hr"},
    "1hr": {"atmos": "E1hr"},
}


@dataclass(frozen=True, kw_only=True)
class CmipVariable:
    """A variable as CMIP has it: the source's values times `scale`, plus `offset`."""

    name: str
    standard_name: str
    units: str
    scale: float
    offset: float

    @property
    def realm(self) -> str:
        return _REALMS.get(self.name, "atmos")

    @property
    def at_surface(self) -> bool:
        """Whether it lies at some metres above the ground, so that its name says the level."""
        return self.name in _NEAR_THE_SURFACE


def table_of(known: CmipVariable | None, frequency: str) -> str:
    """CMIP's table of a variable; where CMIP has none, the frequency by its own name."""
    realm = "atmos" if known is None else known.realm
    return _TABLES.get(frequency, {}).get(realm, frequency)


def standard_name_of(name: str) -> str | None:
    """The standard name of one of CMIP's variables, which some models write in its place."""
    return _TABLE[name][0] if name in _TABLE else None


def cmip_variable(name: str, attrs: Mapping[str, Any]) -> CmipVariable | None:
    """What CMIP calls a variable, by its name, or by standard name and level; None if nothing."""
    base = split_name(name)[0]
    found = _named(base, attrs)
    if found is None:
        return None
    standard, unit, _ = _TABLE[found]
    stated = attrs.get("standard_name")
    if stated is None and base.lower() in _MANY_THINGS:
        return None
    if stated is not None and _SAME.get(str(stated), str(stated)) != standard:
        return None
    own = str(attrs.get("units", ""))
    over = own in ("m2 s-2", "m**2 s**-2", "m2/s2", "m^2/s^2") and found == "zg"
    turned = (1 / GRAVITY, 0.0) if over else conversion(own, unit)
    if turned is None:
        return None
    return CmipVariable(
        name=found, standard_name=standard, units=unit, scale=turned[0], offset=turned[1]
    )


def _named(base: str, attrs: Mapping[str, Any]) -> str | None:
    if base in _TABLE:
        return None if base in _LEVELLED and attrs.get("level_kind") else base
    for name, (_, _, elsewhere) in _TABLE.items():
        if base.lower() in elsewhere:
            return _lowered(name, attrs)
    stated = str(attrs.get("standard_name"))
    for name, (standard, _, _) in _TABLE.items():
        if standard == _SAME.get(stated, stated):
            return _lowered(name, attrs)
    return None


def _lowered(name: str, attrs: Mapping[str, Any]) -> str | None:
    """The surface variable where the level is a few metres; None where no level tells the two.

    Levels of a model, and depths, are none of those that CMIP's names of the atmosphere mean.
    """
    if name not in _LEVELLED:
        return name
    unit, level = str(attrs.get("level_units", "")), attrs.get("level")
    if level is None or attrs.get("level_kind"):
        return None
    if unit not in ("m", "metre", "metres", "meter", "meters"):
        return name
    lower = _AT_THE_SURFACE.get(name) if float(level) <= 10 else None
    methods = str(attrs.get("cell_methods", ""))
    extreme = next((new for word, new in _EXTREMES.items() if f"time: {word}" in methods), None)
    if extreme is None:
        return lower
    return extreme if lower == "tas" else None
