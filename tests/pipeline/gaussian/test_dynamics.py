"""Sequences of days with a known law: what is fitted, drawn and certified is that law."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.certificate.path_bound import certify
from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.diffusion.sampler import INTEGRATORS, Sampler
from pipeline.diffusion.score import GaussianScore
from pipeline.gaussian.baselines import Baseline
from pipeline.gaussian.dynamics import SequenceLaw
from pipeline.gaussian.dynamics_fit import (
    choose_sequence,
    fit_alone,
    fit_sequence,
    shrunk,
    toeplitz,
)
from pipeline.gaussian.fit import Moments, fit_channels, fit_m_block
from pipeline.gaussian.lags import LagMoments, OrderLayout, contiguous
from pipeline.gaussian.moments import positions

CHANNELS, LMAX = 2, 5
SHAPE = (CHANNELS, (LMAX + 1) ** 2)
KEPT = {"reach": np.full(LMAX + 1, np.inf), "shrinkage": np.zeros(LMAX + 1)}
KEPT["beyond_shrinkage"] = np.array(0.0)


def white(days: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((days, *SHAPE))


def unshrunk(lags: LagMoments) -> SequenceLaw:
    return fit_sequence(lags, KEPT)


def world(past: int, seed: int = 0, days: int = 60, degree: int = LMAX) -> SequenceLaw:
    """A stationary law with waves of its own: that of few days, which no two laws share."""
    noise = white(days + 50, seed)
    x = np.zeros_like(noise)
    mixing = np.random.default_rng(seed + 1).standard_normal((SHAPE[1], SHAPE[1])) * 0.08
    for k in range(2, len(x)):
        x[k] = 0.5 * x[k - 1] + x[k - 1] @ mixing - 0.2 * x[k - 2] + noise[k]
    lags = LagMoments.of(x[50:], past, degree=degree)
    choice = {**KEPT, "shrinkage": np.full(degree + 1, 0.1), "reach": np.full(degree + 1, 4.0)}
    return fit_sequence(lags, {**choice, "beyond_shrinkage": np.array(0.1)})


def lag_covariance(law: SequenceLaw, lags: int) -> list[list[np.ndarray]]:
    """S_m(h) of each order by iterating the law: z(h) = A z(h-1 ... h-p), from S(0 ... p-1)."""
    found = []
    for m in range(law.layout.degree + 1):
        order = law.innovations
        known = [covariance(order[0], law.layout, m)]
        for h in range(1, lags + 1):
            days = min(h, law.past)
            regression = law.blocks[days - 1][m]
            n = len(known[0])
            parts = [regression[:, j * n : (j + 1) * n] for j in range(days)]
            # days before, the earliest first: lag h - days + j of each to the day at zero
            known.append(sum(a @ known[h - days + j] for j, a in enumerate(parts)))
        found.append(known)
    return found


def covariance(law: Baseline, layout: OrderLayout, m: int) -> np.ndarray:
    """E z z^H of an order under a law of single days."""
    size = CHANNELS * (LMAX + 1) ** 2
    unit = torch.eye(size, dtype=torch.float64).reshape(size, *SHAPE)
    drawn = law.color(unit).numpy()
    z = layout.split(drawn)[0][m]
    return z.T @ z.conj()


def test_complex_coordinates_are_those_of_the_m_block_law_and_come_back():
    x = white(3, 0)
    for degree in (0, 2, LMAX):
        layout = OrderLayout(channels=CHANNELS, lmax=LMAX, degree=degree)
        blocks, beyond = layout.split(x)
        np.testing.assert_allclose(layout.join(blocks, beyond), x, atol=1e-14)
        assert beyond.shape == (3, layout.places, CHANNELS)
    flat = x.reshape(3, -1)
    plus, minus = positions(CHANNELS, LMAX, 2)
    expected = (flat[:, plus] + 1j * flat[:, minus]) / np.sqrt(2)
    np.testing.assert_allclose(blocks[2], expected, atol=1e-14)


def test_lag_zero_is_the_moments_of_single_days():
    x = white(40, 1)
    lags, moments = LagMoments.of(x, 2), Moments.of(x)
    for m in range(LMAX + 1):
        np.testing.assert_allclose(lags.blocks[m][0], moments.blocks[m], atol=1e-10)
    np.testing.assert_allclose(lags.channel_lags()[0], moments.channel_covariance(), atol=1e-12)


@pytest.mark.parametrize("degree", [2, LMAX])
def test_lag_sums_of_blocks_of_days_add_up_when_each_is_given_the_days_before(degree):
    x, past = white(30, 2), 3
    whole = LagMoments.of(x, past, degree=degree)
    first = LagMoments.of(x[:11], past, degree=degree)
    rest = LagMoments.of(x[11 - past :], past, before=past, degree=degree)
    both = first + rest
    assert both.samples == 30
    for m in range(degree + 1):
        np.testing.assert_allclose(both.blocks[m], whole.blocks[m], atol=1e-10)
    np.testing.assert_allclose(both.beyond, whole.beyond, atol=1e-10)


def test_days_that_do_not_follow_each_other_are_never_paired():
    days = np.datetime64("2001-01-01") + np.r_[0:10, 15:22]
    stretches = contiguous(days)
    assert stretches == [slice(0, 10), slice(10, 17)]
    x = white(17, 3)
    lags = LagMoments.of_stretches(x, stretches, 1)
    z = lags.layout.split(x)[0][1]
    expected = sum(np.outer(z[k + 1], z[k].conj()) for k in range(16) if k != 9)
    np.testing.assert_allclose(lags.blocks[1][1], expected, atol=1e-12)
    assert lags.samples == 17


def test_months_of_28_and_31_days_follow_each_other():
    months = np.arange("2001-01", "2003-01", dtype="datetime64[M]").astype("datetime64[D]")
    assert contiguous(months) == [slice(0, 24)]
    assert contiguous(np.delete(months, 5)) == [slice(0, 5), slice(5, 23)]


def test_lags_of_mixed_channels_are_those_of_the_mixed_fields():
    x = white(20, 4)
    matrices = np.random.default_rng(5).standard_normal((LMAX + 1, CHANNELS, CHANNELS))
    degree = np.repeat(np.arange(LMAX + 1), 2 * np.arange(LMAX + 1) + 1)
    mixed = np.einsum("kcd,ndk->nck", matrices[degree], x)
    for block_degree in (2, LMAX):
        expected = LagMoments.of(mixed, 1, degree=block_degree)
        found = LagMoments.of(x, 1, degree=block_degree).mixed(matrices)
        for a, b in zip(found.blocks, expected.blocks, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-10)
        np.testing.assert_allclose(found.beyond, expected.beyond, atol=1e-10)
        np.testing.assert_allclose(found.channel_lags(), expected.channel_lags(), atol=1e-12)


@pytest.mark.parametrize("past", [1, 2, 3])
def test_the_law_has_the_lags_that_it_was_made_from(past):
    """Exactly: what the Yule-Walker equations mean, for every lag up to p and every order."""
    x = white(200, 6).cumsum(axis=0) * 0.1 + white(200, 7)
    lags = LagMoments.of(x, past)
    law, target = fit_sequence(lags, {**KEPT, "shrinkage": np.full(6, 0.2)}), lags.channel_lags()
    found = lag_covariance(law, past)
    for m in range(LMAX + 1):
        expected = shrunk(lags, m, target, reach=np.inf, shrinkage=0.2)
        for h in range(past + 1):
            np.testing.assert_allclose(found[m][h], expected[h], atol=1e-5)


def test_the_density_is_that_of_the_dense_covariance_of_all_days():
    """And so the chain rule holds: a day given those before it, summed, is the whole sequence."""
    law, days = world(2), 4
    x = law.draw(white(days, 8)[:, None])[:, 0]
    size = days * CHANNELS * SHAPE[1]
    unit = np.eye(size).reshape(size, days, *SHAPE)
    drawn = law.draw(np.moveaxis(unit, 1, 0))  # (day, response, channel, coefficient)
    root = np.moveaxis(drawn, 1, 0).reshape(size, size)
    dense = root.T @ root
    flat = x.reshape(-1)
    expected = -0.5 * (
        flat @ np.linalg.solve(dense, flat) + np.linalg.slogdet(2 * np.pi * dense)[1]
    )
    np.testing.assert_allclose(law.log_density(x).sum(), expected, rtol=1e-9)


@pytest.mark.parametrize("degree", [2, LMAX])
def test_a_sequence_starts_in_its_stationary_law_and_never_leaves_it(degree):
    """Exactly, from the response to the noise of each day."""
    law = world(2, degree=degree)
    layout = law.layout
    state = np.zeros((0, 0, *SHAPE))
    start = np.eye(CHANNELS * SHAPE[1]).reshape(-1, *SHAPE)
    spread = []
    for day in range(25):
        unit = law.innovations[min(day, 2)].color(torch.from_numpy(start)).numpy()
        past = state[-2:] if day else np.zeros((0, 0, *SHAPE))
        carried = law.mean(np.swapaxes(past, 0, 1)) if day else np.zeros((0, *SHAPE))
        today = np.concatenate([carried, unit])
        state = np.stack(
            [np.concatenate([each, np.zeros((len(unit), *SHAPE))]) for each in past] + [today]
        )
        spread.append(np.square(today).sum(axis=0))
    for later in spread[1:]:
        np.testing.assert_allclose(later, spread[0], rtol=1e-9)
    assert layout.places == (0 if degree == LMAX else 15)


def test_a_law_is_stable_whatever_few_days_say():
    """The companion matrix has no eigenvalue outside the unit circle."""
    for seed in range(5):
        lags = LagMoments.of(white(12, seed).cumsum(axis=0), 2)
        for shrinkage in (0.0, 0.3):
            law = fit_sequence(lags, {**KEPT, "shrinkage": np.full(6, shrinkage)})
            assert max(radii(law)) < 1.0


def radii(law: SequenceLaw) -> list[float]:
    """The spectral radius of each order's autoregression."""
    found = []
    for regression in law.blocks[-1]:
        n = len(regression)
        companion = np.eye(regression.shape[1], k=n, dtype=complex)
        companion[-n:] = regression
        found.append(float(np.abs(np.linalg.eigvals(companion)).max()))
    return found


