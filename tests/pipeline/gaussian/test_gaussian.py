import itertools

import numpy as np
import pytest
import torch

from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.diffusion.score import GaussianScore, gaussian_score
from pipeline.fields.climatology import design
from pipeline.gaussian import fit as gaussian
from pipeline.gaussian.averaged import averaged_covariance, choose_averages, fit_averaged
from pipeline.gaussian.fit import (
    BASELINES,
    Baseline,
    Moments,
    baseline_from_arrays,
    choose,
    choose_shrinkage,
    fit,
    fit_channels,
    fit_isotropic,
    fit_m_block,
    left_out,
    refuse_sizes,
)
from pipeline.gaussian.moments import block_bytes, largest_block_degree
from pipeline.sphere.coefficients import degrees
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import Harmonics

CHANNELS, LMAX, FIELDS = 2, 5, 400


def white(fields: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((fields, CHANNELS, (LMAX + 1) ** 2))


@pytest.fixture(scope="module")
def fields() -> np.ndarray:
    """Fields with statistics that depend on latitude and tie the channels, not on longitude."""
    grid = RingGrid.gaussian(12)
    plan = Harmonics(grid, LMAX, np.float64)
    maps = plan.synthesis(white(2 * FIELDS, 0)) * (1 + np.sin(np.deg2rad(grid.latitudes)))[:, None]
    x = plan.analysis(maps)
    x[:, 1] += 0.5 * x[:, 0]
    return x


STRUCTURED = [("m-block", 2), ("averaged", 2), ("averaged", 0)]  # with a block degree below lmax


@pytest.fixture(
    scope="module",
    params=[*((name, LMAX) for name in BASELINES), *STRUCTURED],
    ids=lambda param: "-".join(map(str, param)),
)
def baseline(request, fields) -> Baseline:
    name, degree = request.param
    train, validation = (Moments.of(x, degree) for x in (fields[:FIELDS], fields[FIELDS:]))
    return fit(name, train, choose(name, train, validation))


def dense(baseline: Baseline) -> np.ndarray:
    """Its covariance as one matrix, rows by channel, then coefficient."""
    size = CHANNELS * (LMAX + 1) ** 2
    unit = torch.eye(size, dtype=torch.float64).reshape(size, CHANNELS, -1)
    matrix = baseline.rotate(unit).reshape(size, size).numpy()
    return matrix @ np.diag(baseline.variance.numpy().ravel()) @ matrix.T


def test_rotations_are_orthogonal(baseline):
    x = torch.from_numpy(white(3, 1))
    y = baseline.rotate(x)
    np.testing.assert_allclose(y.square().sum((1, 2)), x.square().sum((1, 2)), rtol=1e-12)
    np.testing.assert_allclose(baseline.unrotate(y), x, atol=1e-12)


def test_a_baseline_is_rebuilt_from_its_arrays(baseline):
    x = torch.from_numpy(white(2, 1))
    again = baseline_from_arrays(baseline.name, baseline.to_arrays())
    np.testing.assert_array_equal(again.rotate(x), baseline.rotate(x))
    np.testing.assert_array_equal(again.variance, baseline.variance)


def test_the_log_density_is_that_of_the_dense_covariance(baseline):
    """T-7: against linear algebra on the whole vector."""
    covariance = dense(baseline)
    x = white(4, 2).reshape(4, -1)
    quadratic = np.einsum("ni,ij,nj->n", x, np.linalg.inv(covariance), x)
    expected = -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * covariance)[1])
    actual = baseline.log_density(torch.from_numpy(x.reshape(4, CHANNELS, -1)))
    np.testing.assert_allclose(actual, expected, rtol=1e-10)


