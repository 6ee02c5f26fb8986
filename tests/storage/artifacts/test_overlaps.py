"""Blocks and selections: what is put together from blocks is what was selected."""

import numpy as np
import pytest

from storage.artifacts.overlaps import overlaps


@pytest.mark.parametrize("block", [(1, 1), (2, 3), (5, 7), (9, 20)])
@pytest.mark.parametrize(
    "selection",
    [(slice(0, 7), slice(0, 11)), (slice(2, 5), slice(3, 10)), (slice(4, 5), slice(6, 6))],
)
def test_the_parts_of_all_blocks_are_the_selection(selection, block):
    whole = np.arange(7 * 11).reshape(7, 11)
    made = np.full([part.stop - part.start for part in selection], -1)
    for one in overlaps(selection, block):
        corner = [number * size for number, size in zip(one.place, block, strict=True)]
        stored = whole[tuple(slice(at, at + n) for at, n in zip(corner, block, strict=True))]
        assert (made[one.target] == -1).all()
        made[one.target] = stored[one.inside]
    np.testing.assert_array_equal(made, whole[selection])
