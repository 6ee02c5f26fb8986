"""The learned residual: convolutions on a latitude-longitude grid that knows it lies on a sphere.

Every convolution pads over the poles (the row beyond a pole is the same row half a revolution
away, read backwards) and around the date line, so no cell is at an edge. Where a field lies is
told by static pictures (climatology, scale, land) and by learned band-limited maps, both kept as
spherical-harmonic coefficients: one set of weights serves any grid and band limit.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.torch_harmonics import TorchHarmonics


class PadSphere(torch.autograd.Function):
    """Extend (batch, channel, lat, lon) by one cell over the poles and around the date line.

    Written with its adjoint: as a chain of slices and rolls its gradient costs more than the
    convolution that it serves.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        batch, channels, nlat, nlon = x.shape
        half, padded = nlon // 2, x.new_empty((batch, channels, nlat + 2, nlon + 2))
        padded = padded.contiguous(memory_format=torch.channels_last)
        padded[..., 1:-1, 1:-1] = x
        for beyond, row in ((0, 0), (-1, -1)):
            padded[..., beyond, 1 : half + 1] = x[..., row, half:]
            padded[..., beyond, half + 1 : -1] = x[..., row, :half]
        padded[..., 0], padded[..., -1] = padded[..., -2], padded[..., 1]
        return padded

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        half = (gradient.shape[-1] - 2) // 2
        wrapped = gradient.clone()
        wrapped[..., -2] += gradient[..., 0]
        wrapped[..., 1] += gradient[..., -1]
        inner = wrapped[..., 1:-1, 1:-1].clone(memory_format=torch.channels_last)
        for beyond, row in ((0, 0), (-1, -1)):
            inner[..., row, half:] += wrapped[..., beyond, 1 : half + 1]
            inner[..., row, :half] += wrapped[..., beyond, half + 1 : -1]
        return inner


class CellNorm(nn.LayerNorm):
    """Normalises the channels of each cell by themselves, so it knows no grid."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SphereConv(nn.Module):
    """A 3 x 3 convolution without edges; its weight is kept as the matrix that it is."""

    def __init__(self, inputs: int, outputs: int, zero: bool = False) -> None:
        super().__init__()
        bound = 0.0 if zero else 1 / math.sqrt(9 * inputs)
        self.weight = nn.Parameter(torch.empty(outputs, 9 * inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        padded: Tensor = PadSphere.apply(x)  # type: ignore[no-untyped-call]
        kernel = self.weight.view(len(self.weight), x.shape[1], 3, 3)
        return functional.conv2d(padded, kernel, self.bias)


class Block(nn.Module):
    """Residual block, scaled and shifted by the embedding of noise level and condition."""

    def __init__(self, width: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm_in = CellNorm(width)
        self.conv_in = SphereConv(width, width)
        self.modulation = nn.Linear(embedding, 2 * width)
        self.norm_out = CellNorm(width, elementwise_affine=False)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = SphereConv(width, width, zero=True)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding)[..., None, None].chunk(2, dim=1)
        hidden = self.conv_in(functional.silu(self.norm_in(x)))
        hidden = functional.silu(self.norm_out(hidden) * (1 + scale) + shift)
        result: Tensor = x + self.conv_out(self.dropout(hidden))
        return result


class SphericalNetwork(nn.Module):
    """Pictures of a noised field to the picture of the correction.

    All blocks work at the resolution of the grid: nothing is pooled, and no cell sees the whole
    field at once. A network that does recognises its few training fields and learns them by heart
    (docs/decisions/0007).

    Args:
        channels: variables; the input holds three pictures of each.
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
        self.stem = SphereConv(3 * channels + static.shape[0] + maps, width)
        self.blocks = nn.ModuleList(Block(width, embedding, dropout) for _ in range(blocks))
        self.norm = CellNorm(width)
        self.out = SphereConv(width, channels, zero=True)

    def forward(self, pictures: Tensor, log_noise: Tensor, condition: Tensor) -> Tensor:
        """The correction (batch, channel, lat, lon) of pictures (batch, 3 channel, lat, lon).

        Args:
            condition: (batch, 1 + covariates); NaN is a covariate that is not given.
        """
        phase, covariates = condition[:, 0], condition[:, 1:]
        given = torch.isfinite(covariates)
        known = torch.cat([torch.where(given, covariates, 0.0), given.to(covariates.dtype)], dim=1)
        angle = log_noise[:, None] * self.frequencies
        season = torch.stack([f(k * phase) for k in (1, 2) for f in (torch.cos, torch.sin)], dim=1)
        embedding = self.embedding(torch.cat([angle.sin(), angle.cos(), season, known], dim=1))

        x = torch.cat([pictures, self._places().expand(len(pictures), -1, -1, -1)], dim=1)
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x, embedding)
        output: Tensor = self.out(functional.silu(self.norm(x)))
        return output.float()

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