def test_shrinking_single_lags_gives_an_unstable_autoregression_for_some_data():
    """Why the sequence is shrunk with one factor: S(0) alone, shrunk, explodes."""
    days = np.arange(400)
    wave = np.exp(1j * days[:, None] * np.array([2.0, 2.1]))
    generator = np.random.default_rng(9)
    z = np.zeros((400, 12), complex)
    z[:, :2] = wave + 0.05 * generator.standard_normal((400, 2))
    z[:, 2:] = 0.05 * generator.standard_normal((400, 10))
    s0, s1 = z.T @ z.conj() / 400, z[1:].T @ z[:-1].conj() / 400
    whole = 0.5 * s0 + 0.5 * np.eye(12) * np.diag(s0).real.mean()

    def radius(s0: np.ndarray, s1: np.ndarray) -> float:
        return float(np.abs(np.linalg.eigvals(s1 @ np.linalg.inv(s0))).max())

    assert radius(whole, s1) > 1.5
    both = 0.5 * s1 + 0.5 * np.eye(12) * np.diag(s1).mean()
    assert radius(whole, both) < 1.0


@pytest.mark.parametrize("steps", [1, 4])
def test_draws_of_any_number_of_steps_have_the_lags_of_the_law(steps):
    """S(h) for h = 0 ... 10 within three standard errors, one step included."""
    law, members, lags = world(2), 3000, 10
    sampler = Sampler(integrator=INTEGRATORS["gme"], evaluations=steps)
    generator = torch.Generator().manual_seed(3)
    x = np.zeros((0, members, *SHAPE))
    for day in range(lags + 1):
        score = GaussianScore(law.innovations[min(day, 2)])
        past = np.swapaxes(x[-2:], 0, 1)

        def noise(_: int) -> torch.Tensor:
            return torch.randn(members, *SHAPE, generator=generator, dtype=torch.float64)

        new = sampler(score, noise, torch.zeros(members, 1)).numpy()
        x = np.concatenate([x, (law.mean(past) + new)[None]])
    exact = lag_covariance(law, lags)
    misses, looked = 0, 0
    first = law.layout.split(x[0])[0]
    for h in range(lags + 1):
        later = law.layout.split(x[h])[0]
        for m in range(LMAX + 1):
            products = later[m][:, :, None] * first[m][:, None, :].conj()
            gap = products.mean(axis=0) - exact[m][h]
            for part in ("real", "imag"):
                error = getattr(products, part).std(axis=0) / members**0.5
                beyond = np.abs(getattr(gap, part)) > 3 * error + 1e-12
                misses, looked = misses + int(beyond.sum()), looked + beyond.size
    assert misses < 0.006 * looked  # 0.27 % are expected; entries hang together


