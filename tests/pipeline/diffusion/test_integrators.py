import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm
from torch import Tensor

from pipeline.diffusion.integrators import (
    Integrator,
    Residual,
    Transition,
    ei,
    frozen_weight,
    gei,
    gme,
    mei,
)
from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.diffusion.sampler import INTEGRATORS
from tests.pipeline.closed_forms import TwoPoint
from tests.pipeline.diffusion.measured import opt

LAW = TwoPoint(2.0, coefficients=1)
S = LAW.baseline.variance
Y = torch.linspace(-11, 11, 441, dtype=torch.float64)
DY = float(Y[1] - Y[0])
OU = OrnsteinUhlenbeck


def rho(t: Tensor, y: Tensor) -> Tensor:
    """The residual of the two-point law, a = 2, at any shape of y."""
    return LAW.residual(t.expand(y.numel()), y.reshape(-1, 1, 1), y).reshape(y.shape)


def times(steps: int, exponent: float = 1.0, end: float = 0.0) -> Tensor:
    """From T = 2; an `end` just above 0 lets the last step evaluate the score there."""
    grid = OrnsteinUhlenbeck(horizon=2.0).power_grid(steps, exponent)
    grid[-1] = end
    return torch.as_tensor(grid)


def normal(gap: Tensor, deviation: Tensor) -> Tensor:
    return torch.exp(-((gap / deviation) ** 2) / 2) / (deviation * math.sqrt(2 * math.pi))


# One step of the density of Y: the kernel (to, from) of a transition.
Kernel = Callable[[Tensor, Tensor], Tensor]


def one_step(transition: Transition) -> Kernel:
    def kernel(t: Tensor, t_next: Tensor) -> Tensor:
        phi, w, tau = (part.squeeze() for part in transition(t, t_next, S))
        return normal(Y[:, None] - phi * Y - w * rho(t, Y), tau)

    return kernel


def heun(t: Tensor, t_next: Tensor) -> Tensor:
    """Both stages share xi: Y' + w rho(t, Y) / 2 ... is a monotone map of Y_1, which is Gaussian.

    With c = phi Y + w rho(t, Y) and Y_1 = c + tau xi,
    Y' = Y_1 + w rho(t', Y_1) / 2 - w rho(t, Y) / 2.
    """
    if t_next == 0:
        return one_step(gei)(t, t_next)
    phi, w, tau = (part.squeeze() for part in gei(t, t_next, S))
    fine = torch.linspace(-20, 20, 80_001, dtype=torch.float64)
    image = (fine + w * rho(t_next, fine) / 2).numpy()
    assert (np.diff(image) > 0).all()
    at = (Y[:, None] + w * rho(t, Y) / 2).numpy()
    y_1 = torch.from_numpy(np.interp(at, image, fine.numpy()))
    stretch = torch.from_numpy(np.interp(at, image, np.gradient(image, fine.numpy())))
    return normal(y_1 - phi * Y - w * rho(t, Y), tau) / stretch


def output(kernel: Kernel, grid: Tensor) -> Tensor:
    """Density of the output on the grid of Y, from the matched start."""
    density = normal(Y, OU.variance(grid[0], S).sqrt().squeeze())
    for t, t_next in itertools.pairwise(grid):
        density = kernel(t, t_next) @ density * DY
    return density


def divergence(kernel: Kernel, grid: Tensor) -> float:
    """KL(data | output) of the two-point law [nats], by quadrature."""
    truth = LAW.log_density(Y.numpy(), 0.0)
    gap = truth - np.log(output(kernel, grid).numpy())
    return float((np.exp(truth) * gap).sum() * DY)


# ---- the exact step


