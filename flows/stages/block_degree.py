"""The degree up to which Gaussian laws know all degrees of an order together: see
pipeline/gaussian/moments. Decided here alone, for the plan, the run and its report, and by sizes
alone: a run has the same laws on every machine."""

from flows.config.schema import RunConfig
from pipeline.gaussian.moments import LARGEST_BYTES, largest_block_degree


def block_degree(config: RunConfig) -> int:
    """`spectral.block_degree`; for "auto" the largest whose covariances take `LARGEST_BYTES`."""
    asked, last = config.spectral.block_degree, last_degree(config)
    return largest_block_degree(len(config.source.variables), last) if asked == "auto" else asked


def last_degree(config: RunConfig) -> int:
    """The last degree that is drawn."""
    return config.spectral.tail or config.spectral.lmax


def block_degree_words(config: RunConfig) -> str | None:
    """What is left out beyond the block degree, and why; None if nothing is."""
    degree, last = block_degree(config), last_degree(config)
    if degree >= last:
        return None
    why = "as spectral.block_degree says"
    if config.spectral.block_degree == "auto":
        why = (
            f"so that a law takes no more than {LARGEST_BYTES >> 20} MiB; spectral.block_degree "
            "sets another degree"
        )
    return (
        f"Gaussian laws know up to degree {degree} of {last} how the degrees of an order hang "
        f"together, and beyond it the channels of each degree alone, {why}"
    )