def travelling(days: int, omega: float, a: float, seed: int) -> np.ndarray:
    """z_{k+1} = e^{i omega} a z_k + e in degree 3, order 2 of channel 0; white noise elsewhere."""
    x = white(days, seed)
    e = np.random.default_rng(seed + 1).standard_normal((days, 2)) @ [1, 1j] / np.sqrt(2)
    z = np.zeros(days, complex)
    for k in range(1, days):
        z[k] = np.exp(1j * omega) * a * z[k - 1] + e[k]
    place = 3 * 3 + 3
    x[:, 0, place + 2], x[:, 0, place - 2] = np.sqrt(2) * z.real, np.sqrt(2) * z.imag
    return x


def phase_speed(x: np.ndarray) -> float:
    place = 3 * 3 + 3
    z = x[:, 0, place + 2] + 1j * x[:, 0, place - 2]
    return float(np.angle((z[1:] * z[:-1].conj()).sum()))


@pytest.mark.parametrize("degree", [2, LMAX])
def test_a_travelling_wave_keeps_its_phase_speed(degree):
    omega = 0.7
    x = travelling(1500, omega, 0.9, 10)
    lags = LagMoments.of(x, 1, degree=degree)
    choice = {"reach": np.full(degree + 1, 3.0), "shrinkage": np.full(degree + 1, 0.05)}
    law = fit_sequence(lags, {**choice, "beyond_shrinkage": np.array(0.05)})
    drawn = law.draw(white(1500, 12)[:, None])[:, 0]
    assert phase_speed(drawn) == pytest.approx(omega, abs=0.08)
    # A law that knows no direction, real lags for each degree, has no phase speed at all.
    isotropic = fit_sequence(
        lags, {**choice, "shrinkage": np.ones(degree + 1), "beyond_shrinkage": np.array(1.0)}
    )
    still = isotropic.draw(white(1500, 12)[:, None])[:, 0]
    assert abs(phase_speed(still)) < 0.2


