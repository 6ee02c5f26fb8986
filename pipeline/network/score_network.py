"""The learned score, and the default one of a run: its grid, its size and its precision."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.diffusion.score import Condition, Given, Posterior, features_of
from pipeline.gaussian.fit import Baseline
from pipeline.network.calibration import Calibration
from pipeline.network.data_parallel import Threads
from pipeline.network.network import PICTURES, SphericalNetwork
from pipeline.sphere.coefficients import degrees
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.torch_harmonics import TorchHarmonics

ROUGHNESS = 2.2


class ScoreNet(nn.Module):
    """The Gaussian part of a baseline plus a residual learned on the sphere.

    The network sees three pictures on its own Gaussian grid: the posterior mean of the baseline
    and the noised field, coloured as physical fields are, and the noised field once more with a
    spectrum l^-`ROUGHNESS` that shows its small scales. Whitened coefficients synthesised as they
    are would be white noise, on which a local operator finds nothing. A day of a sequence shows
    the expected day and the days before it, too, coloured likewise. The output is analysed
    into F, so the correction lies in the Cameron-Martin space at every band limit. A finished
    training gives it a `calibration`. With `threads` fields are taken apart among them, each of
    which goes from the pictures to F by itself.

    Args:
        baseline: the exact linear part.
        factor: Cholesky factor of the reference covariance of each coefficient,
            (coefficient, channel, channel).
        harmonics: transforms of the network's grid at the band limit of the data.
        network: maps (batch, picture channel, lat, lon) pictures, log noise-to-signal ratio
            (batch,) and condition (batch, feature) to (batch, channel, lat, lon).
        precision: of the network's arithmetic; transforms and Gaussian parts never go below
            float32.
        there: whether the data have power in a coefficient, (channel, coefficient); in all by
            default. Where they have none (a wind in degree 0) the correction is zero: whatever
            the network said there would be far from them, as their law is a point.
    """

    factor: Tensor
    rough: Tensor
    there: Tensor

    def __init__(
        self,
        baseline: Baseline,
        factor: Tensor,
        harmonics: TorchHarmonics,
        network: SphericalNetwork,
        precision: torch.dtype = torch.float32,
        there: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.precision = precision
        self.calibration: Calibration | None = None
        self.threads = Threads(1)
        self.baseline, self.harmonics, self.network = baseline, harmonics, network
        self.register_buffer("factor", factor.float(), persistent=False)
        everywhere = torch.ones(baseline.variance.shape)
        self.register_buffer(
            "there", everywhere if there is None else there.float(), persistent=False
        )
        rough = (1.0 + torch.as_tensor(degrees(harmonics.lmax))) ** (-ROUGHNESS / 2)
        rough *= math.sqrt(4 * math.pi) / rough.norm()
        self.register_buffer("rough", rough.float(), persistent=False)

    def standardised(
        self,
        posterior: Posterior,
        t: Tensor,
        y: Tensor,
        condition: Given,
        baseline: Baseline | None = None,
    ) -> Tensor:
        """F: the learned mean of Y_0, less c_skip y, in units of c_out.

        Training passes a baseline that was fitted without the fields behind y.
        """
        baseline = baseline or self.baseline
        mean_and_noised = torch.stack([posterior.c_skip * y, posterior.c_in * y], dim=1).float()

        def predicted(rows: slice) -> Tensor:
            return self._predicted(mean_and_noised[rows], t[rows], condition[rows], baseline)

        parts = self.threads.parts(slice(0, len(y)))
        return torch.cat(self.threads.map(predicted, parts))

    def _predicted(
        self, mean_and_noised: Tensor, t: Tensor, condition: Given, baseline: Baseline
    ) -> Tensor:
        """F of the pictures' coefficients (batch, 2, channel, coefficient)."""
        shown = baseline.unrotate(mean_and_noised)
        rough = self.rough * shown[:, 1:]
        if isinstance(condition, Condition):
            shown = torch.cat([shown, condition.past.float()], dim=1)
        colored = torch.einsum("kcd,bpdk->bpck", self.factor, shown)
        coefficients = torch.cat([colored, rough], dim=1)
        pictures = self.harmonics.synthesis(coefficients)
        log_noise = torch.log(torch.expm1(2 * t.double())).float() / 2
        low = self.precision != torch.float32
        with torch.autocast(t.device.type, self.precision, enabled=low, cache_enabled=False):
            output = self.network(pictures.flatten(1, 2), log_noise, features_of(condition).float())
        return baseline.rotate(self.there * self.harmonics.analysis(output))

    def residual(self, t: Tensor, y: Tensor, condition: Given) -> Tensor:
        posterior = Posterior(t, self.baseline.variance)
        standardised = self.standardised(posterior, t, y, condition)
        if self.calibration is not None:
            standardised = self.calibration(t, standardised, (posterior.c_in * y).float())
        return (posterior.residual_scale * standardised).to(y.dtype)


def score_network(
    *,
    baseline: Baseline,
    factor: NDArray[np.float64],
    static: NDArray[np.float64],
    width: int = 64,
    blocks: int = 4,
    dropout: float = 0.0,
    covariates: int = 0,
    past: int = 0,
    precision: torch.dtype = torch.float32,
    power: NDArray[np.float64] | None = None,
    seed: int = 0,
) -> ScoreNet:
    """An untrained score: with its zero last layer it is the exact score of the baseline.

    Args:
        factor: Cholesky factors of the reference covariance, (degree, channel, channel).
        static: coefficients of standardised static pictures, (feature, coefficient).
        width, blocks: feature maps of each residual block, and how many follow each other.
        dropout: part of the hidden features that a training step leaves out.
        covariates: how many scalars a condition holds beside the season.
        past: days that a day is given, which it sees beside what they let expect; 0 if none.
        power: of the data, (channel, degree); where there is none nothing is corrected.
        seed: of the initial weights.
    """
    channels, lmax = factor.shape[1], len(factor) - 1
    harmonics = TorchHarmonics(network_grid(lmax), lmax)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SphericalNetwork(
            channels,
            harmonics,
            torch.as_tensor(static),
            width=width,
            blocks=blocks,
            dropout=dropout,
            covariates=covariates,
            pictures=PICTURES + (1 + past if past else 0),
        )
    per_coefficient = torch.as_tensor(factor[degrees(lmax)])
    there = None if power is None else torch.as_tensor(power[:, degrees(lmax)] > 0.0)
    return ScoreNet(baseline, per_coefficient, harmonics, network, precision, there)


def network_grid(lmax: int) -> RingGrid:
    """The smallest Gaussian grid with an even number of latitudes that carries lmax exactly."""
    nlat = 2 * -(-(lmax + 1) // 2)
    return RingGrid.gaussian(nlat, 2 * nlat)


def native_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes in it, float32 elsewhere."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    fast = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if fast else torch.float32