@pytest.mark.parametrize("t", [0.01, 0.4, 2.0])
def test_the_score_is_that_of_the_dense_covariance(baseline, t):
    """T-7: b = x - V^-1 x with V = 1 + e^-2t (S - 1) as one matrix."""
    x = white(3, 4)
    time = torch.full((3,), t, dtype=torch.float64)
    b = baseline.unrotate(gaussian_score(baseline, time, baseline.rotate(torch.from_numpy(x))))
    v = np.eye(x[0].size) + np.exp(-2 * t) * (dense(baseline) - np.eye(x[0].size))
    flat = x.reshape(3, -1)
    expected = flat - np.linalg.solve(v, flat.T).T
    np.testing.assert_allclose(b.reshape(3, -1), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["channels", "m-block"])
@pytest.mark.parametrize("steps", [1, 5])
def test_a_zero_network_draws_with_the_cross_spectra_of_the_data(name, steps, fields):
    """T-17: exactly, by the response to each coefficient of white noise at each step.

    The steps are the Gaussian-matched ones, written out in the coordinates of the baseline.
    """
    train = Moments.of(fields)
    law = fit(name, train, choose(name, train, train))
    score, variance = GaussianScore(law), OrnsteinUhlenbeck.variance
    size = CHANNELS * (LMAX + 1) ** 2
    unit = law.rotate(torch.eye(size, dtype=torch.float64).reshape(size, CHANNELS, -1))
    times = torch.as_tensor(OrnsteinUhlenbeck().power_grid(steps))
    responses = [torch.sqrt(variance(times[0], law.variance)) * unit]
    for t, t_next in itertools.pairwise(times):
        h, v, v_next = t - t_next, variance(t, law.variance), variance(t_next, law.variance)
        for k, y in enumerate(responses):
            time = t.expand(len(y))
            b = gaussian_score(law, time, y) + score.residual(time, y, torch.zeros(len(y), 1))
            responses[k] = torch.exp(-h) * y + 2 * torch.sinh(h) * b
        responses.append(torch.sqrt(v_next / v * -torch.expm1(-2 * h)) * unit)
    draws = torch.cat([law.unrotate(y) for y in responses]).numpy()
    covariance = np.einsum("nck,ndk->kcd", draws, draws)
    degree = degrees(LMAX)
    drawn = np.stack([covariance[degree == n].mean(axis=0) for n in range(LMAX + 1)])
    expected = train.channel_covariance()
    np.testing.assert_allclose(drawn, expected, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["channels", "m-block"])
def test_a_law_turns_with_its_channels(name, fields):
    """T-17: fields whose channels are rotated have the rotated law."""
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    turned = np.einsum("cd,ndk->nck", turn, fields)
    choice = {"shrinkage": np.full(LMAX + 1, 0.05)}
    law, other = (fit(name, Moments.of(x), choice) for x in (fields, turned))
    t = torch.full((5,), 0.3, dtype=torch.float64)
    b, b_turned = (
        each.unrotate(gaussian_score(each, t, each.rotate(torch.from_numpy(x[:5])))).numpy()
        for each, x in ((law, fields), (other, turned))
    )
    np.testing.assert_allclose(b_turned, np.einsum("cd,ndk->nck", turn, b), atol=1e-10)


def test_every_rung_but_the_first_keeps_the_cross_spectra(fields):
    train = Moments.of(fields)
    place = degrees(LMAX)
    expected = train.channel_covariance()
    for name in ("channels", "m-block"):
        covariance = dense(fit(name, train, choose(name, train, train)))
        blocks = covariance.reshape(CHANNELS, len(place), CHANNELS, len(place))
        kept = np.einsum("ckdk->kcd", blocks)
        mean = np.stack([kept[place == n].mean(axis=0) for n in range(LMAX + 1)])
        np.testing.assert_allclose(mean, expected, rtol=1e-9, atol=1e-10)
    power = fit_isotropic(train).variance[:, place == 3].numpy()
    np.testing.assert_allclose(power, np.diag(expected[3])[:, None] * np.ones(7), rtol=1e-12)


