"""Known answers of the scores: laws whose score is a number one can write down."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pipeline.scores import arena as arenas
from pipeline.scores import by_date, by_degree, by_place
from pipeline.scores import maps as marginals
from pipeline.scores.analogues import YEAR, analogues, with_wind_speed
from pipeline.scores.arena import FLOOR, Arena, Fields, Sample
from pipeline.scores.bootstrap import Blocks, Estimate, Ratio, date_weights, fair_root, fair_sum
from pipeline.scores.maps import (
    correlation,
    equal_area_bands,
    map_squares,
    moments,
    standardised,
    tails,
    upper_quantile,
)
from pipeline.scores.proper_scores import (
    Energies,
    fair_crps,
    group_histograms,
    memorisation,
    nearest,
    rank_histogram,
    reliability_error,
)
from pipeline.scores.score_card import here, score_card

DATES, CELLS = 40, 60
BLOCKS = Blocks(dates=DATES, block=4)  # of the fixture `weights`


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def weights(generator):
    return date_weights(DATES, block=4, replicates=100, generator=generator)


def test_bootstrap_of_independent_dates_gives_the_textbook_standard_error(generator):
    weights = date_weights(2000, block=1, replicates=400, generator=generator)
    sample = generator.standard_normal(2000)
    error = Estimate.of(weights @ sample / 2000, Blocks(dates=2000, block=1)).standard_error
    assert error == pytest.approx(1 / np.sqrt(2000), rel=4 / np.sqrt(2 * 400))


def test_blocks_widen_the_error_of_a_persistent_series(generator):
    slow = np.repeat(generator.standard_normal(200), 5)
    error = [
        Estimate.of(
            date_weights(1000, block=b, replicates=300, generator=generator) @ slow,
            Blocks(dates=1000, block=b),
        )
        for b in (1, 25)
    ]
    assert error[1].standard_error > 1.6 * error[0].standard_error


def test_every_replicate_draws_as_many_dates_as_there_are(weights):
    np.testing.assert_array_equal(weights.sum(axis=1), DATES)
    np.testing.assert_array_equal(weights[0], 1)


def test_too_few_dates_for_blocks_are_refused(generator):
    with pytest.raises(ValueError, match="blocks of 5 dates"):
        date_weights(8, block=5, replicates=3, generator=generator)


@pytest.mark.parametrize("realizations", [2, 20])
def test_fair_square_does_not_depend_on_the_number_of_realizations(generator, realizations):
    statistic = 0.3 + generator.standard_normal((realizations, 40_000))
    square = fair_sum(statistic.sum(axis=0) ** 2, np.square(statistic).sum(axis=0), realizations)
    error = square.std() / np.sqrt(square.size)
    assert abs(square.mean() - 0.09) < 4 * error


def test_a_ratio_of_a_score_to_itself_is_one_and_certain(weights):
    rows = weights @ np.arange(1.0, DATES + 1)
    assert Ratio.of(rows, rows, BLOCKS) == Ratio(value=1.0, low=1.0, high=1.0)


def test_moments_of_chi_square_with_k_degrees_have_skewness_root_of_8_over_k(generator):
    k, n = 8, 400_000
    found = moments(generator.chisquare(k, (n, 1)), np.ones((1, n)))
    assert found.mean[0, 0] == pytest.approx(k, abs=4 * np.sqrt(2 * k / n))
    assert found.deviation[0, 0] == pytest.approx(np.sqrt(2 * k), rel=0.01)
    assert found.skewness[0, 0] == pytest.approx(np.sqrt(8 / k), abs=0.03)


def test_moments_with_integer_weights_are_those_of_repeated_dates(generator, weights):
    values = generator.standard_gamma(2, (DATES, 5)) + 1e4
    found = moments(values, weights[3:4])
    repeated = np.repeat(values, weights[3].astype(int), axis=0)
    expected = moments(repeated, np.ones((1, DATES)))
    for name in ("mean", "deviation", "skewness"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6)


def test_constant_cells_have_no_skewness_and_no_correlation():
    values = np.full((DATES, 3), 271.3)
    assert np.all(moments(values, np.ones((1, DATES))).skewness == 0)
    assert np.all(correlation(values, values, np.ones((1, DATES))) == 0)


def test_correlation_of_a_variable_with_its_double_is_one(generator, weights):
    x = generator.standard_normal((DATES, CELLS))
    np.testing.assert_allclose(correlation(x, 2 * x + 1, weights), 1.0)


def test_upper_quantile_of_a_million_gaussian_values_is_3_09(generator):
    values = generator.standard_normal((1000, 1000))
    found = upper_quantile(values, np.ones(1000), np.ones((1, 1000)))[0]
    density = np.exp(-(3.0902**2) / 2) / np.sqrt(2 * np.pi)
    assert found == pytest.approx(3.0902, abs=4 * np.sqrt(1e-3 / 1e6) / density)


def test_upper_quantile_counts_area(generator):
    values = np.concatenate([generator.standard_normal((500, 400)), np.full((500, 100), 9.0)], 1)
    area = np.r_[np.ones(400), np.full(100, 1e-9)]
    assert upper_quantile(values, area, np.ones((1, 500)))[0] < 4


def test_upper_quantile_of_few_dates_is_that_of_all_values_sorted(generator):
    """Replicates that leave out the dates of the largest values look deeper than others."""
    values = generator.standard_normal((8, 3000)) + 3 * np.arange(8)[:, None]
    area = generator.uniform(0.5, 1.5, 3000)
    weights = date_weights(8, block=2, replicates=60, generator=generator)
    order = np.argsort(values, axis=None)[::-1]
    date, cell = np.unravel_index(order, values.shape)
    for row, found in zip(weights, upper_quantile(values, area, weights), strict=True):
        share = row[date] * area[cell]
        middle = np.cumsum(share) - share / 2
        target = 1e-3 * row.sum() * area.sum()
        assert found == pytest.approx(np.interp(target, middle, values.ravel()[order]), abs=1e-12)


def test_map_errors_do_not_depend_on_how_cells_go_through_the_cache(
    generator, weights, monkeypatch
):
    draws = exchangeable(generator, 4)
    shift, area = np.zeros_like(draws[0]), generator.uniform(0.5, 1.5, CELLS)
    band = np.arange(CELLS) // (CELLS // 2)
    arguments = draws[1:], draws[0], shift, area, band, weights
    whole = map_errors(*arguments)
    monkeypatch.setattr(
        marginals, "cell_blocks", lambda cells, rows: [slice(0, 7), slice(7, cells)]
    )
    for name, rows in map_errors(*arguments).items():
        np.testing.assert_allclose(rows, whole[name], rtol=1e-12, err_msg=name)


def test_bands_have_equal_area_and_follow_latitude():
    latitude = np.repeat(np.arange(-87.5, 90, 5), 72)
    band = equal_area_bands(latitude, np.cos(np.deg2rad(latitude)), 6)
    share = np.bincount(band, np.cos(np.deg2rad(latitude)))
    assert np.all(np.diff(band[np.argsort(latitude)]) >= 0)
    np.testing.assert_allclose(share / share.sum(), 1 / 6, atol=0.05)


def test_fair_crps_of_standard_normal_draws_is_known(generator):
    """E|X - y| = 2/sqrt(pi) and E|X - X'|/2 = 1/sqrt(pi) when y is drawn from the law itself."""
    truth = generator.standard_normal(200_000)
    for realizations in (2, 10):
        score = fair_crps(generator.standard_normal((realizations, 200_000)), truth)
        assert abs(score.mean() - 1 / np.sqrt(np.pi)) < 4 * score.std() / np.sqrt(score.size)


