"""The reference measure of a run: made from the spectra of its training fields, judged by them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flows.config.schema import RunConfig
from pipeline.arrays import FloatArray
from pipeline.gaussian.channel_covariance import JointReference, correlations
from pipeline.gaussian.fit import Choice
from pipeline.gaussian.reference import Reference, WhittleMatern
from pipeline.gaussian.spectra import compatibility, divergences, joint_words
from pipeline.gaussian.whittle_fit import WhittleMaternFit, reference_from_config

FIRST_DEGREE = 1  # the global mean is no scale


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """A reference measure beside the data that it is for.

    Attributes:
        data: C_l, covariances of the channels of scaled anomalies, (degree, channel, channel).
        samples: Number of fields behind `data`.
        fits: The Whittle-Matérn fit behind each channel's law, if any.
    """

    measure: JointReference
    data: FloatArray
    samples: int
    fits: tuple[WhittleMaternFit | None, ...]

    @classmethod
    def configured(cls, config: RunConfig, data: FloatArray, samples: int) -> "Judged":
        """The measure that `spectral.reference` and `spectral.joint` ask for."""
        setting = config.spectral.reference
        wanted = setting if isinstance(setting, str) else dict(vars(setting))
        data = with_degree_0(data)
        powers = np.diagonal(data, axis1=1, axis2=2).T
        made = [reference_from_config(wanted, power, samples) for power in powers]
        channels = tuple(reference for reference, _ in made)
        measure = JointReference.uncorrelated(channels)
        if config.spectral.joint:
            measure = JointReference(channels=channels, correlation=correlations(data))
        fits = tuple(fit for _, fit in made)
        return cls(measure=measure, data=data, samples=samples, fits=fits)

    @property
    def factor(self) -> FloatArray:
        """L_l, (degree, channel, channel)."""
        return self.measure.factor(len(self.data) - 1)

    @property
    def inverse(self) -> FloatArray:
        """L_l^-1, which whitens."""
        inverse: FloatArray = np.linalg.inv(self.factor)
        return inverse

    @property
    def ratio(self) -> FloatArray:
        """S_l of each channel by itself, (channel, degree)."""
        power = np.diagonal(self.data, axis1=1, axis2=2)
        ratio: FloatArray = (power / np.square(self.factor).sum(axis=2)).T
        return ratio

    def arrays(self) -> dict[str, FloatArray]:
        """S_l, and divergence and Fisher information up to each degree: (channel, degree) each."""
        sums = []
        for channel in self.ratio:
            parts = np.stack(divergences(np.where(channel > 0.0, channel, 1.0)))
            parts[:, :FIRST_DEGREE] = 0.0
            sums.append(np.cumsum(parts, axis=1))
        kl, fisher = np.stack(sums, axis=1)
        return {"ratio": self.ratio, "kl": kl, "fisher": fisher}

    def figures(self, names: Sequence[str]) -> dict[str, Any]:
        """What the stage says: laws, fits and verdicts by channel."""
        inverse = self.inverse
        verdicts = {
            name: compatibility(each, self.samples, FIRST_DEGREE).words
            for name, each in zip(names, self.ratio, strict=True)
        }
        together = joint_words(inverse @ self.data @ inverse.swapaxes(1, 2), FIRST_DEGREE)
        laws = zip(names, self.measure.channels, strict=True)
        fits = zip(names, self.fits, strict=True)
        return {
            "reference": {name: _spoken(law) for name, law in laws},
            "fit": {name: fit.words for name, fit in fits if fit is not None},
            "compatibility": {**verdicts, "together": together},
        }


def with_degree_0(data: FloatArray) -> FloatArray:
    """Channel covariances (degree, C, C); winds, which have no degree 0, get that of degree 1."""
    missing = np.diagonal(data[0]) == 0.0
    filled = data.copy()
    filled[0][missing, missing] = np.diagonal(data[1])[missing]
    return filled


def chosen_words(choices: Mapping[str, Choice]) -> dict[str, str]:
    """What the validation times chose, by baseline."""
    shrinkage, averaged = choices["m-block"]["shrinkage"], choices["averaged"]
    return {
        "m-block": f"shrunk by {_spread(shrinkage)}",
        "averaged": f"neighbours by {_spread(averaged['across'])}; "
        f"shrunk by {_spread(averaged['towards'])}",
    }


def _spread(values: FloatArray) -> str:
    return f"{values.min():.2g} to {values.max():.2g}, median {np.median(values):.2g}"


def _spoken(reference: Reference) -> dict[str, float] | str:
    if isinstance(reference, WhittleMatern):
        return {name: float(value) for name, value in vars(reference).items()}
    return type(reference).__name__
