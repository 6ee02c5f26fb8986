"""Leading patterns on top of the channel covariances."""

import numpy as np
import pytest
import torch

from pipeline.diffusion.score import gaussian_score
from pipeline.gaussian import eof
from pipeline.gaussian.eof import choose_eof, eof_parts, fit_eof
from pipeline.gaussian.fit import Moments, fit_channels
from pipeline.sphere.coefficients import degrees

CHANNELS, LMAX, LOW = 2, 5, 3
SIZE, KEPT = CHANNELS * (LMAX + 1) ** 2, CHANNELS * (LOW + 1) ** 2
CHOICE = np.array([LOW, 4, 0.2])


def make_fields(fields, seed=0):
    """Correlated channels, and one pattern of low degrees that stands out."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((fields, CHANNELS, (LMAX + 1) ** 2))
    x[:, 1] += 0.7 * x[:, 0]
    pattern = np.random.default_rng(1).standard_normal((CHANNELS, (LOW + 1) ** 2))
    x[..., : (LOW + 1) ** 2] += 3.0 * generator.standard_normal((fields, 1, 1)) * pattern
    return x


@pytest.fixture(scope="module")
def train():
    return Moments.of(make_fields(300))


def low(array):
    """The low coefficients of a covariance (SIZE, SIZE)."""
    blocks = array.reshape(CHANNELS, (LMAX + 1) ** 2, CHANNELS, (LMAX + 1) ** 2)
    n = (LOW + 1) ** 2
    return blocks[:, :n, :, :n].reshape(KEPT, KEPT)


def dense(law):
    unit = torch.eye(SIZE, dtype=torch.float64).reshape(SIZE, CHANNELS, -1)
    matrix = law.rotate(unit).reshape(SIZE, SIZE).numpy()
    return matrix @ np.diag(law.variance.numpy().ravel()) @ matrix.T


def block_diagonal(matrices):
    """(degree, C, C) as a matrix with rows by channel, then coefficient."""
    place = degrees(len(matrices) - 1)
    result = np.zeros((CHANNELS, len(place), CHANNELS, len(place)))
    result[:, range(len(place)), :, range(len(place))] = matrices[place]
    return result.reshape(KEPT, KEPT)


@pytest.mark.parametrize("t", [0.05, 0.7])
def test_the_score_is_that_of_the_low_rank_formula(train, t):
    """T-7: V^-1 = V_D^-1 - V_D^-1 W (e^2t + W^T V_D^-1 W)^-1 W^T V_D^-1, S = D + W W^T."""
    rest, w = eof_parts(train, CHOICE)
    inverse = np.linalg.inv(np.eye(KEPT) + np.exp(-2 * t) * (block_diagonal(rest) - np.eye(KEPT)))
    middle = np.exp(2 * t) * np.eye(w.shape[1]) + w.T @ inverse @ w
    v_inverse = inverse - inverse @ w @ np.linalg.solve(middle, w.T @ inverse)
    x = make_fields(3, seed=2)
    x[..., (LOW + 1) ** 2 :] = 0.0
    law = fit_eof(train, CHOICE)
    time = torch.full((3,), t, dtype=torch.float64)
    b = law.unrotate(gaussian_score(law, time, law.rotate(torch.from_numpy(x)))).numpy()
    seen, y = b[..., : (LOW + 1) ** 2].reshape(3, KEPT), x[..., : (LOW + 1) ** 2].reshape(3, KEPT)
    np.testing.assert_allclose(seen, y - y @ v_inverse, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(b[..., (LOW + 1) ** 2 :], 0.0, atol=1e-12)


def test_the_law_is_patterns_on_top_of_a_block_diagonal_rest(train):
    rest, w = eof_parts(train, CHOICE)
    covariance = dense(fit_eof(train, CHOICE))
    np.testing.assert_allclose(low(covariance), block_diagonal(rest) + w @ w.T, atol=1e-10)
    assert np.linalg.eigvalsh(rest).min() > 0.0
    beyond = dense(fit_channels(train))
    outside = np.tile(degrees(LMAX) > LOW, CHANNELS)
    np.testing.assert_allclose(covariance[outside], beyond[outside], atol=1e-12)


def test_without_patterns_it_is_the_law_of_the_channels(train):
    for choice in ([0, 0, 0.0], [LOW, 4, 1.0]):
        law = fit_eof(train, np.array(choice))
        np.testing.assert_allclose(dense(law), dense(fit_channels(train)), atol=1e-10)


def test_the_pattern_that_stands_out_is_found_and_more_likely_on_held_out_fields(train):
    choice = choose_eof(train, Moments.of(make_fields(100, seed=3)))
    assert choice[0] >= LOW
    held_out = torch.from_numpy(make_fields(200, seed=4))
    gain = fit_eof(train, choice).log_density(held_out) - fit_channels(train).log_density(held_out)
    assert gain.mean() > 10 * gain.std() / len(gain) ** 0.5


def test_what_is_chosen_by_is_the_mean_log_density_of_the_validation_fields(train):
    """T-7: the low-rank formula of the choice against the law that it chooses."""
    x = make_fields(50, seed=5)
    root, inverse = eof._roots(train)
    values, patterns = eof._leading(train.mixed(inverse), LOW, 4)
    w = patterns * np.sqrt(0.8 * values)
    seen = Moments.of(x).mixed(inverse).low_covariance(LOW)
    chosen_by = eof._gain(eof._rest(w, CHANNELS, LOW), w, seen)
    fields = torch.from_numpy(x)
    gain = fit_eof(train, CHOICE).log_density(fields) - fit_channels(train).log_density(fields)
    np.testing.assert_allclose(chosen_by, gain.mean(), rtol=1e-10)
    np.testing.assert_allclose(root @ inverse, np.tile(np.eye(2), (LMAX + 1, 1, 1)), atol=1e-12)


def test_fields_without_patterns_choose_none():
    x = np.random.default_rng(6).standard_normal((120, CHANNELS, (LMAX + 1) ** 2))
    chosen = choose_eof(Moments.of(x[:60]), Moments.of(x[60:]))
    assert chosen[1] == 0


@pytest.mark.parametrize("fields", [2, 5, 12])
def test_fewer_fields_than_patterns_choose_a_law_that_can_be_fitted(fields):
    """More patterns than fields would explain all there is and leave no variance to the rest."""
    few = Moments.of(make_fields(fields))
    choice = choose_eof(few, Moments.of(make_fields(40, seed=7)))
    assert choice[1] < fields
    assert torch.isfinite(fit_eof(few, choice).log_density(torch.as_tensor(make_fields(3)))).all()


def test_a_direction_stands_where_most_of_it_lies(train):
    law = fit_eof(train, np.array([LOW, 0, 0.0]))
    place = np.tile(degrees(LOW), CHANNELS)
    within = place[:, None] == place
    assert (np.square(law.patterns.numpy()) * within).sum(axis=0).min() > 1.0 - 1e-9


def test_covariances_of_higher_degrees_than_are_kept_are_refused(train):
    with pytest.raises(ValueError, match="up to degree 5; got 6"):
        train.low_covariance(6)