def test_each_rung_of_the_ladder_gains_what_its_law_says_it_gains():
    """Independent days -> VAR(1) -> VAR(2): the gain in log-density per day is half the log of the
    ratio of what is left, exactly, in the limit; here within three standard errors."""
    law = world(2, days=80)
    x = law.draw(white(4000, 13)[:, None])[2:, 0]
    gains, exact = [], []
    for days in (0, 1, 2):
        windows = (
            np.stack([x[k + 2 - days : len(x) - days + k] for k in range(days)], axis=1)
            if days
            else np.empty((len(x) - 2, 0, *SHAPE))
        )
        left = torch.from_numpy(x[2:] - law.mean(windows))
        gains.append(law.innovations[days].log_density(left).numpy())
        exact.append(-0.5 * float(torch.log(law.innovations[days].variance).sum()))
    for rung in (1, 2):
        gain = gains[rung] - gains[rung - 1]
        error = 4 * gain.std() / len(gain) ** 0.5  # neighbouring days hang together
        assert gain.mean() == pytest.approx(exact[rung] - exact[rung - 1], abs=3 * error)
        assert exact[rung] > exact[rung - 1]


def test_a_coefficient_that_follows_itself_alone_gains_less_than_all_together():
    """The rung between: exact for data whose coefficients do so, and below VAR(1) otherwise."""
    noise, x = white(3000, 26), np.zeros((3000, *SHAPE))
    noise[:, 1] = 0.6 * noise[:, 0] + 0.8 * noise[:, 1]
    rate = np.random.default_rng(27).uniform(0.2, 0.8, SHAPE)
    for k in range(1, 3000):
        x[k] = rate * x[k - 1] + noise[k]
    lags = LagMoments.of(x, 1)
    alone, together = fit_alone(lags, KEPT), fit_sequence(lags, KEPT)
    own = np.abs(np.diagonal(alone.blocks[0][0]))
    expected = np.sort(rate[:, [n * n + n for n in range(LMAX + 1)]].ravel())
    np.testing.assert_allclose(np.sort(own), expected, atol=0.06)
    single = fit_sequence(lags.up_to(0), KEPT)
    gains = [law.log_density(x)[1:].mean() for law in (single, alone, together)]
    assert gains[1] > gains[0] + 5
    assert gains[2] == pytest.approx(gains[1], abs=0.5)  # only what 72 more numbers fit of noise
    waves = travelling(1500, 0.7, 0.9, 28)
    waves[:, 1] = np.roll(waves[:, 0], 1, axis=0)  # the other channel is yesterday's
    lags = LagMoments.of(waves, 1)
    alone, together = fit_alone(lags, KEPT), fit_sequence(lags, KEPT)
    assert together.log_density(waves)[1:].mean() > alone.log_density(waves)[1:].mean() + 10


