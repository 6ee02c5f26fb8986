"""The floating-point type in which fields are whitened, chosen by what it would cost on the data.

Rounding of a transform is white in the coefficients, and whitening divides it by sqrt(q_l): with
smooth fields it drowns the small scales. How much depends on the spectrum and on how far the values
are from their climatology, so it is measured on times of the training split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.arrays import FloatArray
from pipeline.fields.standardisation import Normals
from pipeline.sphere.coefficients import mean_by_degree

__all__ = ["LARGEST_ERROR", "float32_error", "precision_for"]

LARGEST_ERROR = 3e-4  # of whitened coefficients, whose standard deviation is 1


def float32_error(normals: Normals, fields: Sequence[FloatArray], rows: FloatArray) -> float:
    """How far whitening in single precision is from that in double.

    Args:
        normals: what whitens; its own precision does not count.
        fields, rows: as `Normals.whiten` takes them.
    Returns:
        The largest root mean square difference of x over times and orders, of any channel and
        degree, in standard deviations of x.
    """
    double, single = (
        replace(normals, precision=name).whiten(fields, rows) for name in ("float64", "float32")
    )
    square = np.square(double - single, dtype=np.float64).mean(axis=0)
    return float(np.sqrt(mean_by_degree(square).max()))


def precision_for(error: float) -> str:
    """float32 where its error is below `LARGEST_ERROR`, float64 otherwise."""
    return "float32" if error < LARGEST_ERROR else "float64"