def test_fair_crps_at_the_centre_of_a_gaussian_is_known(generator):
    score = fair_crps(generator.standard_normal((5, 200_000)), np.zeros(200_000))
    expected = np.sqrt(2 / np.pi) - 1 / np.sqrt(np.pi)
    assert abs(score.mean() - expected) < 4 * score.std() / np.sqrt(score.size)


def test_draws_of_one_year_are_not_paired_in_the_fair_crps(generator):
    """Days of one year again and again say no more than one of them, in any order of years."""
    truth, years = generator.standard_normal((30, 50)), generator.standard_normal((3, 30, 50))
    order = np.stack([generator.permutation(np.repeat(np.arange(3), 4)) for _ in range(30)], 1)
    copies = years[order, np.arange(30)]
    np.testing.assert_allclose(fair_crps(copies, truth, order), fair_crps(years, truth), rtol=1e-9)
    assert fair_crps(copies, truth).mean() > 1.05 * fair_crps(years, truth).mean()
    alone = np.arange(3)[:, None] * np.ones(30, int)
    np.testing.assert_allclose(fair_crps(years, truth, alone), fair_crps(years, truth))
    with pytest.raises(ValueError, match="2 groups"):
        fair_crps(years, truth, 0 * alone)


def test_skill_is_over_a_climatology_whose_days_of_a_year_hang_together(generator, weights):
    """A climatology of the same law has no skill over another, however its days resemble."""
    skills = []
    for _ in range(20):
        arena = plain_arena(generator, weights[:3], {})
        candidates, base = {"model": world(generator, 6)}, world(generator, 3)
        again = Fields(dataset=xr.concat([base.fields.dataset] * 5, "realization"))
        years = np.tile(np.arange(3), 5)[:, None] * np.ones(DATES, int)
        card = card_of(replace(arena, candidates=candidates, climatology=again, years=years))
        skills.append(card["scores"]["a"]["crps"]["model"]["skill"])
    assert abs(np.mean(skills)) < 4 * np.std(skills) / 20**0.5


