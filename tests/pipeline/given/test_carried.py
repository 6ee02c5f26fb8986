"""Observations carried into scaled anomalies."""

import numpy as np
import pytest
from scipy.stats import truncnorm

from pipeline.errors import UnusableData
from pipeline.fields.pointwise.maps import SIMPLE, Identity
from pipeline.fields.pointwise.normal_scores import Extent, Histogram
from pipeline.fields.standardisation import Normals
from pipeline.given.carried import carry, cut_normal, refuse_far
from pipeline.given.functionals import box, cells, joined, points
from pipeline.sphere.grid import RingGrid

GRID = RingGrid.gaussian(4)
GENERATOR = np.random.default_rng(2)
RAIN = np.maximum(GENERATOR.standard_normal((400, *GRID.shape)) ** 3, 0.0)
RANKS = Histogram.of(RAIN, 0.0, Extent.of(RAIN)).fit(np.inf)
SCALE = GENERATOR.uniform(0.5, 2.0, (3, *GRID.shape))
KNOWN = Normals(
    grid=GRID,
    channels=("t", "q", "pr"),
    transforms=(Identity(), SIMPLE["cbrt"], RANKS),
    climatology=GENERATOR.uniform(0.5, 1.0, (1, 3, *GRID.shape)),
    scale=SCALE,
    mask=np.zeros((3, *GRID.shape), bool),
    lmax=2,
    factor=np.tile(np.eye(3), (3, 1, 1)),
    remainder=np.zeros((3, *GRID.shape)),
)
USUAL = KNOWN.climatology[0].reshape(3, -1)


def carried(functionals, values, errors):
    return carry(KNOWN, functionals, np.ones(1), np.array(values), np.array(errors))


def test_a_plain_variable_keeps_its_value_less_its_mean_and_its_error():
    found = carried(cells(GRID, np.array([3]), 0), [2.0], [0.5])
    assert found.values == pytest.approx(2.0 - USUAL[0, 3])
    assert found.error == pytest.approx(0.25)
    assert found.spread == pytest.approx(SCALE[0].ravel()[3])


def test_a_cube_root_takes_values_and_errors_along():
    found = carried(cells(GRID, np.array([5]), 1), [8.0], [1.0])
    assert found.values == pytest.approx(2.0 - USUAL[1, 5])
    assert found.error == pytest.approx(((9 ** (1 / 3) - 7 ** (1 / 3)) / 2) ** 2)


def test_ranks_are_those_of_the_cell_even_where_places_share_cells():
    cell = np.array([7, 7, 2])
    functionals = cells(GRID, cell, 2)
    values = np.array([0.3, 1.2, 0.7])
    found = carried(functionals, values, [0.01] * 3)
    for place, (at, value) in enumerate(zip(cell, values, strict=True)):
        score = RANKS.forward(np.full(GRID.shape, value)).ravel()[at]
        assert found.values[place] == pytest.approx(score - USUAL[2, at])


@pytest.mark.parametrize("at", [-1.5, 0.0, 2.0])
def test_a_value_at_its_bound_says_what_the_cut_law_says(at):
    """Kriging of a standard normal number with the stand-in has the moments of the cut law."""
    mean, deviation = cut_normal(np.array([at]))
    gain = 1.0 / (1.0 + deviation**2)
    expected = truncnorm(-np.inf, at)
    assert gain * mean == pytest.approx(expected.mean(), rel=1e-6)
    assert 1.0 - gain == pytest.approx(expected.var(), rel=1e-6)


def test_a_dry_day_pulls_the_score_below_that_of_the_bound():
    found = carried(cells(GRID, np.array([4]), 2), [0.0], [0.1])
    assert np.isfinite(found.error).all()
    assert found.values[0] + USUAL[2, 4] < RANKS.scores[0].ravel()[4]


def test_the_mean_of_a_transformed_variable_is_refused():
    with pytest.raises(UnusableData, match=r"pr is modelled by the rank .* observe it at points"):
        carried(box(GRID, (-90, 90, 0, 360), 2), [1.0], [0.1])
    between = points(GRID, np.array([10.0]), np.array([11.0]), np.array([2]))
    assert np.isfinite(carried(between, [1.0], [0.1]).values).all()


def test_what_no_field_resembles_is_refused_by_its_name():
    both = joined([cells(GRID, np.array([0]), 0), cells(GRID, np.array([1]), 0)])
    found = carried(both, [1.0, 300.0], [0.1, 0.1])
    with pytest.raises(UnusableData, match=r"^row 7 lies .* Mend its value or its unit"):
        refuse_far(found, ["row 6", "row 7"].__getitem__)
