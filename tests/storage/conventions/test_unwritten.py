"""Coordinates of which one value was never written."""

from __future__ import annotations

import numpy as np
import pytest

from tests.storage.imitations import refused, regular, row, write


@row(
    "grid",
    "a latitude or longitude that was never written (9.97e36, NaN)",
    "refused with its place and value",
)
@pytest.mark.parametrize("axis", ["lat", "lon"])
@pytest.mark.parametrize(
    ("value", "said"), [(9.969209968386869e36, "9.96921e[+]36"), (np.nan, "nan")]
)
def test_a_position_that_was_never_written_is_named(tmp_path, axis, value, said):
    source = regular()
    numbers = source[axis].values.copy()
    numbers[2] = value
    source = source.assign_coords({axis: (axis, numbers, source[axis].attrs)})
    path = write(tmp_path, source, encoding={axis: {"_FillValue": None}})
    whole = {"lat": "latitude", "lon": "longitude"}[axis]
    text = refused(rf"{whole} 3 of {numbers.size} is {said}, which was never written", path)
    assert "regrid" not in text