def test_ranks_of_exchangeable_draws_are_uniform(generator):
    draws = generator.standard_normal((9, 30_000, 1))
    histogram = rank_histogram(draws, generator.standard_normal((30_000, 1)), np.ones(1))
    counts = histogram.sum(axis=0)
    chi_square = np.sum((counts - 3000) ** 2 / 3000)
    assert abs(chi_square - 9) < 4 * np.sqrt(2 * 9)


def test_ties_are_shared_evenly_so_a_dry_world_is_flat():
    histogram = rank_histogram(np.zeros((4, 3, 5)), np.zeros((3, 5)), np.ones(5))
    np.testing.assert_allclose(histogram, 0.2)


def test_ranks_with_ties_stay_uniform_for_exchangeable_precipitation(generator):
    rain = np.maximum(generator.standard_normal((5, 40_000, 1)), 0)
    frequency = rank_histogram(rain[1:], rain[0], np.ones(1)).mean(axis=0)
    np.testing.assert_allclose(frequency, 0.2, atol=4 * np.sqrt(0.16 / 40_000))


def test_spread_over_error_is_one_for_exchangeable_draws_of_any_number(generator, weights):
    for realizations in (2, 12):
        draws = generator.standard_normal((realizations + 1, DATES, 4000))
        dims = ("realization", "time", "lat", "lon")
        shown = xr.Dataset({"a": (dims, draws.reshape(*draws.shape[:2], 40, 100))})
        sums = by_date.date_sums(plain(shown, weights), whole("a", DATES, 4000))
        ratio = np.sqrt(sums.variance.sum() / sums.error.sum())
        assert ratio == pytest.approx(1, abs=4 / np.sqrt(DATES * 4000))


def test_reliability_error_is_small_when_exchangeable_and_large_when_overconfident(
    generator, weights
):
    truth = generator.standard_normal((DATES, 4000))
    draws = generator.standard_normal((8, DATES, 4000))
    good, bad = (
        reliability_error(group_histograms(scale * draws, truth, np.ones(4000), 2), weights)[0]
        for scale in (1, 0.5)
    )
    assert good < 0.005
    assert bad > 0.1