def test_members_drawn_alone_or_together_are_the_same_sequences():
    law = world(2)
    noise = np.random.default_rng(14).standard_normal((6, 3, *SHAPE))
    together = law.draw(noise)
    for member in range(3):
        alone = law.draw(noise[:, member : member + 1])[:, 0]
        np.testing.assert_allclose(alone, together[:, member], atol=1e-12)


def test_a_law_is_rebuilt_from_its_arrays():
    for degree in (2, LMAX):
        law = world(2, degree=degree)
        again = SequenceLaw.from_arrays(LMAX, degree, 2, law.to_arrays())
        noise = white(4, 15)[:, None]
        np.testing.assert_array_equal(again.draw(noise), law.draw(noise))


def test_innovations_turn_orthogonally_beyond_the_block_degree():
    law = world(2, degree=2).innovations[2]
    x = torch.from_numpy(white(3, 16))
    y = law.rotate(x)
    np.testing.assert_allclose(y.square().sum((1, 2)), x.square().sum((1, 2)), rtol=1e-12)
    np.testing.assert_allclose(law.unrotate(y), x, atol=1e-12)


def test_without_a_past_the_law_is_the_m_block_law_of_single_days():
    x = white(50, 17)
    law = unshrunk(LagMoments.of(x, 0))
    expected = fit_m_block(Moments.of(x), np.zeros(LMAX + 1))
    np.testing.assert_allclose(
        law.log_density(x), expected.log_density(torch.from_numpy(x)).numpy(), atol=1e-2
    )


