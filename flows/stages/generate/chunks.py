"""How drawn fields are cut into chunks and units, which their costs depend on, too."""

from math import ceil

TIMES_PER_CHUNK = 8
UNIT_TIMES = 64  # of a unit of sequences, at most
UNIT_BYTES = 1 << 27  # of the float64 fields of one


def times_of_unit(values: int, days: int, most: int = UNIT_TIMES) -> int:
    """Times of a unit of the fields of sequences: whole chunks, as many as fit, and no more than
    the days take.

    Args:
        values: numbers in the fields of a time.
        days: of the sequence.
    """
    fit = min(most // TIMES_PER_CHUNK, UNIT_BYTES // (8 * TIMES_PER_CHUNK * values))
    return TIMES_PER_CHUNK * max(1, min(fit, ceil(days / TIMES_PER_CHUNK)))