def test_the_reverse_martingales():
    """T-6: t = .9 to t' = .35, a = 2; means over the exact law of X' given X, by quadrature."""
    t, t_next = torch.tensor([0.9, 0.35], dtype=torch.float64)
    h, x = t - t_next, torch.tensor([-1.3, 0.2, 2.0], dtype=torch.float64)
    fine = torch.linspace(-12, 12, 4801, dtype=torch.float64)
    prior = torch.from_numpy(np.exp(LAW.log_density(fine.numpy(), float(t_next))))
    weight = prior * normal(x[:, None] - torch.exp(-h) * fine, OU.sigma(h))
    weight /= weight.sum(dim=1, keepdim=True)

    def score(time: Tensor, y: Tensor) -> Tensor:
        return LAW.score(time.expand(len(y)), y[:, None, None])[:, 0, 0]

    growth = (torch.exp(h) * OU.variance(t, S) / OU.variance(t_next, S)).squeeze()
    phi, w, _ = gme(t, t_next, S)
    for mean, martingale, known in (
        (weight @ fine, phi[0, 0] * x + w * rho(t, x), (-1.48769109, 0.26696455, 2.02411568)),
        (
            weight @ score(t_next, fine),
            torch.exp(h) * score(t, x),
            (-1.10571783, 0.22720434, 1.30441964),
        ),
        (weight @ rho(t_next, fine), growth * rho(t, x), (-0.11619188, 0.04963499, -0.04190488)),
    ):
        np.testing.assert_allclose(mean, martingale, atol=1e-12)
        np.testing.assert_allclose(martingale, known, atol=1e-8)


@pytest.mark.parametrize("transition", [gei, gme])
def test_each_step_takes_the_marginal_variance_to_the_next_one(transition):
    """T-7, to rounding."""
    s = torch.tensor([0.1, 1.0, 2.0, 40.0], dtype=torch.float64)
    t, t_next = torch.tensor([0.9, 0.35], dtype=torch.float64)
    phi, _, tau = transition(t, t_next, s)
    np.testing.assert_allclose(
        phi**2 * OU.variance(t, s) + tau**2, OU.variance(t_next, s), rtol=1e-13
    )


def test_a_frozen_residual_adds_the_integral_of_the_propagator():
    """w = 2 int e^-(u - t') V(t') / V(u) du, in all branches of Psi; 2 (1 - e^-h) at s = 1."""
    s = torch.tensor([1e-6, 0.1, 1 - 2e-6, 1 - 5e-7, 1.0, 1 + 2e-6, 3.0, 1e4], dtype=torch.float64)
    nodes, weights = np.polynomial.legendre.leggauss(60)
    for t, t_next in ((2.5, 1.9), (0.4, 0.1), (0.1, 0.1 - 1e-9)):
        u = torch.tensor(t_next + (t - t_next) * (nodes + 1) / 2)[:, None]
        v_next = OU.variance(torch.tensor(t_next, dtype=torch.float64), s)
        integrand = 2 * torch.exp(t_next - u) * v_next / OU.variance(u, s)
        expected = torch.tensor(weights * (t - t_next) / 2) @ integrand
        actual = frozen_weight(*torch.tensor([t, t_next], dtype=torch.float64), s)
        np.testing.assert_allclose(actual, expected, rtol=1e-7 if t - t_next < 1e-6 else 1e-12)
        assert float(actual[4]) == pytest.approx(-2 * math.expm1(t_next - t), rel=1e-12)
    last = frozen_weight(*torch.tensor([0.01, 0.0], dtype=torch.float64), s)
    assert last.isfinite().all()


def test_batched_times_give_the_steps_one_by_one():
    """As the certificate asks for them: times (batch, 1, 1)."""
    s = torch.tensor([[0.2, 1.0, 3.0]], dtype=torch.float64)
    t, t_next = torch.tensor([[0.9, 2.0], [0.35, 1.5]], dtype=torch.float64)
    energy = np.linspace(1e-3, 2e-3, 6).reshape(2, 1, 3)
    for transition in (ei, mei, gei, gme, opt(np.array([2.0, 0.1]), energy)):
        batched = transition(t[:, None, None], t_next[:, None, None], s)
        for k in range(2):
            for together, alone in zip(batched, transition(t[k], t_next[k], s), strict=True):
                full = together.expand(2, 1, 3)[k]
                np.testing.assert_allclose(full, alone.expand(1, 3), rtol=1e-14)


# ---- Gaussian data


