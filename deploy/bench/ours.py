"""What is measured of ours under names that may move, imported in one place."""

from flows import preprocess
from pipeline.coefficients import degrees, orders, to_complex
from pipeline.harmonics import TorchHarmonics, plan
from pipeline.sphere import RingGrid

__all__ = [
    "RingGrid",
    "TorchHarmonics",
    "degrees",
    "orders",
    "plan",
    "preprocess_key",
    "to_complex",
]

preprocess_key = preprocess.key
