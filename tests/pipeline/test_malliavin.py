"""T-3 and T-11: Ornstein-Uhlenbeck semigroup, Malliavin derivative and entropies, by quadrature.

The package needs P_t only through its transition, so `mehler` is written here.
"""

import numpy as np
import pytest
import torch
from numpy.polynomial.hermite_e import hermeder, hermegauss, hermeval
from scipy.integrate import quad

from pipeline.diffusion.process import OrnsteinUhlenbeck
from tests.pipeline.closed_forms import TwoPoint

NODE, WEIGHT = hermegauss(60)
WEIGHT = WEIGHT / WEIGHT.sum()
X = np.linspace(-2.5, 2.5, 11)


def mehler(f, t: float):
    """P_t f(x) = E f(X_t | X_0 = x), by the package's own transition."""

    def moved(x):
        x_0, noise = torch.as_tensor(x)[..., None], torch.from_numpy(NODE)
        time = torch.tensor(t, dtype=torch.float64)
        return f(OrnsteinUhlenbeck().perturb(x_0, time, noise).numpy()) @ WEIGHT

    return moved


def hermite(n: int, derivative: int = 0):
    coefficients = hermeder(np.eye(n + 1)[n], derivative)
    return lambda x: hermeval(x, coefficients)


@pytest.mark.parametrize("n", range(7))
def test_the_semigroup_shrinks_each_chaos_by_its_own_rate(n):
    """T-3: P_t He_n = e^-nt He_n."""
    for t in (0.05, 0.7, 2.0):
        expected = np.exp(-n * t) * hermite(n)(X)
        np.testing.assert_allclose(mehler(hermite(n), t)(X), expected, atol=1e-12 * 5**n)


def test_the_semigroup_property():
    """T-3: P_s P_t = P_s+t."""
    np.testing.assert_allclose(
        mehler(mehler(np.sin, 0.4), 0.3)(X), mehler(np.sin, 0.7)(X), atol=1e-12
    )


def test_the_derivative_commutes_with_the_semigroup_up_to_its_decay():
    """T-3: D P_t f = e^-t P_t D f; P_t sin = e^(-sigma^2 / 2) sin(e^-t x) in closed form."""
    t = 0.6
    decay = np.exp(-t)
    smaller = np.exp((decay**2 - 1) / 2)
    np.testing.assert_allclose(mehler(np.sin, t)(X), smaller * np.sin(decay * X), atol=1e-12)
    derivative = smaller * decay * np.cos(decay * X)
    np.testing.assert_allclose(decay * mehler(np.cos, t)(X), derivative, atol=1e-12)


@pytest.mark.parametrize("n", range(6))
def test_chaoses_are_eigenfunctions_of_the_generator(n):
    """T-3: L f = f'' - x f' = d/dt P_t f at 0, and L He_n = -n He_n."""
    generator = hermite(n, 2)(X) - X * hermite(n, 1)(X)
    np.testing.assert_allclose(generator, -n * hermite(n)(X), atol=1e-12 * 5**n)
    h = 1e-4
    slope = (4 * mehler(hermite(n), h)(X) - mehler(hermite(n), 2 * h)(X) - 3 * hermite(n)(X)) / 2
    np.testing.assert_allclose(slope / h, generator, atol=1e-4 * 3**n)


def test_integration_by_parts():
    """T-3: E[<DF, h> G] = E[F (G <x, h> - <DG, h>)] in two dimensions."""
    x, z = np.meshgrid(NODE, NODE, indexing="ij")
    weight, h = np.outer(WEIGHT, WEIGHT), (0.6, 0.9)
    f, df = np.sin(x + 0.5 * z), np.cos(x + 0.5 * z) * (h[0] + 0.5 * h[1])
    g, dg = np.exp(0.3 * x) * z, np.exp(0.3 * x) * (0.3 * z * h[0] + h[1])
    left = (weight * df * g).sum()
    right = (weight * f * (g * (x * h[0] + z * h[1]) - dg)).sum()
    assert abs(left) > 0.05
    assert left == pytest.approx(right, abs=1e-12)


