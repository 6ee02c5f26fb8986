"""SHTns, set up to be timed in its own environment (deploy/bench/child.py); float64, one field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import shtns

from deploy.bench.ours import to_complex


def transforms(
    files: list[str], shape: list[int], lmax: int, gaussian: bool
) -> tuple[dict[str, Callable[[], Any]], dict[str, float]]:
    """Analysis and synthesis of a batch, in the layout that it prefers (latitudes together)."""
    assert gaussian, "its analysis is exact on Gaussian latitudes"
    x, fields = (np.load(file).astype(np.float64) for file in files)
    sht = shtns.sht(lmax, lmax, norm=shtns.sht_orthonormal)
    sht.set_grid(*shape, flags=shtns.sht_gauss | shtns.SHT_THETA_CONTIGUOUS)
    maps = np.ascontiguousarray(fields[:, ::-1].transpose(0, 2, 1))
    alm = to_complex(x)
    assert alm.shape[-1] == sht.nlm
    calls = {
        "analysis": lambda: [sht.analys(one) for one in maps],
        "synthesis": lambda: [sht.synth(one) for one in alm],
    }
    found = np.stack([sht.analys(one) for one in maps[:2]])
    return calls, {"error": float(np.abs(found - alm[:2]).max())}