def ei_variance(s: float, steps: int, horizon: float = 6.0) -> float:
    """a = e^-h + 2 (1 - e^-h) G, v <- a^2 v + 1 - e^-2h, from the reference and uniform steps."""
    v, scalar = torch.ones((), dtype=torch.float64), torch.tensor(s, dtype=torch.float64)
    grid = torch.as_tensor(OrnsteinUhlenbeck(horizon=horizon).power_grid(steps, exponent=1.0))
    for t, t_next in itertools.pairwise(grid):
        h = t - t_next
        a = torch.exp(-h) + 2 * (1 - torch.exp(-h)) * (1 - 1 / OU.variance(t, scalar))
        phi, _, tau = ei(t, t_next, scalar)
        np.testing.assert_allclose(phi, a, atol=1e-14)
        v = phi**2 * v + tau**2
    return float(v)


def gaussian_kl(s: float, v: float) -> float:
    """KL(N(0, s) | N(0, v)) [nats]."""
    return (s / v - 1 - math.log(s / v)) / 2


@pytest.mark.parametrize(
    ("s", "kl", "path", "bound"), [(0.1, 0.2186, 0.3134, 1.215), (2.0, 4.04e-3, 1.60e-2, 7.5e-2)]
)
def test_the_error_of_ei_on_gaussian_data_is_known(s, kl, path, bound):
    """T-7: KL(data | output) <= that of the paths <= e^-2T KL + h I; T = 6, N = 40."""
    v = ei_variance(s, 40)
    if s == 0.1:
        assert v - s == pytest.approx(0.2024, abs=5e-5)
    grid = np.linspace(6, 0, 41)
    nodes, weights = np.polynomial.legendre.leggauss(12)

    def fisher(t: NDArray[np.float64] | float) -> NDArray[np.float64]:
        above = np.exp(-2 * np.asarray(t)) * (s - 1)
        return above**2 / (1 + above)

    h = 6 / 40
    u = h * (nodes + 1) / 2
    paths = gaussian_kl(1 + math.exp(-12) * (s - 1), 1.0) + sum(
        float(weights @ (fisher(t - u) - (2 * np.exp(u) - 1) * fisher(t))) * h / 2
        for t in grid[:-1]
    )
    whole = math.exp(-12) * gaussian_kl(s, 1.0) + h * float(fisher(0.0))
    assert gaussian_kl(s, v) == pytest.approx(kl, rel=2e-3)
    assert paths == pytest.approx(path, rel=3e-3)
    assert whole == pytest.approx(bound, rel=2e-3)
    assert gaussian_kl(s, v) <= paths <= whole


def test_halving_the_steps_of_ei_halves_its_bias_and_quarters_its_divergence():
    """T-7."""
    for s in (0.1, 2.0):
        coarse, fine = ei_variance(s, 800), ei_variance(s, 1600)
        assert (coarse - s) / (fine - s) == pytest.approx(2, rel=0.03)
        assert gaussian_kl(s, coarse) / gaussian_kl(s, fine) == pytest.approx(4, rel=0.06)


def matern_divergence(transition: Transition, lmax: int, s: Tensor) -> float:
    """KL(data | output) [nats] of Gaussian data, 64 steps from T = 4 on the grid of power 2."""
    grid = torch.as_tensor(OrnsteinUhlenbeck(horizon=4.0).power_grid(64))
    v = OU.variance(grid[0], s)
    for t, t_next in itertools.pairwise(grid):
        phi, _, tau = transition(t, t_next, s)
        v = phi**2 * v + tau**2
    multiplicity = 2 * torch.arange(lmax + 1) + 1
    return float((multiplicity * (s / v - 1 - torch.log(s / v))).sum() / 2)


def whittle_matern(kappa_squared: float, beta: float, lmax: int) -> Tensor:
    degree = torch.arange(lmax + 1, dtype=torch.float64)
    return (kappa_squared + degree * (degree + 1)) ** (-2 * beta)


