"""Training batches in shuffled order, addressed by step.

The samples form an endless stream, one random permutation after the other; step k takes the
samples [k * batch, (k + 1) * batch) of it. Resuming needs the step alone, and every sample is
seen once per epoch.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np


class Batches:
    """Batches of (x, condition).

    Args:
        x: Array with samples on its first axis, shape (time, channel, coefficient); anything
            that takes an index array there.
        condition: what each sample is conditioned on, shape (time, feature).
        seed: Key of the order.
        batch: Samples per step, at most as many as there are.
    """

    def __init__(self, x: Any, condition: Any, *, seed: int, batch: int) -> None:
        if len(x) != len(condition):
            raise ValueError(f"x has {len(x)} samples and condition has {len(condition)}")
        if not 1 <= batch <= len(x):
            raise ValueError(f"batch must lie in [1, {len(x)}], the samples there are; got {batch}")
        self.x = x
        self.condition = np.asarray(condition)
        self.seed = seed
        self.batch = batch

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.x)

    def batch_at(
        self, step: int, part: slice = slice(None)
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """A part of the batch of a step, all of it by default; only that part is read.

        Returns:
            x (batch, channel, coefficient) and condition (batch, feature).
        """
        indices = self.indices_at(step)[part]
        return np.asarray(self.x[indices]), self.condition[indices]

    def indices_at(self, step: int) -> np.ndarray[Any, Any]:
        """The samples of a step, as indices into x."""
        if step < 0:
            raise ValueError(f"steps count from 0; got {step}")
        places = np.arange(step * self.batch, (step + 1) * self.batch)
        epochs, places = np.divmod(places, len(self))
        return np.array(
            [
                _permutation(self.seed, int(epoch), len(self))[place]
                for epoch, place in zip(epochs, places, strict=True)
            ]
        )


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, samples: int) -> np.ndarray[Any, Any]:
    # Raw Philox words, not Generator.permutation: numpy may change the latter's stream.
    words = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)).random_raw(samples)
    return np.argsort(words, kind="stable")
