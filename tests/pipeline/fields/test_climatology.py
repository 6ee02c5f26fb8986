"""Seasonal climatology and scale from sums over time."""

from functools import reduce
from operator import add

import numpy as np
import pytest
import xarray as xr

from pipeline.errors import UnusableData
from pipeline.fields.climatology import SeasonalMoments, design, season_phase

NAMES = ("warm", "wet")
PHASE = 2.0 * np.pi * np.arange(730) / 365.0


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def series(generator, noise=1.0):
    """Fields with a known seasonal cycle, and the coefficients of that cycle."""
    truth = generator.standard_normal((5, 2, 3, 4))
    values = np.tensordot(design(PHASE), truth, axes=(1, 0))
    return values + noise * generator.standard_normal(values.shape), truth


def test_the_phase_is_the_elapsed_fraction_of_the_year_in_any_calendar():
    days = xr.date_range("2001-01-01", "2002-01-01", freq="D")
    phase = season_phase(xr.DataArray(days, dims="time"))
    np.testing.assert_allclose(phase[[0, 365]], 0.0)
    np.testing.assert_allclose(np.diff(phase[:365]), 2.0 * np.pi / 365.0)
    noon = xr.date_range("2000-07-01T12", periods=1, calendar="360_day", use_cftime=True)
    np.testing.assert_allclose(
        season_phase(xr.DataArray(noon, dims="time")), 2 * np.pi * 180.5 / 360
    )


def test_a_noise_free_cycle_is_recovered_exactly(generator):
    values, truth = series(generator, noise=0.0)
    values[0] += 1e-3
    fitted = SeasonalMoments.of(values, PHASE, NAMES).fit()
    np.testing.assert_allclose(fitted.coefficients, truth, atol=2e-5)


def test_scale_is_the_standard_deviation_about_the_cycle(generator):
    values, _ = series(generator, noise=3.0)
    scale = SeasonalMoments.of(values, PHASE, NAMES).fit().scale
    error = 3.0 / np.sqrt(2.0 * len(PHASE))
    assert np.all(np.abs(scale - 3.0) < 5.0 * error)


def test_moments_of_blocks_add_up_to_those_of_the_series(generator):
    values, _ = series(generator)
    values[:, 1, 0, :2] = np.nan
    whole = SeasonalMoments.of(values, PHASE, NAMES).fit()
    blocks = [
        SeasonalMoments.of(values[i : i + 100], PHASE[i : i + 100], NAMES)
        for i in range(0, 730, 100)
    ]
    joined = reduce(add, blocks).fit()
    np.testing.assert_allclose(joined.coefficients, whole.coefficients, atol=1e-12)
    np.testing.assert_allclose(joined.scale, whole.scale, rtol=1e-12)
    assert whole.mask.sum() == 2
    assert np.all(whole.scale[whole.mask] == 1.0)


def test_cells_that_never_vary_get_a_small_positive_scale(generator):
    values, _ = series(generator)
    values[:, 0, 1, 1] = 273.15
    scale = SeasonalMoments.of(values, PHASE, NAMES).fit().scale
    typical = np.sqrt((scale[0] ** 2).mean())
    np.testing.assert_allclose(scale[0, 1, 1], 1e-3 * typical, rtol=1e-4)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v: v.__setitem__((slice(None), 1), 7.0), "wet is constant"),
        (lambda v: v.__setitem__((slice(None), 0), np.nan), "warm is missing"),
        (lambda v: v.__setitem__((5, 1, 2, 2), np.nan), "wet is missing at some times .* 1 cells"),
        (
            lambda v: v.__setitem__((slice(500, None), 1, 2, 2), np.nan),
            "wet is missing at some times",
        ),
    ],
)
def test_variables_without_a_scale_and_moving_masks_are_refused_by_name(generator, spoil, message):
    values, _ = series(generator)
    spoil(values)
    with pytest.raises(UnusableData, match=message):
        halves = [
            SeasonalMoments.of(values[i : i + 365], PHASE[i : i + 365], NAMES) for i in (0, 365)
        ]
        reduce(add, halves).fit()


def test_a_training_period_of_one_season_is_refused(generator):
    values, _ = series(generator)
    with pytest.raises(UnusableData, match=r"30 training times .* all seasons"):
        SeasonalMoments.of(values[:30], PHASE[:30], NAMES).fit()


def test_what_fills_a_hole_gets_a_scale_of_its_own_and_no_cell_beside_it(generator):
    values, _ = series(generator)
    values[:, 1, 0, :2] = np.nan
    known = SeasonalMoments.of(values, PHASE, NAMES).fit()
    variance = np.full(known.scale.shape, 0.25)
    variance[1, 0, 1] = 1e-9
    filled = known.with_holes(variance).scale
    np.testing.assert_allclose(filled[1, 0, :2], [0.5, 0.05])
    np.testing.assert_array_equal(filled[~known.mask], known.scale[~known.mask])


def test_the_phase_of_numpys_times_is_that_of_their_calendar() -> None:
    hours = np.random.default_rng(0).integers(0, 300 * 366 * 24, 2000)
    times = np.datetime64("1850-01-01T00:00:30", "ns") + hours * np.timedelta64(1, "h")
    days = xr.DataArray(times, dims="time").dt
    seconds = (days.hour * 60 + days.minute) * 60 + days.second
    elapsed = days.dayofyear - 1 + seconds / 86400
    np.testing.assert_array_equal(
        season_phase(xr.DataArray(times, dims="time")), 2 * np.pi * elapsed / days.days_in_year
    )
