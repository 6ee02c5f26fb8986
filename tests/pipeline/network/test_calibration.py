import numpy as np
import torch

from pipeline.network.calibration import GROUPS, NODES, Calibration
from tests.pipeline.closed_forms import Diagonal


def calibration(coefficients: int = 64) -> Calibration:
    return Calibration(Diagonal(torch.linspace(0.1, 5.0, coefficients)[None]), 1e-3, 2.0)


def test_a_new_calibration_changes_nothing():
    learned, u = torch.randn(2, 5, 1, 64, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([1e-4, 1e-3, 0.03, 0.4, 2.5])
    torch.testing.assert_close(calibration()(t, learned, u), learned)


def test_gain_and_slope_of_a_linear_misfit_are_found():
    generator = torch.Generator().manual_seed(0)
    learned, u = torch.randn(2, 200, 1, 64, generator=generator)
    fitted = calibration()
    for node in range(NODES):
        fitted.solve(node, fitted.sums(learned, u, (0.5 + node) * learned - 0.25 * u))
    np.testing.assert_allclose(
        fitted.gain, (0.5 + torch.arange(NODES))[:, None].expand(-1, GROUPS), rtol=1e-5
    )
    np.testing.assert_allclose(fitted.slope, -0.25, rtol=1e-4)
    middle = torch.exp((fitted.nodes[3] + fitted.nodes[4]) / 2).expand(200)
    torch.testing.assert_close(fitted(middle, learned, u), 4.0 * learned - 0.25 * u)


def test_groups_hold_directions_of_like_variance():
    group = calibration().group
    assert (group[0].diff() >= 0).all()
    assert torch.bincount(group.flatten()).tolist() == [64 // GROUPS] * GROUPS


def test_a_silent_network_keeps_its_gain():
    u = torch.randn(50, 1, 64, generator=torch.Generator().manual_seed(0))
    fitted = calibration()
    fitted.solve(0, fitted.sums(torch.zeros_like(u), u, 0.1 * u))
    assert (fitted.gain[0] == 1).all()
    np.testing.assert_allclose(fitted.slope[0], 0.0, atol=1e-6)


def test_calibrating_never_raises_the_misfit_on_its_own_fields():
    """T-20: least squares per group, so the misfit of each group falls or stays."""
    generator = torch.Generator().manual_seed(1)
    learned, u, noise = torch.randn(3, 300, 1, 64, generator=generator)
    target = torch.tanh(learned) * 0.3 + 0.2 * u + noise
    fitted = calibration()
    fitted.solve(2, fitted.sums(learned, u, target))
    t = torch.exp(fitted.nodes[2]).expand(300)
    before, after = ((f - target).square().mean() for f in (learned, fitted(t, learned, u)))
    assert after < before


def test_sums_of_parts_of_the_fields_add_up():
    generator = torch.Generator().manual_seed(2)
    parts = torch.randn(3, 20, 1, 64, generator=generator)
    fitted = calibration()
    whole = fitted.sums(*parts)
    apart = sum(fitted.sums(*parts[:, rows]) for rows in (slice(0, 7), slice(7, 20)))
    torch.testing.assert_close(apart, whole)
