"""CMIP's names are given to what they mean, and to nothing else."""

from __future__ import annotations

import pytest

from storage.conventions.cmip import cmip_variable, table_of

FLUX, METRES = {"units": "W m-2"}, {"level_units": "m", "units": "K"}


def cmip_name(name: str, **attrs: object) -> str | None:
    found = cmip_variable(name, attrs)
    return None if found is None else found.name


@pytest.mark.parametrize("name", ["ulwrf", "pres", "temperature"])
def test_a_name_that_means_many_things_needs_its_standard_name(name):
    """`ulwrf` at the surface is no outgoing radiation, `pres` at the tropopause no surface's."""
    units = {"ulwrf": "W m-2", "pres": "Pa", "temperature": "K"}[name]
    level = {"level": 500.0, "level_units": "hPa"} if name == "temperature" else {}
    assert cmip_name(name, units=units, **level) is None
    known = {
        "ulwrf": "toa_outgoing_longwave_flux",
        "pres": "surface_air_pressure",
        "temperature": "air_temperature",
    }[name]
    assert cmip_name(name, units=units, standard_name=known, **level) is not None
    other = {"ulwrf": "surface_upwelling_longwave_flux_in_air", "pres": "tropopause_air_pressure"}
    assert cmip_name(name, units=units, standard_name=other.get(name, "sea_water_temp")) is None


@pytest.mark.parametrize(
    ("name", "attrs", "expected"),
    [
        ("t2m", METRES, "tas"),
        ("t", {"units": "K", "level": 850.0, "level_units": "hPa"}, "ta"),
        ("t", {"units": "K"}, None),
        ("z", {"units": "m2 s-2"}, None),
        ("hgt", {"units": "m"}, None),
        ("z", {"units": "m2 s-2", "level": 500.0, "level_units": "hPa"}, "zg"),
        ("t", {"units": "K", "level": 5.0, "level_units": "m", "level_kind": "depth"}, None),
        ("T", {"units": "K", "level": 850.0, "level_units": "hPa", "level_kind": "hybrid"}, None),
        ("ta", {"units": "K", "level": 850.0, "level_units": "hPa", "level_kind": "x"}, None),
        ("tx", {**METRES, "level": 2.0, "standard_name": "air_temperature",
                "cell_methods": "time: maximum"}, "tasmax"),
        ("tn", {**METRES, "level": 2.0, "standard_name": "air_temperature",
                "cell_methods": "area: mean time: minimum within days"}, "tasmin"),
        ("q", {"units": "1", "level": 2.0, "level_units": "m",
               "cell_methods": "time: maximum"}, None),
    ],
)  # fmt: skip
def test_levels_and_cell_methods_decide(name, attrs, expected):
    assert cmip_name(name, **attrs) == expected


@pytest.mark.parametrize(
    ("name", "units", "monthly", "daily"),
    [
        ("tas", "K", "Amon", "day"),
        ("tos", "degC", "Omon", "Oday"),
        ("siconc", "%", "SImon", "SIday"),
        ("mrsos", "kg m-2", "Lmon", "day"),
        ("snd", "m", "LImon", "Eday"),
    ],
)
def test_each_realm_has_its_tables(name, units, monthly, daily):
    known = cmip_variable(name, {"units": units})
    assert known is not None
    assert table_of(known, "mon") == monthly
    assert table_of(known, "day") == daily
    assert table_of(known, "12hr") == "12hr"
    assert table_of(None, "mon") == "Amon"
