"""The default score model of a run: its grid, its size and its precision, from a few arrays."""

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.diffusion.score import ScoreNet
from pipeline.gaussian.fit import Baseline
from pipeline.network.network import SphericalNetwork
from pipeline.sphere.coefficients import degrees
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.torch_harmonics import TorchHarmonics


def score_network(
    *,
    baseline: Baseline,
    factor: NDArray[np.float64],
    static: NDArray[np.float64],
    width: int = 64,
    blocks: int = 4,
    dropout: float = 0.0,
    covariates: int = 0,
    precision: torch.dtype = torch.float32,
    seed: int = 0,
) -> ScoreNet:
    """An untrained score: with its zero last layer it is the exact score of the baseline.

    Args:
        factor: Cholesky factors of the reference covariance, (degree, channel, channel).
        static: coefficients of standardised static pictures, (feature, coefficient).
        width, blocks: feature maps of each residual block, and how many follow each other.
        dropout: part of the hidden features that a training step leaves out.
        covariates: how many scalars a condition holds beside the season.
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
        )
    per_coefficient = torch.as_tensor(factor[degrees(lmax)])
    return ScoreNet(baseline, per_coefficient, harmonics, network, precision)


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