def test_shrunk_whole_it_is_the_channels_law():
    x = white(50, 18)
    everything = {**KEPT, "shrinkage": np.ones(LMAX + 1)}
    law = fit_sequence(LagMoments.of(x, 0), everything)
    expected = fit_channels(Moments.of(x)).log_density(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(law.log_density(x), expected, atol=1e-3)


def test_the_chosen_law_is_likelier_on_other_days_than_the_unshrunk_one():
    truth = world(1, days=400)
    train, validation, test = (truth.draw(white(150, seed)[:, None])[:, 0] for seed in (19, 20, 21))
    lags = LagMoments.of(train, 2)
    choice = choose_sequence(lags, LagMoments.of(validation, 2))
    chosen, plain = fit_sequence(lags, choice), unshrunk(lags)
    assert chosen.log_density(test).mean() > plain.log_density(test).mean() + 1
    independent = fit_m_block(Moments.of(train), np.full(LMAX + 1, 0.1))
    gain = chosen.log_density(test) - independent.log_density(torch.from_numpy(test)).numpy()
    assert gain.mean() > 3 * gain.std() / len(gain) ** 0.5


class TwoPoints:
    """The exact residual of innovations that are +-a in one coordinate, around its Gaussian."""

    def __init__(self, baseline: Baseline, place: tuple[int, int], a: float) -> None:
        self.baseline, self.place, self.a = baseline, place, a

    def residual(self, t, y, condition):
        channel, at = self.place
        s = float(self.baseline.variance[channel, at])
        w = s / (1 + self.a**2)  # white part; the rest are the two points
        alpha, sigma2 = torch.exp(-t), -torch.expm1(-2 * t)
        v = alpha**2 * w + sigma2
        value = y[:, channel, at]
        mean = alpha * self.a * w**0.5
        log_density_slope = (-value + mean * torch.tanh(mean * value / v)) / v
        gaussian = -value / (alpha**2 * s + sigma2)
        rho = torch.zeros_like(y)
        rho[:, channel, at] = (log_density_slope - gaussian).to(y.dtype)
        return rho


def test_the_certificate_of_a_day_given_its_past_is_that_of_a_single_day():
    """Two-point innovations around a VAR(1). In x - K o nothing of the past is left,
    so J_G of a day is the number of the single-day chain, and that of n days is n times it."""
    law = world(1)
    innovations, place, a = law.innovations[1], (1, 20), 2.0
    s = float(innovations.variance[place])
    days = 600
    y = innovations.rotate(torch.from_numpy(white(days, 22)))
    y = y * innovations.variance.sqrt()
    w = s / (1 + a**2)
    signs = np.sign(np.random.default_rng(23).standard_normal(days))
    y[:, place[0], place[1]] *= (w / s) ** 0.5
    y[:, place[0], place[1]] += torch.from_numpy(signs) * a * w**0.5
    new = innovations.unrotate(y).numpy()
    x = [law.draw(white(1, 24)[:, None])[0, 0]]
    for day in range(days):
        x.append(law.mean(x[-1][None]) + new[day])
    x = np.stack(x)
    left = torch.from_numpy(x[1:] - law.mean(x[:-1, None]))
    score = TwoPoints(innovations, place, a)
    times = OrnsteinUhlenbeck(horizon=2.0).power_grid(32)
    found, single = (
        certify(score, each, torch.zeros(days, 1), times, torch.Generator().manual_seed(0))
        for each in (left, torch.from_numpy(new))
    )
    np.testing.assert_allclose(found.per_field, single.per_field, atol=1e-9)
    assert found.per_field.sum() == pytest.approx(days * found.nats)
    error = found.per_field.std() / days**0.5
    assert found.nats == pytest.approx(0.152, abs=4 * error + 0.01)  # mathematics.md, 8


def test_toeplitz_matrices_of_shrunk_sequences_have_no_negative_eigenvalue():
    lags = LagMoments.of(white(9, 25).cumsum(axis=0), 3)
    target = lags.channel_lags()
    for reach, shrinkage in ((2.0, 0.0), (np.inf, 0.4), (3.0, 0.1)):
        for m in range(LMAX + 1):
            sequence = shrunk(lags, m, target, reach=reach, shrinkage=shrinkage)
            values = np.linalg.eigvalsh(toeplitz(sequence))
            assert values[0] > -1e-10 * values[-1]
