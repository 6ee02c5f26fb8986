import numpy as np
import pytest
import torch

from pipeline.diffusion.score import Posterior
from pipeline.gaussian.fit import Moments, fit_m_block
from pipeline.network.network import Amplitudes
from pipeline.network.score_network import network_grid, score_network
from pipeline.network.train import load, weights
from pipeline.sphere.coefficients import degrees
from pipeline.sphere.harmonics import Harmonics

CHANNELS, LMAX = 2, 7


def some_score(lmax: int = LMAX, seed: int = 0, covariates: int = 0, power=None):
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((60, CHANNELS, (lmax + 1) ** 2))
    baseline = fit_m_block(Moments.of(x), np.full(lmax + 1, 0.5))
    static = generator.standard_normal((3, (lmax + 1) ** 2))
    deviation = (1.0 + np.arange(lmax + 1)) ** -1.5
    factor = deviation[:, None, None] * np.eye(CHANNELS)
    return score_network(
        baseline=baseline,
        factor=factor,
        static=static,
        width=16,
        covariates=covariates,
        power=power,
    ).eval()


@pytest.fixture
def fields() -> torch.Tensor:
    return torch.randn(4, CHANNELS, (LMAX + 1) ** 2, generator=torch.Generator().manual_seed(1))


def test_an_untrained_network_is_the_baseline(fields):
    residual = some_score().residual(torch.full((4,), 0.3), fields, torch.zeros(4, 1))
    assert not residual.any()


def trained_a_little(score):
    with torch.no_grad():
        for parameter in score.network.out.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(2))
        for block in score.network.modules():
            if hasattr(block, "conv_out"):
                block.conv_out.weight.normal_(0, 0.05, generator=torch.Generator().manual_seed(3))
    return score


def test_the_residual_depends_on_time_season_and_place(fields):
    score = trained_a_little(some_score())
    t, condition = torch.full((4,), 0.3), torch.zeros(4, 1)
    base = score.residual(t, fields, condition)
    assert not torch.allclose(score.residual(t * 2, fields, condition), base)
    assert not torch.allclose(score.residual(t, fields, condition + 1), base)


def test_nothing_is_corrected_where_the_data_have_no_power(fields):
    """A wind has no degree 0: there its law is a point, and what a network says costs nats."""
    power = np.ones((CHANNELS, LMAX + 1))
    power[1, 0] = 0.0
    t, condition = torch.full((4,), 0.3), torch.zeros(4, 1)
    without = trained_a_little(some_score(power=power))
    full = trained_a_little(some_score())
    posterior = Posterior(t, full.baseline.variance)
    corrected, everywhere = (
        score.baseline.unrotate(score.standardised(posterior, t, fields, condition))
        for score in (without, full)
    )
    assert corrected[:, 1, 0].abs().max() < 1e-5 < 1e-2 < everywhere[:, 1, 0].abs().max()
    everywhere[:, 1, 0] = 0.0
    torch.testing.assert_close(corrected, everywhere, rtol=0.0, atol=1e-5)


def test_a_covariate_that_is_not_given_is_not_one_that_is_zero(fields):
    score = trained_a_little(some_score(covariates=2))
    t, condition = torch.full((4,), 0.3), torch.zeros(4, 3)
    base = score.residual(t, fields, condition)
    condition[1, 1], condition[2, 2] = 1.0, torch.nan
    other = score.residual(t, fields, condition)
    changed = (base != other).flatten(1).any(dim=1)
    assert changed.tolist() == [False, True, True, False]
    assert torch.isfinite(other).all()


def test_fields_of_a_batch_do_not_see_each_other(fields):
    score = trained_a_little(some_score())
    t, condition = torch.tensor([0.1, 0.3, 0.5, 1.0]), torch.arange(4.0)[:, None]
    together = score.residual(t, fields, condition)
    for i in range(4):
        rows = slice(i, i + 1)
        alone = score.residual(t[rows], fields[rows], condition[rows])
        np.testing.assert_allclose(alone.detach(), together[rows].detach(), atol=1e-4)