@pytest.mark.parametrize("size", [2, 3])
def test_a_perfect_law_has_the_reliability_error_of_the_floor_with_any_number_of_members(
    generator, size
):
    """Dates that hang together over many cells, so that chance alone fills bins unevenly."""
    few, many = [], []
    for _ in range(150):
        draws = np.repeat(generator.standard_normal((17, DATES, 6)), 10, axis=2)
        for members, errors in ((size, few), (16, many)):
            ensemble = draws[1 : members + 1]
            one = np.ones((1, DATES))
            histograms = group_histograms(ensemble, draws[0], np.ones(60), size)
            errors.append(reliability_error(histograms, one)[0])
    gap = np.subtract(few, many)
    assert abs(gap.mean()) < 4 * gap.std() / len(gap) ** 0.5
    assert np.mean(few) > 8 * np.std(few) / len(few) ** 0.5  # chance is no small part of it


def test_energy_distance_is_zero_for_the_same_law_and_catches_doubled_variance(generator):
    weights = date_weights(100, block=2, replicates=200, generator=generator)
    blocks = Blocks(dates=100, block=2)
    truth = generator.standard_normal((100, 12))
    draws = generator.standard_normal((6, 100, 12))
    same = Estimate.of(Energies.of(draws, truth).distance(weights, gap=2), blocks)
    assert abs(same.value) < 4 * same.standard_error
    wide = Estimate.of(Energies.of(np.sqrt(2) * draws, truth).distance(weights, gap=2), blocks)
    assert wide.value > 4 * wide.standard_error


def test_replicates_without_two_dates_apart_are_left_out_of_the_error(generator):
    weights = np.array([[1.0, 1.0, 1.0], [2.0, 1.0, 0.0], [1.0, 0.0, 2.0], [2.0, 0.0, 1.0]])
    truth, draws = generator.standard_normal((3, 5)), generator.standard_normal((4, 3, 5))
    rows = Energies.of(draws, truth).distance(weights, gap=2)
    assert np.isfinite(rows).tolist() == [True, False, True, True]
    found = Estimate.of(rows, Blocks(dates=3, block=1))
    assert found.standard_error == pytest.approx(np.std(rows[2:], ddof=1) * 1.5**0.5)


def test_energy_score_in_one_dimension_is_the_crps(generator, weights):
    truth, draws = generator.standard_normal((DATES, 1)), generator.standard_normal((4, DATES, 1))
    score = Energies.of(draws, truth).score(weights)
    np.testing.assert_allclose(score[0], fair_crps(draws, truth).mean(), atol=1e-6)


def test_copies_of_training_fields_are_exposed(generator):
    training = generator.standard_normal((300, 50))
    fresh = generator.standard_normal((100, 50))
    copies = training[:100] + 0.01 * generator.standard_normal((100, 50))
    least = (nearest(queries, training) for queries in (copies, fresh))
    found = memorisation(*least, 50)
    assert max(found["generated"]) < 0.1 * min(found["held_out"])
    np.testing.assert_allclose(nearest(training[:5], training), 0, atol=1e-6)


class OnDisk:
    """Fields that are read in parts, (field, channel, coefficient), and how many at once."""

    def __init__(self, fields) -> None:
        self.fields, self.most, self.read = fields, 0, 0

    def __len__(self) -> int:
        return len(self.fields)

    def __getitem__(self, part):
        assert isinstance(part, slice)
        found = self.fields[part]
        self.most, self.read = max(self.most, len(found)), self.read + len(found)
        return found


def test_training_fields_need_not_fit_into_memory(generator):
    training = OnDisk(generator.standard_normal((1000, 2, 10)).astype(np.float32))
    draws, held_out = (generator.standard_normal((40, 20)) for _ in range(2))
    found = memorisation(*np.split(nearest(np.concatenate([draws, held_out]), training), 2), 20)
    assert training.most <= 256 and training.read <= 1001
    flat = training.fields.reshape(1000, 20)
    for name, rows in (("generated", draws), ("held_out", held_out)):
        known = np.linalg.norm(rows[:, None] - flat, axis=2).min(axis=1) / np.sqrt(20)
        np.testing.assert_allclose(found[name], np.quantile(known, found["levels"]), rtol=1e-5)


def exchangeable(generator, realizations: int, cells: int = CELLS) -> np.ndarray:
    """Skewed, with a mean and a deviation that differ from cell to cell."""
    cell = np.linspace(1, 3, cells)
    return cell * (generator.standard_gamma(3, (realizations, DATES, cells)) + cell)


