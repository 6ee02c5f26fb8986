"""What this machine has, or what its container may use of that."""

import os
from pathlib import Path

SERIES_SHARE = 0.25  # of the memory, that training fields may take; others are read again
CONTAINER_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory.high"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def memory_share(workers: int) -> int:
    """Memory of one of `workers` processes [bytes]; a tenth is left to the rest of the machine."""
    return int(0.9 * machine_memory() / workers)


def machine_memory() -> int:
    """Memory of the machine, or of the container if that may use less [bytes]."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in CONTAINER_LIMITS:
        if limit.exists() and (text := limit.read_text().strip()).isdigit():
            sizes.append(int(text))
    return min(sizes)
