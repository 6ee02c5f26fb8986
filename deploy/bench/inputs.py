"""Synthetic inputs, made once and kept in build/bench-data: coefficients and their fields.

Coefficients are independent and normal with variance (1 + l)^-slope: 3 as in the climate, 0 where
errors of all degrees are to be seen. Fields are synthesised from them, so both are band-limited.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.bench.ours import RingGrid, degrees, plan
from deploy.bench.rivals import BUILD

DATA = BUILD / "bench-data"
BLOCK = 32


def made(grid: RingGrid, lmax: int, count: int, slope: float = 3.0) -> tuple[Path, Path]:
    """Files (npy, float32) of coefficients (count, (lmax + 1)^2) and of fields (count, *grid)."""
    poles = " with poles" if grid.has_poles else ""
    name = f"{grid.describe()}{poles} l{lmax} n{count} s{slope:g}".replace(" ", "-")
    files = DATA / f"{name}-coefficients.npy", DATA / f"{name}-fields.npy"
    if not files[1].exists():
        DATA.mkdir(parents=True, exist_ok=True)
        scale = (1.0 + degrees(lmax)) ** (-slope / 2)
        shapes = (count, (lmax + 1) ** 2), (count, *grid.shape)
        partial = [file.with_suffix(".part") for file in files]
        x, fields = (
            np.lib.format.open_memmap(file, "w+", np.float32, shape)
            for file, shape in zip(partial, shapes, strict=True)
        )
        generator, transform = np.random.default_rng(0), plan(grid, lmax)
        for start in range(0, count, BLOCK):
            rows = slice(start, min(start + BLOCK, count))
            x[rows] = scale * generator.standard_normal(x[rows].shape)
            fields[rows] = transform.synthesis(np.asarray(x[rows]))
        x.flush()
        fields.flush()
        for ready, file in zip(partial, files, strict=True):
            os.replace(ready, file)
    return files


def loaded(files: tuple[Path, Path]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Coefficients and fields of `made`, in memory."""
    x, fields = (np.load(file) for file in files)
    return x, fields
