import numpy as np
import pytest
import torch

from pipeline.certificate import path_bound
from pipeline.certificate.path_bound import (
    Certificate,
    certify,
    information,
)
from pipeline.diffusion.integrators import ei, gei, gme, mei
from pipeline.diffusion.process import OrnsteinUhlenbeck
from pipeline.diffusion.score import GaussianScore, Posterior
from pipeline.network.calibration import Calibration
from pipeline.scores.intervals import mean_interval
from tests.pipeline.certificate.paths import certify_paths, path_information
from tests.pipeline.closed_forms import Diagonal, TwoPoint

TIMES = OrnsteinUhlenbeck(horizon=2.0).power_grid(32, exponent=1.0)
GRID = torch.as_tensor(TIMES)
NEGENTROPY = 0.171998762480
DIVERGENCE = {"ei": 0.00482, "mei": 0.00164, "gei": 0.00215, "gme": 0.00256}  # of the output


def certified(scale: float, fields: int = 6000):
    law = TwoPoint(2.0, scale=scale)
    x_0 = law.sample(fields, torch.Generator().manual_seed(0))
    noise = torch.Generator().manual_seed(1)
    return certify(law, x_0, torch.zeros(fields, 1), TIMES, noise, batch=6000)


def normal_pairs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gauss-Hermite nodes for two independent normal numbers, and their weights."""
    node, weight = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(80))
    weight = weight / weight.sum()
    return *torch.meshgrid(node, node, indexing="ij"), torch.outer(weight, weight)


def along_first(values: torch.Tensor) -> torch.Tensor:
    fields = torch.zeros(values.numel(), 1, 4, dtype=torch.float64)
    fields[:, 0, 0] = values.flatten()
    return fields


def expected_information(law: TwoPoint) -> float:
    """J_G by quadrature over (X_0, X_t), for X_0 = +a + Z; -a gives the same."""
    first, second, weight = normal_pairs()
    condition = torch.zeros(first.numel(), 1)
    total = 0.0
    for t, t_next in zip(GRID[:-1, None], GRID[1:, None], strict=True):
        nats = information(
            law, along_first(law.a + first), t, t_next, condition, along_first(second)
        )
        total += float(weight.flatten() @ nats.sum(dim=(1, 2)))
    return total


def expected_path_information(law, transition, a: float = 2.0) -> float:
    """J_G by quadrature over (X', X), the path version."""
    first, second, weight = normal_pairs()
    condition, process, total = torch.zeros(first.numel(), 1), OrnsteinUhlenbeck(), 0.0
    for t, t_next in zip(GRID[:-1, None], GRID[1:, None], strict=True):
        after = a * process.alpha(t_next) + first
        before = process.perturb(after, t - t_next, second)
        pair = along_first(before), along_first(after)
        nats = path_information(law, transition, *pair, t, t_next, condition)
        total += float(weight.flatten() @ nats[:, 0, 0])
    return total


class OverReference:
    """A score that leaves nothing to its baseline, the reference itself."""

    def __init__(self, law: TwoPoint) -> None:
        self.law, self.baseline = law, Diagonal(torch.ones(1, 4))

    def residual(self, t, y, condition):
        return self.law.scale * self.law.score(t, y)


def test_the_exact_score_is_certified_with_the_known_number_of_nats():
    """T-14: a = 2, T = 2, 32 GME steps: J_G = 0.1517, below the negentropy 0.171999."""
    result = certified(scale=1.0)
    error = result.per_field.std() / len(result.per_field) ** 0.5
    assert error < 0.01
    assert abs(result.nats - 0.1517) < 4 * error


@pytest.mark.parametrize(("scale", "bound"), [(1.0, 0.0203), (0.8, 0.0266)])
def test_the_certificate_by_quadrature_is_the_known_number(scale, bound):
    """T-14: the bounds on the divergence are known with a standard error of 0.0006."""
    nats = expected_information(TwoPoint(2.0, scale=scale))
    assert NEGENTROPY - nats == pytest.approx(bound, abs=2 * 0.0006)
    assert nats == pytest.approx((2 * scale - scale**2) * 0.152222903, abs=1e-8)


@pytest.mark.parametrize("scale", [1.0, 0.8, -1.0])
def test_the_path_version_has_the_expectation_of_the_rao_blackwellised_one(scale):
    """T-14, by quadrature over the joint laws."""
    law = TwoPoint(2.0, scale=scale)
    assert expected_path_information(law, gme) == pytest.approx(expected_information(law), abs=1e-9)


def test_a_tail_of_noise_leaves_every_term_of_the_certificate_as_it_is():
    """T-16: the law at lmax 3, and at lmax 6 with white degrees 4 to 6."""
    generator, condition = torch.Generator().manual_seed(0), torch.zeros(300, 1)
    x_0 = TwoPoint(2.0, coefficients=49).sample(300, generator)
    noise = torch.randn(x_0.shape, generator=generator, dtype=torch.float64)
    for k in (0, 11, 31):
        t, t_next = GRID[k].expand(300), GRID[k + 1].expand(300)
        low, whole = (
            information(
                TwoPoint(2.0, coefficients=size),
                x_0[..., :size],
                t,
                t_next,
                condition,
                noise[..., :size],
            )
            for size in (16, 49)
        )
        assert (whole[..., :16] == low).all()
        assert (whole[..., 16:] == 0).all()
        assert (low != 0).any()


@pytest.mark.parametrize("transition", [ei, mei, gei, gme], ids=lambda step: step.__name__)
def test_every_one_step_sampler_has_a_certificate_that_covers_its_divergence(transition):
    """T-14: negentropy - J_G is at least the known KL(data | output) of 32 steps."""
    nats = expected_path_information(TwoPoint(2.0), transition)
    assert DIVERGENCE[transition.__name__] <= NEGENTROPY - nats < 0.05


def test_noised_paths_give_the_certificate():
    """T-14: within four standard errors of the exact expectation."""
    law = TwoPoint(2.0)
    x_0 = law.sample(4000, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    nats = certify_paths(law, gme, x_0, torch.zeros(4000, 1), TIMES, generator, batch=4000)
    per_field = nats.sum(axis=1)
    assert abs(per_field.mean() - 0.152223) < 4 * per_field.std() / 4000**0.5


def test_a_path_certificate_of_no_residual_is_exactly_zero():
    law = TwoPoint(2.0)
    x_0 = law.sample(10, torch.Generator().manual_seed(0))
    nothing = GaussianScore(law.baseline)
    nats = certify_paths(nothing, gme, x_0, torch.zeros(10, 1), TIMES, torch.Generator())
    assert not nats.any()


def test_over_the_reference_it_is_the_girsanov_ratio_of_the_exponential_integrator():
    """J = E sum [2 <s, X' - e^-h X> - 2 (1 - e^-h) |s|^2] / (1 + e^-h) <= KL(data | gamma)."""
    law = OverReference(TwoPoint(2.0))
    generator = torch.Generator().manual_seed(0)
    x, x_next = torch.randn(2, 50, 1, 4, generator=generator, dtype=torch.float64)
    t, t_next = GRID[20:21], GRID[21:22]
    s, decay = law.residual(t.expand(50), x, None), torch.exp(t_next - t)
    ratio = 2 * s * (x_next - decay * x) - 2 * (1 - decay) * s.square()
    found = path_information(law, ei, x, x_next, t, t_next, torch.zeros(50, 1))
    np.testing.assert_allclose(found, ratio / (1 + decay), atol=1e-12)
    assert 1.367280 - 0.3 < expected_path_information(law, ei) < 1.367280


def test_a_score_that_is_too_small_is_certified_with_less():
    """T-14: scaled by 0.8 the bound on the divergence is 0.0266 instead of 0.0203."""
    exact, scaled = certified(1.0), certified(0.8)
    gap = exact.per_field - scaled.per_field
    assert abs(gap.mean() - (0.0266 - 0.0203)) < 4 * gap.std() / len(gap) ** 0.5


def test_no_residual_certifies_exactly_nothing():
    law = TwoPoint(2.0)
    x_0 = law.sample(64, torch.Generator().manual_seed(0))
    result = certify(
        GaussianScore(law.baseline), x_0, torch.zeros(64, 1), TIMES, torch.Generator(), draws=4
    )
    assert result.nats == 0.0


def test_the_wrong_sign_is_certified_as_harm():
    result = certified(scale=-1.0, fields=1000)
    assert result.nats < -0.2


def test_the_spectrum_adds_up_to_the_whole_and_lies_where_the_law_is_not_gaussian():
    result = certified(scale=1.0, fields=200)
    assert result.spectrum.shape == (32, 1, 2)
    assert result.spectrum.sum() == pytest.approx(result.nats, rel=1e-12)
    np.testing.assert_allclose(result.by_field.mean(0), result.spectrum.sum(0), rtol=1e-12)
    assert not result.spectrum[..., 1].any()


@pytest.mark.parametrize("draws", [None, 5])
def test_certificates_of_parts_add_up_in_any_order(draws):
    """T-19: the same fields in one part or in several, bit for bit by field."""
    law = TwoPoint(2.0)
    x_0 = law.sample(90, torch.Generator().manual_seed(0))

    def part(start: int, stop: int) -> Certificate:
        rows, noise = slice(start, stop), torch.Generator().manual_seed(7)
        condition = torch.zeros(stop - start, 1)
        return certify(law, x_0[rows], condition, TIMES, noise, draws, batch=16, first=start, of=90)

    whole, a, b, c = part(0, 90), part(0, 40), part(40, 41), part(41, 90)
    for summed in ((a + b) + c, a + (b + c)):
        np.testing.assert_array_equal(summed.by_field, whole.by_field)
        np.testing.assert_array_equal(summed.visits, whole.visits)
        np.testing.assert_allclose(summed.by_step, whole.by_step, rtol=1e-12, atol=1e-14)


def test_calibrating_never_lowers_the_certificate_on_its_split():
    """T-20: at a node's time, on the fields and noise of the fit, for a score that is off."""
    law = TwoPoint(2.0, coefficients=64, scale=-0.5)
    law.baseline.variance[:] = 5.0  # one weight for all: least squares in F is that in nats
    x_0 = law.sample(300, torch.Generator().manual_seed(0))
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(1)).double()
    calibration = Calibration(law.baseline, 1e-3, 2.0).double()
    t = torch.exp(calibration.nodes[9:10]).expand(300)
    posterior = Posterior(t, law.baseline.variance)
    y_t = posterior.alpha * x_0 + posterior.sigma * noise
    learned = law.residual(t, y_t, None) / posterior.residual_scale + torch.sin(3 * y_t)

    class Said:
        baseline = law.baseline

        def residual(self, t, y, condition):
            said = calibration(t, learned, posterior.c_in * y)
            return posterior.residual_scale * said

    terms = (x_0, t, t / 2, torch.zeros(300, 1), noise)
    before = information(Said(), *terms).sum()
    sums = calibration.sums(learned, posterior.c_in * y_t, posterior.target(x_0, y_t))
    calibration.solve(9, sums)
    assert before < 0 <= information(Said(), *terms).sum()


class Constant:
    """A score that is certified with a known number of nats at every step, whatever the field."""

    baseline = Diagonal(torch.full((1, 4), 2.0))

    def residual(self, t, y, condition):
        return torch.zeros_like(y)


def by_step(monkeypatch, values: np.ndarray) -> None:
    """Let every field say `values` at the steps of the grid, and nothing of itself."""

    def told(score, x_0, t, t_next, condition, noise):
        step = np.searchsorted(-TIMES, -t.numpy())
        nats = torch.zeros(x_0.shape, dtype=torch.float64)
        nats[:, 0, 0] = torch.as_tensor(values[step])
        return nats

    monkeypatch.setattr(path_bound, "information", told)


@pytest.mark.parametrize(("fields", "draws"), [(184, 4), (45, 1), (10, 1), (33, 31), (7, 32)])
def test_every_step_counts_alike_however_often_it_is_visited(monkeypatch, fields, draws):
    """The sum over the steps, exactly: fields and steps that do not come out even add no bias."""
    values = np.linspace(0.0, 1.0, 32) ** 3
    by_step(monkeypatch, values)
    x_0, condition = torch.zeros(fields, 1, 4), torch.zeros(fields, 1)
    found = certify(Constant(), x_0, condition, TIMES, torch.Generator(), draws=draws)
    assert found.nats == pytest.approx(values.sum(), rel=1e-12)
    assert found.per_field.mean() == pytest.approx(values.sum(), rel=1e-12)
    np.testing.assert_allclose(found.spectrum.sum(axis=(1, 2)), values, rtol=1e-12, atol=1e-15)
    # All fields are alike: which steps they were noised to is no scatter of theirs.
    np.testing.assert_allclose(found.per_field, values.sum(), rtol=1e-9)


def test_the_scatter_of_fields_at_a_few_steps_each_is_that_of_the_mean():
    """Over many repetitions the standard error is the deviation of J_G, whatever the draws."""
    law, found = TwoPoint(2.0), []
    x_0 = law.sample(60 * 80, torch.Generator().manual_seed(3)).reshape(60, 80, 1, -1)
    for number, fields in enumerate(x_0):
        noise = torch.Generator().manual_seed(number)
        found.append(certify(law, fields, torch.zeros(80, 1), TIMES, noise, draws=2))
    expected = np.std([each.nats for each in found], ddof=1)
    errors = [mean_interval(each.per_field).standard_error for each in found]
    mean_error = np.sqrt(np.mean(np.square(errors)))
    assert mean_error == pytest.approx(expected, rel=4 / (2 * 60) ** 0.5)