def test_in_training_each_law_is_at_least_as_likely_as_the_one_it_refines(fields):
    x, train = torch.from_numpy(fields), Moments.of(fields)
    isotropic, channels, m_block = (
        float(fit(name, train, choose(name, train, train)).log_density(x).mean())
        for name in ("isotropic", "channels", "m-block")
    )
    assert isotropic < channels < m_block


def test_a_law_that_leans_on_its_neighbours_turns_fields_and_loses_nothing():
    """Waves of one order that travel with the degree are complex; order 0 is real all the same."""
    x = white(60, 3)
    x[:, 1, 3] += x[:, 0, 5]  # (l, m): (1, 1) after (2, -1), so S_1 is complex
    half = np.full(LMAX + 1, 0.5)
    law = fit_averaged(Moments.of(x), half, 0.1 * half)
    y = law.rotate(torch.from_numpy(x))
    np.testing.assert_allclose(law.unrotate(y), x, atol=1e-12)
    covariance = dense(law).reshape(CHANNELS, -1, CHANNELS, (LMAX + 1) ** 2)
    near = averaged_covariance(
        Moments.of(x).covariance, Moments.of(x).channel_covariance(), 0, 0.5, 0.05
    )
    np.testing.assert_allclose(covariance[0, 2, 1, 6], near[1, LMAX + 1 + 2], atol=1e-12)
    assert np.abs(near.imag).max() == 0.0


def test_without_neighbours_the_averaged_law_is_the_m_block_law(fields):
    train, half, none = Moments.of(fields), np.full(LMAX + 1, 0.5), np.zeros(LMAX + 1)
    ours, theirs = dense(fit_averaged(train, none, half)), dense(fit_m_block(train, half))
    np.testing.assert_allclose(ours, theirs, atol=1e-10)


def test_orders_that_are_alike_are_known_better_from_their_neighbours():
    """White fields: what one order of few fields says of itself is chance, so it asks others."""
    train, new = Moments.of(white(40, 1)), white(400, 2)
    held_out = Moments.of(white(400, 3))
    laws = [
        fit(name, train, choose(name, train, held_out)).log_density(torch.from_numpy(new)).mean()
        for name in ("m-block", "averaged")
    ]
    across, towards = choose_averages(train, held_out)
    assert towards.min() > 0.0 and across.max() > 0.0
    assert laws[1] > laws[0] - 0.5
    unmixed = fit_averaged(train, 0 * across, np.full(LMAX + 1, 0.03))
    mixed = fit_averaged(train, 0 * across + 0.5, np.full(LMAX + 1, 0.03))
    likely = [float(law.log_density(torch.from_numpy(new)).mean()) for law in (unmixed, mixed)]
    assert likely[1] > likely[0] + 1.0


def test_an_averaged_covariance_is_the_mean_that_it_says(fields):
    train = Moments.of(fields)
    target, m = train.channel_covariance(), 2
    found = averaged_covariance(train.covariance, target, m, 0.4, 0.1)
    n = LMAX + 1 - m
    weights = {0: np.exp(-2.0), 1: np.exp(-0.5), 3: np.exp(-0.5), 4: np.exp(-2.0)}
    last = LMAX - m  # the highest degree of a variable, which all these orders have
    each = {k: train.covariance(k)[LMAX - k, LMAX - k].real for k in (*weights, m)}
    around = sum(weights[k] * each[k] for k in weights) / sum(weights.values())
    mixed = 0.9 * (0.6 * each[m] + 0.4 * around) + 0.1 * target[LMAX, 0, 0]
    assert found.shape == (CHANNELS * n, CHANNELS * n)
    np.testing.assert_allclose(found[last, last].real, mixed, rtol=1e-12)


