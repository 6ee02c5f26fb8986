"""Which variables are the two components of one wind: declared, or found by their names."""

import re
from collections.abc import Sequence

import xarray as xr

from flows.config.schema import ConfigError, RunConfig

STANDARD_NAMES = (("eastward", "northward"), ("x_wind", "y_wind"), ("_x_", "_y_"))
SPELLED = re.compile(
    r"^(u|ua|uas|uwnd|ugrd|u_?wind|ubot|u10|u10m|10u|u_component_of_wind.*"
    r"|10m_u_component_of_wind)((?<=[a-z])[@_.]?\d+(\.\d+)?[a-z]*)?$"
)


def wind_pairs(config: RunConfig, fields: xr.Dataset) -> tuple[tuple[int, int], ...]:
    """Places, among the variables, of the eastward and northward components of each wind.

    Raises:
        ConfigError: If a declared pair cannot be one.
    """
    names = list(config.source.variables)
    declared = config.source.winds
    pairs = _found(config, fields) if declared is None else declared
    for east, north in pairs:
        units = [str(fields[name].attrs.get("units", "")) for name in (east, north)]
        if units[0] != units[1]:
            raise ConfigError(
                f"source.winds: {east} is in {units[0]!r}, {north} in {units[1]!r}; the components "
                "of one wind have one unit"
            )
    return tuple((names.index(east), names.index(north)) for east, north in pairs)


def _found(config: RunConfig, fields: xr.Dataset) -> list[tuple[str, str]]:
    """Pairs by standard name or by name, as long as both are modelled as they are."""
    free = [
        name
        for name in config.source.variables
        if config.source.transform.get(name, "identity") == "identity"
    ]
    pairs = []
    for east in free:
        partners = [north for north in free if _partners(east, north, fields)]
        if len(partners) == 1:
            pairs.append((east, partners[0]))
    return pairs


def _partners(east: str, north: str, fields: xr.Dataset) -> bool:
    if str(fields[east].attrs.get("units")) != str(fields[north].attrs.get("units")):
        return False
    one, other = (str(fields[name].attrs.get("standard_name", "")) for name in (east, north))
    by_standard = any(a in one and other == one.replace(a, b) for a, b in STANDARD_NAMES)
    return (by_standard or (not one and not other and _spelled(east))) and _named_alike(east, north)


def _spelled(east: str) -> bool:
    return SPELLED.match(east.lower()) is not None


def _named_alike(east: str, north: str) -> bool:
    """Whether one letter or word says east in one name and north in the other, all else alike."""
    swaps: Sequence[tuple[str, str]] = (
        ("eastward", "northward"),
        ("east", "north"),
        ("u", "v"),
        ("U", "V"),
        ("x", "y"),
        ("X", "Y"),
    )
    return any(
        north == east[: found.start()] + b + east[found.end() :]
        for a, b in swaps
        for found in re.finditer(re.escape(a), east)
    )
