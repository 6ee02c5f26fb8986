"""Pointwise bijections between a physical variable and the more Gaussian one that is modelled.

Each has `forward` and `inverse` on arrays (..., *grid), float64; missing values stay missing. What
is drawn beyond the range of a variable becomes its bound, so amounts are never negative and
fractions never above one. `NormalScores` and `ForcedScores`, whose maps are fitted to training
data, are the ones with state; the latter depends on the time, so a map is asked for `at` it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.arrays import FloatArray

__all__ = [
    "BOUNDS_OF_UNITS",
    "SIMPLE",
    "Amount",
    "Identity",
    "Logit",
    "Marginal",
    "OutOfBounds",
    "Pointwise",
]

BOUNDS_OF_UNITS: Mapping[str, tuple[float, float]] = {"1": (0.0, 1.0), "%": (0.0, 100.0)}
SQUEEZE = 0.005  # the bounds themselves lie at logit(0.005), a finite distance away
ROUNDING = 1e-3  # of the range, by which packed numbers may lie beyond their bounds


class OutOfBounds(ValueError):
    """Values that the transform of their variable does not have."""


class Marginal(Protocol):
    """The map of a variable, which may depend on the covariates of the trend."""

    @property
    def name(self) -> str: ...
    def at(self, forcing: FloatArray) -> Pointwise:
        """The map at a forcing (covariate,), or of fields (..., *grid) at (..., covariate)."""


class Pointwise(Marginal, Protocol):
    """Forward and inverse: inverse(forward(v)) is v for values that the variable can have."""

    def forward(self, values: FloatArray) -> FloatArray: ...
    def inverse(self, values: FloatArray) -> FloatArray: ...


@dataclass(frozen=True)
class Identity:
    """Variables that are modelled as they are."""

    name: str = "identity"

    def at(self, forcing: FloatArray) -> Identity:
        return self

    def forward(self, values: FloatArray) -> FloatArray:
        return values

    def inverse(self, values: FloatArray) -> FloatArray:
        return values


@dataclass(frozen=True)
class Amount:
    """Amounts that cannot be negative: what is drawn below zero is none."""

    name: str

    def at(self, forcing: FloatArray) -> Amount:
        return self

    def forward(self, values: FloatArray) -> FloatArray:
        return _ROOTS[self.name][0](values)

    def inverse(self, values: FloatArray) -> FloatArray:
        return _ROOTS[self.name][1](np.maximum(values, 0.0))


_ROOTS: Mapping[
    str, tuple[Callable[[FloatArray], FloatArray], Callable[[FloatArray], FloatArray]]
] = {"cbrt": (np.cbrt, lambda value: value**3), "log1p": (np.log1p, np.expm1)}

SIMPLE: Mapping[str, Pointwise] = {
    "identity": Identity(),
    "cbrt": Amount("cbrt"),
    "log1p": Amount("log1p"),
}


@dataclass(frozen=True, kw_only=True)
class Logit:
    """Fractions between two bounds, which they may reach: log-odds of the fraction, squeezed.

    p = SQUEEZE + (1 - 2 SQUEEZE) (value - low) / (high - low) becomes log(p / (1 - p)); what is
    drawn beyond the squeezed bounds is at the bound.
    """

    low: float
    high: float
    name: str = "logit"

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"bounds need lowest < highest; got {self.low:g} and {self.high:g}")

    def at(self, forcing: FloatArray) -> Logit:
        return self

    def forward(self, values: FloatArray) -> FloatArray:
        """Log-odds of the values.

        Raises:
            OutOfBounds: If a value is further beyond a bound than packing rounds.
        """
        share = (values - self.low) / (self.high - self.low)
        with np.errstate(invalid="ignore"):
            beyond = (share < -ROUNDING) | (share > 1.0 + ROUNDING)
        if beyond.any():
            raise OutOfBounds(
                f"values from {np.nanmin(values):.6g} to {np.nanmax(values):.6g} do not lie "
                f"between the bounds {self.low:g} and {self.high:g} of its logit"
            )
        squeezed = SQUEEZE + (1.0 - 2.0 * SQUEEZE) * np.clip(share, 0.0, 1.0)
        result: FloatArray = np.log(squeezed) - np.log1p(-squeezed)
        return result

    def inverse(self, values: FloatArray) -> FloatArray:
        squeezed = 0.5 + 0.5 * np.tanh(0.5 * values)
        share = np.clip((squeezed - SQUEEZE) / (1.0 - 2.0 * SQUEEZE), 0.0, 1.0)
        result: FloatArray = self.low + (self.high - self.low) * share
        return result
