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
