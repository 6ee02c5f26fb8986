"""How many fields a training is judged by, so that judging takes a fifth of its time at any size.

Judging is all that is done with a network but optimising it: validations while it trains, then
calibration and the matching of its flow. It is counted in evaluations of the network for one
field, of which a step takes three for each field of its batch: counts are the same on every
machine and after a restart, seconds are not. Of a small training `FEWEST` fields are used for
each all the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHARE = 0.2  # of the evaluations of the steps
FEWEST = 32  # fields for validations, calibration and matching each
STEP, DRAWS, NODES = 3, 4, 12  # evaluations of a step; of a validation; of a calibration
MATCHED, MATCHING_STEPS = 128, 16  # fields and steps that match the flow to its spectra
RUNNING, FEWEST_RUNNING = 1 << 27, 8  # their coefficients at most: many of large fields say no more
MATCHING = 2 * MATCHING_STEPS - 1  # evaluations of each


@dataclass(frozen=True, kw_only=True)
class Judging:
    """Fields that are used.

    Attributes:
        validated: at each validation.
        calibrated, matched: when the training is finished.
    """

    validated: int
    calibrated: int
    matched: int

    @classmethod
    def of(
        cls, *, steps: int | None, batch: int, validations: int, fields: int, numbers: int
    ) -> Judging:
        """Of `fields` held-out ones, for a training of so many steps; None: as many as are used.

        Calibration and matching take a quarter of the share each at most; the validations have
        the rest.

        Args:
            numbers: coefficients of a field, all channels together.
        """
        running = min(MATCHED, max(FEWEST_RUNNING, RUNNING // numbers))
        if steps is None:
            return cls(validated=fields, calibrated=fields, matched=running)
        share = SHARE * STEP * batch * steps
        calibrated = _between(share / 4 / NODES, fields)
        matched = _between(share / 4 / MATCHING, running)
        rest = share - NODES * calibrated - MATCHING * matched
        validated = _between(rest / (DRAWS * max(1, min(validations, steps))), fields)
        return cls(validated=validated, calibrated=calibrated, matched=matched)

    def evaluations(self, validations: int) -> int:
        """All of them, with so many validations."""
        validated = validations * DRAWS * self.validated
        return validated + NODES * self.calibrated + MATCHING * self.matched


def spread_over(number: int, all_of: int) -> NDArray[np.intp]:
    """So many places, evenly spread over all."""
    return np.linspace(0, all_of - 1, number).round().astype(np.intp)


def _between(wanted: float, most: int) -> int:
    return min(most, max(FEWEST, int(wanted)))
