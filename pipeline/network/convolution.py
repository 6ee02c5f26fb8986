"""What convolutional networks on the sphere are made of: padding, activation, convolution.

Convolutions have no edges: beyond a pole lies the same row half a revolution away, read backwards,
and beyond the date line the other side. Between two convolutions lies one operation, with its
gradient written by hand: as a chain of library calls it takes as long as the convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

__all__ = ["Activation", "CellNorm", "PadSphere", "SphereConv", "Stem"]

EPSILON = 1e-5
BLOCK_NUMBERS = 1 << 19


class PadSphere(torch.autograd.Function):
    """Extend (batch, channel, lat, lon) by one cell over the poles and around the date line.

    Written with its adjoint: as a chain of slices and rolls its gradient costs more than the
    convolution that it serves.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        padded = _padded_like(x)
        padded[..., 1:-1, 1:-1] = x
        return _surround(padded)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        batch, channels, nlat, nlon = gradient.shape
        inner = gradient.new_empty((batch, nlat - 2, nlon - 2, channels)).movedim(-1, 1)
        return _fold(gradient, inner)


class Activation(torch.autograd.Function):
    """silu(scale normalised + shift), padded like `PadSphere`; scale and shift (batch, channel).

    Normalises the channels of each cell by themselves, so it knows no grid. One operation, on some
    fields at a time and in float32: what lies between is read where it was written, in the
    processor's cache, and none of it is kept for the gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        padded, moments = _padded_like(x), []
        with torch.autocast(x.device.type, enabled=False):
            for rows, (hidden, squares) in _blocks(x, buffers=2):
                hidden.copy_(x[rows].movedim(1, -1))
                mean = hidden.mean(dim=-1, keepdim=True)
                torch.mul(hidden.sub_(mean), hidden, out=squares)
                rate = torch.rsqrt(squares.mean(dim=-1, keepdim=True) + EPSILON)
                torch.addcmul(
                    _spread(shift, rows), hidden.mul_(rate), _spread(scale, rows), out=hidden
                )
                padded[rows, :, 1:-1, 1:-1] = functional.silu(hidden, inplace=True).movedim(-1, 1)
                moments.append(torch.stack([mean, rate]))
        ctx.save_for_backward(x, scale, shift, torch.cat(moments, dim=1))
        return _surround(padded)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, scale, shift, moments = ctx.saved_tensors
        result, to_scale, to_shift = torch.empty_like(x), [], []
        for rows, (hidden, own, slope) in _blocks(x, buffers=3):
            (mean, rate), factor = moments[:, rows], _spread(scale, rows)
            hidden.copy_(x[rows].movedim(1, -1)).sub_(mean).mul_(rate)
            torch.addcmul(_spread(shift, rows), hidden, factor, out=own)
            _fold(gradient[rows], slope.movedim(-1, 1))
            torch.ops.aten.silu_backward.grad_input(slope, own, grad_input=slope)
            products = torch.mul(slope, hidden, out=own)
            to_shift.append(slope.sum(dim=(1, 2)))
            to_scale.append(products.sum(dim=(1, 2)))
            along = products.mul_(factor).mean(dim=-1, keepdim=True)
            across = slope.mul_(factor).mean(dim=-1, keepdim=True)
            slope.sub_(across).addcmul_(hidden, along, value=-1).mul_(rate)
            result[rows] = slope.movedim(-1, 1)
        return result, torch.cat(to_scale).to(scale.dtype), torch.cat(to_shift).to(shift.dtype)


def _spread(values: Tensor, rows: slice) -> Tensor:
    """Values (batch, channel) of some fields, to be spread over their cells."""
    return values[rows, None, None].to(torch.promote_types(values.dtype, torch.float32))


def _blocks(x: Tensor, buffers: int) -> Iterator[tuple[slice, list[Tensor]]]:
    """Slices of so few fields that what is made of them stays in a processor's cache, with room
    (batch, lat, lon, channel) to make it in."""
    batch, channels, *grid = x.shape
    step = max(1, BLOCK_NUMBERS // x[0].numel()) if x.is_cpu else batch
    dtype = torch.promote_types(x.dtype, torch.float32)
    room = torch.empty((buffers, min(step, batch), *grid, channels), dtype=dtype, device=x.device)
    for start in range(0, batch, step):
        rows = slice(start, min(start + step, batch))
        yield rows, list(room[:, : rows.stop - start])


def _padded_like(x: Tensor) -> Tensor:
    batch, channels, nlat, nlon = x.shape
    padded = torch.empty((batch, nlat + 2, nlon + 2, channels), dtype=x.dtype, device=x.device)
    return padded.movedim(-1, 1)


def _surround(padded: Tensor) -> Tensor:
    """Fill the outermost cells from the inner ones, in place."""
    half = padded.shape[-1] // 2
    for beyond, row in ((0, 1), (-1, -2)):
        padded[..., beyond, 1:half] = padded[..., row, half:-1]
        padded[..., beyond, half:-1] = padded[..., row, 1:half]
    padded[..., 0], padded[..., -1] = padded[..., -2], padded[..., 1]
    return padded


def _fold(gradient: Tensor, inner: Tensor) -> Tensor:
    """The adjoint of padding, into `inner`."""
    half = gradient.shape[-1] // 2
    inner.copy_(gradient[..., 1:-1, 1:-1])
    inner[..., -1] += gradient[..., 1:-1, 0]
    inner[..., 0] += gradient[..., 1:-1, -1]
    for beyond in (0, -1):
        line = gradient[..., beyond, 1:-1].clone()
        line[..., -1] += gradient[..., beyond, 0]
        line[..., 0] += gradient[..., beyond, -1]
        inner[..., beyond, half - 1 :] += line[..., : half - 1]
        inner[..., beyond, : half - 1] += line[..., half - 1 :]
    return inner


class SphereConv(nn.Module):
    """A 3 x 3 convolution of padded fields; its weight is kept as the matrix that it is."""

    def __init__(self, inputs: int, outputs: int, zero: bool = False) -> None:
        super().__init__()
        bound = 0.0 if zero else 1 / math.sqrt(9 * inputs)
        self.weight = nn.Parameter(torch.empty(outputs, 9 * inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, padded: Tensor) -> Tensor:
        kernel = self.weight.view(len(self.weight), padded.shape[1], 3, 3)
        return functional.conv2d(padded, kernel, self.bias)


class Stem(SphereConv):
    """The first convolution, whose inputs are pictures of each field and some of all fields."""

    def forward(self, pictures: Tensor, places: Tensor) -> Tensor:  # type: ignore[override]
        kernel = self.weight.view(len(self.weight), -1, 3, 3)
        own, common = kernel[:, : pictures.shape[1]], kernel[:, pictures.shape[1] :]
        parts = [
            functional.conv2d(PadSphere.apply(x), weight, bias)  # type: ignore[no-untyped-call]
            for x, weight, bias in ((pictures, own, None), (places, common, self.bias))
        ]
        return parts[0] + parts[1]


class CellNorm(nn.Module):
    """The scale and shift of an `Activation` that are the same for all fields."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = (part.expand(len(x), -1) for part in (self.weight, self.bias))
        activated: Tensor = Activation.apply(x, scale, shift)  # type: ignore[no-untyped-call]
        return activated