def test_the_divergence_is_the_adjoint_of_the_derivative():
    """T-3: E<DF, u> = E[F delta(u)], delta(u) = <x, u> - div u."""
    x, z = np.meshgrid(NODE, NODE, indexing="ij")
    weight = np.outer(WEIGHT, WEIGHT)
    f, slope = np.sin(0.7 * x - z), np.cos(0.7 * x - z)
    u, divergence = (np.sin(z) * x, np.sin(x) * z), np.sin(z) + np.sin(x)
    left = (weight * slope * (0.7 * u[0] - u[1])).sum()
    right = (weight * f * (x * u[0] + z * u[1] - divergence)).sum()
    assert abs(left) > 0.05
    assert left == pytest.approx(right, abs=1e-12)


@pytest.mark.parametrize("t", [0.05, 0.4, 1.2])
def test_entropy_falls_at_the_rate_of_the_fisher_information(t):
    """T-11: dKL/dt = -I and dI/dt = -2 I - 2 E|D^2 log f|^2, by differences of fourth order."""
    law, h = TwoPoint(2.0), 0.01
    weights = {-2: 1 / 12, -1: -2 / 3, 1: 2 / 3, 2: -1 / 12}
    near = {k: law.entropies(t + k * h) for k in weights}
    here = law.entropies(t)
    slope = {
        name: sum(w * getattr(near[k], name) for k, w in weights.items()) / h
        for name in ("kl", "fisher", "negentropy")
    }
    assert slope["kl"] == pytest.approx(-here.fisher, rel=1e-6)
    assert slope["fisher"] == pytest.approx(-2 * here.fisher - 2 * here.curvature, rel=1e-5)
    assert slope["negentropy"] == pytest.approx(-here.residual, rel=1e-5)


def test_entropy_and_information_decay_at_least_exponentially():
    """T-11: 2 KL <= I; e^2t KL and e^2t I do not grow."""
    times = np.linspace(0, 4, 41)
    known = [TwoPoint(2.0).entropies(t) for t in times]
    kl, fisher = (np.array([getattr(each, name) for each in known]) for name in ("kl", "fisher"))
    assert (2 * kl <= fisher).all()
    for values in (kl, fisher):
        assert (np.diff(np.exp(2 * times) * values) < 0).all()


def test_entropy_is_the_integral_of_the_information():
    """T-11: KL = int I dt, and negentropy = int E rho^2 dt = 0.171998762480."""
    law = TwoPoint(2.0)

    def integral(name: str) -> float:
        return quad(lambda t: getattr(law.entropies(t), name), 0, 12, epsabs=1e-12, limit=200)[0]

    assert integral("fisher") == pytest.approx(law.entropies(0.0).kl, abs=1e-9)
    assert integral("residual") == pytest.approx(0.171998762480, abs=1e-11)
    assert law.entropies(0.0).negentropy == pytest.approx(0.171998762480, abs=1e-11)


def test_the_third_route_to_the_score_and_its_correlation_with_the_field():
    """T-5: b from the mean noise, x - E[Z | x] / sigma with sign, and E[x b] = V - 1."""
    law, t = TwoPoint(2.0), torch.tensor(0.4, dtype=torch.float64)
    alpha, sigma = OrnsteinUhlenbeck.alpha(t), OrnsteinUhlenbeck.sigma(t)
    x = torch.linspace(-4, 4, 9, dtype=torch.float64)
    noise = torch.linspace(-14, 14, 8001, dtype=torch.float64)
    x_0 = (x[:, None] - sigma * noise) / alpha
    joint = torch.exp(-(noise**2) / 2) * torch.from_numpy(np.exp(law.log_density(x_0.numpy(), 0)))
    mean_noise = (joint * noise).sum(1) / joint.sum(1)
    fields = torch.zeros(9, 1, 4, dtype=torch.float64)
    fields[:, 0, 0] = x
    b = law.score(t.expand(9), fields)[:, 0, 0]
    np.testing.assert_allclose(x - mean_noise / sigma, b, atol=1e-10)
    known = law.entropies(float(t))
    y = np.linspace(-14, 14, 8001)
    fields = torch.zeros(len(y), 1, 4, dtype=torch.float64)
    fields[:, 0, 0] = torch.from_numpy(y)
    b = law.score(t.expand(len(y)), fields)[:, 0, 0].numpy()
    weight = np.exp(law.log_density(y, float(t))) * (y[1] - y[0])
    v = 1 + (law.a * float(alpha)) ** 2
    assert weight @ (y * b) == pytest.approx(v - 1, abs=1e-10)
    assert weight @ b**2 == pytest.approx(known.fisher, abs=1e-10)
    assert known.fisher >= (v - 1) ** 2 / v
