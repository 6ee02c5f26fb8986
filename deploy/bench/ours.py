"""What is measured of `pipeline`, imported in one place."""

from pipeline.coefficients import degrees, orders, to_complex
from pipeline.harmonics import TorchHarmonics, plan
from pipeline.sphere import RingGrid

__all__ = ["RingGrid", "TorchHarmonics", "degrees", "orders", "plan", "to_complex"]
