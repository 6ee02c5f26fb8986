"""Units are converted as UDUNITS converts them, where it knows them as files mean them."""

import pytest

from storage.conventions.quantities import _SPELLINGS, _UNITS, cf_unit, conversion

units = pytest.importorskip("cf_units")
WATER = "kg m-2 s-1"  # a millimetre of it is a kilogram a square metre, which UDUNITS cannot know


@pytest.mark.parametrize("unit", sorted(set(_UNITS) - {WATER}))
def test_conversions_are_those_of_udunits(unit: str) -> None:
    base, factor, offset = _UNITS[unit]
    if base == WATER and unit.startswith("mm"):
        base = "mm s-1"
    expected = units.Unit(unit).convert(2.5, units.Unit(base))
    assert 2.5 * factor + offset == pytest.approx(expected, rel=1e-14)


def test_every_spelling_stands_for_a_unit_that_udunits_reads() -> None:
    for spelling, unit in _SPELLINGS.items():
        assert cf_unit(spelling) in (unit, spelling)
        units.Unit(cf_unit(spelling))


def test_units_of_different_kinds_do_not_convert() -> None:
    assert conversion("K", "Pa") is None and conversion("m2 s-2", "m") is None
    assert conversion("degC", "K") == (1.0, 273.15)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("kg m^-2 s^-1", "kg m-2 s-1"),
        ("kg/m^2/s", "kg m**-2 s**-1"),
        ("kg m-2/s", "kg.m-2.s-1"),
        ("m^2 s^-2", "m**2 s**-2"),
        ("m2/s2", "m2 s-2"),
        ("W/m^2", "W m**-2"),
        ("J/m2", "J m**-2"),
        ("Pa/s", "Pa s**-1"),
        ("m/day", "m day^-1"),
        ("kg/m/m/s", "kg m-2 s-1"),
        ("degree_C", "degC"),
        ("degrees_K", "K"),
        ("m s**-1", "m.s-1"),
    ],
)
def test_two_spellings_of_a_unit_are_one_to_us_as_to_udunits(one: str, other: str) -> None:
    assert conversion(one, other) == (1.0, 0.0)
    assert units.Unit(one).convert(3.0, units.Unit(other)) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("one", "other"),
    [("kg m-2", "kg m2"), ("J m-2", "W m-2"), ("m/s/s", "m s-1"), ("10 m", "m"), ("m (2)", "m")],
)
def test_units_that_look_alike_do_not_convert(one: str, other: str) -> None:
    assert conversion(one, other) is None
