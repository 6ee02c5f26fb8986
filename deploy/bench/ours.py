"""What is measured of ours under names that may move, imported in one place."""

from flows.config import RunConfig
from flows.keys import key_of
from pipeline.coefficients import degrees, orders, to_complex
from pipeline.harmonics import plan
from pipeline.normals import Normals
from pipeline.precision import float32_error, precision_for
from pipeline.sphere import RingGrid
from pipeline.torch_harmonics import TorchHarmonics
from storage.layout import StoreLayout

__all__ = [
    "Normals",
    "RingGrid",
    "TorchHarmonics",
    "degrees",
    "float32_error",
    "orders",
    "plan",
    "precision_for",
    "preprocess_key",
    "to_complex",
]


def preprocess_key(config: RunConfig, layout: StoreLayout) -> str:
    """The key under which preprocess looks for its `normals`."""
    return key_of("preprocess", config, layout)
