"""The learned residual: convolutions on a latitude-longitude grid that knows it lies on a sphere.

Every convolution pads over the poles (the row beyond a pole is the same row half a revolution
away, read backwards) and around the date line, so no cell is at an edge. Where a field lies is
told by static pictures (climatology, scale, land) and by learned band-limited maps, both kept as
spherical-harmonic coefficients: one set of weights serves any grid and band limit.

What is not Gaussian in weather is first of all its amplitude: calm and stormy places. Normalised
features have no amplitude, so it goes in beside the pictures, as the logarithm of their local
size, and comes out as gains: the correction is a picture of its own plus, for each variable, gain
times picture (docs/decisions/0029).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.network.convolution import Activation, CellNorm, PadSphere, SphereConv, Stem
from pipeline.sphere.torch_harmonics import TorchHarmonics

PICTURES = 3  # of each variable, of single days
CALM = 1e-2  # mean square, of pictures whose own is about one, below which all is alike


class Block(nn.Module):
    """Residual block, scaled and shifted by the embedding of noise level and condition."""

    def __init__(self, width: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm_in = CellNorm(width)
        self.conv_in = SphereConv(width, width)
        self.modulation = nn.Linear(embedding, 2 * width)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = SphereConv(width, width, zero=True)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding).float().chunk(2, dim=1)
        hidden = self.conv_in(self.norm_in(x))
        hidden = Activation.apply(hidden, 1 + scale, shift)  # type: ignore[no-untyped-call]
        if self.training and self.dropout.p:
            hidden = PadSphere.apply(self.dropout(hidden[..., 1:-1, 1:-1]))  # type: ignore[no-untyped-call]
        result: Tensor = x + self.conv_out(hidden)
        return result


class Amplitudes(nn.Module):
    """log of the local root mean square of pictures (batch, picture, lat, lon), same shape.

    Weights are those of two averages over 3 x 3 cells, one after the other. No gradient: pictures
    are given.
    """

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        squares = pictures.float().square()
        for _ in range(2):
            padded = PadSphere.apply(squares)  # type: ignore[no-untyped-call]
            squares = functional.avg_pool2d(padded, 3, stride=1)
        return torch.log(squares + CALM) / 2


class SphericalNetwork(nn.Module):
    """Pictures of a noised field to the picture of the correction.

    All blocks work at the resolution of the grid: nothing is pooled, and no cell sees the whole
    field at once. A network that does recognises its few training fields and learns them by heart
    (docs/decisions/0007).

    Args:
        channels: variables.
        pictures: of each of them that the input holds.
        covariates: scalar covariates, features 1, 2, ... of a condition.
        harmonics: transforms of the grid on which the pictures lie.
        static: coefficients of static pictures, (feature, coefficient).
        width: feature maps of every block.
        maps: learned static pictures, of degree at most `map_degree`.
    """

    frequencies: Tensor
    static: Tensor

    def __init__(
        self,
        channels: int,
        harmonics: TorchHarmonics,
        static: Tensor,
        width: int = 64,
        blocks: int = 4,
        dropout: float = 0.0,
        covariates: int = 0,
        embedding: int = 128,
        maps: int = 8,
        map_degree: int = 15,
        pictures: int = PICTURES,
    ) -> None:
        super().__init__()
        self.harmonics = harmonics
        coefficients = (map_degree + 1) ** 2
        self.maps = nn.Parameter(torch.randn(maps, coefficients) / math.sqrt(coefficients))
        self.register_buffer("static", static.float(), persistent=False)
        self.register_buffer("frequencies", torch.exp(torch.linspace(-1, 3, 16)), persistent=False)
        self.embedding = nn.Sequential(
            nn.Linear(32 + 4 + 2 * covariates, embedding),
            nn.SiLU(),
            nn.Linear(embedding, embedding),
            nn.SiLU(),
        )
        self.amplitudes, self.pictures, self.dropout = Amplitudes(), pictures, dropout
        self.stem = Stem(2 * pictures * channels + static.shape[0] + maps, width)
        self.blocks = nn.ModuleList(Block(width, embedding, dropout) for _ in range(blocks))
        self.modulation = nn.Linear(embedding, 2 * width)
        self.out = SphereConv(width, (1 + pictures) * channels, zero=True)

    def forward(self, pictures: Tensor, log_noise: Tensor, condition: Tensor) -> Tensor:
        """The correction (batch, channel, lat, lon) of pictures (batch, picture channel, lat, lon).

        Args:
            condition: (batch, 1 + covariates); NaN is a covariate that is not given.
        """
        phase, covariates = condition[:, 0], condition[:, 1:]
        given = torch.isfinite(covariates)
        known = torch.cat([torch.where(given, covariates, 0.0), given.to(covariates.dtype)], dim=1)
        angle = log_noise[:, None] * self.frequencies
        season = torch.stack([f(k * phase) for k in (1, 2) for f in (torch.cos, torch.sin)], dim=1)
        embedding = self.embedding(torch.cat([angle.sin(), angle.cos(), season, known], dim=1))

        seen = torch.cat([pictures, self.amplitudes(pictures)], dim=1)
        x = self.stem(seen, self._places()[None])
        for block in self.blocks:
            x = block(x, embedding)
        scale, shift = self.modulation(embedding).float().chunk(2, dim=1)
        x = Activation.apply(x, 1 + scale, shift)  # type: ignore[no-untyped-call]
        return _corrected(self.out(x).float(), pictures.float(), self.pictures)

    def matrices(self) -> list[nn.Parameter]:
        """Weights between hidden features, which an optimizer of matrices may take."""
        return [p for p in self.blocks.parameters() if p.ndim == 2]

    def _places(self) -> Tensor:
        """Static and learned pictures on the grid, (feature, lat, lon)."""
        size = (self.harmonics.lmax + 1) ** 2
        static, maps = (
            functional.pad(part[:, :size], (0, max(0, size - part.shape[1])))
            for part in (self.static, self.maps)
        )
        return self.harmonics.synthesis(torch.cat([static, maps]))


def _corrected(output: Tensor, pictures: Tensor, number: int) -> Tensor:
    """Each variable's own correction plus its gains times its pictures, (batch, channel, ...)."""
    corrected, *gains = output.chunk(1 + number, dim=1)
    for gain, picture in zip(gains, pictures.chunk(number, dim=1), strict=True):
        corrected = corrected + gain * picture
    return corrected
