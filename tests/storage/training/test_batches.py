"""Batches are a function of seed and step."""

from __future__ import annotations

import numpy as np
import pytest

from storage.training.batches import Batches


def batches(seed: int = 0, samples: int = 10, batch: int = 4) -> Batches:
    x = np.arange(samples * 6, dtype=np.float32).reshape(samples, 2, 3)
    return Batches(x, np.arange(samples) / 10, seed=seed, batch=batch)


def test_every_sample_comes_once_per_epoch_also_when_batches_straddle_epochs():
    stream = np.concatenate([batches().indices_at(step) for step in range(10)])
    for epoch in stream.reshape(4, 10):
        assert sorted(epoch) == list(range(10))
    assert not np.array_equal(stream[:10], stream[10:20])


def test_a_batch_holds_samples_with_their_own_condition():
    data = batches()
    x, condition = data.batch_at(3)
    assert x.shape == (4, 2, 3)
    np.testing.assert_allclose(x[:, 0, 0] / 60, condition)


def test_a_step_gives_the_same_batch_whatever_was_asked_before():
    one, other = batches(), batches()
    for step in range(7):
        one.batch_at(step)
    np.testing.assert_array_equal(one.batch_at(7)[0], other.batch_at(7)[0])


def test_seeds_give_different_orders():
    assert not np.array_equal(batches(0).indices_at(0), batches(1).indices_at(0))


def test_the_order_is_known_and_does_not_depend_on_the_version_of_numpy():
    assert batches().indices_at(0).tolist() == [0, 2, 9, 1]


def test_batches_larger_than_the_data_are_refused():
    with pytest.raises(ValueError, match=r"\[1, 10\].*got 11"):
        batches(batch=11)
