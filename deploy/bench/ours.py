"""What is measured of ours under names that may move, imported in one place."""

from flows.config.schema import RunConfig
from flows.stages.content_keys import key_of
from pipeline.fields.precision import float32_error, precision_for
from pipeline.fields.standardisation import Normals
from pipeline.sphere.coefficients import degrees, orders, to_complex
from pipeline.sphere.grid import RingGrid
from pipeline.sphere.harmonics import plan
from pipeline.sphere.torch_harmonics import TorchHarmonics
from storage.artifacts.layout import StoreLayout

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
