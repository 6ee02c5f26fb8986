"""Tables from a shelf are those that are made."""

import numpy as np
import pytest

from pipeline.sphere import tables
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import Harmonics


@pytest.fixture
def shelf():
    kept = {}

    def take(name, make):
        if name not in kept:
            made = make()
            kept[name] = {n: np.concatenate([p.ravel() for p in made[n]]) for n in made}
        return kept[name]

    tables.keep_on(take)
    tables.tables.cache_clear()
    yield kept
    tables.keep_on(None)
    tables.tables.cache_clear()


@pytest.mark.parametrize("grid", [RingGrid.gaussian(66), RingGrid.healpix(32)], ids=["rings", "hp"])
def test_transforms_do_not_change_with_where_tables_come_from(grid, shelf):
    x = np.random.default_rng(0).standard_normal((2, 65**2)).astype(np.float32)
    fields = Harmonics(grid, 64).synthesis(x)
    back = Harmonics(grid, 64).analysis(fields)
    assert len(shelf) == 1
    tables.keep_on(None)
    tables.tables.cache_clear()
    np.testing.assert_array_equal(Harmonics(grid, 64).synthesis(x), fields)
    np.testing.assert_array_equal(Harmonics(grid, 64).analysis(fields), back)


def test_grids_degrees_and_precisions_have_tables_of_their_own(shelf):
    for grid in (RingGrid.gaussian(70), RingGrid.latlon(70), RingGrid.gaussian(70, 150)):
        for lmax in (64, 65):
            for dtype in ("float32", "float64"):
                tables.tables(grid, lmax, dtype)
    assert len(shelf) == 12


def test_small_tables_are_made_where_they_are_needed(shelf):
    tables.tables(RingGrid.gaussian(16), 15, "float32")
    assert not shelf


def test_what_a_grid_does_not_determine_is_not_kept(shelf):
    with pytest.raises(ValueError, match="degrees 0 to 69"):
        tables.tables(RingGrid.gaussian(70), 70, "float32")
    assert not shelf
