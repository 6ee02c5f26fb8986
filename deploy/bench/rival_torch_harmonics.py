"""torch-harmonics, set up to be timed in its own environment (deploy/bench/child.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch_harmonics
from torch import Tensor
from torch.nn import functional

from deploy.bench.ours import degrees, orders, to_complex

Setup = tuple[dict[str, Callable[[], Any]], dict[str, float]]


def transforms(files: list[str], shape: list[int], lmax: int, gaussian: bool) -> Setup:
    """Analysis and synthesis of a batch; the error of the former in coefficients."""
    torch.set_num_threads(1)
    x, fields = (np.load(file) for file in files)
    forth, back = _pair(shape, lmax, gaussian)
    # Theirs run from north to south.
    maps = torch.from_numpy(np.ascontiguousarray(fields[:, ::-1]))
    alm = triangle(x)
    with torch.no_grad():
        error = float((forth(maps) - alm).abs().max())
    return {
        "analysis": torch.no_grad()(lambda: forth(maps)),
        "synthesis": torch.no_grad()(lambda: back(alm)),
    }, {"error": error}


def chain(file: str, shape: list[int], lmax: int) -> Setup:
    """Synthesis, a pointwise function, analysis, and the gradient of their squares."""
    torch.set_num_threads(1)
    forth, back = _pair(shape, lmax, gaussian=True)
    alm = triangle(np.load(file)).requires_grad_()

    def run() -> None:
        alm.grad = None
        there = forth(functional.silu(back(alm)))
        torch.view_as_real(there).square().sum().backward()

    return {"chain": run}, {}


def training(file: str, batch: int) -> Setup:
    """One step of our training with the transforms of torch-harmonics in the network."""
    from deploy.bench.training import prepared

    torch.set_num_threads(1)
    trainer, step = prepared(file, batch)
    for model in (trainer.model, trainer.average):
        harmonics = Harmonics(model.harmonics.grid.shape, model.harmonics.lmax)
        model.harmonics = model.network.harmonics = harmonics
    return {"step": step}, {}


class Harmonics(torch.nn.Module):
    """Their transforms as ours are called: real degree-major coefficients, south first."""

    def __init__(self, shape: tuple[int, ...], lmax: int) -> None:
        super().__init__()
        self.lmax = lmax
        self.forth, self.back = _pair(list(shape), lmax, gaussian=True)
        degree, order = degrees(lmax), orders(lmax)
        entry = degree * (lmax + 1) + np.abs(order)
        scale = np.where(order == 0, 1.0, np.sqrt(2.0)).astype(np.float32)
        self.register_buffer("scale", torch.from_numpy(scale), persistent=False)
        # Into and out of the real view (degree, order, part).
        self.register_buffer("place", torch.from_numpy(2 * entry + (order < 0)), persistent=False)

    def analysis(self, fields: Tensor) -> Tensor:
        with torch.autocast(fields.device.type, enabled=False):
            parts = torch.view_as_real(self.forth(fields.float().flip(-2))).flatten(-3)
        return parts.index_select(-1, self.place) * self.scale

    def synthesis(self, coefficients: Tensor) -> Tensor:
        size = 2 * (self.lmax + 1) ** 2
        parts = coefficients.new_zeros((*coefficients.shape[:-1], size))
        parts = parts.index_copy(-1, self.place, coefficients / self.scale)
        square = parts.unflatten(-1, (self.lmax + 1, self.lmax + 1, 2))
        with torch.autocast(square.device.type, enabled=False):
            return self.back(torch.view_as_complex(square)).flip(-2)


def triangle(x: np.ndarray) -> Tensor:
    """Complex coefficients (..., degree, order) of real ones."""
    alm = to_complex(x)
    lmax = round(x.shape[-1] ** 0.5) - 1
    square = np.zeros((*x.shape[:-1], lmax + 1, lmax + 1), np.complex64)
    order = np.repeat(np.arange(lmax + 1), lmax + 1 - np.arange(lmax + 1))
    degree = np.concatenate([np.arange(m, lmax + 1) for m in range(lmax + 1)])
    square[..., degree, order] = alm
    return torch.from_numpy(square)


def _pair(shape: list[int], lmax: int, gaussian: bool) -> tuple[Any, Any]:
    given: dict[str, Any] = {"lmax": lmax + 1, "mmax": lmax + 1}
    given["grid"] = "legendre-gauss" if gaussian else "equiangular"
    return (
        torch_harmonics.RealSHT(*shape, **given).float(),
        torch_harmonics.InverseRealSHT(*shape, **given).float(),
    )