def test_degrees_that_a_neighbour_lacks_are_the_usual_ones(fields):
    """Order 0 alone has degree 0: what its neighbours say of it is the usual variance."""
    train = Moments.of(fields)
    target = train.channel_covariance()
    found = averaged_covariance(train.covariance, target, 0, 1.0, 0.0)
    np.testing.assert_allclose(found[0, 0], target[0, 0, 0], rtol=1e-12)


def test_m_block_covariances_beyond_the_limit_are_refused_with_their_size(monkeypatch):
    refuse_sizes(5, 399)
    with pytest.raises(ValueError, match=r"to degree 639 take 32\.6 GiB, .* lower it to 399,"):
        refuse_sizes(5, 639)
    law = fit_m_block(Moments.of(white(30, 0)), np.full(LMAX + 1, 0.5))
    monkeypatch.setattr(gaussian, "LARGEST_BYTES", 8 * law.vectors.numel())
    refuse_sizes(CHANNELS, LMAX)
    monkeypatch.setattr(gaussian, "LARGEST_BYTES", 8 * law.vectors.numel() - 1)
    with pytest.raises(ValueError, match=f"to {LMAX - 1},"):
        refuse_sizes(CHANNELS, LMAX)


def test_without_shrinkage_the_m_block_law_has_the_moments_of_its_fields(fields):
    moments = Moments.of(fields)
    shrinkage = choose_shrinkage(moments, moments)
    assert (shrinkage == 0).all()
    fitted = fit_m_block(moments, shrinkage)
    y = fitted.rotate(torch.from_numpy(fields))
    pairs = y.square().mean(0)
    # +m and -m hold the two parts of one complex coordinate: their mean square is its variance.
    np.testing.assert_allclose(pairs.sum(), fitted.variance.sum(), rtol=1e-10)


def test_the_m_block_law_is_more_likely_on_held_out_fields(fields):
    train, held_out = Moments.of(fields[:FIELDS]), torch.from_numpy(fields[FIELDS:])
    m_block = fit_m_block(train, choose_shrinkage(train, Moments.of(fields[FIELDS:])))
    gain = m_block.log_density(held_out) - fit_channels(train).log_density(held_out)
    assert gain.mean() > 10 * gain.std() / len(gain) ** 0.5


def test_isotropic_fields_are_shrunk_to_the_law_of_the_channels():
    x = white(120, 5)
    assert choose_shrinkage(Moments.of(x[:60]), Moments.of(x[60:])).mean() > 0.4


def test_an_m_block_law_does_not_change_when_the_globe_turns(fields):
    """Turning by an angle mixes +m and -m; the density stays."""
    law = fit_m_block(Moments.of(fields[:FIELDS]), np.full(LMAX + 1, 0.02))
    grid = RingGrid.gaussian(12)
    plan = Harmonics(grid, LMAX, np.float64)
    turned = plan.analysis(np.roll(plan.synthesis(fields[:5]), 7, axis=-1))
    np.testing.assert_allclose(
        law.log_density(torch.from_numpy(turned)),
        law.log_density(torch.from_numpy(fields[:5])),
        rtol=1e-9,
    )


def assert_same_moments(ours: Moments, theirs: Moments) -> None:
    assert (ours.samples, ours.lmax, ours.degree) == (theirs.samples, theirs.lmax, theirs.degree)
    for a, b in zip((*ours.blocks, ours.beyond), (*theirs.blocks, theirs.beyond), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-8)


@pytest.mark.parametrize("degree", [0, 3, LMAX])
def test_moments_of_parts_add_up(fields, degree):
    parts = Moments.of(fields[:150], degree) + Moments.of(fields[150:], degree)
    assert_same_moments(parts, Moments.of(fields, degree))


@pytest.mark.parametrize("degree", [0, 3, LMAX])
def test_moments_of_mixed_channels_are_those_of_the_mixed_fields(fields, degree):
    matrices = np.random.default_rng(8).standard_normal((LMAX + 1, CHANNELS, CHANNELS))
    mixed = np.einsum("kcd,ndk->nck", matrices[degrees(LMAX)], fields)
    moments = Moments.of(fields, degree).mixed(matrices)
    assert_same_moments(moments, Moments.of(mixed, degree))


