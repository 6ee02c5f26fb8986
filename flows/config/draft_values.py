"""What the values of fields say for a first configuration: rain, holes, zeros, units that lie.

Small sources are looked at whole, as ingest will; of large ones some times all along the record.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from storage.conventions.axes import toml_key
from storage.conventions.quantities import based
from storage.sources.survey import Survey, survey_of
from storage.sources.values import NOTABLE_ZEROS, missing_in

__all__ = ["declarations"]

LOOKED_AT = 256 << 20  # bytes of fields
SOME_TIMES = 24
FEWEST_TO_RANK = 100  # fields that are learned from
UNITS = {  # how a long name ends or brackets its unit, where the attribute is empty of meaning
    "K": r"deg(rees?)?[ _]?k(elvin)?|kelvin|\[k\]|\(k\)",
    "degC": r"deg(rees?)?[ _]?c(elsius)?|celsius|\[c\]|\(c\)|°c",
    "Pa": r"\[pa\]|\(pa\)|pascal",
    "hPa": r"hpa|mbar|millibar",
    "m s-1": r"m/s|m s-1|meters? per second|metres? per second",
    "mm day-1": r"mm/day|mm day-1|mm/d\b",
}


@dataclass(frozen=True)
class _Look:
    """One variable: its attributes, and what was seen of its values."""

    field: xr.DataArray
    seen: Survey

    @property
    def is_rain(self) -> bool:
        """Whether it is an amount of precipitation, by its name in CF or its unit."""
        attrs = self.field.attrs
        named = any(
            word in str(attrs.get(key, "")).lower()
            for key in ("standard_name", "long_name")
            for word in ("precipitation", "rain", "snowfall")
        )
        flux = based(1.0, str(attrs.get("units", "")))[1] == "kg m-2 s-1"
        amount = "amount" in str(attrs.get("standard_name"))
        return named and (flux or amount) and 0 <= self.seen.low < np.inf

    @property
    def zeros(self) -> float:
        """The part of the cells that are exactly zero at all times."""
        return float(self.seen.always_zero().mean())


def declarations(dataset: xr.Dataset, variables: Sequence[str], samples: int) -> Iterator[str]:
    """Lines of `[source]`, with remarks that say what is to be decided.

    Args:
        samples: Fields that will be learned from.
    """
    looks = {name: _Look(dataset[name], _seen(dataset[name])) for name in variables}
    yield from _transform(looks, samples)
    yield from _units(looks)
    land = {name: one for name, one in looks.items() if _is_land(one)}
    yield from _zeros(looks, land)
    yield from _holes(looks, land)


def _transform(looks: Mapping[str, _Look], samples: int) -> Iterator[str]:
    rains = [name for name, one in looks.items() if one.is_rain]
    if not rains:
        yield '# transform = { pr = "rank" }  # for amounts; what is bounded: docs/values.md'
        return
    kind = "rank" if samples >= FEWEST_TO_RANK else "cbrt"
    why = "amounts, often zero" if kind == "rank" else "skewed; too few fields for ranks"
    yield f"transform = {{ {_table(dict.fromkeys(rains, kind))} }}  # {why}"


def _units(looks: Mapping[str, _Look]) -> Iterator[str]:
    for name, one in looks.items():
        title, unit = str(one.field.attrs.get("long_name", "")), str(one.field.attrs.get("units"))
        if unit != "1":
            continue
        for likely, spelling in UNITS.items():
            if re.search(spelling, title, re.IGNORECASE):
                yield (
                    f'# units = {{ {toml_key(name)} = "{likely}" }}  # the files say "1", the long '
                    f"name {title!r}: if so, take away the first #"
                )
                break


def _zeros(looks: Mapping[str, _Look], land: Mapping[str, _Look]) -> Iterator[str]:
    if land:
        shares = ", ".join(f"{one.zeros:.0%} of {name}" for name, one in land.items())
        yield (
            f"missing = {{ {_table(dict.fromkeys(land, 0.0))} }}  # always exactly 0, as land is: "
            f"{shares}"
        )
    for name, one in looks.items():
        if name not in land and not one.is_rain and one.zeros >= NOTABLE_ZEROS:
            yield (
                f"# {name} is exactly 0 at all times in {one.zeros:.0%} of the cells; if that is "
                f"land or no data: missing = {{ {toml_key(name)} = 0.0 }} with fill"
            )


def _share(fraction: float) -> str:
    return f"{fraction:.0%}" if fraction >= 0.01 else f"{max(fraction, 0.0001):.2%}"


def _holes(looks: Mapping[str, _Look], land: Mapping[str, _Look]) -> Iterator[str]:
    filled, remarks = {name: one.zeros for name, one in land.items()}, []
    for name, one in looks.items():
        found = missing_in(one.seen)
        if found.count and found.static:
            filled[name] = filled.get(name, 0.0) + found.fraction
        elif found.count:
            filled.pop(name, None)
            remarks.append(
                f"# {name} is missing at some times in cells that have values at others "
                f"({found.fraction:.1%} of all): complete the source, or say what a missing value "
                f"stands for: fill = {{ {toml_key(name)} = ... }}"
            )
    if filled:
        table = _table(dict.fromkeys(filled, "harmonic"))
        yield f"fill = {{ {table} }}  # {_share(max(filled.values()))} of the cells are missing"
    yield from remarks


def _is_land(one: _Look) -> bool:
    return not one.is_rain and NOTABLE_ZEROS <= one.zeros < 1.0 and one.seen.zeros_stand_out


def _seen(field: xr.DataArray) -> Survey:
    if 4 * field.size > LOOKED_AT:
        times = field.sizes["time"]
        field = field.isel(time=np.unique(np.linspace(0, times - 1, SOME_TIMES).astype(int)))
    return survey_of(field)


def _table(values: Mapping[str, object]) -> str:
    return ", ".join(
        f"{toml_key(name)} = " + (f'"{value}"' if isinstance(value, str) else f"{value}")
        for name, value in values.items()
    )
