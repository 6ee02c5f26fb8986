"""The Gaussian laws of scaled anomalies: spectra, reference measure, tail and baselines."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flows.config.schema import RunConfig
from flows.stages.preprocess.block_sums import coefficient_moments
from flows.stages.preprocess.fitting import Fitting
from flows.stages.preprocess.reference import Judged
from pipeline.arrays import FloatArray
from pipeline.errors import UnusableData
from pipeline.fields.standardisation import Normals
from pipeline.gaussian.channel_covariance import dependent
from pipeline.gaussian.conditional_tail import GaussianTail
from pipeline.gaussian.fit import BASELINES, Choice, Moments, choose, choose_shrinkage, fit
from pipeline.gaussian.moments import block_bytes
from pipeline.sphere.pairs import Pairs, in_pairs


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Sums over scaled anomalies of the training times, and of those that choose.

    Attributes:
        fitted_on, chosen_on: moments of the coefficients.
        energy: mean square of each channel over the sphere.
        remainder: standard deviation beyond the tail, (channel, *grid).
    """

    fitted_on: Moments
    chosen_on: Moments
    energy: FloatArray
    remainder: FloatArray

    def variance_kept(self, pairs: Pairs, lmax: int) -> FloatArray:
        """Part of the variance of each channel that lies in degrees up to lmax."""
        power = np.diagonal(self.fitted_on.channel_covariance()[: lmax + 1], axis1=1, axis2=2)
        carried = in_pairs((2 * np.arange(lmax + 1) + 1) @ power, pairs)
        kept: FloatArray = carried / (4.0 * np.pi * self.energy)
        return kept


@dataclass(frozen=True, kw_only=True)
class Laws:
    """What is drawn from, and what it is judged against.

    Attributes:
        reference: the measure of the noise, and what it is worth for the data.
        data: covariance of the channels, (channel, channel, degree).
        beyond: Cholesky factors of the data of degrees beyond lmax, (degree, channel, channel).
        tail: arrays of the law of those degrees given the others; empty if none are drawn.
        choices: what the validation times chose, by baseline.
        baselines: arrays of each, its choices among them.
    """

    reference: Judged
    beyond: FloatArray
    data: FloatArray
    tail: Mapping[str, FloatArray]
    choices: Mapping[str, Choice]
    baselines: Mapping[str, Mapping[str, FloatArray]]


def observe(fitting: Fitting, anomalies: Normals) -> Observed:
    """Sum what the laws are fitted to over the training and the validation times.

    Raises:
        UnusableData: If a channel is a linear combination of others.
    """
    size = block_bytes(len(anomalies.channels), fitting.degree) + anomalies.scale.nbytes
    train, validation = (
        fitting.total(
            coefficient_moments, anomalies, fitting.degree, spans=spans, label=label, size=size
        )
        for spans, label in (
            (fitting.train, "spectra"),
            (fitting.validation, "spectra of validation times"),
        )
    )
    _refuse_dependent(train.moments, anomalies)
    pairs, samples = anomalies.pairs, train.moments.samples
    return Observed(
        fitted_on=train.moments,
        chosen_on=validation.moments,
        energy=in_pairs(train.energy, pairs) / samples,
        remainder=np.sqrt(in_pairs(train.left, pairs) / samples),
    )


def fit_laws(config: RunConfig, observed: Observed, lmax: int) -> Laws:
    """Fit the reference measure to the data, and the Gaussian laws in its coordinates."""
    covariance = observed.fitted_on.channel_covariance()  # (degree, channel, channel)
    data, beyond = covariance[: lmax + 1], np.linalg.cholesky(covariance[lmax + 1 :])
    reference = Judged.configured(config, data, observed.fitted_on.samples)
    inverse = np.concatenate([reference.inverse, np.linalg.inv(beyond)])
    whitened, chosen_on = observed.fitted_on.mixed(inverse), observed.chosen_on.mixed(inverse)
    tail: Mapping[str, FloatArray] = {}
    if len(beyond):
        shrinkage = choose_shrinkage(whitened, chosen_on)
        tail = GaussianTail.fit(whitened, shrinkage, lmax).to_arrays()
        whitened, chosen_on = whitened.up_to(lmax), chosen_on.up_to(lmax)
    choices = {name: choose(name, whitened, chosen_on) for name in BASELINES}
    laws = {name: fit(name, whitened, choices[name]) for name in BASELINES}
    return Laws(
        reference=reference,
        beyond=beyond,
        data=data.transpose(1, 2, 0),
        tail=tail,
        choices=choices,
        baselines={name: {**law.to_arrays(), **choices[name]} for name, law in laws.items()},
    )


def _refuse_dependent(observed: Moments, anomalies: Normals) -> None:
    if same := dependent(observed.channel_covariance()):
        raise UnusableData(
            f"{' and '.join(anomalies.channels[place] for place in same)} follow from each other: "
            "one is a linear combination of the others, so it says nothing new. Leave one of them "
            "out of source.variables"
        )