def map_errors(members, truth, shift, area, band, weights) -> dict[str, np.ndarray]:
    found = map_squares(members, truth, shift, area, band, weights)
    return {name: fair_root(total / area.sum()) for name, total in found.squares.items()}


def map_scores(generator, weights, realizations: int, scale: float = 1.0) -> dict[str, float]:
    """Mean square of each map error over independent experiments, as its root."""
    area, band = np.ones(CELLS), np.zeros(CELLS, dtype=int)
    squares = []
    for _ in range(30):
        draws = exchangeable(generator, realizations + 1)
        shift = np.zeros_like(draws[0])
        errors = map_errors(scale * draws[1:], draws[0], shift, area, band, weights[:1])
        squares.append([errors[name][0] ** 2 for name in ("mean", "sd", "skewness", "q999")])
    return dict(
        zip(("mean", "sd", "skewness", "q999"), np.sqrt(np.mean(squares, axis=0)), strict=True)
    )


def test_map_errors_of_exchangeable_fields_are_the_noise_of_the_truth_for_any_ensemble_size(
    generator, weights
):
    few, many = (map_scores(generator, weights, r) for r in (2, 16))
    for name in few:
        assert few[name] == pytest.approx(many[name], rel=0.1), name


def test_map_errors_catch_a_wider_law(generator, weights):
    same, wide = (map_scores(generator, weights, 8, scale) for scale in (1, np.sqrt(2)))
    assert wide["sd"] > 2 * same["sd"]
    assert wide["skewness"] == pytest.approx(same["skewness"], rel=0.1)


def test_tails_see_heavy_ones_beyond_any_single_cells_dates(generator):
    n = 400
    normal, heavy = generator.standard_normal((DATES, n)), generator.standard_t(4, (DATES, n))
    one = np.ones((1, DATES))
    light, thick = (
        tails(standardised(x), np.ones(n), np.zeros(n, int), one)[0, 0] for x in (normal, heavy)
    )
    assert thick > light + 0.5


def test_analogues_are_the_same_calendar_days_of_all_years_of_the_record():
    time = pd.date_range("2000-01-01", "2003-12-31")
    phase = 2 * np.pi * (time.day_of_year.values - 1) / np.where(time.is_leap_year, 366, 365)
    fields = xr.Dataset({"day": ("time", time.day_of_year.values)}, coords={"time": time})
    wanted = 2 * np.pi * np.array([0, 200, 364]) / 365
    chosen = analogues(fields["time"], phase, wanted)
    assert chosen is not None
    found = {"day": fields["day"][chosen.rows.ravel()].values.reshape(4, 3), "year": chosen.year}
    assert np.abs(found["day"] - [1, 201, 365]).max() <= 1
    assert found["year"].T.tolist() == [[2000, 2001, 2002, 2003]] * 3
    window = analogues(fields["time"], phase, wanted[1:2], offsets=(-10, 10))
    assert window is not None
    days = fields["day"].values[window.rows.ravel()]
    assert sorted(set(np.round(days - 201, -1))) == [-10, 10]


def test_of_a_long_record_thirty_years_are_enough():
    """Evenly spread, the first and the last among them: memory does not grow with the record."""
    phase = np.tile(2 * np.pi * np.arange(4) / 4, 61)
    times = xr.date_range("1900-01-01", periods=len(phase), freq="3MS", use_cftime=False)
    found = analogues(xr.DataArray(times, dims="time"), phase, np.array([phase[0]]))
    assert len(found.rows) == 30
    assert found.year[[0, -1], 0].tolist() == [1900, 1960]


def test_a_record_without_the_season_has_no_analogues():
    time = pd.date_range("2000-01-01", "2000-06-30")
    fields = xr.Dataset({"day": ("time", time.day_of_year.values)}, coords={"time": time})
    phase = 2 * np.pi * time.day_of_year.values / YEAR
    assert analogues(fields["time"], phase, np.array([4.0])) is None