@pytest.mark.parametrize("lmax", [1, 3, 4])
def test_moments_of_fewer_degrees_are_those_of_fields_that_have_no_others(fields, lmax):
    cut = Moments.of(fields[..., : (lmax + 1) ** 2], min(3, lmax))
    assert_same_moments(Moments.of(fields, 3).up_to(lmax), cut)


@pytest.mark.parametrize("degree", [2, LMAX])
def test_moments_without_a_regression_are_those_of_what_it_leaves(fields, degree):
    rows = np.random.default_rng(9).standard_normal((len(fields), 3))
    flat = fields.reshape(len(fields), -1)
    left = flat - rows @ np.linalg.lstsq(rows, flat, rcond=None)[0]
    cross = np.tensordot(rows, fields, axes=(0, 0))
    found = Moments.of(fields, degree).without(cross, rows.T @ rows)
    assert_same_moments(found, Moments.of(left.reshape(fields.shape), degree))


def test_whatever_the_block_degree_the_channels_covary_alike(fields):
    expected = Moments.of(fields).channel_covariance()
    for degree in range(LMAX):
        found = Moments.of(fields, degree).channel_covariance()
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["m-block", "averaged"])
def test_up_to_the_block_degree_a_law_is_the_whole_one_and_beyond_it_that_of_the_channels(
    name, fields
):
    """To rounding, as a dense matrix: nothing of the whole law's low degrees is lost."""
    part, whole = Moments.of(fields, 3), Moments.of(fields)
    share = {key: np.full(LMAX + 1, 0.1) for key in ("shrinkage", "across", "towards")}
    degree = np.tile(degrees(LMAX), CHANNELS)
    ours, theirs = (dense(fit(name, each, share)) for each in (part, whole))
    channels = dense(fit("channels", whole, {}))
    low, high = degree <= 3, degree > 3
    np.testing.assert_allclose(ours[np.ix_(low, low)], theirs[np.ix_(low, low)], atol=1e-10)
    np.testing.assert_allclose(ours[np.ix_(high, high)], channels[np.ix_(high, high)], atol=1e-10)
    assert np.abs(ours[np.ix_(low, high)]).max() < 1e-12
    assert np.abs(theirs[np.ix_(low, high)]).max() > 1e-3, "there is something to leave out"


def test_a_law_of_many_degrees_takes_no_more_than_its_blocks_and_a_matrix_for_each_degree():
    x = np.random.default_rng(0).standard_normal((3, CHANNELS, 41**2))
    law = fit("averaged", Moments.of(x, 2), {k: np.full(3, 0.5) for k in ("across", "towards")})
    sizes = {name: array.size for name, array in law.to_arrays().items()}
    assert sizes["vectors"] == 2 * CHANNELS**2 * (9 + 4 + 1)
    assert sizes["beyond"] == CHANNELS**2 * 38


def test_the_block_degree_is_the_largest_whose_covariances_fit():
    law = fit_m_block(Moments.of(white(30, 0), 3), np.full(4, 0.5))
    assert block_bytes(CHANNELS, 3) == 8 * law.vectors.numel()
    assert largest_block_degree(CHANNELS, LMAX, block_bytes(CHANNELS, 3)) == 3
    assert largest_block_degree(CHANNELS, LMAX, block_bytes(CHANNELS, 3) - 1) == 2
    assert largest_block_degree(CHANNELS, LMAX) == LMAX, "small runs know all degrees"
    assert largest_block_degree(20, 719) == 61


def test_channel_covariance_is_the_mean_over_orders(fields):
    degree = degrees(LMAX)
    expected = [
        np.einsum("nck,ndk->cd", fields[..., degree == n], fields[..., degree == n])
        / (len(fields) * (2 * n + 1))
        for n in range(LMAX + 1)
    ]
    np.testing.assert_allclose(Moments.of(fields).channel_covariance(), expected, rtol=1e-10)


