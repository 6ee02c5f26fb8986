"""The next day by a learned law, and the variance of days that follow each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.diffusion.matching import MatchedScore
from pipeline.diffusion.sampler import INTEGRATORS, Sampler
from pipeline.diffusion.score import Condition, GaussianScore
from pipeline.diffusion.sequences import FORGOTTEN, NextDay, _sure, hold
from tests.pipeline.gaussian.test_dynamics import CHANNELS, LMAX, SHAPE, white, world


class Contracting:
    """A residual that takes a part of what is noised, at every time."""

    def __init__(self, baseline, part):
        self.baseline, self.part, self.seen = baseline, part, []

    def residual(self, t, y, condition):
        self.seen.append(condition)
        return -self.part * y


@pytest.mark.parametrize(("integrator", "evaluations"), [("z-ab2", 1), ("z-ab2", 6), ("gme", 3)])
def test_without_a_residual_the_next_day_is_that_of_the_linear_law(integrator, evaluations):
    """The flow turns the same noise into the same day; a chain with noise into one of that law."""
    law = world(2)
    sampler = Sampler(integrator=INTEGRATORS[integrator], evaluations=evaluations)
    following = NextDay(law=law, score=GaussianScore(law.innovations[2]), sampler=sampler)
    past = np.repeat(law.draw(white(2, 1))[None], 400, axis=0)
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn((400, *SHAPE), generator=generator, dtype=torch.float64) for _ in range(4)]
    drawn = following(past, lambda step: noise[step], torch.zeros(400, 1))
    if integrator == "z-ab2":
        expected = law.next(past, noise[0].numpy())
        np.testing.assert_allclose(drawn, expected, atol=1e-9)
    y = law.innovations[2].rotate(torch.from_numpy(drawn - law.mean(past)))
    ratio = y.square().mean(dim=0) / law.innovations[2].variance
    assert abs(float(ratio.mean()) - 1) < 0.03


def test_the_score_is_given_the_expected_day_and_the_days_before_with_the_latest_first():
    law = world(2)
    score = Contracting(law.innovations[2], 0.0)
    past = white(6, 3).reshape(3, 2, *SHAPE)
    features = torch.arange(3.0)[:, None]
    NextDay(law=law, score=score)(past, lambda step: torch.zeros(3, *SHAPE), features)
    condition = score.seen[0]
    assert isinstance(condition, Condition)
    shown = condition.past.numpy()
    np.testing.assert_allclose(shown[:, 0], law.mean(past), atol=1e-5)
    np.testing.assert_allclose(shown[:, 1], past[:, 1], atol=1e-6)
    np.testing.assert_allclose(shown[:, 2], past[:, 0], atol=1e-6)
    assert torch.equal(condition.features, features)
    assert len(condition[1:]) == 2 and torch.equal(condition[1:].past, condition.past[1:])


def test_sequences_whose_residual_contracts_keep_the_variance_of_the_data_once_they_are_held():
    law = world(2)
    score = Contracting(law.innovations[2], 0.05)
    flow = MatchedScore(score, torch.tensor([2.0, 0.5, 0.1]), torch.zeros(3, CHANNELS, LMAX + 1))
    begun = np.stack([law.draw(white(2, seed)) for seed in range(8)])
    features = torch.zeros(FORGOTTEN + 20, 8, 1)
    factor, loop = hold(law, flow, begun, features, torch.Generator().manual_seed(0))
    assert loop.before.max() < 0.93
    assert (np.abs(np.log(loop.after)) < 3 * loop.error + 0.01).all() and loop.error.max() < 0.02
    assert abs(np.median(loop.after) - 1) < 0.015
    assert (factor > 1).all()
    again, _ = hold(law, flow, begun, features, torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(factor, again)


def test_a_memory_that_is_too_long_is_held_and_a_day_ahead_keeps_its_spread():
    """What is drawn remembers a little more than the data do: that adds up over days, and the
    factor that mends it takes far less from what is new in a day."""

    class Remembering(Contracting):
        def residual(self, t, y, condition):
            expected = self.baseline.rotate(condition.past[:, 0].to(y.dtype))
            return self.part * t.to(y.dtype)[:, None, None] * expected

    law = world(2)
    flow = Remembering(law.innovations[2], 0.04)
    begun = np.stack([law.draw(white(2, seed)) for seed in range(8)])
    features = torch.zeros(FORGOTTEN + 20, 8, 1)
    factor, loop = hold(law, flow, begun, features, torch.Generator().manual_seed(0))
    assert np.median(loop.before) > 1.05
    assert abs(np.median(loop.after) - 1) < 0.015
    spread = np.median(factor)
    assert np.median(loop.before) ** -0.5 < spread < 1
    assert 1 - spread < 0.7 * (1 - np.median(loop.before) ** -0.5)


def test_the_factor_multiplies_the_whole_day_degree_by_degree():
    law, past = world(2), np.repeat(world(2).draw(white(2, 1))[None], 3, axis=0)
    score, factor = GaussianScore(law.innovations[2]), np.ones((CHANNELS, LMAX + 1))
    factor[1, 3] = 0.5
    noise = torch.ones((3, *SHAPE), dtype=torch.float64)
    plain, held = (
        NextDay(law=law, score=score, factor=one)(past, lambda step: noise, torch.zeros(3, 1))
        for one in (None, factor)
    )
    ratio = held / plain
    np.testing.assert_allclose(ratio[:, 1, 9:16], 0.5)
    ratio[:, 1, 9:16] = 1.0
    np.testing.assert_allclose(ratio, 1.0)


def test_a_ratio_is_taken_back_by_what_its_scatter_among_sequences_leaves_sure():
    """One that chance explains is left; of one that is ten times its error all but a hundredth."""
    ratio, error = np.array([0.0, 0.1, -0.3, 1.0, 0.5]), np.array([0.1, 0.2, 0.3, 0.1, 0.0])
    np.testing.assert_allclose(_sure(ratio, error), [0.0, 0.0, 0.0, 0.99, 0.5], atol=1e-12)


def test_a_degree_that_few_sequences_tell_little_about_is_not_bent_to_their_chance():
    """A residual that acts on each sequence in another way, by no more in the mean."""

    class Wavering(Contracting):
        def residual(self, t, y, condition):
            return self.part * torch.sign(condition.features[:, :, None]) * y

    law = world(2)
    score = Wavering(law.innovations[2], 0.1)
    flow = MatchedScore(score, torch.tensor([2.0, 0.5, 0.1]), torch.zeros(3, CHANNELS, LMAX + 1))
    begun = np.stack([law.draw(white(2, seed)) for seed in range(8)])
    signs = torch.tensor([1.0, -1.0]).repeat(4)[None, :, None]
    features = signs.expand(FORGOTTEN + 20, 8, 1)
    factor, loop = hold(law, flow, begun, features, torch.Generator().manual_seed(0))
    assert float(np.median(loop.error)) > 0.03
    assert float((factor == 1).mean()) > 0.4
