"""The best Gaussian law we know how to fit, against linear algebra and laws that are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.gaussian.fit import Moments, choose_shrinkage, fit_m_block
from pipeline.gaussian.whole import NODES, WholeLaw
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import Harmonics

CHANNELS, LMAX = 2, 5
SIZE = CHANNELS * (LMAX + 1) ** 2
GRID = RingGrid.gaussian(12)
PLAN = Harmonics(GRID, LMAX, np.float64)


def white(fields: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((fields, CHANNELS, (LMAX + 1) ** 2))


def phases(fields: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 2 * np.pi, fields)


def uneven(fields: int, seed: int) -> np.ndarray:
    """Fields that vary three times as much on one side of the globe as on the other."""
    longitude = np.linspace(0, 2 * np.pi, PLAN.synthesis(white(1, 0)).shape[-1], endpoint=False)
    return PLAN.analysis(PLAN.synthesis(white(fields, seed)) * (2 + np.cos(longitude)))


def fitted(x: np.ndarray, held_out: np.ndarray) -> WholeLaw:
    return WholeLaw.fit(x, phases(len(x), 1), held_out, phases(len(held_out), 2))


def m_block(x: np.ndarray, held_out: np.ndarray):
    train, chosen_on = Moments.of(x), Moments.of(held_out)
    return fit_m_block(train, choose_shrinkage(train, chosen_on))


@pytest.fixture(scope="module")
def law() -> WholeLaw:
    return fitted(uneven(120, 3), uneven(80, 4))


def test_the_log_density_is_that_of_the_dense_covariance(law):
    x, phase = uneven(6, 5), np.array([0.0, 0.1, 2.0, 2.2, 4.0, 6.2])
    law = replace(law, choice=replace(law.choice, seasonal=0.6))
    for field, when, found in zip(x, phase, law.log_density(x, phase), strict=True):
        covariance = law.covariance(when)
        flat = field.ravel()
        quadratic = flat @ np.linalg.solve(covariance, flat)
        expected = -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * covariance)[1])
        assert found == pytest.approx(expected, rel=1e-8)


def test_the_covariance_is_the_mixture_that_it_says(law):
    """With nothing across orders or of the channels: own S_m and sample W, weighted by season."""
    plain = replace(
        law,
        choice=replace(
            law.choice,
            across=0 * law.choice.across,
            towards=0 * law.choice.towards,
            seasonal=0.5,
            own=0.7,
            sample=0.2,
        ),
    )
    node = 2 * np.pi / NODES
    weight = 1 + 0.5 * np.cos(node - law.phase)
    flat = law.x.reshape(len(law.x), -1)
    whole = (flat * weight[:, None]).T @ flat / len(flat)
    weighted = Moments.of(law.x * np.sqrt(weight)[:, None, None])
    blocks = fit_m_block(weighted, np.zeros(LMAX + 1))
    unit = torch.eye(SIZE, dtype=torch.float64).reshape(SIZE, CHANNELS, -1)
    turned = blocks.rotate(unit).reshape(SIZE, SIZE).numpy()
    expected = 0.7 * turned @ np.diag(blocks.variance.numpy().ravel()) @ turned.T + 0.2 * whole
    np.testing.assert_allclose(plain.covariance(node), expected, atol=1e-5)


def test_fields_that_depend_on_longitude_are_likelier_than_under_the_m_block_law(law):
    held_out, new = uneven(80, 4), uneven(300, 6)
    ours = law.log_density(new, phases(300, 7))
    theirs = m_block(uneven(120, 3), held_out).log_density(torch.from_numpy(new)).numpy()
    gain = ours - theirs
    assert law.choice.sample > 0
    assert gain.mean() > 5 * gain.std() / 300**0.5


def test_covariances_that_follow_the_season_are_found():
    def seasonal(fields: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        phase = phases(fields, seed)
        return white(fields, seed + 1) * np.sqrt(1 + 0.6 * np.cos(phase))[:, None, None], phase

    law = WholeLaw.fit(*seasonal(400, 10), *seasonal(300, 20))
    assert law.choice.seasonal >= 0.5
    winter, summer = (np.trace(law.covariance(phase)) / SIZE for phase in (0.0, np.pi))
    # Fields are weighted by 1 + a cos, which finds a / 2 of a variance that goes as cos.
    expected = (1 + 0.3 * law.choice.seasonal) / (1 - 0.3 * law.choice.seasonal)
    assert winter / summer == pytest.approx(expected, rel=0.1)
    still = WholeLaw.fit(white(400, 30), phases(400, 31), white(300, 32), phases(300, 33))
    assert still.choice.seasonal == 0.0


def test_white_fields_are_left_to_the_law_of_their_channels():
    law = fitted(white(60, 11), white(200, 12))
    assert law.choice.sample <= 0.05
    assert law.choice.towards.mean() > 0.2
    np.testing.assert_allclose(np.linalg.eigvalsh(law.covariance(0.0)), 1.0, atol=0.4)


def test_what_is_chosen_is_chosen_on_the_held_out_fields_alone():
    """Other held-out fields, other choices; the sums over training fields are the same."""
    x = uneven(120, 3)
    one, other = fitted(x, uneven(80, 4)), fitted(x, white(80, 4))
    assert other.choice.sample < one.choice.sample
    for a, b in zip(one.moments, other.moments, strict=True):
        np.testing.assert_array_equal(a.blocks[2], b.blocks[2])


def test_an_order_that_lacks_degrees_of_its_neighbour_keeps_a_positive_covariance():
    """Few fields: without what it lacks a neighbour's covariance would not be one."""
    law = fitted(uneven(12, 13), uneven(60, 14))
    half = replace(law, choice=replace(law.choice, across=np.full(LMAX + 1, 0.5)))
    assert np.linalg.eigvalsh(half.covariance(1.0)).min() > 0
    assert np.isfinite(half.log_density(white(2, 15), np.zeros(2))).all()