def test_wind_speed_is_derived_from_pairs_of_the_same_level_only():
    def wind(value: float, component: str) -> xr.DataArray:
        attrs = {"standard_name": f"{component}_wind", "units": "m s-1"}
        attrs["long_name"] = f"{component} wind at 850 hPa"
        return xr.DataArray(np.full(3, value), dims="cell", attrs=attrs)

    fields = xr.Dataset(
        {
            "ua850": wind(3.0, "eastward"),
            "va850": wind(4.0, "northward"),
            "ua200": wind(1.0, "eastward"),
        }
    )
    found = with_wind_speed(fields)
    assert sorted(set(found) - set(fields)) == ["ws850"]
    np.testing.assert_allclose(found["ws850"], 5.0)
    assert found["ws850"].attrs["long_name"] == "wind speed at 850 hPa"


def world(generator, realizations: int, scale: float = 1.0, lmax: int = 4, dates=DATES) -> Sample:
    """Gaussian fields on 6 x 10 cells; the coefficients are a law of their own."""
    shape = (realizations, dates)
    coords = {"lat": np.linspace(-75, 75, 6), "lon": np.arange(0, 360, 36.0)}
    dims = ("realization", "time")
    fields = xr.Dataset(
        {
            name: ((*dims, "lat", "lon"), scale * generator.standard_normal((*shape, 6, 10)))
            for name in ("a", "b")
        },
        coords=coords,
    )
    x = scale * generator.standard_normal((*shape, 2, (lmax + 1) ** 2))
    named = {"channel": ["a", "b"]}
    return Sample(
        fields=Fields(dataset=fields),
        x=xr.DataArray(x, dims=(*dims, "channel", "coefficient"), coords=named),
        power=xr.DataArray(by_degree.power(x), dims=(*dims, "channel", "degree"), coords=named),
    )


def plain_arena(generator, weights, candidates, climatology=None) -> Arena:
    """A held-out world, and who is compared with it."""
    truth = world(generator, 1, dates=weights.shape[1])
    lat = xr.DataArray(np.cos(np.deg2rad(truth.fields.dataset["lat"])), dims="lat")
    return Arena(
        truth=truth,
        expected=Fields(dataset=xr.zeros_like(truth.fields.dataset)),
        area=lat.broadcast_like(truth.fields.dataset["a"][0, 0]),
        weights=weights,
        block=4,
        candidates=candidates,
        climatology=climatology,
    )


def plain(fields: xr.Dataset, weights) -> Arena:
    """The first realization is the truth of the others, all cells alike."""

    def sample(some: slice) -> Sample:
        x = xr.DataArray(np.zeros((some.stop - some.start, 1)), dims=("realization", "time"))
        return Sample(fields=Fields(dataset=fields.isel(realization=some)), x=x, power=x)

    area = xr.ones_like(fields["a"][0, 0]).assign_coords(lat=np.linspace(-90, 90, 40))
    return Arena(
        truth=sample(slice(0, 1)),
        expected=Fields(dataset=fields),
        area=area,
        weights=weights,
        block=1,
        candidates={"model": sample(slice(1, fields.sizes["realization"]))},
    )


def whole(name: str, dates: int, cells: int) -> by_date.DateUnit:
    return by_date.DateUnit("model", arenas.Variable(name), (0, dates), (0, cells))


def card_of(arena: Arena) -> dict:
    return score_card(arena, here(arena), ["a", "b"], next(iter(arena.candidates))).table


def test_the_score_card_puts_a_true_law_at_the_floor_and_a_wide_one_above(generator, weights):
    arena = plain_arena(generator, weights, {})
    candidates = {
        "model": world(generator, 12),
        "wide": world(generator, 12, scale=np.sqrt(2)),
        FLOOR: world(generator, 4),
    }
    card = card_of(replace(arena, candidates=candidates, climatology=candidates[FLOOR].fields))
    for name in ("a", "b"):
        scores = card["scores"][name]
        assert all(set(entries) == set(candidates) for entries in scores.values())
        for score in ("mean", "sd", "skewness", "q999", "crps", "spread"):
            assert 0.8 < scores[score]["model"]["ratio"]["value"] < 1.25, score
        for score in ("sd", "crps", "spectrum"):
            assert scores[score]["wide"]["ratio"]["low"] > 1, score
        assert scores["crps"][FLOOR]["skill"] == pytest.approx(0, abs=1e-12)
        assert scores["sd"]["wide"]["relative"] == pytest.approx(np.sqrt(2) - 1, abs=0.15)
        assert len(card["ranks"][name]["model"]) == 13
    distance = card["joint"]["energy_distance"]
    assert abs(distance["model"]["value"]) < 4 * distance["model"]["standard_error"]
    assert distance["wide"]["excess"] > 4
    ratio = card["spectra"]["a"]["ratio"]["wide"]["value"]
    np.testing.assert_allclose(np.mean(ratio), 2, rtol=0.2)


