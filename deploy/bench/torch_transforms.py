"""Synthesis, a pointwise function, analysis and their gradient in torch, against torch-harmonics.

What a layer on the sphere does in a training step; float32, one thread, Gaussian grids.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.nn import functional

from deploy.bench import inputs
from deploy.bench.ours import RingGrid, TorchHarmonics
from deploy.bench.rivals import NotInstalled, Rival, RivalFailed
from deploy.bench.rows import Row
from deploy.bench.timing import Call, in_turns, timed

SIZES = ((32, 160), (64, 128), (180, 32))  # latitudes, fields in a batch
ROWS = tuple(
    Row(
        row=f"synthesis, analysis and gradient in torch, {nlat} x {2 * nlat}",
        rival="torch-harmonics",
        unit="us/field",
        goal=3.0,
    )
    for nlat, _ in SIZES
)


def measure(quick: bool) -> Iterator[Row]:
    torch.set_num_threads(1)
    for row, (nlat, batch) in zip(ROWS, SIZES, strict=True):
        if quick and nlat > 100:
            continue
        grid = RingGrid.gaussian(nlat)
        file, _ = inputs.made(grid, grid.max_lmax, batch)
        arguments = {"file": str(file), "shape": list(grid.shape), "lmax": grid.max_lmax}
        try:
            with Rival("torch-harmonics", "chain", **arguments) as rival:
                ours, theirs = in_turns(
                    _ours(grid, np.load(file)), rival.call("chain"), quick=quick
                )
        except (NotInstalled, RivalFailed) as reason:
            yield row.absent(str(reason))
            continue
        yield row.measured(1e6 * ours / batch, 1e6 * theirs / batch, note=f"batch {batch}")


def _ours(grid: RingGrid, x: np.ndarray) -> Call:
    harmonics = TorchHarmonics(grid, grid.max_lmax)
    coefficients = torch.from_numpy(x).requires_grad_()

    def run() -> None:
        coefficients.grad = None
        there = harmonics.analysis(functional.silu(harmonics.synthesis(coefficients)))
        there.square().sum().backward()

    return timed(run)
