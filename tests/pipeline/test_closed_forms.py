import math

import numpy as np
import pytest
import torch

from tests.pipeline.closed_forms import GaussianMixture, RadialMixture, TwoPoint


@pytest.mark.parametrize(
    ("a", "t", "kl", "fisher", "negentropy"),
    [
        (1, 0.0, 0.163169, 0.550400, 0.009743),
        (2, 0.0, 1.367280, 3.725610, 0.171999),
        (3, 0.0, 3.810702, 8.962640, 0.461995),
        (2, 0.5, 0.308446, 0.992126, 0.025103),
        (2, 1.0, 0.056105, 0.200614, 0.001761),
        (2, 2.0, 0.001282, 0.005015, 1.84e-6),
    ],
)
def test_known_entropies_of_the_two_point_law(a, t, kl, fisher, negentropy):
    """T-8."""
    known = TwoPoint(a).entropies(t)
    assert known.kl == pytest.approx(kl, abs=5.1e-7)
    assert known.fisher == pytest.approx(fisher, abs=5.1e-7)
    assert known.negentropy == pytest.approx(negentropy, abs=5.1e-7, rel=1e-3)


def test_the_start_from_the_matched_gaussian_forgets_faster():
    """T-8: KL(mu_t | gamma) ~ e^-4t a^4 / 4 and KL(mu_t | N(0, V_t)) ~ e^-8t a^8 / 12."""
    a = 2.0
    assert TwoPoint(a).entropies(5).kl * math.exp(20) == pytest.approx(a**4 / 4, rel=1e-3)
    limit = TwoPoint(a).entropies(3).negentropy * math.exp(24)
    assert limit == pytest.approx(a**8 / 12, rel=0.05)
    for t, kl, negentropy in ((1, 5.61e-2, 1.76e-3), (2, 1.28e-3, 1.84e-6), (3, 2.44e-5, 7.7e-10)):
        known = TwoPoint(a).entropies(t)
        assert known.kl == pytest.approx(kl, rel=3e-3)
        assert known.negentropy == pytest.approx(negentropy, rel=6e-3)


def test_the_two_point_law_does_not_depend_on_the_band_limit():
    """T-8: the score along the first coordinate is the same in any dimension, else zero."""
    t = torch.tensor([0.1, 1.0], dtype=torch.float64)
    y = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(0)).double()
    low, high = TwoPoint(2.0, coefficients=4), TwoPoint(2.0, coefficients=16)
    np.testing.assert_array_equal(high.score(t, y)[..., :4], low.score(t, y[..., :4]))
    np.testing.assert_allclose(high.residual(t, y, y)[..., 4:], 0, atol=1e-15)


@pytest.mark.parametrize(
    ("degree", "kl", "fisher"),
    [(2, 0.099471, 0.765310), (10, 0.922497, 6.122948), (64, 8.584619, 42.999091)],
)
def test_known_entropies_of_the_radial_mixture(degree, kl, fisher):
    """T-9."""
    law = RadialMixture(degree, variances=(0.5, 1.5), weights=(0.5, 0.5))
    assert law.kl_and_fisher(0.0) == pytest.approx((kl, fisher), abs=6e-7)


def test_the_score_of_the_radial_mixture_turns_with_its_fields():
    """T-9: for every orthogonal matrix within the degree, rotations of the sphere among them."""
    law, generator = RadialMixture(3, (0.5, 1.5), (0.3, 0.7)), torch.Generator().manual_seed(0)
    turn = torch.eye(16, dtype=torch.float64)
    turn[9:, 9:] = torch.linalg.qr(torch.randn(7, 7, generator=generator).double())[0]
    t = torch.tensor([0.01, 0.3, 1.0], dtype=torch.float64)
    x = law.sample(3, generator)
    b, zero = law.score(t, x), torch.zeros(3, 1)
    assert b[..., 9:].abs().min() > 0
    np.testing.assert_allclose(law.score(t, x @ turn), b @ turn, atol=1e-14)
    np.testing.assert_allclose(
        law.residual(t, x @ turn, zero), law.residual(t, x, zero) @ turn, atol=1e-14
    )


def test_the_score_of_the_radial_mixture_is_the_derivative_of_its_density():
    """T-9 by automatic differentiation of log sum_i w_i N(x; 0, V_i)."""
    law, t = RadialMixture(2, (0.5, 1.5), (0.3, 0.7)), torch.tensor(0.4, dtype=torch.float64)
    x = law.sample(5, torch.Generator().manual_seed(0)).requires_grad_()
    v = 1 + torch.exp(-2 * t) * (law.variances - 1)
    block = x[:, 0, 4:].square().sum(1, keepdim=True)
    log_p = torch.logsumexp(torch.log(law.weights) - 2.5 * torch.log(v) - block / (2 * v), dim=1)
    (gradient,) = torch.autograd.grad((log_p - x[:, 0, :4].square().sum(1) / 2).sum(), x)
    np.testing.assert_allclose(law.score(t.expand(5), x).detach(), (x + gradient).detach(), 1e-12)


def test_the_score_of_a_gaussian_mixture_is_the_derivative_of_its_density():
    """T-10: three components in two low coefficients, two more are white."""
    covariances = np.stack([np.eye(4)] * 3)
    covariances[1, 0, 0], covariances[2, :2, :2] = 0.3, [[1.0, 0.6], [0.6, 2.0]]
    means = np.zeros((3, 4))
    means[:, :2] = [[2.0, 0.0], [-1.0, 1.0], [-1.0, -1.0]]
    law = GaussianMixture(means, covariances, np.full(3, 1 / 3))
    x = law.sample(6, torch.Generator().manual_seed(0)).requires_grad_()
    for t in torch.tensor([1e-3, 0.3, 2.0], dtype=torch.float64):
        (gradient,) = torch.autograd.grad(law.log_density(x[:, 0], t).sum(), x)
        b = law.baseline.unrotate(law.score(t.expand(6), law.baseline.rotate(x.detach())))
        np.testing.assert_allclose(b, (x + gradient).detach(), atol=1e-12)
        np.testing.assert_allclose(b[..., 2:], 0, atol=1e-12)