def test_without_places_the_network_turns_with_the_globe(fields):
    """Zonal symmetry: turning the input by whole cells turns the output."""
    score = trained_a_little(some_score())
    with torch.no_grad():
        score.network.static.zero_()
        score.network.maps.zero_()
    grid = network_grid(LMAX)
    plan, shift = Harmonics(grid, LMAX, np.float64), 1

    def turn(x):
        return plan.analysis(np.roll(plan.synthesis(x), shift, axis=-1))

    t, condition = torch.full((4,), 0.3), torch.zeros(4, 1)
    to_y, to_x = score.baseline.rotate, score.baseline.unrotate

    def residual(x):
        return (
            to_x(score.residual(t, to_y(torch.from_numpy(x).float()), condition)).detach().numpy()
        )

    x = fields.numpy().astype(np.float64)
    np.testing.assert_allclose(residual(turn(x)), turn(residual(x)), atol=2e-3)


def test_the_same_weights_serve_another_band_limit(fields):
    """Low degrees of a field without high ones give a like correction at twice the band limit."""
    low, high = trained_a_little(some_score(LMAX)), some_score(2 * LMAX + 1)
    load(high.network, weights(low.network))
    size = (LMAX + 1) ** 2
    wide = torch.zeros(4, CHANNELS, (2 * LMAX + 2) ** 2)
    wide[..., :size] = fields
    t, condition = torch.full((4,), 1.0), torch.zeros(4, 1)
    out = high.residual(t, high.baseline.rotate(wide), condition)
    assert out.shape == wide.shape
    assert torch.isfinite(out).all()


def test_the_grid_of_the_network_carries_the_band_limit():
    for lmax in (1, 5, 21, 31, 63):
        grid = network_grid(lmax)
        assert grid.max_lmax >= lmax
        assert grid.shape[0] % 2 == 0


def test_the_correction_has_no_degrees_beyond_its_own(fields):
    assert degrees(LMAX).max() == LMAX
    score = trained_a_little(some_score())
    assert score.residual(torch.ones(4), fields, torch.zeros(4, 1)).shape == fields.shape


def test_a_gain_multiplies_the_picture_of_its_variable(fields):
    """Known answer: a last layer that is a bias alone gives own + gain x picture."""
    network = some_score().network
    pictures = torch.randn(4, 3 * CHANNELS, *network_grid(LMAX).shape)
    own, second = 0.5, 2.0  # of variable 1, whose second picture is at CHANNELS + 1
    with torch.no_grad():
        network.out.bias[1], network.out.bias[2 * CHANNELS + 1] = own, second
        found = network(pictures, torch.zeros(4), torch.zeros(4, 1))
    assert not found[:, 0].any()
    torch.testing.assert_close(found[:, 1], own + second * pictures[:, CHANNELS + 1])


def test_amplitudes_tell_storms_from_calm():
    """Twice the field, log 2 more; where a field is nothing they stay finite."""
    pictures = 10 * torch.randn(2, 3, 8, 16, generator=torch.Generator().manual_seed(0))
    of = Amplitudes()
    np.testing.assert_allclose(of(2 * pictures) - of(pictures), np.log(2), atol=1e-3)
    torch.testing.assert_close(of(-pictures), of(pictures))
    even = of(torch.full((1, 1, 8, 16), 3.0))
    torch.testing.assert_close(even, torch.full_like(even, np.log(9 + 0.01) / 2))
    assert torch.isfinite(of(torch.zeros(1, 1, 8, 16))).all()


def test_amplitudes_know_the_surroundings_alone():
    pictures = torch.zeros(1, 1, 8, 16)
    pictures[0, 0, 4, 5] = 30.0
    felt = Amplitudes()(pictures)[0, 0] > np.log(0.01) / 2 + 1e-3
    assert felt.sum() == 25 and felt[2:7, 3:8].all()


def test_gradients_are_finite_where_all_is_calm():
    score = trained_a_little(some_score())
    quiet = torch.zeros(2, CHANNELS, (LMAX + 1) ** 2)
    score.residual(torch.full((2,), 0.3), quiet, torch.zeros(2, 1)).square().sum().backward()
    gradients = [p.grad for p in score.parameters() if p.grad is not None]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)
