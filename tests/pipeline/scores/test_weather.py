"""Scores of how weather goes on, on series of which the answer is known."""

import numpy as np
import pytest

from pipeline.scores.weather import (
    LONGEST,
    MEANS,
    eastward_share,
    energy_distance,
    halves,
    irreversibility,
    octaves,
    power_distance,
    spell_lengths,
    travelling_power,
    variance_of_means,
)


def autoregression(rate: float, days: int, cells: int = 40) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal((days, 1, cells))
    x = np.zeros_like(noise)
    for k in range(1, days):
        x[k] = rate * x[k - 1] + np.sqrt(1 - rate**2) * noise[k]
    return x


def test_means_of_days_of_white_noise_vary_as_one_over_n_and_of_persistent_days_more():
    area = np.ones(40)
    white = variance_of_means(autoregression(0.0, 4000), area)[:, 0]
    np.testing.assert_allclose(white, 1 / np.array(MEANS), rtol=0.06)
    persistent = variance_of_means(autoregression(0.8, 4000), area)[:, 0]
    # of two days: (1 + rate) / 2
    assert persistent[1] == pytest.approx(0.9, rel=0.03)
    assert np.isnan(variance_of_means(autoregression(0.8, 40), area)[-1]).all()


def test_a_gaussian_series_is_reversible_and_a_saw_tooth_is_not():
    gaussian = irreversibility(autoregression(0.6, 20000))
    assert np.abs(gaussian).max() < 0.06
    teeth = np.tile(np.linspace(-1, 1, 8), 100)[:, None, None]  # slowly up, at once down
    found = irreversibility(teeth)
    assert abs(found[0, 0]) > 0.1
    np.testing.assert_allclose(irreversibility(teeth[::-1]), -found, atol=1e-12)


def test_lengths_of_spells_are_those_that_are_there():
    extreme = np.array([[1, 0], [1, 0], [0, 1], [1, 0], [0, 0], [1, 1], [1, 1], [1, 1]], bool)
    found = spell_lengths(extreme)  # 2, 1, 3 and 1, 3
    np.testing.assert_allclose(found[:3], [2 / 5, 3 / 5, 1.0])
    assert found.shape == (LONGEST,)
    assert spell_lengths(np.zeros((5, 2), bool)).max() == 0
    other = spell_lengths(np.array([[1], [0], [1], [0]], bool))  # only ones
    assert energy_distance(found, other) == pytest.approx(2 * (0.6**2 + 0.4**2))
    assert energy_distance(found, found) == 0


@pytest.mark.parametrize(("speed", "share"), [(1, 1.0), (-1, 0.0)])
def test_a_wave_that_travels_east_is_eastward(speed, share):
    day, lon = np.arange(200)[:, None, None, None], np.arange(32) * 2 * np.pi / 32
    wave = np.cos(3 * lon - speed * 2 * np.pi * day / 8) * np.ones((1, 1, 2, 1))
    power = travelling_power(wave)
    assert power[0].sum(axis=-1).argmax() == 2
    assert eastward_share(power)[0, 2] == pytest.approx(share, abs=0.01)
    with pytest.raises(ValueError, match="needs 64 days; got 10"):
        travelling_power(wave[:10])


def test_a_wave_is_found_in_its_half_and_twice_its_power_is_so_far_from_it():
    """Rings from north to south; a wave of the same sign on both sides is symmetric."""
    day, lon = np.arange(200)[:, None, None, None], np.arange(32) * 2 * np.pi / 32
    wave = np.cos(3 * lon - 2 * np.pi * day / 8) * np.ones((1, 1, 4, 1))
    sides = np.array([1.0, 1.0, -1.0, -1.0])[:, None]
    symmetric, antisymmetric = halves(wave)
    np.testing.assert_allclose(symmetric, wave[:, :, :2])
    assert not antisymmetric.any()
    np.testing.assert_allclose(halves(wave * sides)[1], wave[:, :, :2])
    noise = np.random.default_rng(0).standard_normal((2, 400, 1, 2, 32))
    one, other = (travelling_power(each) for each in noise)
    assert power_distance(2 * one, one)[0] == pytest.approx(np.log(2))
    found = octaves(travelling_power(wave))[0, 2]  # eight cycles a window, westward first
    assert found.argmax() == 5 + 2
    assert octaves(travelling_power(wave[::-1]))[0, 2].argmax() == 2
    still = one.copy()
    still[..., 0] *= 100
    assert power_distance(still, one)[0] == pytest.approx(0, abs=1e-12)
    assert 0 < power_distance(other, one)[0] < np.log(2)
