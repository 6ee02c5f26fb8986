import numpy as np

from pipeline.scores.temporal import autocorrelation, lag_products, misses


def days(number: int, rate: np.ndarray, seed: int) -> np.ndarray:
    """An autoregression of each degree, (day, 2 channels, 4 degrees), stationary from its start."""
    generator, degree = np.random.default_rng(seed), np.repeat(np.arange(4), [1, 3, 5, 7])
    a = rate[:, degree]
    x = [generator.standard_normal(a.shape)]
    for _ in range(number - 1):
        x.append(a * x[-1] + np.sqrt(1 - a**2) * generator.standard_normal(a.shape))
    return np.stack(x)


def test_an_autoregression_has_the_powers_of_its_rate():
    rate = np.array([[0.9, 0.7, 0.4, 0.0], [0.2, 0.3, 0.5, 0.6]])
    found = autocorrelation([lag_products(days(4000, rate, 0), 5)])
    expected = rate ** np.arange(6)[:, None, None]
    np.testing.assert_allclose(found, expected, atol=0.12)
    np.testing.assert_allclose(found[0], 1.0)


def test_parts_of_a_series_are_averaged_and_their_ends_never_paired():
    x = days(8, np.full((2, 4), 0.5), 1)
    parts = [lag_products(x[:5], 2), lag_products(x[5:], 2)]
    products = [x[1:5] * x[:4], x[6:] * x[5:7]]
    expected = sum(p[..., 1:4].sum(axis=-1).mean(axis=0) for p in products)
    power = sum((p[..., 1:4] ** 2).sum(axis=-1).mean(axis=0) for p in (x[:5], x[5:]))
    np.testing.assert_allclose(autocorrelation(parts)[1, :, 1], expected / power)


def test_days_further_apart_than_there_are_say_nothing_and_what_never_varies_neither():
    x = days(3, np.full((2, 4), 0.5), 2)
    x[:, 1, 0] = 0.0
    products = lag_products(x, 4)
    assert np.isnan(products[3:]).all()
    found = autocorrelation([products])
    assert np.isnan(found[0, 1, 0])
    assert np.isfinite(found[0, 0]).all()


def test_misses_are_root_mean_squares_over_degrees():
    truth = np.zeros((2, 1, 4))
    other = np.array([[[0.0, 0.0, 0.0, 0.0]], [[1.0, 2.0, 2.0, np.nan]]])
    np.testing.assert_allclose(misses(other, truth), [[0.0], [3**0.5]])
