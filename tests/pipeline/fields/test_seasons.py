"""Which seasons were seen, and how many harmonics of the year they determine."""

import numpy as np
import pytest
import xarray as xr

from pipeline.errors import UnusableData
from pipeline.fields.climatology import SeasonalMoments, design, season_phase
from pipeline.fields.seasons import (
    determined_harmonics,
    harmonics_of,
    in_stretches,
    season_notes,
    spoken_stretches,
    unseen_stretches,
)


def phases(start: str, end: str, freq: str = "D") -> np.ndarray:
    return season_phase(xr.DataArray(xr.date_range(start, end, freq=freq), dims="time"))


@pytest.mark.parametrize(
    ("start", "end", "freq", "harmonics"),
    [
        ("2000-01-01", "2000-12-31", "D", 2),
        ("2000-01-01", "2000-12-01", "MS", 2),
        ("2000-01-01", "2000-10-15", "D", 2),  # 78 days are open
        ("2000-01-01", "2000-08-31", "D", 1),  # 123 days
        ("2000-01-01", "2000-08-01", "MS", 1),  # 153 days
        ("2000-06-01", "2000-08-31", "D", 0),
        ("2000-06-01", "2000-06-02", "D", 0),
        ("1990-06-01", "1990-06-01", "D", 0),
    ],
)
def test_the_largest_gap_of_the_phases_decides_how_many_harmonics_are_fitted(
    start: str, end: str, freq: str, harmonics: int
) -> None:
    assert determined_harmonics(phases(start, end, freq)) == harmonics


def test_winters_around_the_turn_of_the_year_are_one_season() -> None:
    winters = [phases(f"{year}-12-01", f"{year + 1}-02-28") for year in (2000, 2001)]
    phase = np.concatenate(winters)
    assert determined_harmonics(phase) == 0
    assert spoken_stretches(unseen_stretches(phase)) == "16 March to 15 November"


def test_a_cycle_is_bounded_in_the_gap_where_it_is_determined_and_not_where_it_is_not() -> None:
    """The norm of the extrapolation: values of one at most in the seen part, largest in the gap."""

    def amplification(phase: np.ndarray, harmonics: int) -> float:
        fit = np.linalg.pinv(design(phase, harmonics))
        everywhere = design(2 * np.pi * np.arange(365) / 365, harmonics)
        return float(np.abs(everywhere @ fit).sum(axis=1).max())

    months = phases("2000-01-01", "2000-08-01", "MS")
    assert amplification(months, 1) < 4.0
    assert amplification(months, 2) > 8.0


def test_more_harmonics_than_are_determined_are_refused_with_the_number_that_is() -> None:
    phase = phases("2000-01-01", "2000-08-31")
    assert harmonics_of(phase, None) == 1
    assert [harmonics_of(phase, asked) for asked in (0, 1)] == [0, 1]
    with pytest.raises(UnusableData, match=r"at most 1, got 2: .* leave 123 days .*harmonics = 1"):
        harmonics_of(phase, 2)


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day"])
def test_times_of_the_unseen_part_of_the_year_are_found_in_any_calendar(calendar: str) -> None:
    def times(start: str, end: str) -> xr.DataArray:
        days = xr.date_range(start, end, freq="D", calendar=calendar, use_cftime=True)
        return xr.DataArray(days, dims="time")

    unseen = unseen_stretches(season_phase(times("2000-01-01", "2000-08-30")))
    other = times("2017-01-01", "2017-12-30")
    found = other[in_stretches(other, unseen)]
    assert str(found.values[0])[5:10] in ("09-15", "09-16", "09-17")
    assert str(found.values[-1])[5:10] in ("12-14", "12-15", "12-16")
    assert not in_stretches(times("2017-01-01", "2017-08-30"), unseen).any()


def test_monthly_means_leave_nothing_of_the_year_unseen_and_a_lacking_month_does() -> None:
    months = phases("2001-01-01", "2001-12-01", "MS")
    assert unseen_stretches(months) == () and season_notes(months, 2) == {}
    lacking = np.delete(months, 6)
    assert spoken_stretches(unseen_stretches(lacking)) == "17 June to 16 July"


def test_a_record_of_one_season_has_a_mean_without_a_cycle() -> None:
    phase = phases("2000-06-01", "2000-08-31")
    generator = np.random.default_rng(0)
    values = 5.0 + generator.standard_normal((len(phase), 1, 2, 3))
    fitted = SeasonalMoments.of(values, phase, ("ta",), harmonics=0).fit()
    np.testing.assert_allclose(fitted.coefficients, values.mean(axis=0)[None])
    np.testing.assert_allclose(fitted.scale, values.std(axis=0))
