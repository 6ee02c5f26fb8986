"""Harmonic fill of cells without data."""

import numpy as np
import pytest

from pipeline.sphere.fill import HarmonicFill, harmonic_fill
from pipeline.sphere.grid import RingGrid

GRIDS = [RingGrid.gaussian(16), RingGrid.latlon(17), RingGrid.healpix(4)]


def holes(grid, fraction=0.3):
    mask = np.random.default_rng(0).random(grid.shape) < fraction
    if grid.kind != "healpix":
        mask[0] = True  # a whole polar row
    return mask


def test_the_fill_does_not_depend_on_the_order_of_cells():
    ring, nested = RingGrid.healpix(4), RingGrid.healpix(4, "nested")
    mask, field = holes(ring), np.random.default_rng(1).standard_normal(ring.shape)
    there, to = HarmonicFill(ring, mask)(field), nested.ring_positions
    np.testing.assert_allclose(HarmonicFill(nested, mask[to])(field[to]), there[to], atol=1e-12)


@pytest.mark.parametrize("grid", GRIDS, ids=RingGrid.describe)
def test_data_stay_constants_fill_constant_and_nothing_exceeds_the_data(grid):
    mask = holes(grid)
    fields = np.random.default_rng(1).standard_normal((3, *grid.shape))
    fields[1] = 4.0
    fields[:, mask] = np.nan
    before = fields.copy()
    filled = HarmonicFill(grid, mask)(fields)
    np.testing.assert_array_equal(fields, before)
    np.testing.assert_array_equal(filled[:, ~mask], before[:, ~mask])
    np.testing.assert_allclose(filled[1], 4.0, rtol=1e-12)
    assert np.isfinite(filled).all()
    assert filled[0].max() <= before[0][~mask].max()
    assert filled[0].min() >= before[0][~mask].min()


def test_a_filled_belt_falls_linearly_in_mercator_latitude():
    grid = RingGrid.latlon(180, 8, poles=False)
    latitude = np.deg2rad(np.asarray(grid.latitudes))
    harmonic = np.arctanh(np.sin(latitude))  # solves Laplace's equation, constant along latitudes
    mask = np.repeat((np.abs(latitude) < 1.0)[:, None], 8, axis=1)
    field = np.repeat(harmonic[:, None], 8, axis=1)
    filled = HarmonicFill(grid, mask)(np.where(mask, np.nan, field))
    np.testing.assert_allclose(filled, field, atol=2e-4)


def test_the_fill_of_one_mask_is_made_once():
    grid = RingGrid.gaussian(8)
    mask = holes(grid)
    assert harmonic_fill(grid, mask) is harmonic_fill(grid, mask.copy())


def test_fields_without_holes_pass_and_fields_without_data_are_refused():
    grid = RingGrid.gaussian(8)
    field = np.random.default_rng(2).standard_normal(grid.shape)
    np.testing.assert_array_equal(HarmonicFill(grid, np.zeros(grid.shape, bool))(field), field)
    with pytest.raises(ValueError, match="nothing to fill from"):
        HarmonicFill(grid, np.ones(grid.shape, bool))
    with pytest.raises(ValueError, match=r"\(8, 16\).*\(16, 8\)"):
        HarmonicFill(grid, np.zeros((16, 8), bool))
