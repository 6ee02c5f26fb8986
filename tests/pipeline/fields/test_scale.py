"""A scale that follows the season and the trend, found from sums over time."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.fields.climatology import design
from pipeline.fields.pointwise.maps import SIMPLE
from pipeline.fields.scale import STEPS, ScaleFit, ScaleSums, Tried, chosen_scale, stepped
from pipeline.fields.standardisation import Normals
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import plan
from pipeline.sphere.pairs import in_pairs

GRID, LMAX, YEARS = RingGrid.latlon(16, 32), 10, 6
CELLS = GRID.size
ROWS = design(2.0 * np.pi * np.arange(73 * YEARS) / 73.0)
NAMES = ("ta", "ua", "va")
NORTH = np.sin(np.pi / 2 - np.pi * (np.arange(16) + 0.5) / 16)[:, None] * np.ones((16, 32))
CHANGE = np.stack([0.5 * NORTH, 0.2 * NORTH**2, 0.0 * NORTH, 0.0 * NORTH])  # of the log, by wave


def known(**parts):
    none = np.zeros((len(NAMES), *GRID.shape))
    made = {
        "grid": GRID,
        "channels": NAMES,
        "transforms": (SIMPLE["identity"],) * len(NAMES),
        "climatology": np.zeros((5, *none.shape)),
        "scale": none + 2.0,
        "mask": none.astype(bool),
        "lmax": LMAX,
        "factor": np.tile(np.eye(len(NAMES)), (LMAX + 1, 1, 1)),
        "remainder": none,
        "pairs": ((1, 2),),
    }
    return Normals(**(made | parts))


def changing(strength=1.0):
    log_scale = np.zeros((4, len(NAMES), *GRID.shape))
    log_scale[:, 0] = strength * CHANGE
    return known(log_scale=log_scale)


def white(seed=0):
    return np.random.default_rng(seed).standard_normal((len(ROWS), len(NAMES), *GRID.shape))


def fields(of, seed=0):
    """White anomalies under the scale of some normals."""
    return white(seed) * of.scales(ROWS)


def found(values, start):
    for _ in range(STEPS):
        start = stepped(start, ScaleSums.of(start, values, ROWS))
    return start


def fitted(values):
    """Normals with the deviation of these values as their scale."""
    return known(scale=np.sqrt(in_pairs(np.square(values).mean(axis=0), ((1, 2),))))


def chosen(train, judged, start=None):
    start = start or fitted(train)
    tried = Tried.of(start.scale, found(train, start))
    fits = (ScaleFit.of(start, tried.changes, values, ROWS) for values in (train, judged))
    return chosen_scale(tried, *fits)


def test_a_scale_that_follows_the_season_is_taken_away_and_given_back():
    normals, rows = changing(), ROWS[:20]
    values = white()[:20] * normals.scales(rows)
    scaled = normals.anomalies(values.copy(), rows)
    np.testing.assert_allclose(scaled, white()[:20], rtol=1e-12)
    np.testing.assert_allclose(normals.physical(scaled, rows), values, rtol=1e-6)
    single = normals.anomalies(values.astype(np.float32), rows)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, white()[:20], atol=1e-5)


def test_the_normals_of_one_time_have_the_scale_of_that_time():
    normals = changing()
    once = normals.at(ROWS[7])
    np.testing.assert_array_equal(once.scale, normals.scales(ROWS[7]))
    np.testing.assert_array_equal(once.scales(ROWS[3]), once.scale)
    assert not np.allclose(once.scale, normals.at(ROWS[30]).scale)


def test_steps_of_scoring_find_the_scale_that_the_data_have():
    normals = changing()
    got = found(fields(normals), known())
    # b of a term with mean square 1/2 has the variance 1 / n; maps average over the cells.
    error = 1.0 / np.sqrt(len(ROWS))
    z = (got.log_scale[:, 0] - CHANGE) / error
    assert np.abs(z.mean(axis=(1, 2))).max() < 4.0 / np.sqrt(CELLS) + 0.1
    assert 0.8 < z.std() < 1.2
    np.testing.assert_allclose(np.log(got.scale[0] / 2.0).mean(), 0.0, atol=0.02)


def test_smoothing_is_chosen_that_brings_the_scale_near_the_truth():
    normals = changing()
    got, to = chosen(fields(normals), fields(normals, seed=1))
    assert to[0] in (4, 8)  # the truth is of degrees 1 and 2
    left = np.abs(got.scales(ROWS)[:, 0] / normals.scales(ROWS)[:, 0] - 1.0)
    raw = found(fields(normals), known()).scales(ROWS)[:, 0] / normals.scales(ROWS)[:, 0] - 1.0
    assert left.mean() < 0.6 * np.abs(raw).mean()


def test_a_scale_that_does_not_change_is_left_alone():
    values = fields(known())
    got, to = chosen(values, fields(known(), seed=1))
    assert to == [-1, -1, -1]
    assert not len(got.log_scale)
    np.testing.assert_array_equal(got.scale, fitted(values).scale)


def test_both_components_of_a_wind_keep_one_scale():
    log_scale = np.zeros((4, len(NAMES), *GRID.shape))
    log_scale[0, 1] = 0.8 * NORTH  # of the eastward component alone
    of = known(log_scale=log_scale)
    got, to = chosen(fields(of), fields(of, seed=1))
    assert to[1] == to[2] > 0
    np.testing.assert_array_equal(got.log_scale[:, 1], got.log_scale[:, 2])
    np.testing.assert_allclose(got.scale[1], got.scale[2], rtol=1e-12)


def test_squares_keep_their_mean_in_every_cell():
    of = changing()
    values = fields(of)
    got, _ = chosen(values, fields(of, seed=1))
    before, after = (
        np.square(n.departures(values, ROWS)).mean(axis=0) for n in (fitted(values), got)
    )
    np.testing.assert_allclose(after[0], before[0], rtol=1e-12)
    np.testing.assert_allclose(after[0], 1.0, rtol=1e-12)


def test_masked_cells_keep_the_scale_of_their_fill():
    mask = np.zeros((len(NAMES), *GRID.shape), bool)
    mask[0, :3] = True
    start = known(mask=mask)
    values = np.where(mask, np.nan, fields(changing()))
    got, _ = chosen(values, np.where(mask, np.nan, fields(changing(), seed=1)), start)
    np.testing.assert_array_equal(got.log_scale[:, mask], 0.0)
    np.testing.assert_array_equal(got.scale[mask], start.scale[mask])
    assert np.isfinite(got.log_scale).all()
    assert np.isfinite(got.anomalies(values[:3].copy(), ROWS[:3])).all()


@pytest.mark.parametrize("warming", [-1.0, 0.0, 0.5])
def test_a_scale_that_follows_a_trend_is_told_between_what_was_seen(warming):
    level = np.repeat([-1.0, 1.0], len(ROWS) // 2)
    rows = np.concatenate(
        [design(2.0 * np.pi * np.arange(len(ROWS)) / 73.0)[:, :3], level[:, None]], 1
    )
    log_scale = np.zeros((3, len(NAMES), *GRID.shape))
    log_scale[2, 0] = 0.3
    of = known(climatology=np.zeros((4, len(NAMES), *GRID.shape)), log_scale=log_scale)
    start = replace(of, log_scale=np.empty(0))
    values = white() * of.scales(rows)
    for _ in range(STEPS):
        start = stepped(start, ScaleSums.of(start, values, rows))
    row = np.array([1.0, 0.0, 0.0, warming])
    error = np.sqrt((1.0 + warming**2) / 2 / len(ROWS) / CELLS)
    mean = np.log(start.scales(row)[0] / 2.0).mean()
    assert abs(mean - 0.3 * warming) < 4 * error + 0.01


def test_coefficients_come_back_from_fields_of_a_changing_scale():
    normals = changing()
    x = np.random.default_rng(3).standard_normal((4, len(NAMES), (LMAX + 1) ** 2))
    x[:, 1:, 0] = 0.0  # a wind has no degree 0
    rows = ROWS[[0, 10, 20, 40]]
    values = normals.unwhiten(x, rows)
    got = normals.whiten([values[:, c] for c in range(len(NAMES))], rows)
    np.testing.assert_allclose(got, x, atol=2e-4)


def test_smooth_maps_pass_the_smoothing_nearly_untouched():
    start = known()
    maps = np.zeros((4, len(NAMES), *GRID.shape))
    maps[:, 0] = CHANGE
    tried = Tried.of(start.scale, replace(start, log_scale=maps))
    assert tried.smoothed_to[0] == -1
    np.testing.assert_array_equal(tried.changes[0], 0.0)
    of_degree_one = 0.5 ** (2.0 / 72.0) ** 2
    power = plan(GRID, LMAX, "float64").analysis(tried.changes[2, 0, 0])
    np.testing.assert_allclose(
        power[1], of_degree_one * plan(GRID, LMAX, "float64").analysis(CHANGE[0])[1], rtol=1e-6
    )


def test_a_scale_is_judged_by_the_density_of_anomalies_in_any_season():
    train, some = fields(changing()), slice(5, 25)
    start = fitted(train)
    tried = Tried.of(start.scale, found(train, start))
    judged = fields(changing(), seed=1)[some]
    parts = (
        ScaleFit.of(start, tried.changes, v, r) for v, r in ((train, ROWS), (judged, ROWS[some]))
    )
    fit, of_judged = parts
    nats = tried.nats(fit, of_judged)
    weight = GRID.area / GRID.area.sum()
    for place, changes in enumerate(tried.changes):
        own = replace(start, scale=start.scale * tried.level(fit)[place], log_scale=changes)
        scale = own.scales(ROWS[some])
        density = -0.5 * np.square(judged / scale) - np.log(scale / start.scale)
        expected = (weight * density.mean(axis=0)).sum(axis=(1, 2))
        np.testing.assert_allclose(nats[place, 0], expected[0], rtol=1e-6)
        np.testing.assert_allclose(nats[place, 1:], expected[1:].mean(), rtol=1e-6)