def test_moments_of_different_fields_are_refused(fields):
    with pytest.raises(ValueError, match="lmax"):
        Moments.of(fields) + Moments.of(fields[..., :25])
    with pytest.raises(ValueError, match=r"block degree \(2, 5, 5\) and \(2, 5, 4\)"):
        Moments.of(fields) + Moments.of(fields, 4)


def seasonal_rows(fields: int, years: float) -> np.ndarray:
    return design(2 * np.pi * np.linspace(0, years, fields, endpoint=False))


def test_fields_vary_in_coordinates_fitted_to_them_less_than_in_those_of_the_others():
    """Why the network trains with cross-fitted baselines."""
    x, shrinkage = white(20, 6), np.full(LMAX + 1, 0.1)
    own = fit_m_block(Moments.of(x), shrinkage)
    inside = (own.rotate(torch.from_numpy(x)).square() / own.variance).mean()
    outside = []
    for fold in left_out(x, np.ones((20, 1)), 4):
        law = fit_m_block(fold.moments, shrinkage)
        fields = torch.from_numpy(x[fold.stretch])
        outside.append((law.rotate(fields).square() / law.variance).mean())
    assert inside < 1.0
    assert min(outside) > 1.2


def test_stretches_cover_every_field_once_with_the_moments_of_the_others():
    """About their own climatology, and the fields about that of the others."""
    x, rows = white(60, 7), seasonal_rows(60, 3.0)
    folds = list(left_out(x, rows, 3))
    assert [(f.stretch.start, f.stretch.stop) for f in folds] == [(0, 20), (20, 40), (40, 60)]
    for fold in folds:
        others = np.setdiff1d(np.arange(60), np.arange(60)[fold.stretch])
        flat = x[others].reshape(len(others), -1)
        course = np.linalg.lstsq(rows[others], flat, rcond=None)[0]
        left = (flat - rows[others] @ course).reshape(x[others].shape)
        expected = Moments.of(left)
        assert fold.moments.samples == 40
        for a, b in zip(fold.moments.blocks, expected.blocks, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-9)
        told = fold.departures(x, rows)
        assert len(told) == 20
        usual = (rows[fold.stretch] @ course).reshape(20, CHANNELS, -1)
        np.testing.assert_allclose(told[np.array([3, 1])], (x[fold.stretch] - usual)[[3, 1]])


def test_departures_vary_as_new_fields_do_about_a_climatology_that_has_not_seen_them():
    """1 - p / n about one's own, 1 + p / n about that of others: white fields, 5 terms."""
    n, terms, own, new = 120, 5, [], []
    for seed in range(30):
        x, rows = white(n, 100 + seed), seasonal_rows(n, 4.0)
        flat = x.reshape(n, -1)
        x = (flat - rows @ np.linalg.lstsq(rows, flat, rcond=None)[0]).reshape(x.shape)
        own.append(np.square(x).mean())
        folds = left_out(x, rows, 4)
        new.append(np.mean([np.square(f.departures(x, rows)[:]).mean() for f in folds]))
    others = n * 3 / 4
    for found, expected in ((own, 1 - terms / n), (new, 1 + terms / others)):
        assert abs(np.mean(found) - expected) < 4 * np.std(found) / 30**0.5


def test_a_season_that_the_others_lack_is_not_extrapolated():
    x, rows = white(48, 9) + 10.0, seasonal_rows(48, 1.0)
    folds = list(left_out(x, rows, 4))
    assert not any(fold.about_others for fold in folds)
    np.testing.assert_array_equal(folds[1].departures(x, rows)[:], x[12:24])
    assert all(fold.about_others for fold in left_out(x, seasonal_rows(48, 4.0), 4))