def ddpm_small(t: Tensor, t_next: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The noise of the bridge; in the last step, where that is none, the noise of GME."""
    phi, w, tau = gme(t, t_next, s)
    return phi, w, OU.sigma(t_next) * OU.sigma(t - t_next) / OU.sigma(t) if t_next > 0 else tau


@pytest.mark.parametrize(
    ("lmax", "known_ei", "known_ddpm", "smoother"),
    [
        (16, 0.0252, 1.13, 0.013),
        (32, 0.0275, 3.7, 0.23),
        (64, 0.0282, 13.5, 3.2),
        (128, 0.0283, 51.8, 31),
        (256, 0.0284, 204, 266),
    ],
)
def test_matern_data_on_matern_noise(lmax, known_ei, known_ddpm, smoother):
    """T-7, T-16: the error of EI saturates with lmax, that of the small DDPM variance grows as
    its square, GEI and GME have none; kappa^2 = 50 on 25, beta = 1. Data that are smoother than
    the noise, beta = 1.25 on 1 with S_10 = 1, spoil EI at high degrees.
    """
    noise = whittle_matern(25, 1.0, lmax)
    s = whittle_matern(50, 1.0, lmax) / noise
    assert matern_divergence(ei, lmax, s) == pytest.approx(known_ei, abs=6e-5)
    assert matern_divergence(ddpm_small, lmax, s) == pytest.approx(known_ddpm, rel=0.015)
    assert matern_divergence(gei, lmax, s) == pytest.approx(0, abs=1e-12)
    assert matern_divergence(gme, lmax, s) == pytest.approx(0, abs=1e-12)
    s = whittle_matern(25, 1.25, lmax) / noise * 135**0.5
    assert matern_divergence(ei, lmax, s) == pytest.approx(smoother, rel=0.03)
    assert matern_divergence(gme, lmax, s) == pytest.approx(0, abs=1e-12)


# ---- the two-point law


@pytest.mark.parametrize(
    ("transition", "known"),
    [
        (ei, (0.215, 0.0637, 0.0179, 0.00482, 0.00126)),
        (gei, (0.0777, 0.0261, 0.00773, 0.00215, 0.00057)),
        (gme, (0.0823, 0.0296, 0.0091, 0.00256, 0.00069)),
        (mei, (0.0704, 0.0206, 0.0059, 0.00164, 0.00044)),
    ],
)
def test_the_divergence_of_one_step_samplers_on_the_two_point_law(transition, known):
    """T-12: KL(data | output), a = 2, T = 2, 4 ... 64 uniform steps; weak order 1."""
    found = [divergence(one_step(transition), times(n)) for n in (4, 8, 16, 32, 64)]
    np.testing.assert_allclose(found, known, rtol=0.01)
    assert 3.5 < found[3] / found[4] < 4


def test_the_spectrum_of_mei_is_biased_where_that_of_gme_is_not():
    """T-12: the error of the variance, 5, of the two-point law after 32 uniform steps."""
    for transition, known in ((mei, -0.144), (gme, -0.018)):
        density = output(one_step(transition), times(32))
        assert float((density * Y**2).sum() * DY) - 5 == pytest.approx(known, abs=5e-4)


def test_gei_heun_has_weak_order_two():
    """T-12: with the score asked at the end of the last step, as known; ratios near 14."""
    found = [divergence(heun, times(n, end=1e-12)) for n in (4, 8, 16, 32)]
    np.testing.assert_allclose(found, (0.0360, 0.00168, 1.04e-4, 7.4e-6), rtol=0.02)
    assert found[2] / found[3] > 13


def test_the_last_step_of_gei_does_not_cost_gei_heun_its_order():
    """On the grid of power 2 it costs nothing; on the uniform one a constant."""
    squared = [divergence(heun, times(n, 2.0)) for n in (8, 16)]
    asked_at_zero = [divergence(heun, times(n, 2.0, end=1e-12)) for n in (8, 16)]
    assert np.all(np.array(squared) < asked_at_zero)
    assert squared[0] / squared[1] > 13
    uniform = [divergence(heun, times(n)) for n in (8, 16, 32)]
    np.testing.assert_allclose(uniform, (7.516e-3, 7.648e-4, 7.569e-5), rtol=0.01)
    assert uniform[1] / uniform[2] > 10


def test_the_integrator_takes_the_steps_whose_density_is_computed_here():
    """GEI-Heun as code against the law of Y' given Y that the quadrature assumes."""
    t, t_next = torch.tensor([0.9, 0.35], dtype=torch.float64)
    xi, y = torch.tensor([[0.7]], dtype=torch.float64), torch.tensor([[[1.2]]]).double()
    phi, w, tau = gei(t, t_next, S)
    y_1 = phi * y + w * rho(t, y) + tau * xi
    expected = phi * y + w * (rho(t, y) + rho(t_next, y_1)) / 2 + tau * xi
    moved = INTEGRATORS["gei-heun"].integrate(
        rho, y, torch.stack([t, t_next]), S, lambda step: xi[None]
    )
    np.testing.assert_allclose(moved, expected, rtol=1e-14)


def test_the_squared_grid_spends_its_steps_better_than_the_uniform_one():
    """T-12: GME, 32 steps: 1.05e-3 instead of 2.56e-3."""
    assert divergence(one_step(gme), times(32, 2.0)) == pytest.approx(1.05e-3, rel=0.01)


def test_opt_with_the_exact_energy_is_closer_than_gme():
    """Its noise is the mean variance of X' given X, which no Gaussian step betters in paths."""
    nodes = np.linspace(1e-3, 2, 400)
    energy = np.array([LAW.entropies(t).residual for t in nodes])[:, None, None]
    transition = opt(nodes, energy)
    t, t_next = torch.tensor([0.9, 0.35], dtype=torch.float64)
    _, _, tau = transition(t, t_next, S)
    h = t - t_next
    fisher = LAW.entropies(0.9).fisher
    known = -torch.expm1(-2 * h) + 4 * torch.sinh(h) ** 2 * (OU.variance(t, S) - 1 - fisher)
    np.testing.assert_allclose(tau**2, known, rtol=1e-4)
    for steps in (8, 32):
        assert divergence(one_step(transition), times(steps)) < divergence(
            one_step(gme), times(steps)
        )


def test_opt_interpolates_its_energies_in_time():
    s = torch.tensor([[0.2, 3.0]], dtype=torch.float64)
    energy = np.array([[[2e-3, 4e-3]], [[6e-3, 8e-3]]])  # at t = 2 and at 0.1
    for t, expected in ((0.575, [5e-3, 7e-3]), (2.4, [2e-3, 4e-3]), (0.01, [6e-3, 8e-3])):
        step = (*torch.tensor([t, t / 2], dtype=torch.float64), s)
        _, w, tau = gme(*step)
        squared = tau**2 - w**2 * torch.tensor([expected], dtype=torch.float64)
        fitted = opt(np.array([2.0, 0.1]), energy)(*step)[2]
        np.testing.assert_allclose(fitted**2, squared, rtol=1e-12)


def test_opt_refuses_energies_that_leave_no_noise():
    t, t_next = torch.tensor([0.9, 0.35], dtype=torch.float64)
    with pytest.raises(ValueError, match="energies leave no variance"):
        opt(np.array([0.1, 2.0]), np.full((2, 1, 1), 10.0))(t, t_next, S)


# ---- the probability flow


def transported() -> tuple[Tensor, NDArray[np.float64], NDArray[np.float64]]:
    """Starts at T, where the exact flow takes them, and their weights under the data law.

    The flow keeps the order of points, so it takes quantiles to quantiles.
    """

    def tail(y: float, t: float) -> float:
        mean = 2.0 * math.exp(-t)
        return float(norm.sf(y - mean) + norm.sf(y + mean)) / 2

    def start(end: float) -> float:
        wanted = tail(abs(end), 0.0)
        return math.copysign(brentq(lambda y: math.log(tail(y, 2.0) / wanted), -1, 15), end)

    ends = np.linspace(-9, 9, 180)
    weights = np.exp(LAW.log_density(ends, 0.0))
    # brentq stops at 2e-12, far below the errors that are measured.
    starts = torch.tensor([start(end) for end in ends], dtype=torch.float64)
    return starts[:, None, None], ends, weights / weights.sum()


STARTS, ENDS, WEIGHTS = transported()


class Euler(Integrator):
    """dY/dt = -b(t, Y), the Gaussian part not separated."""

    stochastic = False

    def integrate(
        self, residual: Residual, y: Tensor, times: Tensor, s: Tensor, noise: object
    ) -> Tensor:
        for t, t_next in itertools.pairwise(times):
            y = y + (t - t_next) * ((1 - 1 / OU.variance(t, s)) * y + residual(t, y))
        return y


def distance(integrator: Integrator, grid: Tensor) -> float:
    """W2 between the image of the exact law at T and the data: both flows keep the order."""
    ends = integrator.integrate(rho, STARTS, grid, S, lambda step: STARTS)
    return math.sqrt(WEIGHTS @ (ends[:, 0, 0].numpy() - ENDS) ** 2)


@pytest.mark.parametrize(
    ("integrator", "known", "order"),
    [
        (Euler(), (0.258, 0.135, 0.069, 0.035, 0.0175), 1),
        (INTEGRATORS["z-heun"], (3.2e-3, 8.4e-4, 2.2e-4, 5.6e-5, 1.4e-5), 2),
        (INTEGRATORS["z-rk4"], (1.1e-4, 7.2e-6, 4.6e-7, 2.9e-8, 1.8e-9), 4),
    ],
    ids=["euler", "z-heun", "z-rk4"],
)
def test_the_distance_of_the_probability_flow_on_the_two_point_law(integrator, known, order):
    """T-12: W2, a = 2, T = 2, 8 ... 128 uniform steps, the score asked at the end."""
    found = [distance(integrator, times(n, end=1e-13)) for n in (8, 16, 32, 64, 128)]
    np.testing.assert_allclose(found, known, rtol=0.03)
    assert math.log2(found[2] / found[3]) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize(
    ("name", "exponent", "known", "order"),
    [
        ("z-heun", 1.0, (1.65e-3, 4.18e-4), 2),
        ("z-heun", 2.0, (3.56e-4, 8.84e-5), 2),
        ("z-ab2", 1.0, (1.270e-2, 3.487e-3), 1.87),
        ("z-ab2", 2.0, (9.138e-4, 2.274e-4), 2),
        ("z-ab2", 2.2, (7.689e-4, 1.921e-4), 2),
        ("z-rk4", 1.0, (1.631e-6, 1.125e-7), 3.85),
        ("z-rk4", 2.0, (1.203e-7, 7.533e-9), 4),
    ],
)
def test_the_last_step_keeps_the_order_without_the_score_at_zero(name, exponent, known, order):
    """T-12: W2 after 32 and 64 steps, as the sampler takes them."""
    found = [distance(INTEGRATORS[name], times(n, exponent)) for n in (32, 64)]
    np.testing.assert_allclose(found, known, rtol=0.02)
    assert math.log2(found[0] / found[1]) == pytest.approx(order, abs=0.1)


def test_adams_bashforth_needs_half_the_evaluations_of_heun():
    """Its error after 8, 16 and 32 evaluations is less than half of that of 4, 8, 16 steps."""
    for evaluations in (8, 16, 32):
        heun = distance(INTEGRATORS["z-heun"], times(evaluations // 2, 2.2))
        assert distance(INTEGRATORS["z-ab2"], times(evaluations, 2.2)) < heun / 2


@pytest.mark.parametrize("stochasticity", [0.5, 1.0])
def test_flow_and_stochastic_reversals_have_the_same_marginals(stochasticity):
    """T-12: dY = ((1 + lambda^2) b - lambda^2 Y) ds + sqrt2 lambda dB has the law that the flow
    has for every lambda; the Gaussian part exact, the residual frozen, 128 steps.
    """
    power = stochasticity**2

    def kernel(t: Tensor, t_next: Tensor) -> Tensor:
        v, v_next = OU.variance(t, S).squeeze(), OU.variance(t_next, S).squeeze()
        ratio = torch.exp(-2 * (t - t_next)) * v_next / v
        phi = torch.sqrt(v_next / v) * ratio ** (power / 2)
        tau = torch.sqrt(v_next * (1 - ratio**power))
        return normal(Y[:, None] - phi * Y - (1 + power) * (t - t_next) * rho(t, Y), tau)

    assert divergence(kernel, times(128, 1.0)) < 5e-4
    flow = INTEGRATORS["z-rk4"].integrate(rho, STARTS, times(128), S, lambda step: STARTS)
    np.testing.assert_allclose(flow[:, 0, 0], ENDS, atol=1e-6)
