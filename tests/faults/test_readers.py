"""Readers that stay open read one ensemble, and of one that was taken away nothing."""

from __future__ import annotations

import pytest

from tests.faults import readers


@pytest.mark.parametrize("way", readers.WAYS)
def test_a_reader_reads_one_ensemble_while_names_are_swapped(tmp_path, way):
    found = readers.swapped_names(tmp_path, (way,))
    assert found["tried"] == 13
    assert found["bad"] == []
