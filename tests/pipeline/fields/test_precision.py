"""Single precision is taken where it costs nothing that counts, and not where it does."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.fields.climatology import design
from pipeline.fields.pointwise.maps import SIMPLE
from pipeline.fields.precision import LARGEST_ERROR, float32_error, precision_for
from pipeline.fields.standardisation import Normals
from pipeline.sphere.coefficients import degrees
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import plan

GRID, LMAX, MEAN, SCALE = RingGrid.latlon(61, 120), 59, 280.0, 4.0


def case(slope):
    """Normals of a spectrum (1 + l)^-slope, fields of that law, their rows and their x."""
    generator = np.random.default_rng(0)
    root = (1.0 + np.arange(LMAX + 1)) ** (-slope / 2)
    x = generator.standard_normal((40, 1, (LMAX + 1) ** 2))
    phase = np.linspace(0.0, 6.0, 40)
    climatology = np.zeros((5, 1, *GRID.shape))
    climatology[0], climatology[1] = MEAN, 10.0
    fields = plan(GRID, LMAX, "float64").synthesis(root[degrees(LMAX)] * x[:, 0]) * SCALE
    fields += np.tensordot(design(phase), climatology, axes=(-1, 0))[:, 0]
    normals = Normals(
        grid=GRID,
        channels=("ta",),
        transforms=(SIMPLE["identity"],),
        climatology=climatology,
        scale=np.full((1, *GRID.shape), SCALE),
        mask=np.zeros((1, *GRID.shape), bool),
        lmax=LMAX,
        factor=root[:, None, None],
        remainder=np.zeros((1, *GRID.shape)),
    )
    return normals, [fields], design(phase), x


@pytest.mark.parametrize("slope", [0, 3])
def test_the_error_is_that_against_what_the_fields_were_made_of(slope):
    normals, fields, rows, x = case(slope)
    np.testing.assert_allclose(normals.whiten(fields, rows), x, atol=3e-6)
    error = float32_error(normals, fields, rows)
    single = replace(normals, precision="float32").whiten(fields, rows)
    assert single.dtype == np.float32
    worst = np.sqrt(np.square(single - x).mean(axis=(0, 1))).max()
    assert 0.3 * worst < error < 2.0 * worst < LARGEST_ERROR
    assert precision_for(error) == "float32"


def test_smooth_fields_are_whitened_in_double_precision():
    normals, fields, rows, _ = case(8)
    error = float32_error(normals, fields, rows)
    assert error > LARGEST_ERROR
    assert precision_for(error) == "float64"


def test_a_large_mean_is_taken_away_without_rounding():
    """Values in float32 differ from their mean exactly, so a mean costs no more than its input."""
    normals, fields, rows, _ = case(3)
    stored = [fields[0].astype(np.float32)]
    offset = [stored[0].astype(np.float64) - MEAN]
    climatology = normals.climatology.copy()
    climatology[0] = 0.0
    centred = replace(normals, climatology=climatology)
    assert float32_error(normals, stored, rows) < 1.5 * float32_error(centred, offset, rows)
