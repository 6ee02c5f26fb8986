"""White noise with an address, in whitened coordinates.

Realization r, calendar time, variable and step of a seed always give the same numbers, so an
ensemble does not depend on batches, workers or order, and grows without changing. The numbers come
degree by degree: a larger lmax extends them. Notation: docs/mathematics.md, 4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class NoiseAddress:
    """Where the noise of one field comes from: seed, realization and calendar time."""

    seed: int
    realization: int
    time: str

    def white(self, step: int, channels: Sequence[str], lmax: int) -> NDArray[np.float32]:
        """White noise (channel, coefficient) of this field at this step."""
        return np.stack([self._stream(step, name, (lmax + 1) ** 2) for name in channels])

    def on_grid(self, channels: Sequence[str], shape: tuple[int, ...]) -> NDArray[np.float32]:
        """White noise (channel, *grid) of this field, for its remainder beyond lmax."""
        size = int(np.prod(shape))
        return np.stack([self._stream("grid", name, size).reshape(shape) for name in channels])

    def numbers(self, step: int | str, name: str, size: int) -> NDArray[np.float32]:
        """White noise (size,) of something else than a variable, such as errors."""
        return self._stream(step, name, size)

    def _stream(self, step: int | str, channel: str, size: int) -> NDArray[np.float32]:
        address = f"{self.seed}/{self.realization}/{self.time}/{channel}/{step}"
        key = int.from_bytes(hashlib.sha256(address.encode()).digest()[:16], "little")
        generator = np.random.Generator(np.random.Philox(key=key))
        return generator.standard_normal(size, dtype=np.float32)
