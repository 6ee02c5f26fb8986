import numpy as np
import pytest

from pipeline.fields.remainder import remainder, remainder_noise
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import plan

GRID, LMAX = RingGrid.gaussian(16), 9


@pytest.fixture
def white() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((400, *GRID.shape))


def test_the_remainder_has_no_coefficients_up_to_the_band_limit(white):
    left = remainder(white[:3], GRID, LMAX)
    assert np.abs(plan(GRID, LMAX, "float64").analysis(left)).max() < 1e-12


def test_band_limited_fields_have_no_remainder():
    transform = plan(GRID, LMAX, "float64")
    coefficients = np.random.default_rng(0).standard_normal((2, (LMAX + 1) ** 2))
    assert np.abs(remainder(transform.synthesis(coefficients), GRID, LMAX)).max() < 1e-12


def test_the_noise_has_the_asked_standard_deviation_in_every_ring(white):
    """Five standard errors; neighbours along a ring count as half."""
    deviation = 0.1 + np.abs(np.sin(np.deg2rad(GRID.latitudes)))[:, None] * np.ones(GRID.shape)
    noise = remainder_noise(white, deviation, GRID, LMAX)
    ratio = (noise / deviation).reshape(len(white), GRID.shape[0], -1).var(axis=(0, 2))
    error = (2 / (len(white) * GRID.shape[1] / 2)) ** 0.5 + (2 / (128 * GRID.shape[1] / 2)) ** 0.5
    assert np.abs(ratio - 1).max() < 5 * error


def test_uniform_noise_leaves_the_low_degrees_alone(white):
    noise = remainder_noise(white[:3], np.ones(GRID.shape), GRID, LMAX)
    kept = np.square(plan(GRID, LMAX, "float64").analysis(noise)).mean()
    free = np.square(plan(GRID, LMAX, "float64").analysis(white[:3])).mean()
    assert kept < 0.01 * free
