"""How an ensemble is cut into chunks, which its costs depend on, too."""

TIMES_PER_CHUNK = 8
