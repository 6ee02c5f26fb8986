"""Where the processes of a host keep the tables of their transforms: $SPHERESCORE_CACHE, or
spherescore/ in the user's cache directory ($XDG_CACHE_HOME, ~/.cache)."""

import os
from pathlib import Path


def cache_directory() -> Path:
    if own := os.environ.get("SPHERESCORE_CACHE"):
        return Path(own)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "spherescore"


def share_tables() -> None:
    """Transforms of this process take their tables from the host's cache from now on.

    Names begin with the digest of the code that makes them: no version finds another's.
    """
    from pipeline.sphere.tables import keep_on
    from storage.artifacts.keys import code_digest
    from storage.places.tables import TableCache

    cache, code = (
        TableCache(cache_directory() / "tables"),
        code_digest(["pipeline.sphere.tables"])[:12],
    )
    keep_on(lambda name, make: cache(f"{code}-{name}", make))