@pytest.mark.parametrize(
    ("east", "speed"),
    [
        ("Eastward wind at 250 hPa", "wind speed at 250 hPa"),
        ("Zonal Wind", "Wind speed"),
        ("U component of wind", "wind speed"),
        ("10 metre U-component of wind", "10 metre wind speed"),
    ],
)
def test_the_speed_of_a_wind_is_named_as_the_wind_is(east, speed):
    kinds = {"u": ("eastward_wind", east), "v": ("northward_wind", "v")}
    fields = xr.Dataset(
        {name: ((), 1.0, {"standard_name": s, "long_name": n}) for name, (s, n) in kinds.items()}
    )
    assert with_wind_speed(fields)["ws"].attrs["long_name"] == speed


@pytest.mark.parametrize("missing", [pytest.param(False, marks=pytest.mark.long), True])
def test_scores_do_not_depend_on_how_they_are_divided(generator, weights, monkeypatch, missing):
    monkeypatch.setattr(arenas, "BAND_SAMPLE", 400)
    weights, names = weights[:5], ("model", FLOOR)
    arena = plain_arena(generator, weights, {one: world(generator, 3) for one in names})
    arena = replace(arena, climatology=world(generator, 6).fields)
    if missing:
        arena.truth.fields.dataset["b"].values[0, 7, 2:4, 3:9] = np.nan
    table, maps = (lambda card: (card.table, card.maps))(
        score_card(arena, here(arena), ["a", "b"], "model")
    )
    divided(monkeypatch, 128)
    again = score_card(arena, here(arena), ["a", "b"], "model")
    assert flat(again.table).keys() == flat(table).keys()
    for name, value in flat(again.table).items():
        assert value == pytest.approx(flat(table)[name], rel=1e-8, abs=1e-10), name
    for name in ("a", "b"):
        for one, other in zip(again.maps[name], maps[name], strict=True):
            xr.testing.assert_allclose(one, other)
    assert bool(maps["b"][1]["sd"].isnull().any()) is missing


def test_the_largest_array_does_not_grow_with_dates_or_realizations(generator, monkeypatch):
    """Counted are the fields that are read at once; 96,000 numbers of each variable before."""
    divided(monkeypatch, 2048)
    sizes: list[int] = []
    read = Fields.read

    def counted(self, *arguments, **keywords):
        values = read(self, *arguments, **keywords)
        sizes.append(values.size)
        return values

    monkeypatch.setattr(Fields, "read", counted)
    most = []
    for dates, realizations in ((20, 2), (40, 40)):
        weights = date_weights(dates, block=4, replicates=4, generator=generator)
        ensemble = world(generator, realizations, dates=dates)
        card_of(plain_arena(generator, weights, {"model": ensemble}, ensemble.fields))
        most.append(max(sizes))
    assert most[1] <= 1.1 * most[0] <= 1.1 * 2048


def divided(monkeypatch, numbers: int) -> None:
    for module in (arenas, by_date, by_place, by_degree):
        monkeypatch.setattr(module, "NUMBERS", numbers)
    monkeypatch.setattr(arenas, "BAND_SAMPLE", 400)
    monkeypatch.setattr(marginals, "MIDDLES", 100)


def flat(table, place: str = "") -> dict:
    if isinstance(table, dict | list):
        pairs = table.items() if isinstance(table, dict) else enumerate(table)
        return {k: v for name, each in pairs for k, v in flat(each, f"{place}/{name}").items()}
    return {} if table is None else {place: table}
